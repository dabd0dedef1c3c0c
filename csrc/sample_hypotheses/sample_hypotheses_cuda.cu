// sample_hypotheses on CUDA: a thread keeps four places of a pose, and walks over the hypotheses.
#include "posekernels/gpu_poses.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN

// out[b, s, e] = x[b, e] + spread[b, e] noise(seed; b, s, e) for `numbers` (even) numbers e of a hypothesis.
// grid (B * parts): part p takes samples p * per to (p + 1) * per - 1.
template <class T>
KERNEL void sample_hypotheses_kernel(const T* keypoints, const T* sigma, T* out, int64_t S, int numbers, unsigned parts,
                                     int64_t per, float alpha, uint64_t seed, uint64_t first_pose,
                                     uint32_t first_sample) {
    const int64_t b = blockIdx.x / parts, begin = blockIdx.x % parts * per;
    const int64_t end = begin + per < S ? begin + per : S;
    const uint64_t pose = first_pose + b;
    const bool whole = numbers % 4 == 0;  // then the four are one store
    rows_abreast((numbers + 3) / 4, [&](int counter, int first, int step) {
        const int at = 4 * counter;
        float x[4], spread[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const bool there = at + i < numbers;
            x[i] = there ? to_float(keypoints[b * numbers + at + i]) : 0.f;
            const float width = there ? to_float(sigma[b * (numbers / 2) + (at + i) / 2]) : 0.f;
            spread[i] = alpha * (width < 1.f ? 1.f : width);  // NaN stays
        }
        for (int64_t s = begin + first; s < end; s += step) {
            const philox::Words words =
                philox::words(static_cast<uint32_t>(counter), first_sample + static_cast<uint32_t>(s),
                              static_cast<uint32_t>(pose), static_cast<uint32_t>(pose >> 32), seed);
            float noise[4];
            philox::box_muller<ScalarMath>(words.w[0], words.w[1], noise[0], noise[1]);
            philox::box_muller<ScalarMath>(words.w[2], words.w[3], noise[2], noise[3]);
            T value[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) value[i] = from_float<T>(x[i] + spread[i] * noise[i]);
            T* y = out + (b * S + s) * numbers + at;
            if (whole) {
                packet<4>(y) = {value[0], value[1], value[2], value[3]};
            } else {
                packet<2>(y) = {value[0], value[1]};
                if (at + 2 < numbers) packet<2>(y + 2) = {value[2], value[3]};
            }
        }
    });
}

// keypoints [B, numbers], sigma [B, numbers / 2] -> out [B, S, numbers], which begins at a multiple of 16 bytes.
void sample_hypotheses_cuda(const void* stream, int math, const void* keypoints, const void* sigma, void* out,
                            int64_t B, int64_t S, int numbers, float alpha, int64_t seed, int64_t first_pose,
                            int64_t first_sample) {
    const int counters = (numbers + 3) / 4;
    const int64_t abreast = counters < Tile::threads ? Tile::threads / counters : 1;
    const int64_t most = blocks_for(S, abreast) * abreast, given = rows_per_block(B * S, abreast);
    const int64_t per = given < most ? given : most, parts = blocks_for(S, per);
    each_math(math, [&](auto m) {
        using E = typename decltype(m)::Number;
        launch(sample_hypotheses_kernel<E>, Grid{B * parts}, Tile::threads, stream, static_cast<const E*>(keypoints),
               static_cast<const E*>(sigma), static_cast<E*>(out), S, numbers, static_cast<unsigned>(parts), per, alpha,
               static_cast<uint64_t>(seed), static_cast<uint64_t>(first_pose), static_cast<uint32_t>(first_sample));
    });
}
POSEKERNELS_KERNEL(sample_hypotheses_cuda)

POSEKERNELS_END
