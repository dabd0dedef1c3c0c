// The strided feed-forward block; see posekernels/ops/strided_feed_forward/README.md. Frames are lanes
// (posekernels/frames.h): a tile of output frames has one tile of input frames for each tap, so frames that no tap
// reads cost nothing.
#include "posekernels/dropout.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN
namespace {

// C[m][n] = sum over rows r < R of A[r][m] * row(r)[n], m < M, n < N; row(r) may be null for zeros. Splits the columns
// over threads; the order of the sum over r does not depend on that.
template <class Row>
void weight_gradient(const float* A, int64_t lda, int64_t R, int64_t M, int64_t N, const Row& row, float* C,
                     int64_t ldc) {
    constexpr int64_t depth = 256;
    parallel_for(panels_of(N), [&](int64_t p) {
        const int64_t column = p * panel, n = N - column < panel ? N - column : panel;
        Scratch scratch;
        float* packed = scratch.floats(depth * panel);
        alignas(64) float sums[max_rows * panel];
        const RowSplit split(M);
        for (int64_t r0 = 0; r0 < R || r0 == 0; r0 += depth) {
            const int64_t rows = R - r0 < depth ? R - r0 : depth;
            for (int64_t r = 0; r < rows; ++r) {
                const float* from = row(r0 + r);
                store_two(packed + r * panel, from ? load(from + column, n) : Vec{},
                          from && n > lanes ? load(from + column + lanes, n - lanes) : Vec{});
            }
            for (int64_t block = 0, m = 0; block < split.count; ++block) {
                const int64_t height = split.rows(block);
                blocks[height](rows, A + r0 * lda + m, 1, lda, packed, sums);
                for (int64_t i = 0; i < height; ++i)
                    for (int64_t c = 0; c < n; c += lanes) {
                        float* to = C + (m + i) * ldc + column + c;
                        const Vec v = load(sums + i * panel + c);
                        store(to, r0 ? v + load(to, n - c) : v, n - c);
                    }
                m += height;
            }
        }
    });
}

}  // namespace

// y [B, T', O] = dropout(conv(dropout(relu(x w1^T + b1))) + b2) + residual[::stride]; hidden [B, T, N] (after dropout,
// 0 in frames that no tap reads), or null. w2 is [O, N, taps].
void strided_feed_forward(const float* x, const float* w1, const float* b1, const float* w2, const float* b2,
                          const float* residual, float* y, float* hidden, int64_t B, int64_t T, int64_t C, int64_t N,
                          int64_t O, int64_t taps, int64_t stride, int64_t seed, int64_t hidden_threshold,
                          float hidden_factor, int64_t threshold, float factor) {
    const Dropout drop_hidden{static_cast<uint64_t>(seed), 0, static_cast<uint32_t>(hidden_threshold), hidden_factor};
    const Dropout drop{static_cast<uint64_t>(seed), 1, static_cast<uint32_t>(threshold), factor};
    const int64_t outputs = (T - 1) / stride + 1, panels = panels_of(outputs);
    if (hidden && stride > (taps == 1 ? 1 : 3))  // some frames are read by no tap
        parallel_for(B, [&](int64_t b) {
            for (int64_t i = 0; i < T * N; ++i) hidden[b * T * N + i] = 0.0f;
        });
    parallel_for(B * panels, [&](int64_t task) {
        const int64_t b = task / panels, lane0 = task % panels * panel;
        const int64_t end = outputs - lane0 < panel ? outputs - lane0 : panel;
        const float* none = nullptr;
        Scratch scratch;
        float* in = scratch.floats(taps * C * panel);
        float* units = scratch.floats(N * taps * panel);  // [N][taps][panel]: the order of w2
        float* out = scratch.floats(O * panel);
        float* kept = scratch.floats(O * panel);
        const int64_t most = N > O ? N : O;
        auto* masks = static_cast<uint32_t*>(scratch.bytes(4 * static_cast<size_t>(taps * most)));
        auto* bits = static_cast<uint64_t*>(scratch.bytes(8 * static_cast<size_t>(keep_words(most))));
        uint32_t present[3];
        for (int64_t k = 0; k < taps; ++k) {
            const TapFrames frames(lane0, k, taps, stride, T, outputs);
            read_tile(x + (b * T + frames.first) * C, stride * C, C, frames.begin, frames.end, in + k * C * panel);
            present[k] = frames.lane_bits();
            if (drop_hidden)
                draw_tile(drop_hidden, (b * T + frames.first) * N, stride * N, frames.begin, frames.end, N,
                          masks + k * N, bits);
        }
        product(w1, N, C, in, taps, [&](int64_t k, int64_t n, Vec v, Vec w) {
            uint32_t keep = present[k];
            v = relu(v + b1[n]);
            w = relu(w + b1[n]);
            if (drop_hidden) {
                keep &= masks[k * N + n];
                v = v * drop_hidden.factor;
                w = w * drop_hidden.factor;
            }
            store_two(units + (n * taps + k) * panel, keep_lanes(keep, v), keep_lanes(keep >> lanes, w));
        });
        // Where taps overlap (stride 1 and 2) they hold the same units: each frame is written by one of them.
        for (int64_t k = 0; hidden && k < taps; ++k)
            if (taps == 1 || k == 1 || stride > 2 || (stride == 2 && k == 2)) {
                const TapFrames frames(lane0, k, taps, stride, T, outputs);
                write_tile(units + k * panel, N, frames.begin, frames.end, hidden + (b * T + frames.first) * N,
                           stride * N, taps * panel);
            }
        if (drop) draw_tile(drop, (b * outputs + lane0) * O, O, 0, end, O, masks, bits);
        if (residual) read_tile(residual + (b * T + lane0 * stride) * O, stride * O, O, 0, end, kept);
        product(w2, O, N * taps, units, 1, [&](int64_t, int64_t o, Vec v, Vec w) {
            v = v + b2[o];
            w = w + b2[o];
            if (drop) {
                v = keep_lanes(masks[o], v * drop.factor);
                w = keep_lanes(masks[o] >> lanes, w * drop.factor);
            }
            if (residual) {
                v = v + load(kept + o * panel);
                w = w + load(kept + o * panel + lanes);
            }
            store_two(out + o * panel, v, w);
        });
        write_tile(out, O, 0, end, y + (b * outputs + lane0) * O, O);
    });
}
POSEKERNELS_KERNEL(strided_feed_forward)

