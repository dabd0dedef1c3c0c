// graph_conv on CUDA: y = act(scale * (sum_k A_k (M * (x W_k)) + bias) + shift) + residual, and its gradients. The math
// is in posekernels/ops/graph_conv/README.md.
//
// A block owns 64 rows that hold as many whole poses as fit (3 of 17 joints), and 64 columns. x W_k is one product of
// tiles; joints are mixed by a second product with A_k repeated along the diagonal, of which a warp multiplies only the
// depths that its own 16 rows touch. A diagonal A_k is an element-wise scale. Sums over poses go to partial results,
// one per split, added up by the caller: no atomics, same inputs same bits.
#include "posekernels/activation.h"
#include "posekernels/gpu_products.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN

struct Sizes {
    int64_t rows;  // poses * J
    int J, Cin, Cout, K;
    int activation;

    DEVICE int poses() const { return Tile::size / J; }  // of a tile
    DEVICE int used() const { return poses() * J; }      // rows of a tile
    DEVICE bool holds(int64_t first, int row) const { return row < used() && first + row < rows; }
    // Whether a tile has rows for this warp.
    DEVICE bool mine(int64_t first) const { return holds(first, threadIdx.x / 32 * 16); }
    DEVICE int columns(int first) const { return Cout - first < Tile::size ? Cout - first : Tile::size; }
};

constexpr int chunk = Tile::chunk, side = Tile::size;

DEVICE int blocks_of(int n) {
    return (n + side - 1) / side;
}

DEVICE bool infinite(float v) {
    return !(fabsf(v) <= 3.4028234663852886e38f);  // NaN too
}

// matrix[side][side]: A (or its transpose) along the diagonal, one for every whole pose. Returns whether anything off
// the diagonal is set. Barriers before and after.
template <class T>
DEVICE bool stage_matrix(T* matrix, const T* A, const Sizes& s, bool transposed) {
    bool dense = false;
    sync();
    int row = threadIdx.x / 32 * 16, pose = row / s.J, i = row % s.J;  // a warp writes the rows that it reads
    const int down = transposed ? s.J : 1, across = transposed ? 1 : s.J;
    for (const int end = row + 16; row < end; ++row) {
        Packet<T, 2> v;
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const int j = threadIdx.x % 32 * 2 + e - pose * s.J;
            const bool inside = pose < s.poses() && j >= 0 && j < s.J;
            v.v[e] = inside ? A[i * across + j * down] : from_float<T>(0.f);
            dense |= i != j && to_float(v.v[e]) != 0.f;
        }
        packet<2>(matrix + row * pitch<T>(side) + threadIdx.x % 32 * 2) = v;
        if (++i == s.J) i = 0, ++pose;
    }
    return any(dense);
}

// Sums as the right side of a mix: values[row][column].
template <class T>
DEVICE void put_values(T* values, const Tile& tile) {
#pragma unroll
    for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; e += 2)
            packet<2>(values + Tile::row(e) * across_pitch + Tile::column(n, e)) =
                Packet<T, 2>{{from_float<T>(tile.sums[n][e]), from_float<T>(tile.sums[n][e + 1])}};
}

// out += matrix @ values, for `columns` of them, across_pitch numbers between rows of values. The poses of a tile must
// not see each other and 0 * NaN is NaN: where a value is not finite (`broken`), and for exact float32, every pose is
// mixed on its own.
template <class Math, class T = typename Math::Number>
DEVICE void mix(Tile& out, const T* matrix, const T* values, bool dense, bool broken, int columns, const Sizes& s) {
    constexpr int wide = pitch<T>(side);
    if (!dense) {
        for (int n = 0; n < 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int row = Tile::row(e);
                out.sums[n][e] +=
                    to_float(matrix[row * (wide + 1)]) * to_float(values[row * across_pitch + Tile::column(n, e)]);
            }
    } else if (broken || std::is_same_v<Math, Exact>) {
        out.each([&](float& sum, int row, int column) {
            const int first = row / s.J * s.J;
            if (row >= s.used()) return;
            const T *a = matrix + row * wide + first, *v = values + first * across_pitch + column;
            for (int j = 0; j < s.J; ++j) sum += to_float(a[j]) * to_float(v[j * across_pitch]);
        });
    } else if (threadIdx.x / 32 * 16 < s.used()) {
        const int row = threadIdx.x / 32 * 16;  // first of this warp
        const int first = row / s.J * s.J / 16 * 16;
        const int end = ((row + 15) / s.J + 1) * s.J;
        multiply_across<Math>(out, matrix, wide, values, first, end < side ? (end + 15) / 16 * 16 : side,
                              (columns + 7) / 8);
    }
}

