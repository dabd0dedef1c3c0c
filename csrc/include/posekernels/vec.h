// Vectors of floats: GCC and Clang vector extensions (so + - * / < ?: just work and compile anywhere), with
// intrinsics only where an instruction set has something better. `lanes` is 16, 8 or 4 (SSE, NEON). Multiply-adds are
// contracted
// (-ffp-contract=fast), so a * b + c is one instruction where the CPU has it.
#pragma once

#include <cstdint>
#include <cstring>

#include "posekernels/isa.h"

#if defined(__AVX2__) || defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__ARM_NEON)
#include <arm_neon.h>
#define POSEKERNELS_NEON
#endif

POSEKERNELS_BEGIN

#if defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX2__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif

// Vector registers of the CPU; a condition of the preprocessor, since some blocks exist only where there are 32.
#if defined(__AVX512F__) || defined(POSEKERNELS_NEON)
#define POSEKERNELS_REGISTERS 32
#else
#define POSEKERNELS_REGISTERS 16
#endif

typedef float Vec POSEKERNELS_VECTOR(4 * lanes);
typedef int32_t IntVec POSEKERNELS_VECTOR(4 * lanes);
typedef uint32_t UintVec POSEKERNELS_VECTOR(4 * lanes);
typedef float UnalignedVec POSEKERNELS_VECTOR_AT(4, 4 * lanes);
typedef uint32_t UnalignedUintVec POSEKERNELS_VECTOR_AT(4, 4 * lanes);

POSEKERNELS_INLINE Vec splat(float x) {
    return Vec{} + x;
}
POSEKERNELS_INLINE Vec load(const float* p) {
    return *reinterpret_cast<const UnalignedVec*>(p);
}
POSEKERNELS_INLINE void store(float* p, Vec v) {
    *reinterpret_cast<UnalignedVec*>(p) = v;
}
POSEKERNELS_INLINE UintVec bits_of(Vec v) {
    return reinterpret_cast<UintVec>(v);
}
POSEKERNELS_INLINE Vec floats_of(UintVec v) {
    return reinterpret_cast<Vec>(v);
}

// The first n lanes; nothing past them is touched, and the other lanes of a load are 0. n >= lanes means all.
POSEKERNELS_INLINE Vec load(const float* p, int64_t n) {
    if (n >= lanes) return load(p);
#if defined(__AVX512F__)
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
#else
    Vec v{};
    for (int64_t i = 0; i < n; ++i) v[i] = p[i];
    return v;
#endif
}

POSEKERNELS_INLINE void store(float* p, Vec v, int64_t n) {
    if (n >= lanes) return store(p, v);
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v);
#else
    for (int64_t i = 0; i < n; ++i) p[i] = v[i];
#endif
}

POSEKERNELS_INLINE float sum(Vec v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps(v);
#elif defined(POSEKERNELS_NEON)
    return vaddvq_f32(v);
#else
    float parts[lanes];
    store(parts, v);
    for (int step = lanes / 2; step; step /= 2)
        for (int i = 0; i < step; ++i) parts[i] += parts[i + step];
    return parts[0];
#endif
}

// NaN in either: NaN in the first argument wins, as the comparison is then false.
POSEKERNELS_INLINE Vec larger(Vec x, Vec y) {
#if defined(__AVX512F__)
    return _mm512_max_ps(y, x);
#else
    return x < y ? y : x;
#endif
}
POSEKERNELS_INLINE Vec smaller(Vec x, Vec y) {
#if defined(__AVX512F__)
    return _mm512_min_ps(y, x);
#else
    return x > y ? y : x;
#endif
}

// Of numbers; a NaN may be passed over.
POSEKERNELS_INLINE float largest(Vec v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps(v);
#elif defined(POSEKERNELS_NEON)
    return vmaxnmvq_f32(v);
#else
    float parts[lanes];
    store(parts, v);
    for (int step = lanes / 2; step; step /= 2)
        for (int i = 0; i < step; ++i) parts[i] = parts[i] < parts[i + step] ? parts[i + step] : parts[i];
    return parts[0];
#endif
}

