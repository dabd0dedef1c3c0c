// sample_hypotheses: keypoints + spread * noise, `lanes` counters of four numbers at a time.
#include "posekernels/parallel.h"
#include "posekernels/philox.h"
#include "posekernels/registry.h"
#include "posekernels/scratch.h"
#include "posekernels/vec.h"

POSEKERNELS_BEGIN
namespace {

// Four vectors, one per number of a counter, into the order of memory. After two rounds of interleaving within groups
// of four lanes, vector k holds the counters of lanes k, k + 4, k + 8, ...: so lane (k + 4 q) is given counter
// (lanes / 4) k + q, and what comes out is consecutive.
POSEKERNELS_INLINE void interleave(const Vec in[4], Vec out[4]) {
#if defined(__AVX512F__)
    const __m512 a = _mm512_unpacklo_ps(in[0], in[1]), b = _mm512_unpackhi_ps(in[0], in[1]);
    const __m512 c = _mm512_unpacklo_ps(in[2], in[3]), d = _mm512_unpackhi_ps(in[2], in[3]);
    out[0] = (Vec)_mm512_unpacklo_pd((__m512d)a, (__m512d)c);
    out[1] = (Vec)_mm512_unpackhi_pd((__m512d)a, (__m512d)c);
    out[2] = (Vec)_mm512_unpacklo_pd((__m512d)b, (__m512d)d);
    out[3] = (Vec)_mm512_unpackhi_pd((__m512d)b, (__m512d)d);
#elif defined(__AVX2__)
    const __m256 a = _mm256_unpacklo_ps(in[0], in[1]), b = _mm256_unpackhi_ps(in[0], in[1]);
    const __m256 c = _mm256_unpacklo_ps(in[2], in[3]), d = _mm256_unpackhi_ps(in[2], in[3]);
    out[0] = (Vec)_mm256_unpacklo_pd((__m256d)a, (__m256d)c);
    out[1] = (Vec)_mm256_unpackhi_pd((__m256d)a, (__m256d)c);
    out[2] = (Vec)_mm256_unpacklo_pd((__m256d)b, (__m256d)d);
    out[3] = (Vec)_mm256_unpackhi_pd((__m256d)b, (__m256d)d);
#else
    for (int k = 0; k < 4; ++k)
        for (int i = 0; i < 4; ++i) out[k][i] = in[i][k];
#endif
}

POSEKERNELS_INLINE void put(float* p, Vec v, bool stream) {
#if defined(__AVX512F__)
    if (stream) return _mm512_stream_ps(p, v);
#elif defined(__AVX2__)
    if (stream) return _mm256_stream_ps(p, v);
#endif
    (void)stream;
    store(p, v);
}

}  // namespace

// Output larger than this is written past the caches: nobody finds it there anyway.
constexpr int64_t streamed_bytes = int64_t(16) << 20;

