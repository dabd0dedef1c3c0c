// A whole layer of the strided transformer in inference: see posekernels/ops/encoder_layer/README.md.
//
// Frames are lanes (posekernels/frames.h). Keys and values are made of every frame. Everything else is made for the
// frames that the feed-forward convolution reads, tile by tile from the norm to the output: a tile of output frames
// has one tile of input frames for each tap. Frames that no tap reads are never queries.
#include <type_traits>

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

    static E* numbers(Scratch& scratch, int64_t n) {
        return static_cast<E*>(scratch.bytes(sizeof(E) * static_cast<size_t>(n)));
    }

    // Neighbouring windows as one sequence of count * T frames, so that no lanes stay empty between them. Attention
    // alone sees where one ends.
    struct Windows {
        int64_t first, count;
    };
    // Between the channels of keys and values: off powers of two, where rows would share cache sets.
    int64_t ld(Windows w) const { return panels_of(w.count * T) * panel + lanes; }
    int64_t cache(Windows w) const { return C * ld(w); }  // numbers of the windows' keys, or values

    // Keys and values of `count` tiles of frames, [C][ld]; bfloat16 keys frame by frame, as its products read them.
    void keys_values(Windows w, int64_t first, int64_t count, E* k, E* v) const {
        Scratch scratch;
        const int64_t width = ld(w), lane0 = first * panel, frames = w.count * T;
        float* tile = scratch.floats(C * panel);
        float* u = scratch.floats(count * C * panel);
        for (int64_t p = 0; p < count; ++p) {
            int64_t frame[panel];
            for (int64_t l = 0; l < panel; ++l) frame[l] = lane0 + p * panel + l < frames ? lane0 + p * panel + l : -1;
            read_frames(z + w.first * T * C, C, C, frame, tile, position, T);
            norm_tile(tile, C, gain1, shift1, eps, u + p * C * panel);
        }
        const E* read = tile_for(wk, u, C, count, scratch);
        if constexpr (std::is_same_v<E, float>) {
            product_of(wk, C, C, read, count, [&](int64_t p, int64_t c, Vec a, Vec b) {
                store_two(k + c * width + lane0 + p * panel, a + bk[c], b + bk[c]);
            });
        } else {
            float* made = scratch.floats(count * C * panel);
            product_of(wk, C, C, read, count, [&](int64_t p, int64_t c, Vec a, Vec b) {
                store_two(made + (p * C + c) * panel, a + bk[c], b + bk[c]);
            });
            for (int64_t p = 0; p < count; ++p) {
                const int64_t frame = lane0 + p * panel;
                write_tile(made + p * C * panel, C, 0, frames - frame, k + frame * C, C);
            }
        }
        product_of(wv, C, C, read, count, [&](int64_t p, int64_t c, Vec a, Vec b) {
            store_any(v + c * width + lane0 + p * panel, a + bv[c], lanes);
            store_any(v + c * width + lane0 + p * panel + lanes, b + bv[c], lanes);
        });
    }

    // Whether one tile holds what all taps read, tap k in the lanes from k times the output frames on.
    bool packed(Windows w) const { return taps > 1 && taps * w.count * outputs <= panel; }

    // The frames that tile `tile` of those which output tiles from `first` on read has in its lanes, -1 for none.
    // Returns the lanes that have one.
    uint32_t frames_of(Windows w, int64_t first, int64_t tile, int64_t* frame) const {
        uint32_t present = 0;
        const int64_t all = w.count * outputs;
        for (int64_t l = 0; l < panel; ++l) {
            const int64_t tap = packed(w) ? l / all : tile % taps;
            const int64_t o = packed(w) ? l % all : (first + tile / taps) * panel + l;
            const int64_t read = o % outputs * stride + tap - taps / 2;
            const bool there = tap < taps && o < all && read >= 0 && read < T;
            frame[l] = there ? o / outputs * T + read : -1;
            present |= static_cast<uint32_t>(there) << l;
        }
        return present;
    }

    static constexpr int64_t most_windows = 8, most_tiles = 3 * 4;  // of one call of `output`

    // The lanes of a tile whose frames one window has: those queries see its keys.
    struct Part {
        int64_t tile, window;
        uint32_t lanes;
        bool first;  // of its tile
    };

    // The attention of one head, from queries q to the tiles of u.
    void attend(const Part* parts, int64_t count, int64_t head, const float* q, const E* k, const E* v, int64_t width,
                float* u) const {
        Scratch scratch;
        const int64_t D = C / heads, at = head * D;
        const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(D));
        float* weights = scratch.floats(T * panel);
        for (const Part* part = parts; part < parts + count; ++part) {
            const int64_t frame = part->window * T;  // its first
            const float* queries = q + (part->tile * C + at) * panel;
            float* out = u + (part->tile * C + at) * panel;
            Vec inverse[2], largest[2];
            const auto put = [&](int64_t d, Vec a, Vec b) {
                float* to = out + d * panel;
                a = a * inverse[0], b = b * inverse[1];
                if (part->first) return store_two(to, a, b);
                const uint32_t mine = part->lanes;
                store_two(to, keep_lanes(mine, a) + keep_lanes(~mine, load(to)),
                          keep_lanes(mine >> lanes, b) + keep_lanes(~mine >> lanes, load(to + lanes)));
            };
            if constexpr (std::is_same_v<E, float>) {
                products_over_dims({k + at * width + frame, 1, width}, T, D, queries, weights);
                softmax_of(weights, T, scale, {nullptr, false, 0}, inverse, largest);
                products_over_keys({v + at * width + frame, 1, width}, T, D, weights, put);
            } else {
                Scratch rounded;
                products_over_dims(k + frame * C + at, C, T, D, tile_for(k, queries, D, 1, rounded), weights);
                softmax_of(weights, T, scale, {nullptr, false, 0}, inverse, largest);
                products_over_keys(v + at * width + frame, width, T, D, tile_for(v, weights, T, 1, rounded), put);
            }
        }
    }

    // `count` tiles of output frames, from the keys and values of the windows.
    void output(Windows w, int64_t first, int64_t count, const E* k, const E* v) const {
        Scratch scratch;
        const int64_t size = C * panel, tiles = packed(w) ? 1 : count * taps, all = w.count * outputs;
        float* x = scratch.floats(tiles * size + panel);  // the residual stream of the frames read
        float* u = scratch.floats(tiles * size);
        float* q = scratch.floats(tiles * size);
        float* hidden = scratch.floats(count * taps * N * panel);
        uint32_t present[most_tiles];  // lanes that hold a frame
        Part parts[most_tiles * most_windows];
        int64_t found = 0;
        for (int64_t i = 0; i < tiles; ++i) {
            int64_t frame[panel];
            present[i] = frames_of(w, first, i, frame);
            read_frames(z + w.first * T * C, C, C, frame, x + i * size, position, T);
            norm_tile(x + i * size, C, gain1, shift1, eps, u + i * size);
            const int64_t before = found;
            for (int64_t window = 0; window < w.count; ++window) {
                uint32_t own = 0;
                for (int64_t l = 0; l < panel; ++l)
                    own |= static_cast<uint32_t>(frame[l] >= 0 && frame[l] / T == window) << l;
                if (own) parts[found] = {i, window, own, found == before}, ++found;
            }
        }
        product(wq, C, C, u, tiles,
                [&](int64_t i, int64_t c, Vec a, Vec b) { store_two(q + i * size + c * panel, a + bq[c], b + bq[c]); });
        parallel_for(heads, [&](int64_t head) { attend(parts, found, head, q, k, v, ld(w), u); });
        product(wo, C, C, u, tiles, [&](int64_t i, int64_t c, Vec a, Vec b) {
            float* at = x + i * size + c * panel;
            store_two(at, load(at) + (a + bo[c]), load(at + lanes) + (b + bo[c]));
        });
        for (int64_t i = 0; i < tiles; ++i) norm_tile(x + i * size, C, gain2, shift2, eps, u + i * size);
        // [N][taps][panel] for each output tile: the order of the convolution's weights
        product(w1, N, C, u, tiles, [&](int64_t i, int64_t n, Vec a, Vec b) {
            a = keep_lanes(present[i], relu(a + b1[n]));
            b = keep_lanes(present[i] >> lanes, relu(b + b1[n]));
            if (!packed(w)) return store_two(hidden + ((i / taps * N + n) * taps + i % taps) * panel, a, b);
            alignas(64) float row[2 * panel] = {0};  // each tap's lanes moved to the front
            store_two(row, a, b);
            for (int64_t tap = 0; tap < taps; ++tap)
                store_two(hidden + (n * taps + tap) * panel, load(row + tap * all), load(row + tap * all + lanes));
        });
        float* out = q;
        const float* kept = x + (packed(w) ? taps / 2 * all : taps / 2 * size);  // frame s * o is the middle tap's
        product(w2, C, N * taps, hidden, count, [&](int64_t p, int64_t c, Vec a, Vec b) {
            const float* at = kept + p * taps * size + c * panel;
            store_two(out + p * size + c * panel, a + b2[c] + load(at), b + b2[c] + load(at + lanes));
        });
        for (int64_t p = 0; p < count; ++p) {
            const int64_t lane0 = (first + p) * panel;
            write_tile(out + p * size, C, 0, all - lane0, y + (w.first * outputs + lane0) * C, C);
        }
    }

    // All windows: some together on each thread where there are enough, else tile by tile.
    void run(int64_t B) const {
        if (B == 0) return;
        const int64_t threads = num_threads();
        const int64_t most = taps == 1 ? 4 : 1;  // tiles at once: each pass over the weights serves as many
        if (B >= 4 * threads || threads == 1 || (B >= threads && B % threads == 0)) {
            const int64_t rounds = (B + threads * most_windows - 1) / (threads * most_windows);
            const int64_t groups = B < threads * rounds ? B : threads * rounds;
            parallel_for(groups, [&](int64_t group) {
                const int64_t longer = B % groups, base = B / groups;  // the first `longer` groups have one more
                const Windows w{group * base + (group < longer ? group : longer), base + (group < longer)};
                Scratch scratch;
                E* k = numbers(scratch, cache(w));
                E* v = numbers(scratch, cache(w));
                const int64_t in = panels_of(w.count * T), out = panels_of(w.count * outputs);
                for (int64_t p = 0; p < in; p += 4) keys_values(w, p, in - p < 4 ? in - p : 4, k, v);
                for (int64_t p = 0; p < out; p += most) output(w, p, out - p < most ? out - p : most, k, v);
            });
            return;
        }
        Scratch scratch;
        const int64_t of_one = cache({0, 1});
        E* k = numbers(scratch, B * of_one);
        E* v = numbers(scratch, B * of_one);
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
        each(panels_of(T), 4, [&](int64_t b, int64_t first, int64_t count) {
            keys_values({b, 1}, first, count, k + b * of_one, v + b * of_one);
        });
        each(panels_of(outputs), most, [&](int64_t b, int64_t first, int64_t count) {
            output({b, 1}, first, count, k + b * of_one, v + b * of_one);
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