// tile += x W_k for the rows from `first_row` and the columns from `column`. A barrier before; none after.
template <class Math, class T = typename Math::Number>
DEVICE void add_product(Tile& tile, Operands<T>& held, const T* x, const T* weight, int64_t first_row, int column,
                        const Sizes& s) {
    const auto rows = [&](int row) -> const T* {
        return s.holds(first_row, row) ? x + (first_row + row) * s.Cin : nullptr;
    };
    add_columns_product<Math>(tile, held, s.Cin, rows, weight + column, s.Cout, s.columns(column), s.mine(first_row));
}

template <class T>
DEVICE void modulate(Tile& tile, const T* modulation, int column, const Sizes& s) {
    if (!modulation) return;
    tile.each([&](float& v, int row, int c) {
        v *= column + c < s.Cout ? to_float(modulation[row % s.J * int64_t(s.Cout) + column + c]) : 0.f;
    });
}

// The gradient that reaches h: scale * act'(scale * h + shift) * grad.
template <class T>
struct LinearGradient {
    const T *grad, *h, *scale, *shift;

    DEVICE float operator()(int64_t row, int column, const Sizes& s) const {
        const int64_t i = row * s.Cout + column;
        const float a = scale ? to_float(scale[column]) : 1.f;
        float g = to_float(grad[i]);
        if (s.activation != activation_none)
            g *= activation_slope(to_float(h[i]) * a + (shift ? to_float(shift[column]) : 0.f), s.activation);
        return g * a;
    }
};

// values[row][column] = the gradient that reaches h. Returns whether one is not finite; a barrier before and after.
template <class T>
DEVICE bool stage_gradient(T* values, const LinearGradient<T>& gradient, int64_t first_row, int column,
                           const Sizes& s) {
    bool broken = false;
    sync();
    stage(values, across_pitch, side, side, [&](int row, int c) {
        const bool inside = s.holds(first_row, row) && column + c < s.Cout;
        const T v = from_float<T>(inside ? gradient(first_row + row, column + c, s) : 0.f);
        broken |= infinite(to_float(v));
        return v;
    });
    return any(broken);
}

template <class Math, class T = typename Math::Number>
KERNEL void graph_conv_fwd_kernel(const T* x, const T* weight, const T* adjacency, const T* bias, const T* modulation,
                                  const T* scale, const T* shift, const T* residual, T* y, T* h_out, Sizes s) {
    SHARED Operands<T> held;
    alignas(16) SHARED T matrix[side * pitch<T>(side)];
    T* values = held.numbers;
    const int blocks = blocks_of(s.Cout), column = blockIdx.x % blocks * side;
    const int64_t first_row = int64_t(blockIdx.x / blocks) * s.used();
    Tile h;
    for (int k = 0; k < s.K; ++k) {
        Tile product;
        add_product<Math>(product, held, x, weight + int64_t(k) * s.Cin * s.Cout, first_row, column, s);
        modulate(product, modulation, column, s);
        const bool dense = stage_matrix(matrix, adjacency + k * s.J * s.J, s, false);
        bool broken = false;
        product.each([&](float v, int, int) { broken |= infinite(to_float(from_float<T>(v))); });
        put_values(values, product);
        broken = any(broken);
        mix<Math>(h, matrix, values, dense, broken, s.columns(column), s);
    }
    h.each([&](float v, int row, int c) {
        c += column;
        if (!s.holds(first_row, row) || c >= s.Cout) return;
        const int64_t i = (first_row + row) * s.Cout + c;
        if (bias) v += to_float(bias[c]);
        if (h_out) h_out[i] = from_float<T>(v);
        if (scale) v *= to_float(scale[c]);
        if (shift) v += to_float(shift[c]);
        v = activate(v, s.activation);
        if (residual) v += to_float(residual[i]);
        y[i] = from_float<T>(v);
    });
}

