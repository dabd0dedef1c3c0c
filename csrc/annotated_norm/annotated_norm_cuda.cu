// annotated_norm on CUDA: a block takes rows one after the other. The math is in
// posekernels/ops/annotated_norm/README.md.
#include "posekernels/gpu_products.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN

constexpr int threads = Tile::threads;

// The sum of `v` over the block, the same on every thread and in every run.
DEVICE float block_sum(float v, float* shared) {
    sync();
    shared[threadIdx.x] = v;
    sync();
    for (int half = threads / 2; half; half /= 2) {
        if (int(threadIdx.x) < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        sync();
    }
    return shared[0];
}

struct RowMoments {
    float mean, std;
};

template <class T>
DEVICE RowMoments row_moments(const T* x, int C, float* shared) {
    float s = 0.f;
    for (int c = threadIdx.x; c < C; c += threads) s += to_float(x[c]);
    const float mean = block_sum(s, shared) / C;
    s = 0.f;
    for (int c = threadIdx.x; c < C; c += threads) {
        const float d = to_float(x[c]) - mean;
        s += d * d;
    }
    return {mean, sqrtf(block_sum(s, shared) / (C - 1))};
}

// grid (rows)
template <class T>
KERNEL void annotated_norm_fwd_kernel(const T* x, const T* residual, const T* gain, const T* shift, T* y, T* total,
                                      int C, float eps, DropoutMask dropout) {
    SHARED float shared[threads];
    const int64_t at = int64_t(blockIdx.x) * C;
    const T* row = x + at;
    if (residual) {
        for (int c = threadIdx.x; c < C; c += threads)
            total[at + c] = from_float<T>(dropout(to_float(x[at + c]), at + c) + to_float(residual[at + c]));
        row = total + at;  // each thread reads back what it wrote itself
    }
    const RowMoments m = row_moments(row, C, shared);
    const float inverse = 1.f / (m.std + eps);
    for (int c = threadIdx.x; c < C; c += threads)
        y[at + c] = from_float<T>((to_float(row[c]) - m.mean) * inverse * to_float(gain[c]) + to_float(shift[c]));
}

// partial [grid][2][C]; grid (parts): part p takes rows p * rows to (p + 1) * rows - 1.
template <class T>
KERNEL void annotated_norm_bwd_kernel(const T* grad, const T* grad_total, const T* total, const T* gain, T* grad_x,
                                      T* grad_residual, float* partial, int64_t N, int64_t rows, int C, float eps,
                                      DropoutMask dropout) {
    SHARED float shared[threads];
    float* sums = partial + int64_t(blockIdx.x) * 2 * C;
    for (int c = threadIdx.x; c < 2 * C; c += threads) sums[c] = 0.f;
    sync();
    for (int64_t n = blockIdx.x * rows; n < N && n < (blockIdx.x + 1) * rows; ++n) {
        const int64_t at = n * C;
        const RowMoments m = row_moments(total + at, C, shared);
        const float inverse = 1.f / (m.std + eps);
        float weighted = 0.f, along = 0.f;
        for (int c = threadIdx.x; c < C; c += threads) {  // a column belongs to one thread
            const float g = to_float(grad[at + c]), d = to_float(total[at + c]) - m.mean, w = g * to_float(gain[c]);
            weighted += w;
            along += w * d;
            sums[c] += g * d * inverse;
            sums[C + c] += g;
        }
        const float mean = block_sum(weighted, shared) / C;
        const float product = block_sum(along, shared);
        // a constant row: the std counts as a constant
        const float slope = m.std == 0.f ? 0.f : product * inverse / ((C - 1) * m.std);
        for (int c = threadIdx.x; c < C; c += threads) {
            const float d = to_float(total[at + c]) - m.mean;
            float v = (to_float(grad[at + c]) * to_float(gain[c]) - mean - d * slope) * inverse;
            if (grad_total) v += to_float(grad_total[at + c]);
            if (grad_residual) grad_residual[at + c] = from_float<T>(v);
            if (grad_x) grad_x[at + c] = from_float<T>(dropout(v, at + c));
        }
    }
}

void annotated_norm_cuda(const void* stream, int math, const void* x, const void* residual, const void* gain,
                         const void* shift, void* y, void* total, int64_t N, int C, float eps, int64_t seed,
                         int64_t threshold, float factor) {
    const DropoutMask dropout = dropout_mask(seed, 0, threshold, factor);
    each_math(math, [&](auto m) {
        using E = typename decltype(m)::Number;
        const auto in = [](const void* p) { return static_cast<const E*>(p); };
        launch(annotated_norm_fwd_kernel<E>, Grid{N}, threads, stream, in(x), in(residual), in(gain), in(shift),
               static_cast<E*>(y), static_cast<E*>(total), C, eps, dropout);
    });
}
POSEKERNELS_KERNEL(annotated_norm_cuda)

void annotated_norm_backward_cuda(const void* stream, int math, const void* grad, const void* grad_total,
                                  const void* total, const void* gain, void* grad_x, void* grad_residual,
                                  float* partial, int64_t parts, int64_t N, int C, float eps, int64_t seed,
                                  int64_t threshold, float factor) {
    const DropoutMask dropout = dropout_mask(seed, 0, threshold, factor);
    each_math(math, [&](auto m) {
        using E = typename decltype(m)::Number;
        const auto in = [](const void* p) { return static_cast<const E*>(p); };
        launch(annotated_norm_bwd_kernel<E>, Grid{parts}, threads, stream, in(grad), in(grad_total), in(total),
               in(gain), static_cast<E*>(grad_x), static_cast<E*>(grad_residual), partial, N, blocks_for(N, parts), C,
               eps, dropout);
    });
}
POSEKERNELS_KERNEL(annotated_norm_backward_cuda)

POSEKERNELS_END
