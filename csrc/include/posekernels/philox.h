// Philox4x32-10 (Salmon et al., SC 2011) and Box-Muller: random numbers as a function of (seed, counter) alone. The
// words are the same bit for bit here, in CUDA, in Triton and in posekernels/_philox.py, which defines them; the
// normals agree to 1e-6.
#pragma once

#include <cstdint>

#include "posekernels/isa.h"

namespace posekernels {
namespace philox {

constexpr uint32_t multiplier0 = 0xD2511F53u, multiplier1 = 0xCD9E8D57u;
constexpr uint32_t key_step0 = 0x9E3779B9u, key_step1 = 0xBB67AE85u;
constexpr int rounds = 10;

struct Words {
    uint32_t w[4];
};

POSEKERNELS_BOTH uint64_t product(uint32_t a, uint32_t b) {
#if defined(__CUDA_ARCH__)
    uint64_t p;
    asm("mul.wide.u32 %0, %1, %2;" : "=l"(p) : "r"(a), "r"(b));  // nvcc adds a 0 to a product written as below
    return p;
#else
    return static_cast<uint64_t>(a) * b;
#endif
}

// Four random words of one counter; `seed` is the key, its low half first.
POSEKERNELS_BOTH Words words(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t seed) {
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (int i = 0; i < rounds; ++i) {
        const uint64_t p0 = product(multiplier0, c0), p1 = product(multiplier1, c2);
        c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
        c1 = static_cast<uint32_t>(p1);
        c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
        c3 = static_cast<uint32_t>(p0);
        k0 += key_step0;
        k1 += key_step1;
    }
    return {{c0, c1, c2, c3}};
}

// ln u for u in (0, 1], to 1e-7 relative, near 1 too.
template <class Math, class Real>
POSEKERNELS_BOTH Real log_of_uniform(Real u) {
    // u = m 2^e with m in [sqrt(1/2), sqrt 2): the mantissa's own bits, less those of sqrt(1/2).
    const auto bits = Math::bits_of(u) - 0x3F3504F3u;
    const Real f = Math::floats_of((bits & 0x007FFFFFu) + 0x3F3504F3u) - 1.0f;  // exact
    const Real e = Math::exponent(bits);
    Real p = f * 7.0376836292e-2f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    const Real z = f * f;
    Real y = p * f * z + e * -2.12194440e-4f;
    y = y - z * 0.5f;
    return f + y + e * 0.693359375f;
}

// Two normals (or vectors of them) from two words. Math, on Real (float) and Word (uint32_t): number(word < 2^25),
// bits_of, floats_of, exponent(bits): the number in the bits from 23 on, signed; root, select(condition, a, b).
template <class Math, class Word, class Real>
POSEKERNELS_BOTH void box_muller(Word a, Word b, Real& first, Real& second) {
    const Real u = Math::number((a >> 8) + 1) * 0x1p-24f;  // exact, in (0, 1]
    const Real t = Math::number(b >> 8) * 0x1p-24f;        // exact, in [0, 1): of a turn
    const Real square = log_of_uniform<Math>(u) * -2.0f;
    const Real radius = Math::root(Math::select(square > 0.0f, square, Real{}));
    // t = q / 4 + d, |d| <= 1/8, exact; then sine and cosine of 2 pi d by their series.
    const Real shifted = t * 4.0f + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const Word quarter = Math::bits_of(shifted);
    const Real d = t - (shifted - 12582912.0f) * 0.25f;
    const Real x = d * d;
    Real s = x * 4.147289065e1f - 7.669786815e1f;
    s = s * x + 8.160520473e1f;
    s = s * x - 4.134170215e1f;
    s = s * x + 6.283185307f;
    s = s * d;
    Real c = x * 5.922028813e1f - 8.544284840e1f;
    c = c * x + 6.493931617e1f;
    c = c * x - 1.973920865e1f;
    c = c * x + 1.0f;
    const auto swapped = (quarter & 1u) != 0u;
    const Real cosine = Math::select(swapped, s, c), sine = Math::select(swapped, c, s);
    // quarters 1, 2: the cosine is negative; 2, 3: the sine is.
    const Word sign_c = ((quarter + 1u) & 2u) << 30, sign_s = (quarter & 2u) << 30;
    first = radius * Math::floats_of(Math::bits_of(cosine) ^ sign_c);
    second = radius * Math::floats_of(Math::bits_of(sine) ^ sign_s);
}

}  // namespace philox
}  // namespace posekernels

#if defined(POSEKERNELS_ISA) && !defined(__CUDACC__) && !defined(POSEKERNELS_EMULATE)
#include "posekernels/vec.h"
#include "posekernels/vecmath.h"

POSEKERNELS_BEGIN
namespace philox_lanes {

namespace constants = posekernels::philox;

// 32-bit words in 64-bit lanes: the product of two is then one instruction, and what is above bit 31 never matters.
typedef uint64_t Wide POSEKERNELS_VECTOR(4 * lanes);

POSEKERNELS_INLINE Wide product(Wide a, uint32_t b) {
#if defined(__AVX512F__)
    return (Wide)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(b));
#elif defined(__AVX2__)
    return (Wide)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
#elif defined(__SSE2__)
    return (Wide)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(b));
#elif defined(POSEKERNELS_NEON)
    return (Wide)vmull_n_u32(vmovn_u64((uint64x2_t)a), b);
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
    POSEKERNELS_UNROLL(10)
    for (int i = 0; i < constants::rounds; ++i) {
        round(even);
        round(odd);
        k0 += constants::key_step0;
        k1 += constants::key_step1;
    }
    for (int i = 0; i < 4; ++i) out[i] = (UintVec)((even[i] & 0xFFFFFFFFu) | (odd[i] << 32));
}

struct Math {
    static POSEKERNELS_INLINE Vec number(UintVec word) {
        return __builtin_convertvector(reinterpret_cast<IntVec>(word), Vec);
    }
    static POSEKERNELS_INLINE UintVec bits_of(Vec v) { return POSEKERNELS_ISA::bits_of(v); }
    static POSEKERNELS_INLINE Vec floats_of(UintVec bits) { return POSEKERNELS_ISA::floats_of(bits); }
    static POSEKERNELS_INLINE Vec exponent(UintVec bits) {
        return __builtin_convertvector(reinterpret_cast<IntVec>(bits) >> 23, Vec);
    }
    static POSEKERNELS_INLINE Vec root(Vec v) { return square_root(v); }
    template <class Condition>
    static POSEKERNELS_INLINE Vec select(Condition condition, Vec a, Vec b) {
        return condition ? a : b;
    }
};

// Two vectors of normals from two of words.
POSEKERNELS_INLINE void box_muller(UintVec a, UintVec b, Vec& first, Vec& second) {
    constants::box_muller<Math>(a, b, first, second);
}

}  // namespace philox_lanes
POSEKERNELS_END
#endif
