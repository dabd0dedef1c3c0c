// joint_attention on CUDA. The math is in posekernels/ops/joint_attention/README.md.
//
// A warp takes a (sample, head) pair whole, so that pairs never meet in a product. Rows come from memory as the matrix
// units take them: which channel counts as the k-th is free where both sides agree, so a thread reads four neighbours
// of a row at once. Scores, weights and sums stay in registers; only the gradients of keys and values turn the weights
// over, in the warp's own part of shared memory. No warp waits for another.
#include <cstring>

#include "posekernels/gpu_products.h"
#include "posekernels/gpu_units.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN

constexpr int chunk = 16;  // channels at a time
constexpr int most_warps = 4;
constexpr float log2_e = 1.44269504f;

struct HeadStrides {
    int64_t b, n, h;
};

template <class T>
struct Rows {
    const T* data;
    HeadStrides step;
};

// Those of one pair: row n begins at data + n * step.
template <class T>
struct HeadRows {
    const T* data;
    int64_t step;
};

struct Joints {
    int N, H, D;
    int warps;  // of a block: so many heads of a sample
    int width;  // numbers that one load may take: 4, 2 or 1
    const uint8_t* mask;
    int64_t mask_b, mask_q, mask_k;
    float scale;
};

// A packet's numbers, read at once, to registers.
template <int n, class T>
DEVICE void put_in(T* to, const Packet<T, n>& from) {
    const Packet<T, n> read = from;
#pragma unroll
    for (int e = 0; e < n; ++e) to[e] = read.v[e];
}

// A warp's pair. tiles: of 8 tokens, as few as hold N; thread (g, t) of it has rows 8 r + g.
template <class Math, int tiles>
struct Pair {
    using T = typename Math::Number;
    using U = Units<Math>;
    using Piece = typename U::Piece;
    using Right = typename U::Right;
    static constexpr int wide = U::wide, blocks = (tiles + 1) / 2;           // of 16 rows
    static constexpr int pitch = 8 * tiles + 4, turned = 8 * tiles * pitch;  // floats of weights that are turned over
    using Scores = float[blocks][tiles][4];  // of row 8 r + g: [r / 2][j][r % 2 * 2 + e], of columns 8 j + 2 t + e
    using Weights = Piece[blocks][tiles];

    const Joints& s;
    int64_t b, h;
    int g, t;

    DEVICE explicit Pair(const Joints& s) : s(s) {
        const unsigned groups = s.H / s.warps;
        b = blockIdx.x / groups, h = blockIdx.x % groups * s.warps + threadIdx.x / 32;
        g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    }
    // Whether there is a token; for all tiles but the last this is known where kernels differ by them.
    DEVICE bool there(int tile, int within) const { return (tiles > 2 && tile + 1 < tiles) || 8 * tile + within < s.N; }
    DEVICE HeadRows<T> own(const Rows<T>& rows) const {
        return {rows.data + b * rows.step.b + h * rows.step.h, rows.step.n};
    }
    DEVICE int64_t step() const { return int64_t(s.H) * s.D; }  // of [B, N, H, D], where it is contiguous
    DEVICE int64_t at() const { return b * s.N * step() + h * s.D; }

    // f(the numbers that one load may take, as a constant)
    template <class F>
    DEVICE void with_width(F f) const {
        if (s.width == 4) {
            f(std::integral_constant<int, 4>{});
        } else if (s.width == 2) {
            f(std::integral_constant<int, 2>{});
        } else {
            f(std::integral_constant<int, 1>{});
        }
    }
    // Four channels of a row for a product over channels; zeros where there are none.
    template <int width>
    DEVICE Right channels(const HeadRows<T>& rows, int tile, int channel) const {
        Packet<T, 4> v{};
        const T* from = rows.data + (8 * tile + g) * rows.step + channel;
        if (there(tile, g)) {
#pragma unroll
            for (int e = 0; e < 4; e += width)
                if (channel + e < s.D) put_in<width>(v.v + e, packet<width>(from + e));
        }
        Right right;
        if constexpr (wide == 1) {
            std::memcpy(right.w, v.v, sizeof right.w);
        } else {
#pragma unroll
            for (int e = 0; e < 4; ++e) right.w[e] = U::word(v.v[e]);
        }
        return right;
    }
    // c[row of a][row of b] = their product over all channels.
    DEVICE void products(Scores& c, const HeadRows<T>& a, const HeadRows<T>& b) const {
#pragma unroll
        for (int m = 0; m < blocks; ++m)
#pragma unroll
            for (int j = 0; j < tiles; ++j)
#pragma unroll
                for (int e = 0; e < 4; ++e) c[m][j][e] = 0.f;
        with_width([&](auto width) {
#pragma unroll 1
            for (int channel = 4 * t; channel - 4 * t < s.D; channel += chunk) {
                Right left[2 * blocks] = {}, right[tiles];
#pragma unroll
                for (int j = 0; j < tiles; ++j)
                    left[j] = channels<width()>(a, j, channel), right[j] = channels<width()>(b, j, channel);
#pragma unroll
                for (int m = 0; m < blocks; ++m) {
                    Piece first, next;
#pragma unroll
                    for (int i = 0; i < 2 * wide; ++i) {
                        const Right& row = left[2 * m + i % 2];
                        first.w[i] = row.w[i / 2], next.w[i] = row.w[wide + i / 2];
                    }
#pragma unroll
                    for (int j = 0; j < tiles; ++j) U::add(c[m][j], first, next, right[j]);
                }
            }
        });
    }