template <class Math, class T = typename Math::Number>
KERNEL void graph_conv_bwd_x_kernel(LinearGradient<T> gradient, const T* weight, const T* adjacency,
                                    const T* modulation, T* grad_x, Sizes s) {
    constexpr int wide = pitch<T>(side), narrow = pitch<T>(chunk);
    alignas(16) SHARED T values[side * across_pitch];
    alignas(16) SHARED T matrix[side * wide];
    alignas(16) SHARED T W[side * narrow];
    const int blocks = blocks_of(s.Cin), channel = blockIdx.x % blocks * side;
    const int64_t first_row = int64_t(blockIdx.x / blocks) * s.used();
    Tile total;
    for (int k = 0; k < s.K; ++k) {
        const bool dense = stage_matrix(matrix, adjacency + k * s.J * s.J, s, true);
        for (int column = 0; column < s.Cout; column += side) {
            const bool broken = stage_gradient(values, gradient, first_row, column, s);
            Tile mixed;
            mix<Math>(mixed, matrix, values, dense, broken, s.columns(column), s);
            modulate(mixed, modulation, column, s);
            sync();
            mixed.each([&](float v, int row, int c) { values[row * wide + c] = from_float<T>(v); });
            for (int start = 0; start < side; start += chunk) {
                sync();
                stage(W, narrow, side, chunk, [&](int n, int c) {
                    const bool inside = channel + n < s.Cin && column + start + c < s.Cout;
                    return inside ? weight[(int64_t(k) * s.Cin + channel + n) * s.Cout + column + start + c]
                                  : from_float<T>(0.f);
                });
                sync();
                multiply<Math>(total, values + start, wide, W, narrow, 0, chunk);
            }
        }
    }
    total.each([&](float v, int row, int c) {
        if (s.holds(first_row, row) && channel + c < s.Cin)
            grad_x[(first_row + row) * s.Cin + channel + c] = from_float<T>(v);
    });
}

// partial [splits][K][Cin][Cout]; grid (blocks of Cin * blocks of Cout, K, splits).
template <class Math, class T = typename Math::Number>
KERNEL void graph_conv_bwd_weight_kernel(LinearGradient<T> gradient, const T* x, const T* adjacency,
                                         const T* modulation, float* partial, int tiles, Sizes s) {
    constexpr int wide = pitch<T>(side), narrow = pitch<T>(chunk);
    alignas(16) SHARED T values[side * across_pitch];
    alignas(16) SHARED T matrix[side * wide];
    alignas(16) SHARED T X[side * narrow];
    const int blocks = blocks_of(s.Cout), column = blockIdx.x % blocks * side, channel = blockIdx.x / blocks * side;
    const int k = blockIdx.y;
    const bool dense = stage_matrix(matrix, adjacency + k * s.J * s.J, s, true);
    Tile total;
    for (int tile = 0; tile < tiles; ++tile) {
        const int64_t first_row = (int64_t(blockIdx.z) * tiles + tile) * s.used();
        const bool broken = stage_gradient(values, gradient, first_row, column, s);
        Tile mixed;
        mix<Math>(mixed, matrix, values, dense, broken, s.columns(column), s);
        modulate(mixed, modulation, column, s);
        sync();
        mixed.each([&](float v, int row, int c) { values[c * wide + row] = from_float<T>(v); });
        for (int start = 0; start < side; start += chunk) {
            sync();
            stage_transposed(X, narrow, chunk, side, [&](int row, int c) {
                const bool inside = s.holds(first_row, start + row) && channel + c < s.Cin;
                return inside ? x[(first_row + start + row) * s.Cin + channel + c] : from_float<T>(0.f);
            });
            sync();
            multiply<Math>(total, X, narrow, values + start, wide, 0, chunk);
        }
    }
    total.each([&](float v, int row, int c) {
        if (channel + row < s.Cin && column + c < s.Cout)
            partial[((int64_t(blockIdx.z) * s.K + k) * s.Cin + channel + row) * s.Cout + column + c] = v;
    });
}

