// A whole layer of the strided transformer in inference: see posekernels/ops/encoder_layer/README.md.
//
// Frames are lanes (posekernels/frames.h). Keys and values are made of every frame. Everything else is made for the
// frames that the feed-forward convolution reads, tile by tile from the norm to the output: a tile of output frames
// has one tile of input frames for each tap. Frames that no tap reads are never queries.
#include "posekernels/frames.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN
namespace {

template <class E>
struct Layer {
    const E *z, *position;
    E* y;
    const float *gain1, *shift1, *bq, *bk, *bv, *bo, *gain2, *shift2, *b1, *b2;
    const E *wq, *wk, *wv, *wo, *w1, *w2;
    int64_t T, outputs, C, N, heads, taps, stride;
    float eps;

    int64_t ld() const { return panels_of(T) * panel + lanes; }  // off powers of two, where rows would share cache sets
    int64_t cache() const { return C * ld(); }                   // floats of one window's keys, or values

    // Keys and values, [C][ld], of `count` tiles of frames.
    void keys_values(int64_t window, int64_t first, int64_t count, float* k, float* v) const {
        Scratch scratch;
        float* tile = scratch.floats(C * panel);
        float* u = scratch.floats(count * C * panel);
        for (int64_t p = 0; p < count; ++p) {
            int64_t frame[panel];
            for (int64_t l = 0; l < panel; ++l) frame[l] = (first + p) * panel + l < T ? (first + p) * panel + l : -1;
            read_frames(z + window * T * C, C, C, frame, tile, position);
            norm_tile(tile, C, gain1, shift1, eps, u + p * C * panel);
        }
        const int64_t width = ld();
        product(wk, C, C, u, count, [&](int64_t p, int64_t c, Vec a, Vec b) {
            store_two(k + c * width + (first + p) * panel, a + bk[c], b + bk[c]);
        });
        product(wv, C, C, u, count, [&](int64_t p, int64_t c, Vec a, Vec b) {
            store_two(v + c * width + (first + p) * panel, a + bv[c], b + bv[c]);
        });
    }

    // Whether one tile holds what all taps read, tap k in the lanes from k * outputs on.
    bool packed() const { return taps > 1 && taps * outputs <= panel; }

    // The frames that tile `tile` of those which output tiles from `first` on read has in its lanes, -1 for none.
    // Returns the lanes that have one.
    uint32_t frames_of(int64_t first, int64_t tile, int64_t* frame) const {
        uint32_t present = 0;
        for (int64_t l = 0; l < panel; ++l) {
            const int64_t tap = packed() ? l / outputs : tile % taps;
            const int64_t o = packed() ? l % outputs : (first + tile / taps) * panel + l;
            const int64_t read = o * stride + tap - taps / 2;
            const bool there = tap < taps && o < outputs && read >= 0 && read < T;
            frame[l] = there ? read : -1;
            present |= static_cast<uint32_t>(there) << l;
        }
        return present;
    }