// From grad [B, T', O] (after the output's dropout): grad_hidden [B, T, N] and grad_x [B, T, C] (may be null).
// w1t is [C, N]; w2t is [N, taps, O].
void strided_feed_forward_backward(const float* grad, const float* hidden, const float* w1t, const float* w2t,
                                   float* grad_hidden, float* grad_x, int64_t B, int64_t T, int64_t C, int64_t N,
                                   int64_t O, int64_t taps, int64_t stride, float hidden_factor) {
    const int64_t outputs = (T - 1) / stride + 1;
    // Frames are taken by their remainder: those of one remainder are read by the same taps, and are the lanes.
    const int64_t groups = (T + stride - 1) / stride, panels = panels_of(groups);
    parallel_for(B * stride * panels, [&](int64_t task) {
        const int64_t b = task / panels / stride, remainder = task / panels % stride, lane0 = task % panels * panel;
        const int64_t frame0 = lane0 * stride + remainder;
        if (frame0 >= T) return;
        const float* none = nullptr;
        const int64_t left = (T - frame0 + stride - 1) / stride, end = left < panel ? left : panel;
        Scratch scratch;
        float* units = scratch.floats(N * panel);
        float* back = scratch.floats(N * panel);
        float* in = scratch.floats((O > C ? O : C) * panel);
        bool read = false;
        for (int64_t k = 0; k < taps; ++k) {
            const int64_t offset = remainder + taps / 2 - k;  // of frame s j + remainder: output j + offset / s
            if (offset % stride != 0) continue;
            const int64_t first = lane0 + offset / stride;
            const int64_t begin = first < 0 ? 1 : 0, last = outputs - first < end ? outputs - first : end;
            read_tile(grad + (b * outputs + first) * O, O, O, begin, last, in);
            // rows n of w2t[:, k]: taps * O apart
            const RowSplit split(N);
            alignas(64) float sums[max_rows * panel];
            for (int64_t block = 0, n = 0; block < split.count; ++block) {
                const int64_t rows = split.rows(block);
                blocks_of_rows[rows](O, w2t + (n * taps + k) * O, taps * O, 1, in, sums);
                for (int64_t r = 0; r < rows; ++r) {
                    float* to = back + (n + r) * panel;
                    const Vec v = load(sums + r * panel), w = load(sums + r * panel + lanes);
                    store_two(to, read ? v + load(to) : v, read ? w + load(to + lanes) : w);
                }
                n += rows;
            }
            read = true;
        }
        if (read) {
            read_tile(hidden + (b * T + frame0) * N, stride * N, N, 0, end, units);
            for (int64_t i = 0; i < N * panel; i += lanes)  // ReLU and dropout left a zero where nothing flows back
                store(back + i, load(units + i) == Vec{} ? Vec{} : load(back + i) * hidden_factor);
        } else {
            for (int64_t i = 0; i < N * panel; i += lanes) store(back + i, Vec{});
        }
        write_tile(back, N, 0, end, grad_hidden + (b * T + frame0) * N, stride * N);
        if (!grad_x) return;
        product(w1t, C, N, back, 1, [&](int64_t, int64_t c, Vec v, Vec w) { store_two(in + c * panel, v, w); });
        write_tile(in, C, 0, end, grad_x + (b * T + frame0) * C, stride * C);
    });
}
POSEKERNELS_KERNEL(strided_feed_forward_backward)

// out [taps, O, N]: out[k][o][n] = sum over outputs t of grad[t][o] * hidden[s t + k - taps / 2][n].
void strided_feed_forward_weight2(const float* grad, const float* hidden, float* out, int64_t B, int64_t T, int64_t N,
                                  int64_t O, int64_t taps, int64_t stride) {
    const int64_t outputs = (T - 1) / stride + 1;
    for (int64_t k = 0; k < taps; ++k)
        weight_gradient(
            grad, O, B * outputs, O, N,
            [&](int64_t r) -> const float* {
                const int64_t frame = r % outputs * stride + k - taps / 2;
                return frame < 0 || frame >= T ? nullptr : hidden + (r / outputs * T + frame) * N;
            },
            out + k * O * N, N);
}
POSEKERNELS_KERNEL(strided_feed_forward_weight2)

// out [M, N] = A^T B over R rows.
void strided_feed_forward_weight1(const float* A, const float* B, float* out, int64_t R, int64_t M, int64_t N) {
    weight_gradient(A, M, R, M, N, [&](int64_t r) { return B + r * N; }, out, N);
}
POSEKERNELS_KERNEL(strided_feed_forward_weight1)

POSEKERNELS_END
