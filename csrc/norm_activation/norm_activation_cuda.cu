// norm_activation on CUDA: batch norm with the batch's own statistics, leaky ReLU and dropout on [rows, C]. Sums over
// rows go by parts that are merged, without atomics: the same bits in every run.
#include "posekernels/gpu_products.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN

constexpr int threads = Tile::threads, warps = threads / 32;

// A block's part of the matrix: rows [first, last), `abreast` of them at a time, and `columns` columns. A thread takes
// packets of `width` neighbours: 16 bytes where addresses and C allow, else one number.
template <int width>
struct Part {
    static constexpr int lanes = width > 1 ? 8 : 32, columns = lanes * width, abreast = threads / lanes;

    int64_t first, last;
    int column, row;  // the first of this thread
    bool there;

    DEVICE Part(int64_t rows, int64_t each, int C) {
        const int blocks = (C + columns - 1) / columns;
        first = int64_t(blockIdx.x / blocks) * each;
        last = first + each < rows ? first + each : rows;
        column = blockIdx.x % blocks * columns + threadIdx.x % lanes * width;
        row = threadIdx.x / lanes;
        there = column < C;
    }
    // f(row) on every row of this thread.
    template <class F>
    DEVICE void each_row(F f) const {
        if (there)
            for (int64_t r = first + row; r < last; r += abreast) f(r);
    }
};

template <int width, class T>
DEVICE void read(float (&to)[width], const T* from) {
    const Packet<T, width> found = packet<width>(from);
#pragma unroll
    for (int e = 0; e < width; ++e) to[e] = to_float(found.v[e]);
}
template <int width, class T>
DEVICE void write(T* to, const float (&from)[width]) {
    Packet<T, width> found;
#pragma unroll
    for (int e = 0; e < width; ++e) found.v[e] = from_float<T>(from[e]);
    packet<width>(to) = found;
}

// Mean, and sum of squared distances from it, of `count` numbers of each column.
template <int width>
struct Moments {
    float count, mean[width], squares[width];

    DEVICE void clear() {
        count = 0.f;
#pragma unroll
        for (int e = 0; e < width; ++e) mean[e] = squares[e] = 0.f;
    }

    // The mean of equal numbers is that number, to the bit.
    DEVICE void add(const float (&v)[width]) {
        count += 1.f;
        const float share = 1.f / count;
#pragma unroll
        for (int e = 0; e < width; ++e) {
            const float off = v[e] - mean[e];
            mean[e] += off * share;
            squares[e] += off * (v[e] - mean[e]);
        }
    }
    DEVICE void add_all(const Moments& other) {
        const float all = count + other.count, share = all > 0.f ? other.count / all : 0.f;
#pragma unroll
        for (int e = 0; e < width; ++e) {
            const float off = other.mean[e] - mean[e];
            squares[e] += other.squares[e] + off * off * count * share;
            mean[e] += off * share;
        }
        count = all;
    }
    DEVICE Moments of_lane(int lanes) const {
        Moments other;
        other.count = shuffle_xor(count, lanes);
#pragma unroll
        for (int e = 0; e < width; ++e)
            other.mean[e] = shuffle_xor(mean[e], lanes), other.squares[e] = shuffle_xor(squares[e], lanes);
        return other;
    }
};

// partial [parts][2][C]: mean of the part, sum of its squared distances from it. grid (blocks of C * parts)
template <class T, int width>
KERNEL void moments_kernel(const T* x, float* partial, int64_t rows, int64_t each, int C) {
    using P = Part<width>;
    alignas(32) SHARED float means[warps][P::columns], squares[warps][P::columns];
    SHARED float counts[warps][P::lanes];
    const P part(rows, each, C);
    Moments<width> moments;
    moments.clear();
    part.each_row([&](int64_t r) {
        float v[width];
        read(v, x + r * C + part.column);
        moments.add(v);
    });
#pragma unroll
    for (int lanes = P::lanes; lanes < 32; lanes *= 2) moments.add_all(moments.of_lane(lanes));
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    if (lane < P::lanes) {
        write(means[warp] + lane * width, moments.mean);
        write(squares[warp] + lane * width, moments.squares);
        counts[warp][lane] = moments.count;
    }
    sync();
    if (!part.there || part.row) return;
    for (int w = 1; w < warps; ++w) {
        Moments<width> others;
        read(others.mean, means[w] + lane * width);
        read(others.squares, squares[w] + lane * width);
        others.count = counts[w][lane];
        moments.add_all(others);
    }
    float* out = partial + part.first / each * 2 * C + part.column;
    write(out, moments.mean);
    write(out + C, moments.squares);
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
};

