// annotated_norm on CUDA: a warp takes rows one after the other, and nobody waits for another. The math is in
// posekernels/ops/annotated_norm/README.md.
#include "posekernels/gpu_products.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN

constexpr int lanes = 32, warps = Tile::threads / lanes;  // of a block

// The sum of `v` over the warp, the same on every lane and in every run.
DEVICE float warp_sum(float v) {
    for (int distance = lanes / 2; distance; distance /= 2) v += shuffle_xor(v, distance);
    return v;
}
// The number of this warp among those of the grid, and of this thread in it.
DEVICE int64_t own_warp() {
    return int64_t(blockIdx.x) * warps + threadIdx.x / lanes;
}
DEVICE int own_lane() {
    return threadIdx.x % lanes;
}

struct RowMoments {
    float mean, std;
};

template <class T>
DEVICE RowMoments row_moments(const T* x, int C) {
    float s = 0.f;
    for (int c = own_lane(); c < C; c += lanes) s += to_float(x[c]);
    const float mean = warp_sum(s) / C;
    s = 0.f;
    for (int c = own_lane(); c < C; c += lanes) {
        const float d = to_float(x[c]) - mean;
        s += d * d;
    }
    return {mean, sqrtf(warp_sum(s) / (C - 1))};
}

// A warp for each of N rows.
template <class T>
KERNEL void annotated_norm_fwd_kernel(const T* x, const T* residual, const T* gain, const T* shift, T* y, T* total,
                                      int64_t N, int C, float eps, DropoutMask dropout) {
    const int64_t at = own_warp() * C;
    if (own_warp() >= N) return;
    const T* row = x + at;
    if (residual) {
        for (int c = own_lane(); c < C; c += lanes)
            total[at + c] = from_float<T>(dropout(to_float(x[at + c]), at + c) + to_float(residual[at + c]));
        row = total + at;  // each thread reads back what it wrote itself
    }
    const RowMoments m = row_moments(row, C);
    const float inverse = 1.f / (m.std + eps);
    for (int c = own_lane(); c < C; c += lanes)
        y[at + c] = from_float<T>((to_float(row[c]) - m.mean) * inverse * to_float(gain[c]) + to_float(shift[c]));
}

// partial [parts][2][C]; a warp for each part: part p takes rows p * rows to (p + 1) * rows - 1.
template <class T>
KERNEL void annotated_norm_bwd_kernel(const T* grad, const T* grad_total, const T* total, const T* gain, T* grad_x,
                                      T* grad_residual, float* partial, int64_t parts, int64_t N, int64_t rows, int C,
                                      float eps, DropoutMask dropout) {
    const int64_t part = own_warp();
    if (part >= parts) return;
    float* sums = partial + part * 2 * C;
    for (int c = own_lane(); c < C; c += lanes) sums[c] = sums[C + c] = 0.f;  // a column belongs to one thread
    for (int64_t n = part * rows; n < N && n < (part + 1) * rows; ++n) {
        const int64_t at = n * C;
        const RowMoments m = row_moments(total + at, C);
        const float inverse = 1.f / (m.std + eps);
        float weighted = 0.f, along = 0.f;
        for (int c = own_lane(); c < C; c += lanes) {
            const float g = to_float(grad[at + c]), d = to_float(total[at + c]) - m.mean, w = g * to_float(gain[c]);
            weighted += w;
            along += w * d;
            sums[c] += g * d * inverse;
            sums[C + c] += g;
        }
        const float mean = warp_sum(weighted) / C;
        const float product = warp_sum(along);
        // a constant row: the std counts as a constant
        const float slope = m.std == 0.f ? 0.f : product * inverse / ((C - 1) * m.std);
        for (int c = own_lane(); c < C; c += lanes) {
            const float d = to_float(total[at + c]) - m.mean;
            float v = (to_float(grad[at + c]) * to_float(gain[c]) - mean - d * slope) * inverse;
            if (grad_total) v += to_float(grad_total[at + c]);
            if (grad_residual) grad_residual[at + c] = from_float<T>(v);
            if (grad_x) grad_x[at + c] = from_float<T>(dropout(v, at + c));
        }
    }
}

void annotated_norm_cuda(const void* stream, int math, const void* x, const void* residual, const void* gain,
                         const void* shift, void* y, void* total, const int64_t* seed, int64_t N, int C, float eps,
                         int64_t threshold, float factor) {
    const DropoutMask dropout = dropout_mask(seed, 0, threshold, factor);
    each_math(math, [&](auto m) {
        using E = typename decltype(m)::Number;
        const auto in = [](const void* p) { return static_cast<const E*>(p); };
        launch(annotated_norm_fwd_kernel<E>, Grid{blocks_for(N, warps)}, Tile::threads, stream, in(x), in(residual),
               in(gain), in(shift), static_cast<E*>(y), static_cast<E*>(total), N, C, eps, dropout);
    });
}
POSEKERNELS_KERNEL(annotated_norm_cuda)

void annotated_norm_backward_cuda(const void* stream, int math, const void* grad, const void* grad_total,
                                  const void* total, const void* gain, void* grad_x, void* grad_residual,
                                  float* partial, const int64_t* seed, int64_t parts, int64_t N, int C, float eps,
                                  int64_t threshold, float factor) {
    const DropoutMask dropout = dropout_mask(seed, 0, threshold, factor);
    each_math(math, [&](auto m) {
        using E = typename decltype(m)::Number;
        const auto in = [](const void* p) { return static_cast<const E*>(p); };
        launch(annotated_norm_bwd_kernel<E>, Grid{blocks_for(parts, warps)}, Tile::threads, stream, in(grad),
               in(grad_total), in(total), in(gain), static_cast<E*>(grad_x), static_cast<E*>(grad_residual), partial,
               parts, N, blocks_for(N, parts), C, eps, dropout);
    });
}
POSEKERNELS_KERNEL(annotated_norm_backward_cuda)

POSEKERNELS_END