POSEKERNELS_INLINE Vec square_root(Vec v) {
#if defined(__AVX512F__)
    return _mm512_sqrt_ps(v);
#elif defined(__AVX2__)
    return _mm256_sqrt_ps(v);
#elif defined(POSEKERNELS_NEON)
    return vsqrtq_f32(v);
#else
    for (int i = 0; i < lanes; ++i) v[i] = __builtin_sqrtf(v[i]);
    return v;
#endif
}

// Lane j of the result is lane index[j] of a, or of b from `lanes` on; index is a constant wherever this is called.
POSEKERNELS_INLINE Vec shuffle(Vec a, Vec b, IntVec index) {
#if defined(__clang__)
    Vec v;
    for (int j = 0; j < lanes; ++j) v[j] = index[j] < lanes ? a[index[j]] : b[index[j] - lanes];
    return v;
#else
    return __builtin_shuffle(a, b, index);
#endif
}

// rows[i][j] <-> rows[j][i], in log2(lanes) rounds of shuffles.
POSEKERNELS_INLINE void transpose(Vec rows[lanes]) {
    POSEKERNELS_UNROLL(4)
    for (int step = 1; step < lanes; step *= 2) {
        IntVec upper, lower;
        for (int j = 0; j < lanes; ++j) {
            upper[j] = j & step ? lanes + j - step : j;
            lower[j] = j & step ? lanes + j : j + step;
        }
        POSEKERNELS_UNROLL(16)
        for (int i = 0; i < lanes; ++i)
            if (!(i & step)) {
                const Vec a = rows[i], b = rows[i + step];
                rows[i] = shuffle(a, b, upper);
                rows[i + step] = shuffle(a, b, lower);
            }
    }
}

// bfloat16: the upper half of a float.
POSEKERNELS_INLINE float from_bf16(uint16_t h) {
    const uint32_t bits = static_cast<uint32_t>(h) << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

// To nearest, ties to even; a NaN stays a NaN.
POSEKERNELS_INLINE uint16_t to_bf16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if (x != x) return static_cast<uint16_t>((bits >> 16) | 0x40);
    return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// The same for a vector, in the upper halves of the words; the lower ones are 0.
POSEKERNELS_INLINE UintVec bf16_words(Vec v) {
    const UintVec bits = bits_of(v);
    const UintVec rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    return (v == v ? rounded : bits | 0x400000u) & 0xffff0000u;
}

// Rows of bfloat16 read as floats and written rounded, as `load` and `store` of floats do.
typedef uint16_t Halves POSEKERNELS_VECTOR(2 * lanes);
typedef uint16_t UnalignedHalves POSEKERNELS_VECTOR_AT(2, 2 * lanes);

#if defined(__AVX512F__)
extern const bool bf16_instructions;  // whether this CPU has AVX512-BF16
#endif

// To nearest even. The instruction takes denormal numbers for 0, as AVX512-BF16's products do.
POSEKERNELS_INLINE Halves rounded(Vec v) {
#if defined(__AVX512F__)
    if (bf16_instructions) {
        Halves halves;
        asm("vcvtneps2bf16 %1, %0" : "=v"(halves) : "v"(v));
        return halves;
    }
#endif
    return __builtin_convertvector(bf16_words(v) >> 16, Halves);
}

POSEKERNELS_INLINE Vec load(const uint16_t* p) {
    return floats_of(__builtin_convertvector(*reinterpret_cast<const UnalignedHalves*>(p), UintVec) << 16);
}
POSEKERNELS_INLINE Vec load(const uint16_t* p, int64_t n) {
    if (n >= lanes) return load(p);
#if defined(__AVX512F__)
    const __m256i halves = _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << n) - 1), p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
#else
    Vec v{};
    for (int64_t i = 0; i < n; ++i) v[i] = from_bf16(p[i]);
    return v;
#endif
}
POSEKERNELS_INLINE void store(uint16_t* p, Vec v) {
    *reinterpret_cast<UnalignedHalves*>(p) = rounded(v);
}
POSEKERNELS_INLINE void store(uint16_t* p, Vec v, int64_t n) {
    if (n >= lanes) return store(p, v);
#if defined(__AVX512F__)
    _mm256_mask_storeu_epi16(p, static_cast<__mmask16>((1u << n) - 1), reinterpret_cast<__m256i>(rounded(v)));
#else
    for (int64_t i = 0; i < n; ++i) p[i] = to_bf16(v[i]);
#endif
}

POSEKERNELS_END
