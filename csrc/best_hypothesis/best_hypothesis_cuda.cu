// best_hypothesis on CUDA: a warp reads 32 hypotheses side by side, a lane scores one of them.
#include "posekernels/gpu_poses.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN

constexpr int warps = Tile::threads / 32;

struct Candidate {
    float error;
    int index;

    // The first of equals; a NaN comes before everything.
    DEVICE bool beats(const Candidate& other) const {
        const bool broken = error != error, other_broken = other.error != other.error;
        if (broken != other_broken) return broken;
        if (!broken && error != other.error) return error < other.error;
        return index < other.index;
    }
};
constexpr int nobody = 0x7fffffff;

// poses [B, S, J, 3], target [B, J, 3] -> errors [B, S], error [B], index [B]. A sample has `team` warps, 1 or all of a
// block. grid (samples / (warps / team)).
template <class T>
KERNEL_WIDE void best_hypothesis_fwd_kernel(const T* poses, const T* target, T* error, int64_t* index, T* errors,
                                            int64_t B, int64_t S, int J, int team) {
    alignas(16) SHARED float staged[warps][33 * window_pitch + 1];  // 32 hypotheses, then the target
    SHARED float least[warps];
    SHARED int winner[warps];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int64_t b = blockIdx.x * int64_t(warps / team) + warp / team;
    float *mine = staged[warp], *truth = mine + 32 * window_pitch;
    Candidate best{INFINITY, nobody};
    for (int64_t first = warp % team * 32; b < B && first < S; first += team * 32) {
        const int rows = S - first < 32 ? int(S - first) : 32;
        float sum = 0.f;
        for (int start = 0; start < J; start += window) {
            const int joints = J - start < window ? J - start : window;
            warp_sync();
            stage_joints(mine, poses + (b * S + first) * 3 * J, rows, J, start, lane, 32);
            stage_joints(truth, target + b * 3 * J, 1, J, start, lane, 32);
            warp_sync();
            if (lane < rows)
                for (int j = 0; j < joints; ++j) {
                    const float* p = mine + lane * window_pitch + 3 * j;
                    const float x = p[0] - truth[3 * j], y = p[1] - truth[3 * j + 1], z = p[2] - truth[3 * j + 2];
                    sum += sqrtf(x * x + y * y + z * z);
                }
        }
        if (lane < rows) {
            const T rounded = from_float<T>(sum / float(J));
            errors[b * S + first + lane] = rounded;
            const Candidate found{to_float(rounded), int(first) + lane};  // ranked as stored
            if (found.beats(best)) best = found;
        }
    }
    for (int lanes = 16; lanes; lanes /= 2) {
        const Candidate other{shuffle_xor(best.error, lanes), shuffle_xor(best.index, lanes)};
        if (other.beats(best)) best = other;
    }
    if (lane == 0) {
        least[warp] = best.error;
        winner[warp] = best.index;
    }
    sync();
    if (lane != 0 || warp % team != 0 || b >= B) return;
    for (int w = warp; w < warp + team; ++w) {
        const Candidate other{least[w], winner[w]};
        if (other.beats(best)) best = other;
    }
    error[b] = from_float<T>(best.error);
    index[b] = best.index;
}

// grad [B, S] of errors -> grad_poses [B, S, J, 3], grad_target [B, J, 3]. grid (B).
template <class T>
KERNEL void best_hypothesis_bwd_kernel(const T* grad, const T* poses, const T* target, T* grad_poses, T* grad_target,
                                       int64_t S, int J) {
    SHARED float partial[3][Tile::threads];
    const int64_t b = blockIdx.x;
    rows_abreast(J, [&](int joint, int first, int step) {
        const int64_t at = (b * J + joint) * 3;
        const float tx = to_float(target[at]), ty = to_float(target[at + 1]), tz = to_float(target[at + 2]);
        float sum[3] = {};
#pragma unroll 2
        for (int64_t s = first; s < S; s += step) {
            const int64_t place = ((b * S + s) * J + joint) * 3;
            const float x = to_float(poses[place]) - tx, y = to_float(poses[place + 1]) - ty;
            const float z = to_float(poses[place + 2]) - tz;
            const float distance = sqrtf(x * x + y * y + z * z), share = to_float(grad[b * S + s]) / float(J);
            const float scale = distance == 0.f ? 0.f : 1.f / distance;  // NaN stays
            const float d[3] = {share * (x * scale), share * (y * scale), share * (z * scale)};
#pragma unroll
            for (int c = 0; c < 3; ++c) {
                grad_poses[place + c] = from_float<T>(d[c]);
                sum[c] -= d[c];
            }
        }
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            if (step == 1) {
                grad_target[at + c] = from_float<T>(sum[c]);
            } else {
                partial[c][threadIdx.x] = sum[c];
            }
        }
    });
    const int rows = J < Tile::threads ? Tile::threads / J : 1;
    if (rows == 1) return;
    sync();
    if (int(threadIdx.x) < J)
        for (int c = 0; c < 3; ++c) {
            float sum = 0.f;
            for (int row = 0; row < rows; ++row) sum += partial[c][row * J + threadIdx.x];
            grad_target[(b * J + threadIdx.x) * 3 + c] = from_float<T>(sum);
        }
}

void best_hypothesis_cuda(const void* stream, int math, const void* poses, const void* target, void* error,
                          int64_t* index, void* errors, int64_t B, int64_t S, int J) {
    const int team = S > 32 ? warps : 1;
    each_math(math, [&](auto m) {
        using E = typename decltype(m)::Number;
        launch(best_hypothesis_fwd_kernel<E>, Grid{blocks_for(B, warps / team)}, Tile::threads, stream,
               static_cast<const E*>(poses), static_cast<const E*>(target), static_cast<E*>(error), index,
               static_cast<E*>(errors), B, S, J, team);
    });
}
POSEKERNELS_KERNEL(best_hypothesis_cuda)

void best_hypothesis_backward_cuda(const void* stream, int math, const void* grad, const void* poses,
                                   const void* target, void* grad_poses, void* grad_target, int64_t B, int64_t S,
                                   int J) {
    each_math(math, [&](auto m) {
        using E = typename decltype(m)::Number;
        launch(best_hypothesis_bwd_kernel<E>, Grid{B}, Tile::threads, stream, static_cast<const E*>(grad),
               static_cast<const E*>(poses), static_cast<const E*>(target), static_cast<E*>(grad_poses),
               static_cast<E*>(grad_target), S, J);
    });
}
POSEKERNELS_KERNEL(best_hypothesis_backward_cuda)

POSEKERNELS_END