// Of the columns of a thread.
template <class T, int width>
struct Columns {
    const Norm<T>& norm;
    const int column;
    float mean[width], inverse[width], weight[width], bias[width];

    DEVICE Columns(const Norm<T>& norm, const Part<width>& part) : norm(norm), column(part.column) {
        if (!part.there) return;
        read(mean, norm.moments + column);
        read(inverse, norm.moments + norm.C + column);
        read(weight, norm.weight + column);
        read(bias, norm.bias + column);
#pragma unroll
        for (int e = 0; e < width; ++e) inverse[e] = 1.f / sqrtf(inverse[e] + norm.eps);
    }
    DEVICE int64_t element(int64_t row) const { return row * norm.C + column; }
    DEVICE void units(float (&to)[width], int64_t row) const {
        read(to, norm.x + element(row));
#pragma unroll
        for (int e = 0; e < width; ++e) to[e] = (to[e] - mean[e]) * inverse[e];
    }
    DEVICE float before(float unit, int e) const { return unit * weight[e] + bias[e]; }
    // Of numbers that lie side by side; four to a draw.
    DEVICE void drop(float (&v)[width], int64_t first) const {
        if (norm.dropout.threshold == 0) return;
        if constexpr (width % 4 == 0) {
#pragma unroll
            for (int i = 0; i < width; i += 4) {
                const philox::Words words = norm.dropout.words(static_cast<uint64_t>(first + i) / 4);
#pragma unroll
                for (int e = 0; e < 4; ++e)
                    v[i + e] = words.w[e] >= norm.dropout.threshold ? v[i + e] * norm.dropout.factor : 0.f;
            }
        } else {
            v[0] = norm.dropout(v[0], first);
        }
    }
    // The gradient of what goes into the activation.
    DEVICE void gradients(float (&to)[width], const T* grad, const float (&unit)[width], int64_t row) const {
        read(to, grad + element(row));
        drop(to, element(row));
#pragma unroll
        for (int e = 0; e < width; ++e)
            if (!(before(unit[e], e) > 0.f)) to[e] *= norm.slope;
    }
};

// grid (blocks of C * parts)
template <class T, int width>
KERNEL void norm_activation_fwd_kernel(Norm<T> norm, T* y, int64_t each) {
    const Part<width> part(norm.rows, each, norm.C);
    const Columns<T, width> columns(norm, part);
    part.each_row([&](int64_t r) {
        float v[width];
        columns.units(v, r);
#pragma unroll
        for (int e = 0; e < width; ++e) {
            const float z = columns.before(v[e], e);
            v[e] = z > 0.f ? z : z * norm.slope;
        }
        columns.drop(v, columns.element(r));
        write(y + columns.element(r), v);
    });
}

// partial [parts][2][C]: of the gradients of weight and bias. grid (blocks of C * parts)
template <class T, int width>
KERNEL void norm_activation_sums_kernel(Norm<T> norm, const T* grad, float* partial, int64_t each) {
    using P = Part<width>;
    alignas(32) SHARED float shared[2][warps][P::columns];
    const P part(norm.rows, each, norm.C);
    const Columns<T, width> columns(norm, part);
    float sums[2][width] = {};  // of weight, of bias
    part.each_row([&](int64_t r) {
        float unit[width], g[width];
        columns.units(unit, r);
        columns.gradients(g, grad, unit, r);
#pragma unroll
        for (int e = 0; e < width; ++e) sums[0][e] += g[e] * unit[e], sums[1][e] += g[e];
    });
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int lanes = P::lanes; lanes < 32; lanes *= 2)
#pragma unroll
            for (int e = 0; e < width; ++e) sums[i][e] += shuffle_xor(sums[i][e], lanes);
        if (lane < P::lanes) write(shared[i][warp] + lane * width, sums[i]);
    }
    sync();
    if (!part.there || part.row) return;
    float* out = partial + part.first / each * 2 * norm.C + part.column;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        for (int w = 1; w < warps; ++w) {
            float others[width];
            read(others, shared[i][w] + lane * width);
#pragma unroll
            for (int e = 0; e < width; ++e) sums[i][e] += others[e];
        }
        write(out + i * int64_t(norm.C), sums[i]);
    }
}