// partial [splits][blocks of Cout][K][poses of a tile][J][J]; grid (blocks of Cout, K, splits).
template <class Math, class T = typename Math::Number>
KERNEL void graph_conv_bwd_adjacency_kernel(LinearGradient<T> gradient, const T* x, const T* weight,
                                            const T* modulation, float* partial, int tiles, Sizes s) {
    constexpr int wide = pitch<T>(side);
    SHARED Operands<T> held;
    alignas(16) SHARED T grads[side * wide];
    T* operands = held.numbers;
    const int column = blockIdx.x * side, k = blockIdx.y;
    Tile total;
    for (int tile = 0; tile < tiles; ++tile) {
        const int64_t first_row = (int64_t(blockIdx.z) * tiles + tile) * s.used();
        Tile product;
        add_product<Math>(product, held, x, weight + int64_t(k) * s.Cin * s.Cout, first_row, column, s);
        modulate(product, modulation, column, s);
        sync();
        product.each([&](float v, int row, int c) { operands[row * wide + c] = from_float<T>(v); });
        stage(grads, wide, side, side, [&](int row, int c) {
            const bool inside = s.holds(first_row, row) && column + c < s.Cout;
            return from_float<T>(inside ? gradient(first_row + row, column + c, s) : 0.f);
        });
        sync();
        multiply<Math>(total, grads, wide, operands, wide, 0, side);
    }
    const int64_t part = (int64_t(blockIdx.z) * gridDim.x + blockIdx.x) * s.K + k;
    total.each([&](float v, int row, int c) {
        const int pose = row / s.J;
        if (pose < s.poses() && c / s.J == pose)
            partial[((part * s.poses() + pose) * s.J + row % s.J) * s.J + c % s.J] = v;
    });
}

// partial [splits][K][rows of a tile][Cout]; grid (blocks of Cout, K, splits).
template <class Math, class T = typename Math::Number>
KERNEL void graph_conv_bwd_modulation_kernel(LinearGradient<T> gradient, const T* x, const T* weight,
                                             const T* adjacency, float* partial, int tiles, Sizes s) {
    SHARED Operands<T> held;
    alignas(16) SHARED T matrix[side * pitch<T>(side)];
    T* values = held.numbers;
    const int column = blockIdx.x * side, k = blockIdx.y;
    const bool dense = stage_matrix(matrix, adjacency + k * s.J * s.J, s, true);
    Tile total;
    for (int tile = 0; tile < tiles; ++tile) {
        const int64_t first_row = (int64_t(blockIdx.z) * tiles + tile) * s.used();
        Tile product, mixed;
        add_product<Math>(product, held, x, weight + int64_t(k) * s.Cin * s.Cout, first_row, column, s);
        const bool broken = stage_gradient(values, gradient, first_row, column, s);
        mix<Math>(mixed, matrix, values, dense, broken, s.columns(column), s);
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) total.sums[n][e] += mixed.sums[n][e] * product.sums[n][e];
    }
    total.each([&](float v, int row, int c) {
        if (row < s.used() && column + c < s.Cout)
            partial[((int64_t(blockIdx.z) * s.K + k) * s.used() + row) * s.Cout + column + c] = v;
    });
}

// partial [splits][3][Cout]: gradients of bias, scale and shift; grid (blocks of 128 columns, splits).
template <class T>
KERNEL void graph_conv_bwd_columns_kernel(LinearGradient<T> gradient, float* partial, int64_t rows_per_split, Sizes s) {
    const int column = blockIdx.x * Tile::threads + threadIdx.x;
    if (column >= s.Cout) return;
    const float a = gradient.scale ? to_float(gradient.scale[column]) : 1.f;
    const float b = gradient.shift ? to_float(gradient.shift[column]) : 0.f;
    const bool needs_h = gradient.scale || s.activation != activation_none;
    float scale = 0.f, shift = 0.f;
    const int64_t first = blockIdx.y * rows_per_split;
    const int64_t last = first + rows_per_split < s.rows ? first + rows_per_split : s.rows;
    for (int64_t row = first; row < last; ++row) {
        const int64_t i = row * s.Cout + column;
        const float h = needs_h ? to_float(gradient.h[i]) : 0.f;
        const float g = to_float(gradient.grad[i]) * activation_slope(h * a + b, s.activation);
        scale += g * h;
        shift += g;
    }
    float* out = partial + int64_t(blockIdx.y) * 3 * s.Cout + column;
    out[0] = shift * a;
    out[s.Cout] = scale;
    out[2 * s.Cout] = shift;
}