    // Scores to exponentials, 0 where a query sees nothing; inverse: what makes a row's sum 1; seen: a bit a column of
    // this thread's, 2 j + e, for those that the mask allows; none where there is no query.
    DEVICE void softmax(Scores& c, float (&inverse)[tiles], uint32_t (&seen)[tiles]) const {
        const float factor = s.scale * log2_e;
#pragma unroll
        for (int r = 0; r < tiles; ++r) {
            float (*row)[4] = c[r / 2];
            const int first = r % 2 * 2;
#pragma unroll
            for (int i = 0; i < 2 * tiles; ++i) {
                float& v = row[i / 2][first + i % 2];
                v = there(i / 2, 2 * t + i % 2) ? v * factor : -INFINITY;
            }
            seen[r] = there(r, g) ? ~0u : 0u;
            if (s.mask && there(r, g)) {
                const uint8_t* allowed = s.mask + b * s.mask_b + (8 * r + g) * s.mask_q;
#pragma unroll
                for (int i = 0; i < 2 * tiles; ++i)
                    if (there(i / 2, 2 * t + i % 2) && !allowed[(i / 2 * 8 + 2 * t + i % 2) * s.mask_k]) {
                        seen[r] ^= 1u << i;
                        row[i / 2][first + i % 2] = -INFINITY;
                    }
            }
            float top = -INFINITY, total = 0.f;
#pragma unroll
            for (int i = 0; i < 2 * tiles; ++i) top = fmaxf(top, row[i / 2][first + i % 2]);
            top = fmaxf(top, shuffle_xor(top, 1));
            top = fmaxf(top, shuffle_xor(top, 2));
            if (top == -INFINITY) top = 0.f;
#pragma unroll
            for (int i = 0; i < 2 * tiles; ++i) {
                float& v = row[i / 2][first + i % 2];
                v = exp2f(v - top);
                total += v;
            }
            total += shuffle_xor(total, 1);
            total += shuffle_xor(total, 2);
            inverse[r] = total == 0.f ? 0.f : 1.f / total;
        }
    }
    static DEVICE void pieces(Weights& to, const Scores& c) {
#pragma unroll
        for (int m = 0; m < blocks; ++m)
#pragma unroll
            for (int j = 0; j < tiles; ++j) to[m][j] = U::piece(c[m][j]);
    }

