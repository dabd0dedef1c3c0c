// norm_activation on CUDA: batch norm with the batch's own statistics, leaky ReLU and dropout on [rows, C]. Sums over
// rows go by parts that are merged, without atomics: the same bits in every run.
#include "posekernels/gpu_products.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN

constexpr int threads = Tile::threads, columns = 32, abreast = threads / columns;  // of a block: rows side by side

// What a block sums over: rows first to last - 1 of one column per lane.
struct Part {
    int64_t first, last;
    int column;
    DEVICE Part(int64_t rows, int64_t each, int C) {
        const int blocks = (C + columns - 1) / columns;
        first = int64_t(blockIdx.x / blocks) * each;
        last = first + each < rows ? first + each : rows;
        column = blockIdx.x % blocks * columns + threadIdx.x % columns;
    }
};

// The sum of f(row) over a part's rows for each lane's column, on every thread of that column; where `there` is not,
// nothing is called. `shared` has `threads` numbers.
template <class F>
DEVICE float sum_of_rows(const Part& part, bool there, float* shared, F f) {
    float sum = 0.f;
    if (there)
        for (int64_t r = part.first + threadIdx.x / columns; r < part.last; r += abreast) sum += f(r);
    sync();
    shared[threadIdx.x] = sum;
    sync();
    sum = 0.f;
    for (int w = 0; w < abreast; ++w) sum += shared[w * columns + threadIdx.x % columns];
    return sum;
}

// partial [parts][2][C]: mean of the part, sum of its squared distances from it. grid (blocks of C * parts)
template <class T>
KERNEL void moments_kernel(const T* x, float* partial, int64_t rows, int64_t each, int C) {
    SHARED float shared[threads];
    const Part part(rows, each, C);
    const bool there = part.column < C;
    const auto at = [&](int64_t r) { return to_float(x[r * C + part.column]); };
    const float origin = there ? at(part.first) : 0.f;  // the mean of a constant column is that constant, to the bit
    const float mean =
        origin + sum_of_rows(part, there, shared, [&](int64_t r) { return at(r) - origin; }) / (part.last - part.first);
    const float squares = sum_of_rows(part, there, shared, [&](int64_t r) { return (at(r) - mean) * (at(r) - mean); });
    if (there && threadIdx.x < columns) {
        float* out = partial + part.first / each * 2 * C + part.column;
        out[0] = mean;
        out[C] = squares;
    }
}

// moments [2][C]: mean, biased variance. grid (blocks of C)
KERNEL void merge_kernel(const float* partial, float* moments, int64_t rows, int64_t each, int parts, int C) {
    const int c = blockIdx.x * threads + threadIdx.x;
    if (c >= C) return;
    const auto count = [&](int p) { return static_cast<float>((p + 1) * each < rows ? each : rows - p * each); };
    const float origin = partial[c];
    float mean = 0.f, squares = 0.f;
    for (int p = 0; p < parts; ++p) mean += count(p) * (partial[int64_t(p) * 2 * C + c] - origin);
    mean = origin + mean / rows;
    for (int p = 0; p < parts; ++p) {
        const float* of = partial + int64_t(p) * 2 * C + c;
        squares += of[C] + count(p) * (of[0] - mean) * (of[0] - mean);
    }
    moments[c] = mean;
    moments[C + c] = squares / rows;
}

// What the passes over the elements share.
template <class T>
struct Norm {
    const T *x, *weight, *bias;
    const float* moments;
    int64_t rows;
    int C;
    float eps, slope;
    DropoutMask dropout;

    DEVICE float inverse(int c) const { return 1.f / sqrtf(moments[C + c] + eps); }
    DEVICE float unit(int64_t i, int c) const { return (to_float(x[i]) - moments[c]) * inverse(c); }
    DEVICE float before(float unit, int c) const { return unit * to_float(weight[c]) + to_float(bias[c]); }
    // The gradient of what goes into the activation.
    DEVICE float gradient(const T* grad, int64_t i, float unit, int c) const {
        const float g = dropout(to_float(grad[i]), i);
        return before(unit, c) > 0.f ? g : g * slope;
    }
};

// grid (blocks of elements)
template <class T>
KERNEL void norm_activation_fwd_kernel(Norm<T> norm, T* y) {
    const int64_t i = int64_t(blockIdx.x) * threads + threadIdx.x;
    if (i >= norm.rows * norm.C) return;
    const int c = i % norm.C;
    const float z = norm.before(norm.unit(i, c), c);
    y[i] = from_float<T>(norm.dropout(z > 0.f ? z : z * norm.slope, i));
}