// sums [2][C]: the gradients of weight and bias. grid (blocks of C * parts)
template <class T, int width>
KERNEL void norm_activation_bwd_kernel(Norm<T> norm, const T* grad, const float* sums, T* grad_x, int64_t each) {
    const Part<width> part(norm.rows, each, norm.C);
    const Columns<T, width> columns(norm, part);
    const float share = 1.f / norm.rows;
    float weight[width], bias[width];
    if (part.there) read(weight, sums + part.column), read(bias, sums + norm.C + part.column);
    part.each_row([&](int64_t r) {
        float unit[width], g[width];
        columns.units(unit, r);
        columns.gradients(g, grad, unit, r);
#pragma unroll
        for (int e = 0; e < width; ++e)
            g[e] = (g[e] - bias[e] * share - unit[e] * (weight[e] * share)) * columns.weight[e] * columns.inverse[e];
        write(grad_x + columns.element(r), g);
    });
}

// f(E{}, width as a constant): 16 bytes to a packet where C and all addresses (or-ed) are multiples of that, else one
// number.
template <class F>
void each_number(int math, int C, uintptr_t addresses, F f) {
    each_math(math, [&](auto m) {
        using E = typename decltype(m)::Number;
        constexpr int wide = 16 / sizeof(E);
        if (C % wide == 0 && addresses % 16 == 0) {
            f(E{}, std::integral_constant<int, wide>{});
        } else {
            f(E{}, std::integral_constant<int, 1>{});
        }
    });
}

inline uintptr_t bits(const void* p) {
    return reinterpret_cast<uintptr_t>(p);
}

// Rows of a block that sums nothing.
template <int width>
int64_t rows_of_a_block() {
    return 4 * Part<width>::abreast;
}

void norm_activation_moments_cuda(const void* stream, int math, const void* x, float* partial, float* moments,
                                  int64_t rows, int C, int parts) {
    const int64_t each = blocks_for(rows, parts);
    each_number(math, C, bits(x) | bits(partial), [&](auto number, auto width) {
        using E = decltype(number);
        launch(moments_kernel<E, width()>, Grid{blocks_for(C, Part<width()>::columns) * parts}, threads, stream,
               static_cast<const E*>(x), partial, rows, each, C);
    });
    launch(merge_kernel, Grid{blocks_for(C, threads)}, threads, stream, static_cast<const float*>(partial), moments,
           rows, each, parts, C);
}
POSEKERNELS_KERNEL(norm_activation_moments_cuda)

void norm_activation_cuda(const void* stream, int math, const void* x, const void* weight, const void* bias,
                          const float* moments, void* y, const int64_t* seed, int64_t rows, int C, float eps,
                          float slope, int64_t threshold, float factor) {
    const DropoutMask dropout = dropout_mask(seed, 0, threshold, factor);
    const uintptr_t addresses = bits(x) | bits(weight) | bits(bias) | bits(moments) | bits(y);
    each_number(math, C, addresses, [&](auto number, auto width) {
        using E = decltype(number);
        const auto in = [](const void* p) { return static_cast<const E*>(p); };
        const Norm<E> norm{in(x), in(weight), in(bias), moments, rows, C, eps, slope, dropout};
        const int64_t each = rows_of_a_block<width()>();
        launch(norm_activation_fwd_kernel<E, width()>,
               Grid{blocks_for(C, Part<width()>::columns) * blocks_for(rows, each)}, threads, stream, norm,
               static_cast<E*>(y), each);
    });
}
POSEKERNELS_KERNEL(norm_activation_cuda)

// First the sums, then (with `sums`) the gradient of x.
void norm_activation_backward_cuda(const void* stream, int math, const void* grad, const void* x, const void* weight,
                                   const void* bias, const float* moments, float* partial, const float* sums,
                                   void* grad_x, const int64_t* seed, int64_t rows, int C, int parts, float eps,
                                   float slope, int64_t threshold, float factor) {
    const DropoutMask dropout = dropout_mask(seed, 0, threshold, factor);
    const uintptr_t addresses =
        bits(grad) | bits(x) | bits(weight) | bits(bias) | bits(moments) | bits(partial) | bits(sums) | bits(grad_x);
    each_number(math, C, addresses, [&](auto number, auto width) {
        using E = decltype(number);
        const auto in = [](const void* p) { return static_cast<const E*>(p); };
        const Norm<E> norm{in(x), in(weight), in(bias), moments, rows, C, eps, slope, dropout};
        const int64_t blocks = blocks_for(C, Part<width()>::columns), each = rows_of_a_block<width()>();
        if (sums)
            launch(norm_activation_bwd_kernel<E, width()>, Grid{blocks * blocks_for(rows, each)}, threads, stream, norm,
                   in(grad), sums, static_cast<E*>(grad_x), each);
        else
            launch(norm_activation_sums_kernel<E, width()>, Grid{blocks * parts}, threads, stream, norm, in(grad),
                   partial, blocks_for(rows, parts));
    });
}
POSEKERNELS_KERNEL(norm_activation_backward_cuda)

POSEKERNELS_END