    // Two channels of a row, 0 where there are none.
    template <int width>
    DEVICE Packet<T, 2> two(const HeadRows<T>& rows, int tile, int within, int channel) const {
        Packet<T, 2> v{};
        const T* from = rows.data + (8 * tile + within) * rows.step + channel;
        if (there(tile, within)) {
#pragma unroll
            for (int e = 0; e < 2; e += width)
                if (channel + e < s.D) put_in<width>(v.v + e, packet<width>(from + e));
        }
        return v;
    }
    // Four numbers of one channel for a product over rows.
    static DEVICE Right rows_of(const Packet<T, 2> (&v)[4], int e) {
        Right right;
        if constexpr (wide == 1) {
            const T numbers[4] = {v[0].v[e], v[1].v[e], v[2].v[e], v[3].v[e]};
            std::memcpy(right.w, numbers, sizeof right.w);
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) right.w[i] = U::word(v[i].v[e]);
        }
        return right;
    }
    // Four neighbours to a row of `out`.
    template <int width>
    DEVICE void put(T* out, int tile, int channel, const Packet<T, 4>& v) const {
        if (!there(tile, g)) return;
        T* to = out + (8 * tile + g) * step() + channel;
#pragma unroll
        for (int e = 0; e < 4; e += width) {
            Packet<T, width> part;
#pragma unroll
            for (int i = 0; i < width; ++i) part.v[i] = v.v[e + i];
            if (channel + e < s.D) packet<width>(to + e) = part;
        }
    }
    // Row n of out = factor * sum_m weights[n][m] (row m of `rows`). A thread reads two neighbouring channels, each
    // for a product of its own, whose sums are then of four neighbours.
    DEVICE void sums(const Weights& weights, const HeadRows<T>& rows, const float (&factor)[tiles], T* out) const {
        with_width([&](auto width) {
            constexpr int pair_width = width() < 2 ? 1 : 2;
#pragma unroll 1
            for (int start = 0; start < s.D; start += chunk) {
                Right right[blocks][2];
#pragma unroll
                for (int m = 0; m < blocks; ++m) {
                    Packet<T, 2> v[4] = {};
#pragma unroll
                    for (int i = 0; i < 4; ++i)
                        if (2 * m + i / 2 < tiles)
                            v[i] = two<pair_width>(rows, 2 * m + i / 2, 2 * t + i % 2, start + 2 * g);
                    right[m][0] = rows_of(v, 0), right[m][1] = rows_of(v, 1);
                }
#pragma unroll
                for (int m = 0; m < blocks; ++m) {
                    float found[2][4] = {};
#pragma unroll
                    for (int e = 0; e < 2; ++e)
#pragma unroll
                        for (int j = 0; j < tiles; j += 2) {
                            if (j + 1 < tiles)
                                U::add(found[e], weights[m][j], weights[m][j + 1], right[j / 2][e]);
                            else
                                U::add_first(found[e], weights[m][j], right[j / 2][e]);
                        }
#pragma unroll
                    for (int r = 0; r < 2 && 2 * m + r < tiles; ++r) {
                        Packet<T, 4> v;
#pragma unroll
                        for (int e = 0; e < 4; ++e)
                            v.v[e] = from_float<T>(found[e % 2][2 * r + e / 2] * factor[2 * m + r]);
                        put<width()>(out, 2 * m + r, start + 4 * t, v);
                    }
                }
            }
        });
    }

    // c, a row to a query, turned over: a row to a key. mine: the warp's `turned` floats.
    DEVICE void turn(Scores& c, float* mine) const {
        warp_sync();
#pragma unroll
        for (int r = 0; r < tiles; ++r)
#pragma unroll
            for (int j = 0; j < tiles; ++j)
                packet<2>(mine + (8 * r + g) * pitch + 8 * j + 2 * t) = {c[r / 2][j][r % 2 * 2],
                                                                         c[r / 2][j][r % 2 * 2 + 1]};
        warp_sync();
#pragma unroll
        for (int r = 0; r < tiles; ++r)
#pragma unroll
            for (int j = 0; j < tiles; ++j)
#pragma unroll
                for (int e = 0; e < 2; ++e) c[r / 2][j][r % 2 * 2 + e] = mine[(8 * j + 2 * t + e) * pitch + 8 * r + g];
    }
};

// grid (groups of heads of all samples)
template <class Math, int tiles, class T = typename Math::Number>
KERNEL void joint_attention_fwd_kernel(Rows<T> q, Rows<T> k, Rows<T> v, T* out, Joints s) {
    using P = Pair<Math, tiles>;
    const P pair(s);
    typename P::Scores c;
    typename P::Weights weights;
    float inverse[tiles];
    uint32_t seen[tiles];
    pair.products(c, pair.own(q), pair.own(k));
    pair.softmax(c, inverse, seen);
    P::pieces(weights, c);
    pair.sums(weights, pair.own(v), inverse, out + pair.at());
}

template <class Math, int tiles, class T = typename Math::Number>
KERNEL void joint_attention_bwd_kernel(Rows<T> grad, Rows<T> q, Rows<T> k, Rows<T> v, T* grad_q, T* grad_k, T* grad_v,
                                       Joints s) {
    using P = Pair<Math, tiles>;
    alignas(16) SHARED float memory[most_warps][P::turned];
    const P pair(s);
    float* mine = memory[threadIdx.x / 32];
    typename P::Scores w, slope;
    typename P::Weights weights;
    float factor[tiles];
    uint32_t seen[tiles];
    pair.products(w, pair.own(q), pair.own(k));
    pair.softmax(w, factor, seen);
    pair.products(slope, pair.own(grad), pair.own(v));
#pragma unroll
    for (int r = 0; r < tiles; ++r) {
        float mean = 0.f;
        const auto each = [&](auto f) {
#pragma unroll
            for (int i = 0; i < 2 * tiles; ++i) {
                const bool own = pair.there(i / 2, 2 * pair.t + i % 2) && (seen[r] >> i & 1);
                f(w[r / 2][i / 2][r % 2 * 2 + i % 2], slope[r / 2][i / 2][r % 2 * 2 + i % 2], own);
            }
        };
        each([&](float& weight, float& ds, bool own) {  // not 0 * NaN: a query's NaN goes to no key it does not see
            weight = own ? weight * factor[r] : 0.f;
            ds = own ? ds : 0.f;
            mean += weight * ds;
        });
        mean += shuffle_xor(mean, 1);
        mean += shuffle_xor(mean, 2);
        each([&](float& weight, float& ds, bool own) { ds = own ? weight * (ds - mean) * s.scale : 0.f; });
        factor[r] = 1.f;
    }
    P::pieces(weights, slope);
    pair.sums(weights, pair.own(k), factor, grad_q + pair.at());
    pair.turn(slope, mine);
    P::pieces(weights, slope);
    pair.sums(weights, pair.own(q), factor, grad_k + pair.at());
    pair.turn(w, mine);
    P::pieces(weights, w);
    pair.sums(weights, pair.own(grad), factor, grad_v + pair.at());
}

