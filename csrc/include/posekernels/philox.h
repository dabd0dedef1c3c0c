// Philox4x32-10 (Salmon et al., SC 2011) and Box-Muller: random numbers as a function of (seed, counter) alone. The
// words are the same bit for bit here, in CUDA, in Triton and in posekernels/_philox.py, which defines them; the
// normals agree to 1e-6.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define POSEKERNELS_BOTH __host__ __device__ __forceinline__
#else
#define POSEKERNELS_BOTH inline
#endif

namespace posekernels {
namespace philox {

constexpr uint32_t multiplier0 = 0xD2511F53u, multiplier1 = 0xCD9E8D57u;
constexpr uint32_t key_step0 = 0x9E3779B9u, key_step1 = 0xBB67AE85u;
constexpr int rounds = 10;

struct Words {
    uint32_t w[4];
};

// Four random words of one counter; `seed` is the key, its low half first.
POSEKERNELS_BOTH Words words(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t seed) {
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (int i = 0; i < rounds; ++i) {
        const uint64_t p0 = static_cast<uint64_t>(multiplier0) * c0, p1 = static_cast<uint64_t>(multiplier1) * c2;
        c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
        c1 = static_cast<uint32_t>(p1);
        c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
        c3 = static_cast<uint32_t>(p0);
        k0 += key_step0;
        k1 += key_step1;
    }
    return {{c0, c1, c2, c3}};
}

// The uniform numbers behind a pair of words, both exact in float: u in (0, 1] for the radius, t in [0, 1) of a turn.
POSEKERNELS_BOTH float uniform_radius(uint32_t a) {
    return static_cast<float>((a >> 8) + 1) * 0x1p-24f;
}
POSEKERNELS_BOTH float uniform_turn(uint32_t b) {
    return static_cast<float>(b >> 8) * 0x1p-24f;
}

#if defined(__CUDACC__)
// Two normals of one pair of words.
__device__ __forceinline__ float2 box_muller(uint32_t a, uint32_t b) {
    const float radius = sqrtf(-2.0f * logf(uniform_radius(a)));
    float sine, cosine;
    sincospif(2.0f * uniform_turn(b), &sine, &cosine);
    return make_float2(radius * cosine, radius * sine);
}
#endif

}  // namespace philox
}  // namespace posekernels

#if defined(POSEKERNELS_ISA) && !defined(__CUDACC__)
#include "posekernels/vec.h"
#include "posekernels/vecmath.h"

POSEKERNELS_BEGIN
namespace philox_lanes {

namespace constants = posekernels::philox;

// 32-bit words in 64-bit lanes: the product of two is then one instruction, and what is above bit 31 never matters.
typedef uint64_t Wide __attribute__((vector_size(4 * lanes)));

POSEKERNELS_INLINE Wide product(Wide a, uint32_t b) {
#if defined(__AVX512F__)
    return (Wide)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(b));
#elif defined(__AVX2__)
    return (Wide)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
#elif defined(__SSE2__)
    return (Wide)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(b));
#else
    return (a & 0xFFFFFFFFu) * static_cast<uint64_t>(b);
#endif
}

// `lanes` counters at once: words[i] holds word i of every counter, in the order of the counters' lanes.
struct Counter {
    UintVec c0, c1;
    uint32_t c2, c3;  // the same for all lanes
};

POSEKERNELS_INLINE void words(const Counter& counter, uint64_t seed, UintVec out[4]) {
    // Even lanes of 32 bits are the low halves of `even`, odd ones of `odd`.
    Wide even[4], odd[4];
    const Wide first = (Wide)counter.c0, second = (Wide)counter.c1;
    even[0] = first, odd[0] = first >> 32;
    even[1] = second, odd[1] = second >> 32;
    even[2] = odd[2] = Wide{} + counter.c2;
    even[3] = odd[3] = Wide{} + counter.c3;
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    const auto round = [&](Wide* c) {
        const Wide p0 = product(c[0], constants::multiplier0), p1 = product(c[2], constants::multiplier1);
        c[0] = (p1 >> 32) ^ c[1] ^ (Wide{} + k0);
        c[1] = p1;
        c[2] = (p0 >> 32) ^ c[3] ^ (Wide{} + k1);
        c[3] = p0;
    };
#pragma GCC unroll 10
    for (int i = 0; i < constants::rounds; ++i) {
        round(even);
        round(odd);
        k0 += constants::key_step0;
        k1 += constants::key_step1;
    }
    for (int i = 0; i < 4; ++i) out[i] = (UintVec)((even[i] & 0xFFFFFFFFu) | (odd[i] << 32));
}

// ln u for u in (0, 1], to 1e-7 relative, near 1 too.
POSEKERNELS_INLINE Vec log_of_uniform(Vec u) {
    // u = m 2^e with m in [sqrt(1/2), sqrt 2): the mantissa's own bits, less those of sqrt(1/2).
    const UintVec bits = bits_of(u) - 0x3F3504F3u;
    const IntVec exponent = reinterpret_cast<IntVec>(bits) >> 23;
    const Vec m = floats_of((bits & 0x007FFFFFu) + 0x3F3504F3u);
    const Vec f = m - 1.0f;  // exact
    const Vec e = __builtin_convertvector(exponent, Vec);
    Vec p = splat(7.0376836292e-2f);
    p = p * f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    const Vec z = f * f;
    Vec y = p * f * z + e * -2.12194440e-4f;
    y = y - 0.5f * z;
    return f + y + e * 0.693359375f;
}

// Two vectors of normals from two of words.
POSEKERNELS_INLINE void box_muller(UintVec a, UintVec b, Vec& first, Vec& second) {
    const Vec u = __builtin_convertvector(reinterpret_cast<IntVec>((a >> 8) + 1), Vec) * 0x1p-24f;
    const Vec t = __builtin_convertvector(reinterpret_cast<IntVec>(b >> 8), Vec) * 0x1p-24f;
    const Vec square = log_of_uniform(u) * -2.0f;
    const Vec radius = square_root(square > 0.0f ? square : Vec{});
    // t = q / 4 + d, |d| <= 1/8, exact; then sine and cosine of 2 pi d by their series.
    const Vec magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    const Vec shifted = t * 4.0f + magic;
    const UintVec quarter = bits_of(shifted);
    const Vec d = t - (shifted - magic) * 0.25f;
    const Vec x = d * d;
    Vec s = splat(4.147289065e1f);
    s = s * x - 7.669786815e1f;
    s = s * x + 8.160520473e1f;
    s = s * x - 4.134170215e1f;
    s = s * x + 6.283185307f;
    s = s * d;
    Vec c = splat(5.922028813e1f);
    c = c * x - 8.544284840e1f;
    c = c * x + 6.493931617e1f;
    c = c * x - 1.973920865e1f;
    c = c * x + 1.0f;
    const auto swapped = (quarter & 1u) != 0u;
    const Vec cosine = swapped ? s : c, sine = swapped ? c : s;
    // quarters 1, 2: the cosine is negative; 2, 3: the sine is.
    const UintVec sign_c = ((quarter + 1u) & 2u) << 30, sign_s = (quarter & 2u) << 30;
    first = radius * floats_of(bits_of(cosine) ^ sign_c);
    second = radius * floats_of(bits_of(sine) ^ sign_s);
}

}  // namespace philox_lanes
POSEKERNELS_END
#endif