    // `count` tiles of output frames, from the keys and values of the window.
    void output(int64_t window, int64_t first, int64_t count, const float* k, const float* v) const {
        Scratch scratch;
        const int64_t size = C * panel, tiles = packed() ? 1 : count * taps, width = ld(), D = C / heads;
        float* x = scratch.floats(tiles * size + panel);  // the residual stream of the frames read
        float* u = scratch.floats(tiles * size);
        float* q = scratch.floats(tiles * size);
        float* hidden = scratch.floats(count * taps * N * panel);
        uint32_t present[3 * 8];  // lanes that hold a frame; count <= 8
        for (int64_t i = 0; i < tiles; ++i) {
            int64_t frame[panel];
            present[i] = frames_of(first, i, frame);
            read_frames(z + window * T * C, C, C, frame, x + i * size, position);
            norm_tile(x + i * size, C, gain1, shift1, eps, u + i * size);
        }
        product(wq, C, C, u, tiles,
                [&](int64_t i, int64_t c, Vec a, Vec b) { store_two(q + i * size + c * panel, a + bq[c], b + bq[c]); });
        const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(D));
        parallel_for(heads, [&](int64_t head) {
            Scratch own;
            float* weights = own.floats(T * panel);
            for (int64_t i = 0; i < tiles; ++i) {
                const int64_t at = head * D;
                float* out = u + i * size + at * panel;
                Vec inverse[2], largest[2];
                softmax_tile({k + at * width, 1, width}, T, D, q + i * size + at * panel, scale, {nullptr, false, 0},
                             weights, inverse, largest);
                products_over_keys({v + at * width, 1, width}, T, D, weights, [&](int64_t d, Vec a, Vec b) {
                    store_two(out + d * panel, a * inverse[0], b * inverse[1]);
                });
            }
        });
        product(wo, C, C, u, tiles, [&](int64_t i, int64_t c, Vec a, Vec b) {
            float* at = x + i * size + c * panel;
            store_two(at, load(at) + (a + bo[c]), load(at + lanes) + (b + bo[c]));
        });
        for (int64_t i = 0; i < tiles; ++i) norm_tile(x + i * size, C, gain2, shift2, eps, u + i * size);
        // [N][taps][panel] for each output tile: the order of the convolution's weights
        product(w1, N, C, u, tiles, [&](int64_t i, int64_t n, Vec a, Vec b) {
            a = keep_lanes(present[i], relu(a + b1[n]));
            b = keep_lanes(present[i] >> lanes, relu(b + b1[n]));
            if (!packed()) return store_two(hidden + ((i / taps * N + n) * taps + i % taps) * panel, a, b);
            alignas(64) float row[2 * panel] = {0};  // each tap's lanes moved to the front
            store_two(row, a, b);
            for (int64_t tap = 0; tap < taps; ++tap)
                store_two(hidden + (n * taps + tap) * panel, load(row + tap * outputs),
                          load(row + tap * outputs + lanes));
        });
        float* out = q;
        const float* kept = x + (packed() ? taps / 2 * outputs : taps / 2 * size);  // frame s * o is the middle tap's
        product(w2, C, N * taps, hidden, count, [&](int64_t p, int64_t c, Vec a, Vec b) {
            const float* at = kept + p * taps * size + c * panel;
            store_two(out + p * size + c * panel, a + b2[c] + load(at), b + b2[c] + load(at + lanes));
        });
        for (int64_t p = 0; p < count; ++p) {
            const int64_t lane0 = (first + p) * panel;
            write_tile(out + p * size, C, 0, outputs - lane0, y + (window * outputs + lane0) * C, C);
        }
    }

    // All windows: one after the other on each thread where there are enough, else tile by tile.
    void run(int64_t B) const {
        if (B == 0) return;
        const int64_t threads = num_threads(), in = panels_of(T), out = panels_of(outputs);
        const int64_t most = taps == 1 ? 4 : 1;  // tiles at once: each pass over the weights serves as many
        if (B >= 4 * threads || threads == 1 || (B >= threads && B % threads == 0)) {
            parallel_for(B, [&](int64_t b) {
                Scratch scratch;
                float* k = scratch.floats(cache());
                float* v = scratch.floats(cache());
                for (int64_t p = 0; p < in; p += 4) keys_values(b, p, in - p < 4 ? in - p : 4, k, v);
                for (int64_t p = 0; p < out; p += most) output(b, p, out - p < most ? out - p : most, k, v);
            });
            return;
        }
        Scratch scratch;
        float* k = scratch.floats(B * cache());
        float* v = scratch.floats(B * cache());
        const auto each = [&](int64_t panels, int64_t limit, auto&& work) {
            int64_t group = (B * panels + 2 * threads - 1) / (2 * threads);  // two tasks a thread
            group = group < limit ? group : limit;
            const int64_t groups = (panels + group - 1) / group;
            const auto run = [&](int64_t task) {
                const int64_t b = task / groups, first = task % groups * group;
                work(b, first, panels - first < group ? panels - first : group);
            };
            // A last round that would leave most threads idle: one task after the other, its products shared.
            const int64_t left = B * groups % threads, together = 2 * left <= threads ? B * groups - left : B * groups;
            parallel_for(together, run);
            for (int64_t task = together; task < B * groups; ++task) run(task);
        };
        each(in, 4, [&](int64_t b, int64_t first, int64_t count) {
            keys_values(b, first, count, k + b * cache(), v + b * cache());
        });
        each(out, most, [&](int64_t b, int64_t first, int64_t count) {
            output(b, first, count, k + b * cache(), v + b * cache());
        });
    }
};