// Numbers that one load may take: 4, 2 or 1; all addresses are multiples of it.
template <class T>
int load_width(int64_t steps, uintptr_t addresses) {
    for (int width = 4; width > 1; width /= 2)
        if (steps % width == 0 && addresses % (width * sizeof(T)) == 0) return width;
    return 1;
}

// Warps of a block: heads of one sample, so that no index is divided but the block's.
inline int warps_for(int H) {
    return H % 4 == 0 ? 4 : H % 2 == 0 ? 2 : 1;
}

// f(Math{}, tiles of 8 tokens as a constant)
template <class F>
void each_kind(int math, int N, F f) {
    each_math(math, [&](auto m) {
        if (N <= 16) {
            f(m, std::integral_constant<int, 2>{});
        } else if (N <= 24) {
            f(m, std::integral_constant<int, 3>{});
        } else {
            f(m, std::integral_constant<int, 4>{});
        }
    });
}

inline uintptr_t bits(const void* p) {
    return reinterpret_cast<uintptr_t>(p);
}

// q, k, v [B, N, H, D] of strides (sample, token, head, 1); mask: bytes of strides (sample, query, key), or null;
// out [B, N, H, D] contiguous.
void joint_attention_cuda(const void* stream, int math, const void* q, const void* k, const void* v, int64_t q0,
                          int64_t q1, int64_t q2, int64_t k0, int64_t k1, int64_t k2, int64_t v0, int64_t v1,
                          int64_t v2, const uint8_t* mask, int64_t m0, int64_t m1, int64_t m2, void* out, int64_t B,
                          int N, int H, int D, float scale) {
    const int64_t steps = D | q0 | q1 | q2 | k0 | k1 | k2 | v0 | v1 | v2;
    each_kind(math, N, [&](auto m, auto tiles) {
        using T = typename decltype(m)::Number;
        const auto rows = [](const void* p, HeadStrides step) { return Rows<T>{static_cast<const T*>(p), step}; };
        const int width = load_width<T>(steps, bits(q) | bits(k) | bits(v) | bits(out)), warps = warps_for(H);
        const Joints s{N, H, D, warps, width, mask, m0, m1, m2, scale};
        launch(joint_attention_fwd_kernel<decltype(m), tiles()>, Grid{B * (H / warps)}, 32 * warps, stream,
               rows(q, {q0, q1, q2}), rows(k, {k0, k1, k2}), rows(v, {v0, v1, v2}), static_cast<T*>(out), s);
    });
}
POSEKERNELS_KERNEL(joint_attention_cuda)

// grad and the gradients are [B, N, H, D] contiguous.
void joint_attention_backward_cuda(const void* stream, int math, const void* grad, const void* q, const void* k,
                                   const void* v, int64_t q0, int64_t q1, int64_t q2, int64_t k0, int64_t k1,
                                   int64_t k2, int64_t v0, int64_t v1, int64_t v2, const uint8_t* mask, int64_t m0,
                                   int64_t m1, int64_t m2, void* grad_q, void* grad_k, void* grad_v, int64_t B, int N,
                                   int H, int D, float scale) {
    const int64_t steps = D | q0 | q1 | q2 | k0 | k1 | k2 | v0 | v1 | v2;
    each_kind(math, N, [&](auto m, auto tiles) {
        using T = typename decltype(m)::Number;
        const auto rows = [](const void* p, HeadStrides step) { return Rows<T>{static_cast<const T*>(p), step}; };
        const uintptr_t inputs = bits(q) | bits(k) | bits(v) | bits(grad);
        const int width = load_width<T>(steps, inputs | bits(grad_q) | bits(grad_k) | bits(grad_v));
        const int warps = warps_for(H);
        const Joints s{N, H, D, warps, width, mask, m0, m1, m2, scale};
        launch(joint_attention_bwd_kernel<decltype(m), tiles()>, Grid{B * (H / warps)}, 32 * warps, stream,
               rows(grad, {int64_t(N) * H * D, int64_t(H) * D, D}), rows(q, {q0, q1, q2}), rows(k, {k0, k1, k2}),
               rows(v, {v0, v1, v2}), static_cast<T*>(grad_q), static_cast<T*>(grad_k), static_cast<T*>(grad_v), s);
    });
}
POSEKERNELS_KERNEL(joint_attention_backward_cuda)

POSEKERNELS_END
