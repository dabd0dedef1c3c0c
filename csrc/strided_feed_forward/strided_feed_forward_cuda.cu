// strided_feed_forward on CUDA: the three products that gather rows. The math is in
// posekernels/ops/strided_feed_forward/README.md; plain products of the backward pass are cuBLAS's.
#include "posekernels/gpu_products.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN

struct Frames {
    int64_t B, T, outputs;
    int C, N, O, taps, stride;

    // Frame that tap k reads for an output, or -1.
    DEVICE int64_t read(int64_t output, int k) const {
        const int64_t frame = output * stride + k - taps / 2;
        return frame < T ? frame : -1;
    }
};

// hidden [B, T, N], of all frames or (sparse) of those that a tap reads; grid (blocks of rows * blocks of N).
template <class Math, class T = typename Math::Number>
KERNEL void hidden_kernel(const T* x, const T* weight, const T* bias, T* hidden, bool sparse, DropoutMask dropout,
                          Frames s) {
    SHARED Operands<T> held;
    const Patch at = patch_at(blockIdx.x, s.N);
    const auto frame_of = [&](int row) -> int64_t {  // b * T + frame, or -1
        const int64_t r = at.row + row;
        if (!sparse) return r < s.B * s.T ? r : -1;
        const int64_t b = r / (s.outputs * s.taps);
        const int64_t frame = s.read(r / s.taps % s.outputs, int(r % s.taps));
        return b < s.B && frame >= 0 ? b * s.T + frame : -1;
    };
    Tile h;
    add_rows_product<Math>(
        h, held, s.C,
        [&](int row) {
            const int64_t frame = frame_of(row);
            return frame >= 0 ? x + frame * s.C : nullptr;
        },
        [&](int n) { return at.column + n < s.N ? weight + int64_t(at.column + n) * s.C : nullptr; });
    h.each([&](float v, int row, int n) {
        n += at.column;
        const int64_t frame = frame_of(row);
        if (frame < 0 || n >= s.N) return;
        v += to_float(bias[n]);
        hidden[frame * s.N + n] = from_float<T>(dropout(v < 0.f ? 0.f : v, frame * s.N + n));
    });
}

// y [B, outputs, O], weight [taps, O, N]; grid (blocks of outputs * blocks of O).
template <class Math, class T = typename Math::Number>
KERNEL void conv_kernel(const T* hidden, const T* weight, const T* bias, const T* residual, T* y, DropoutMask dropout,
                        Frames s) {
    SHARED Operands<T> held;
    const Patch at = patch_at(blockIdx.x, s.O);
    Tile out;
    for (int k = 0; k < s.taps; ++k)
        add_rows_product<Math>(
            out, held, s.N,
            [&](int row) {
                const int64_t r = at.row + row, frame = s.read(r % s.outputs, k);
                const bool inside = r < s.B * s.outputs && frame >= 0;
                return inside ? hidden + (r / s.outputs * s.T + frame) * s.N : nullptr;
            },
            [&](int o) { return at.column + o < s.O ? weight + (int64_t(k) * s.O + at.column + o) * s.N : nullptr; });
    out.each([&](float v, int row, int o) {
        o += at.column;
        const int64_t r = at.row + row;
        if (r >= s.B * s.outputs || o >= s.O) return;
        v = dropout(v + to_float(bias[o]), r * s.O + o);
        if (residual) v += to_float(residual[(r / s.outputs * s.T + r % s.outputs * s.stride) * s.O + o]);
        y[r * s.O + o] = from_float<T>(v);
    });
}

// grad_hidden [B, T, N], weight [taps, N, O]; grad [B, outputs, O] has been through the output's dropout. grid (blocks
// of frames * of N).
template <class Math, class T = typename Math::Number>
KERNEL void grad_hidden_kernel(const T* grad, const T* hidden, const T* weight, T* grad_hidden, float factor,
                               Frames s) {
    SHARED Operands<T> held;
    const Patch at = patch_at(blockIdx.x, s.N);
    Tile g;
    for (int k = 0; k < s.taps; ++k)
        add_rows_product<Math>(
            g, held, s.O,
            [&](int row) {
                const int64_t r = at.row + row, offset = r % s.T + s.taps / 2 - k;  // stride * output, if it is one
                const bool inside =
                    r < s.B * s.T && offset >= 0 && offset % s.stride == 0 && offset / s.stride < s.outputs;
                return inside ? grad + (r / s.T * s.outputs + offset / s.stride) * s.O : nullptr;
            },
            [&](int n) { return at.column + n < s.N ? weight + (int64_t(k) * s.N + at.column + n) * s.O : nullptr; });
    g.each([&](float v, int row, int n) {
        const int64_t r = at.row + row, i = r * s.N + at.column + n;
        if (r >= s.B * s.T || at.column + n >= s.N) return;
        grad_hidden[i] = from_float<T>(to_float(hidden[i]) == 0.f ? 0.f : v * factor);
    });
}

void strided_feed_forward_cuda(const void* stream, int math, const void* x, const void* weight1, const void* bias1,
                               const void* weight2, const void* bias2, const void* residual, void* hidden, void* y,
                               const int64_t* seed, int64_t B, int64_t T, int C, int N, int O, int taps, int stride,
                               int64_t hidden_threshold, float hidden_factor, int64_t threshold, float factor) {
    const int64_t outputs = (T - 1) / stride + 1;
    const Frames s{B, T, outputs, C, N, O, taps, stride};
    const bool sparse = stride > taps;
    const DropoutMask inner = dropout_mask(seed, 0, hidden_threshold, hidden_factor);
    const DropoutMask outer = dropout_mask(seed, 1, threshold, factor);
    const int64_t rows = sparse ? B * outputs * taps : B * T;
    each_math(math, [&](auto m) {
        using Math = decltype(m);
        using E = typename Math::Number;
        const auto in = [](const void* p) { return static_cast<const E*>(p); };
        launch(hidden_kernel<Math>, Grid{blocks_for(rows, Tile::size) * blocks_for(N, Tile::size)}, Tile::threads,
               stream, in(x), in(weight1), in(bias1), static_cast<E*>(hidden), sparse, inner, s);
        launch(conv_kernel<Math>, Grid{blocks_for(B * outputs, Tile::size) * blocks_for(O, Tile::size)}, Tile::threads,
               stream, in(hidden), in(weight2), in(bias2), in(residual), static_cast<E*>(y), outer, s);
    });
}
POSEKERNELS_KERNEL(strided_feed_forward_cuda)

void strided_feed_forward_hidden_grad_cuda(const void* stream, int math, const void* grad, const void* hidden,
                                           const void* weight2, void* grad_hidden, int64_t B, int64_t T, int N, int O,
                                           int taps, int stride, float factor) {
    const Frames s{B, T, (T - 1) / stride + 1, 0, N, O, taps, stride};
    each_math(math, [&](auto m) {
        using Math = decltype(m);
        using E = typename Math::Number;
        const auto in = [](const void* p) { return static_cast<const E*>(p); };
        launch(grad_hidden_kernel<Math>, Grid{blocks_for(B * T, Tile::size) * blocks_for(N, Tile::size)}, Tile::threads,
               stream, in(grad), in(hidden), in(weight2), static_cast<E*>(grad_hidden), factor, s);
    });
}
POSEKERNELS_KERNEL(strided_feed_forward_hidden_grad_cuda)

POSEKERNELS_END
