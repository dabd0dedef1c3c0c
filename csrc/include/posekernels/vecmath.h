// exp, erf, gelu and tanh on vectors, accurate to a few units in the last place of a float; exp2 and gelu also coarser,
// for results that are rounded to bfloat16. NaN in, NaN out.
#pragma once

#include "posekernels/vec.h"

POSEKERNELS_BEGIN

// e^x. Below -104 it is 0 and above 88.8 infinity, through the right denormals.
POSEKERNELS_INLINE Vec exp(Vec x) {
    x = smaller(larger(x, splat(-104.0f)), splat(89.0f));
    const Vec magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    const Vec shifted = x * 1.44269504f + magic;
    const Vec n = shifted - magic;
    Vec r = x - n * 0.693145752f;  // ln 2 in two parts, the first one short
    r = r - n * 1.42860677e-6f;
    Vec p = splat(1.98756915e-4f);
    p = p * r + 1.39819995e-3f;
    p = p * r + 8.33345191e-3f;
    p = p * r + 4.16657959e-2f;
    p = p * r + 1.66666654e-1f;
    p = p * r + 0.5f;
    p = p * (r * r) + r + 1.0f;
#if defined(__AVX512F__)
    return _mm512_scalef_ps(p, n);
#else
    // 2^n in two halves, so that neither overflows before the product does.
    const IntVec integer = reinterpret_cast<IntVec>(shifted) - 0x4B400000;
    const IntVec half = integer >> 1;
    const IntVec rest = integer - half;
    return p * reinterpret_cast<Vec>((half + 127) << 23) * reinterpret_cast<Vec>((rest + 127) << 23);
#endif
}

// 2^x for -126 <= x <= 127, and 2^-126 below. Relative error 7.5e-5 (half a step of bfloat16 is up to 3.9e-3).
POSEKERNELS_INLINE Vec coarse_exp2(Vec x) {
    x = larger(x, splat(-126.0f));
    const Vec magic = splat(12583039.0f);  // 1.5 * 2^23 + 127: the sum's last bits are the exponent of 2^n
    const Vec shifted = x + magic;
    const Vec r = x - (shifted - magic);
    const Vec p = (r * 6.932610e-1f + 9.999281e-1f) + (r * 5.517172e-2f + 2.426112e-1f) * (r * r);
    return p * floats_of(bits_of(shifted) << 23);
}

// erf(x) as x P(x^2) / Q(x^2), fitted on |x| <= 3.925, beyond which erf is 1 in float32. Relative error 3.5e-7.
POSEKERNELS_INLINE Vec erf(Vec x) {
    const Vec end = splat(3.925f);
    const Vec whole = x > end ? splat(1.0f) : splat(-1.0f);  // exactly: gelu multiplies what is missing to 1 by x
    const Vec u = x * x;
    Vec p = splat(2.046019014e-06f);
    p = p * u + 2.848416613e-04f;
    p = p * u + 3.772513642e-03f;
    p = p * u + 5.276918063e-02f;
    p = p * u + 1.905930598e-01f;
    p = p * u + 1.128379146e+00f;
    Vec q = splat(3.804758970e-05f);
    q = q * u + 1.163846988e-03f;
    q = q * u + 1.498312511e-02f;
    q = q * u + 1.141824111e-01f;
    q = q * u + 5.022414322e-01f;
    q = q * u + 1.0f;
    const Vec inside = x * p / q;
    return u > end * end ? whole : inside;
}

// x/2 (1 + erf(x / sqrt 2))
POSEKERNELS_INLINE Vec gelu(Vec x) {
    const Vec half = x * 0.5f;
    return half + half * erf(x * 0.707106781f);
}

// The same as max(x, 0) - (|x| / 2 - x^2 P(x^2)), fitted on |x| <= 4.2, beyond which the bracket is 0 to 7e-6. Error
// 1.1e-4 at most, and 1.4e-3 of the value for x > -2. In pairs: as one chain it would take its latency.
POSEKERNELS_INLINE Vec coarse_gelu(Vec x) {
    const Vec a = smaller(floats_of(bits_of(x) & 0x7fffffffu), splat(4.2f));
    const Vec u = a * a, u2 = u * u;
    const Vec low = (u * -6.5360233e-02f + 3.9831790e-01f) + (u * -9.3622319e-04f + 9.2283068e-03f) * u2;
    const Vec high = (u * -2.9338144e-06f + 6.5252178e-05f) + (u * -8.5439300e-10f + 7.5940342e-08f) * u2;
    return (u * (low + high * (u2 * u2)) - a * 0.5f) + larger(x, Vec{});
}

// The derivative: Phi(x) + x phi(x).
POSEKERNELS_INLINE Vec gelu_gradient(Vec x) {
    const Vec phi = exp(x * x * -0.5f) * 0.398942280f;
    const Vec cumulative = 0.5f + 0.5f * erf(x * 0.707106781f);
    return cumulative + smaller(larger(x, splat(-30.0f)), splat(30.0f)) * phi;  // inf * 0 would be NaN
}

POSEKERNELS_INLINE Vec relu(Vec x) {
    return x < 0.0f ? Vec{} : x;
}
POSEKERNELS_INLINE Vec leaky_relu(Vec x, float slope) {
    return x < 0.0f ? x * slope : x;
}

// (1 - e^-2x) / (1 + e^-2x), and its series near 0 where the difference cancels.
POSEKERNELS_INLINE Vec tanh(Vec x) {
    const Vec e = exp(smaller(larger(x, splat(-20.0f)), splat(20.0f)) * -2.0f);
    const Vec far = (1.0f - e) / (1.0f + e);
    const Vec u = x * x;
    const Vec near = x + x * u * (-0.333333333f + u * (0.133333333f + u * (-0.0539682540f + u * 0.0218694885f)));
    return u < 0.04f ? near : far;
}

POSEKERNELS_END