// f(Exact{}) and so on for `math`: 0 exact float32, 1 TF32, 2 float16, 3 bfloat16.
template <class F>
void with_math(int math, F f) {
    if (math == 0) f(Exact{});
    if (math == 1) f(Tf32{});
    if (math == 2) f(Half{});
    if (math == 3) f(Bf16{});
}

inline int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
inline int64_t tiles_of(const Sizes& s) {
    return ceil_div(s.rows, side / s.J * s.J);
}

template <class T>
const T* as(const void* p) {
    return static_cast<const T*>(p);
}

// Pointers are on the device, contiguous, of the number type of `math`; a null pointer is an argument not given. h is
// written where it is not null.
void graph_conv_cuda(const void* stream, int math, const void* x, const void* weight, const void* adjacency,
                     const void* bias, const void* modulation, const void* scale, const void* shift,
                     const void* residual, void* y, void* h, int64_t B, int J, int Cin, int Cout, int K,
                     int activation) {
    const Sizes s{B * J, J, Cin, Cout, K, activation};
    with_math(math, [&](auto m) {
        using Math = decltype(m);
        using T = typename Math::Number;
        launch(graph_conv_fwd_kernel<Math>, Grid{tiles_of(s) * ceil_div(Cout, side)}, Tile::threads, stream, as<T>(x),
               as<T>(weight), as<T>(adjacency), as<T>(bias), as<T>(modulation), as<T>(scale), as<T>(shift),
               as<T>(residual), static_cast<T*>(y), static_cast<T*>(h), s);
    });
}
POSEKERNELS_KERNEL(graph_conv_cuda)

// Each gradient is made where its pointer is not null: grad_x whole, the others as partial sums over `splits` parts in
// float32, laid out as their kernels say. Every split gets the same number of tiles.
void graph_conv_backward_cuda(const void* stream, int math, const void* grad, const void* h, const void* x,
                              const void* weight, const void* adjacency, const void* modulation, const void* scale,
                              const void* shift, void* grad_x, float* weight_partial, float* adjacency_partial,
                              float* modulation_partial, float* columns_partial, int64_t B, int J, int Cin, int Cout,
                              int K, int activation, int splits) {
    const Sizes s{B * J, J, Cin, Cout, K, activation};
    const int tiles = static_cast<int>(ceil_div(tiles_of(s), splits));
    const int columns = static_cast<int>(ceil_div(Cout, side));
    with_math(math, [&](auto m) {
        using Math = decltype(m);
        using T = typename Math::Number;
        const LinearGradient<T> gradient{as<T>(grad), as<T>(h), as<T>(scale), as<T>(shift)};
        const T *X = as<T>(x), *W = as<T>(weight), *A = as<T>(adjacency), *M = as<T>(modulation);
        if (grad_x)
            launch(graph_conv_bwd_x_kernel<Math>, Grid{tiles_of(s) * ceil_div(Cin, side)}, Tile::threads, stream,
                   gradient, W, A, M, static_cast<T*>(grad_x), s);
        if (weight_partial)
            launch(graph_conv_bwd_weight_kernel<Math>, Grid{ceil_div(Cin, side) * columns, K, splits}, Tile::threads,
                   stream, gradient, X, A, M, weight_partial, tiles, s);
        if (adjacency_partial)
            launch(graph_conv_bwd_adjacency_kernel<Math>, Grid{columns, K, splits}, Tile::threads, stream, gradient, X,
                   W, M, adjacency_partial, tiles, s);
        if (modulation_partial)
            launch(graph_conv_bwd_modulation_kernel<Math>, Grid{columns, K, splits}, Tile::threads, stream, gradient, X,
                   W, A, modulation_partial, tiles, s);
        if (columns_partial)
            launch(graph_conv_bwd_columns_kernel<T>, Grid{ceil_div(Cout, Tile::threads), splits}, Tile::threads, stream,
                   gradient, columns_partial, ceil_div(s.rows, splits), s);
    });
}
POSEKERNELS_KERNEL(graph_conv_backward_cuda)

POSEKERNELS_END