// out[b, s, e] = x[b, e] + spread[b, e] noise(seed; b, s, e) for `numbers` numbers e per hypothesis.
// x: row b at b * x_stride, `numbers` contiguous. sigma: row b at b * sigma_stride, half as many, one per joint.
void sample_hypotheses(const float* x, int64_t x_stride, const float* sigma, int64_t sigma_stride, float* out,
                       int64_t B, int64_t S, int64_t numbers, float alpha, int64_t seed, int64_t first_pose,
                       int64_t first_sample) {
    constexpr int64_t step = 4 * lanes;        // numbers per round
    const int64_t blocks = (numbers + 3) / 4;  // counters per hypothesis
    const bool whole = numbers % 4 == 0;       // then the counters of all samples lie side by side
    const bool stream = B * S * numbers * 4 > streamed_bytes && whole;
    // Tasks: about 64 K numbers each, cut along the samples.
    const int64_t samples_each =
        blocks > 0 && 16384 / blocks < S ? (16384 / blocks > 0 ? 16384 / blocks : 1) : (S > 0 ? S : 1);
    const int64_t cuts = (S + samples_each - 1) / samples_each;
    alignas(64) uint32_t order[lanes];
    for (int i = 0; i < lanes; ++i) order[i] = (lanes / 4) * (i % 4) + i / 4;

    parallel_for(numbers ? B * cuts : 0, [&](int64_t task) {
        const int64_t b = task / cuts, s0 = task % cuts * samples_each;
        const int64_t s1 = s0 + samples_each < S ? s0 + samples_each : S;
        const int64_t padded = blocks * 4;
        Scratch scratch;
        // The pose and its spread, repeated cyclically so that any start below `padded` has `step` numbers ahead.
        float* base = scratch.floats(padded + step);
        float* spread = scratch.floats(padded + step);
        for (int64_t e = 0; e < padded + step; ++e) {
            const int64_t i = e < padded ? e : e % padded;
            base[e] = i < numbers ? x[b * x_stride + i] : 0.0f;
            const float width = i < numbers ? sigma[b * sigma_stride + i / 2] : 0.0f;
            spread[e] = alpha * (width < 1.0f ? 1.0f : width);  // NaN stays
        }
        const uint64_t pose = static_cast<uint64_t>(first_pose + b);
        float* y = out + (b * S + s0) * numbers;
        const int64_t counters = (s1 - s0) * blocks;
        UintVec block = *reinterpret_cast<const UnalignedUintVec*>(order);
        UintVec sample = UintVec{} + static_cast<uint32_t>(first_sample + s0);
        const UintVec limit = UintVec{} + static_cast<uint32_t>(blocks);
        const bool aligned = stream && reinterpret_cast<uintptr_t>(y) % sizeof(Vec) == 0;
        int64_t at = 0;  // where in the pose this round begins
        for (int64_t f = 0; f < counters; f += lanes) {
            for (;;) {  // carry into the sample number
                const auto over = block >= limit;
                const UintVec carry = (UintVec)over;
                block -= carry & limit;
                sample -= carry;  // carry is -1
                int any = 0;
#if defined(__AVX512F__)
                any = _mm512_test_epi32_mask((__m512i)carry, (__m512i)carry) != 0;
#else
                for (int i = 0; i < lanes; ++i) any |= carry[i] != 0;
#endif
                if (!any) break;
            }
            UintVec words[4];
            philox_lanes::words({block, sample, static_cast<uint32_t>(pose), static_cast<uint32_t>(pose >> 32)},
                                static_cast<uint64_t>(seed), words);
            block += static_cast<uint32_t>(lanes);
            Vec numbers_of[4], ordered[4];
            philox_lanes::box_muller(words[0], words[1], numbers_of[0], numbers_of[1]);
            philox_lanes::box_muller(words[2], words[3], numbers_of[2], numbers_of[3]);
            interleave(numbers_of, ordered);
            for (int k = 0; k < 4; ++k)
                ordered[k] = load(base + at + k * lanes) + load(spread + at + k * lanes) * ordered[k];
            if (whole && f + lanes <= counters) {
                for (int k = 0; k < 4; ++k) put(y + 4 * f + k * lanes, ordered[k], aligned);
            } else if (whole) {
                for (int k = 0; k < 4; ++k) {
                    const int64_t left = 4 * (counters - f) - k * lanes;
                    if (left > 0) store(y + 4 * f + k * lanes, ordered[k], left);
                }
            } else {
                alignas(64) float round[step];
                for (int k = 0; k < 4; ++k) store(round + k * lanes, ordered[k]);
                for (int64_t i = 0; i < lanes && f + i < counters; ++i) {
                    const int64_t s = (f + i) / blocks, e = (f + i) % blocks * 4;
                    for (int64_t l = 0; l < 4 && e + l < numbers; ++l) y[s * numbers + e + l] = round[4 * i + l];
                }
            }
            at += step;
            while (at >= padded) at -= padded;
        }
#if defined(__AVX2__)
        if (aligned) _mm_sfence();
#endif
    });
}
POSEKERNELS_KERNEL(sample_hypotheses)

// The bare words, for the tests: out[4 i + w] for counters (first + i, 0, 0, 0).
void philox_words(int64_t first, int64_t c1, int64_t c2, int64_t c3, int64_t seed, int64_t n, uint32_t* scalar,
                  uint32_t* vector) {
    for (int64_t i = 0; i < n; ++i) {
        const auto w = posekernels::philox::words(static_cast<uint32_t>(first + i), static_cast<uint32_t>(c1),
                                                  static_cast<uint32_t>(c2), static_cast<uint32_t>(c3),
                                                  static_cast<uint64_t>(seed));
        for (int k = 0; k < 4; ++k) scalar[4 * i + k] = w.w[k];
    }
    for (int64_t i = 0; i < n; i += lanes) {
        UintVec counter = UintVec{} + static_cast<uint32_t>(first + i), words[4];
        for (int l = 0; l < lanes; ++l) counter[l] += l;
        philox_lanes::words(
            {counter, UintVec{} + static_cast<uint32_t>(c1), static_cast<uint32_t>(c2), static_cast<uint32_t>(c3)},
            static_cast<uint64_t>(seed), words);
        for (int64_t l = 0; l < lanes && i + l < n; ++l)
            for (int k = 0; k < 4; ++k) vector[4 * (i + l) + k] = words[k][l];
    }
}
POSEKERNELS_KERNEL(philox_words)

POSEKERNELS_END
