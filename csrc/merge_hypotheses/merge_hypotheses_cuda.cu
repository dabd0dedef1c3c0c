// merge_hypotheses on CUDA: a thread keeps one place of a pose, and its mirror image, and walks over the poses.
#include "posekernels/gpu_poses.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN

// poses [N, views, J, 3] -> out [N, J, 3]; mirrored [J]. grid (parts): part p takes poses p * per to (p + 1) * per - 1.
template <class T>
KERNEL void merge_hypotheses_fwd_kernel(const T* poses, const int64_t* mirrored, T* out, int64_t N, int views, int J,
                                        int root, int64_t per) {
    const int64_t begin = blockIdx.x * per, end = begin + per < N ? begin + per : N;
    const int n = 3 * J;
    rows_abreast(n, [&](int at, int first, int step) {
        const int joint = at / 3, axis = at % 3, twin = n + 3 * int(mirrored[joint]) + axis;
        const float sign = axis == 0 ? -0.5f : 0.5f;
        const bool keep = joint != root;
#pragma unroll 4
        for (int64_t i = begin + first; i < end; i += step) {
            const T* pose = poses + i * views * n;
            float v = to_float(pose[at]);
            if (views == 2) v = v * 0.5f + sign * to_float(pose[twin]);
            out[i * n + at] = from_float<T>(keep ? v : 0.f);
        }
    });
}

// grad [N, J, 3] -> out [N, views, J, 3]. The mirror is its own inverse, so it is its own adjoint.
template <class T>
KERNEL void merge_hypotheses_bwd_kernel(const T* grad, const int64_t* mirrored, T* out, int64_t N, int views, int J,
                                        int root, int64_t per) {
    const int64_t begin = blockIdx.x * per, end = begin + per < N ? begin + per : N;
    const int n = 3 * J;
    rows_abreast(n, [&](int at, int first, int step) {
        const int joint = at / 3, axis = at % 3, other = int(mirrored[joint]), twin = 3 * other + axis;
        const float share = views == 2 ? 0.5f : 1.f, sign = axis == 0 ? -0.5f : 0.5f;
        const bool keep = joint != root, keep_twin = other != root;  // not 0 * NaN
#pragma unroll 4
        for (int64_t i = begin + first; i < end; i += step) {
            T* y = out + i * views * n;
            y[at] = from_float<T>(keep ? share * to_float(grad[i * n + at]) : 0.f);
            if (views == 2) y[n + at] = from_float<T>(keep_twin ? sign * to_float(grad[i * n + twin]) : 0.f);
        }
    });
}

inline int64_t poses_per_block(int64_t N, int J) {
    return rows_per_block(N, 3 * J < Tile::threads ? Tile::threads / (3 * J) : 1);
}

void merge_hypotheses_cuda(const void* stream, int math, const void* poses, const int64_t* mirrored, void* out,
                           int64_t N, int views, int J, int root) {
    const int64_t per = poses_per_block(N, J);
    each_math(math, [&](auto m) {
        using E = typename decltype(m)::Number;
        launch(merge_hypotheses_fwd_kernel<E>, Grid{blocks_for(N, per)}, Tile::threads, stream,
               static_cast<const E*>(poses), mirrored, static_cast<E*>(out), N, views, J, root, per);
    });
}
POSEKERNELS_KERNEL(merge_hypotheses_cuda)

void merge_hypotheses_backward_cuda(const void* stream, int math, const void* grad, const int64_t* mirrored, void* out,
                                    int64_t N, int views, int J, int root) {
    const int64_t per = poses_per_block(N, J);
    each_math(math, [&](auto m) {
        using E = typename decltype(m)::Number;
        launch(merge_hypotheses_bwd_kernel<E>, Grid{blocks_for(N, per)}, Tile::threads, stream,
               static_cast<const E*>(grad), mirrored, static_cast<E*>(out), N, views, J, root, per);
    });
}
POSEKERNELS_KERNEL(merge_hypotheses_backward_cuda)

POSEKERNELS_END