// partial [parts][2][C]: of the gradients of weight and bias. grid (blocks of C * parts)
template <class T>
KERNEL void norm_activation_sums_kernel(Norm<T> norm, const T* grad, float* partial, int64_t each) {
    SHARED float shared[threads];
    const int C = norm.C;
    const Part part(norm.rows, each, C);
    const int c = part.column;
    float bias = 0.f;
    const float weight = sum_of_rows(part, c < C, shared, [&](int64_t r) {
        const float unit = norm.unit(r * C + c, c), g = norm.gradient(grad, r * C + c, unit, c);
        bias += g;
        return g * unit;
    });
    sync();
    shared[threadIdx.x] = bias;
    sync();
    if (c < C && threadIdx.x < columns) {
        bias = 0.f;
        for (int w = 0; w < abreast; ++w) bias += shared[w * columns + threadIdx.x];
        float* out = partial + part.first / each * 2 * C + c;
        out[0] = weight;
        out[C] = bias;
    }
}

// sums [2][C]: the gradients of weight and bias. grid (blocks of elements)
template <class T>
KERNEL void norm_activation_bwd_kernel(Norm<T> norm, const T* grad, const float* sums, T* grad_x) {
    const int64_t i = int64_t(blockIdx.x) * threads + threadIdx.x;
    const int C = norm.C;
    if (i >= norm.rows * C) return;
    const int c = i % C;
    const float unit = norm.unit(i, c), share = 1.f / norm.rows;
    const float g = norm.gradient(grad, i, unit, c) - sums[C + c] * share - unit * (sums[c] * share);
    grad_x[i] = from_float<T>(g * to_float(norm.weight[c]) * norm.inverse(c));
}

void norm_activation_moments_cuda(const void* stream, int math, const void* x, float* partial, float* moments,
                                  int64_t rows, int C, int parts) {
    const int64_t each = blocks_for(rows, parts);
    each_math(math, [&](auto m) {
        using E = typename decltype(m)::Number;
        launch(moments_kernel<E>, Grid{blocks_for(C, columns) * parts}, threads, stream, static_cast<const E*>(x),
               partial, rows, each, C);
    });
    launch(merge_kernel, Grid{blocks_for(C, threads)}, threads, stream, static_cast<const float*>(partial), moments,
           rows, each, parts, C);
}
POSEKERNELS_KERNEL(norm_activation_moments_cuda)

void norm_activation_cuda(const void* stream, int math, const void* x, const void* weight, const void* bias,
                          const float* moments, void* y, const int64_t* seed, int64_t rows, int C, float eps,
                          float slope, int64_t threshold, float factor) {
    const DropoutMask dropout = dropout_mask(seed, 0, threshold, factor);
    each_math(math, [&](auto m) {
        using E = typename decltype(m)::Number;
        const auto in = [](const void* p) { return static_cast<const E*>(p); };
        const Norm<E> norm{in(x), in(weight), in(bias), moments, rows, C, eps, slope, dropout};
        launch(norm_activation_fwd_kernel<E>, Grid{blocks_for(rows * C, threads)}, threads, stream, norm,
               static_cast<E*>(y));
    });
}
POSEKERNELS_KERNEL(norm_activation_cuda)

// First the sums, then (with `sums`) the gradient of x.
void norm_activation_backward_cuda(const void* stream, int math, const void* grad, const void* x, const void* weight,
                                   const void* bias, const float* moments, float* partial, const float* sums,
                                   void* grad_x, const int64_t* seed, int64_t rows, int C, int parts, float eps,
                                   float slope, int64_t threshold, float factor) {
    const DropoutMask dropout = dropout_mask(seed, 0, threshold, factor);
    each_math(math, [&](auto m) {
        using E = typename decltype(m)::Number;
        const auto in = [](const void* p) { return static_cast<const E*>(p); };
        const Norm<E> norm{in(x), in(weight), in(bias), moments, rows, C, eps, slope, dropout};
        if (sums)
            launch(norm_activation_bwd_kernel<E>, Grid{blocks_for(rows * C, threads)}, threads, stream, norm, in(grad),
                   sums, static_cast<E*>(grad_x));
        else
            launch(norm_activation_sums_kernel<E>, Grid{blocks_for(C, columns) * parts}, threads, stream, norm,
                   in(grad), partial, blocks_for(rows, parts));
    });
}
POSEKERNELS_KERNEL(norm_activation_backward_cuda)

POSEKERNELS_END