const float* as_floats(const float* p, int64_t, Scratch&) {
    return p;
}
const float* as_floats(const uint16_t* p, int64_t n, Scratch& scratch) {
    float* out = scratch.floats(n);
    for (int64_t i = 0; i < n; ++i) out[i] = from_bf16(p[i]);
    return out;
}

template <class E>
void run_layer(const E* z, const E* position, E* y, const E* gain1, const E* shift1, const E* wq, const E* bq,
               const E* wk, const E* bk, const E* wv, const E* bv, const E* wo, const E* bo, const E* gain2,
               const E* shift2, const E* w1, const E* b1, const E* w2, const E* b2, int64_t B, int64_t T, int64_t C,
               int64_t N, int64_t heads, int64_t taps, int64_t stride, float eps) {
    Scratch scratch;
    const auto f = [&](const E* p, int64_t n) { return as_floats(p, n, scratch); };
    const Layer<E> layer{z,        position, y,           f(gain1, C),  f(shift1, C), f(bq, C), f(bk, C),
                         f(bv, C), f(bo, C), f(gain2, C), f(shift2, C), f(b1, N),     f(b2, C), wq,
                         wk,       wv,       wo,          w1,           w2,           T,        (T - 1) / stride + 1,
                         C,        N,        heads,       taps,         stride,       eps};
    layer.run(B);
}

}  // namespace

void encoder_layer(const float* z, const float* position, float* y, const float* gain1, const float* shift1,
                   const float* wq, const float* bq, const float* wk, const float* bk, const float* wv, const float* bv,
                   const float* wo, const float* bo, const float* gain2, const float* shift2, const float* w1,
                   const float* b1, const float* w2, const float* b2, int64_t B, int64_t T, int64_t C, int64_t N,
                   int64_t heads, int64_t taps, int64_t stride, float eps) {
    run_layer(z, position, y, gain1, shift1, wq, bq, wk, bk, wv, bv, wo, bo, gain2, shift2, w1, b1, w2, b2, B, T, C, N,
              heads, taps, stride, eps);
}
POSEKERNELS_KERNEL(encoder_layer)

void encoder_layer_bf16(const uint16_t* z, const uint16_t* position, uint16_t* y, const uint16_t* gain1,
                        const uint16_t* shift1, const uint16_t* wq, const uint16_t* bq, const uint16_t* wk,
                        const uint16_t* bk, const uint16_t* wv, const uint16_t* bv, const uint16_t* wo,
                        const uint16_t* bo, const uint16_t* gain2, const uint16_t* shift2, const uint16_t* w1,
                        const uint16_t* b1, const uint16_t* w2, const uint16_t* b2, int64_t B, int64_t T, int64_t C,
                        int64_t N, int64_t heads, int64_t taps, int64_t stride, float eps) {
    run_layer(z, position, y, gain1, shift1, wq, bq, wk, bk, wv, bv, wo, bo, gain2, shift2, w1, b1, w2, b2, B, T, C, N,
              heads, taps, stride, eps);
}
POSEKERNELS_KERNEL(encoder_layer_bf16)

POSEKERNELS_END
