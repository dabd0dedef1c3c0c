// temporal_attention on CUDA. The math is in posekernels/ops/temporal_attention/README.md.
//
// A block owns 64 queries of one head (or 64 keys, for the gradients of k and v) and walks over the other side in
// tiles of 64. Forward keeps a running maximum per query; backward computes the weights again from it and their sum.
// Both subtract it before anything is scaled, so that no rounding of a large product is left in a weight.
#include "posekernels/gpu_products.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN

constexpr float log2_e = 1.44269504f;

struct HeadStrides {
    int64_t b, t, h;
};

struct Attention {
    int64_t B, T, S;
    int H, D;
    HeadStrides q, k, v;
    const uint8_t* padding;  // [B, S] or null
    float scale;
    bool causal;
    DropoutMask dropout;

    DEVICE bool sees(int64_t b, int64_t query, int64_t key) const {
        return query < T && key < S && !(causal && key > query + S - T) && !(padding && padding[b * S + key]);
    }
    DEVICE float sign() const { return scale < 0.f ? -1.f : 1.f; }
    // exp(|scale| (score - largest)) of scores of the scale's sign.
    DEVICE float exponential(float score, float largest) const {
        return exp2f((score - largest) * (scale * sign() * log2_e));
    }
    DEVICE int64_t element(int64_t head, int64_t query, int64_t key) const { return (head * T + query) * S + key; }
};

constexpr int side = Tile::size;
constexpr float never = -3e38f;  // a score below anything real, whose exponential is 0

// One head's rows from `first` on; null outside.
template <class T>
struct HeadRows {
    const T* data;
    int64_t stride, first, rows;
    DEVICE const T* operator()(int row) const { return first + row < rows ? data + (first + row) * stride : nullptr; }
};

// Sums of 64 rows x D: one tile per 64 dims.
template <int tiles>
struct Wide {
    Tile tile[tiles];
};

// The sum, or the largest, over the lanes that hold a row of a tile; NaN stays.
template <class F>
DEVICE float over_row(float v, F f) {
    v = f(v, shuffle_xor(v, 1));
    return f(v, shuffle_xor(v, 2));
}

template <class Math, int tiles, class T = typename Math::Number>
KERNEL void attention_fwd_kernel(const T* q, const T* k, const T* v, T* out, float* peaks, Attention s) {
    constexpr int wide = pitch<T>(side);
    SHARED Operands<T> held;
    alignas(16) SHARED T P[side * wide];
    const int64_t blocks = (s.T + side - 1) / side, head = blockIdx.x / blocks, b = head / s.H, h = head % s.H;
    const int64_t query0 = blockIdx.x % blocks * side;
    const HeadRows<T> queries{q + b * s.q.b + h * s.q.h, s.q.t, query0, s.T};
    const auto larger = [](float x, float y) { return y > x || y != y ? y : x; };
    float top[2] = {never, never}, total[2] = {0.f, 0.f};  // of the two rows that this thread has a part of
    Wide<tiles> sums;
    for (int64_t key0 = 0; key0 < s.S; key0 += side) {
        const HeadRows<T> keys{k + b * s.k.b + h * s.k.h, s.k.t, key0, s.S};
        Tile score;
        add_rows_product<Math>(score, held, s.D, queries, keys);
        float most[2] = {top[0], top[1]}, fade[2], sum[2] = {0.f, 0.f};
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                float& x = score.sums[n][e];
                x = s.sees(b, query0 + Tile::row(e), key0 + Tile::column(n, e)) ? x * s.sign() : never;
                most[e / 2] = larger(most[e / 2], x);
            }
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            most[r] = over_row(most[r], larger);
            fade[r] = top[r] <= never ? 0.f : s.exponential(top[r], most[r]);
            top[r] = most[r];
        }
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int r = Tile::row(e), c = Tile::column(n, e);
                float p = score.sums[n][e] <= never ? 0.f : s.exponential(score.sums[n][e], top[e / 2]);
                sum[e / 2] += p;
                if (s.dropout.threshold && key0 + c < s.S && query0 + r < s.T)
                    p = s.dropout(p, s.element(head, query0 + r, key0 + c));
                P[r * wide + c] = from_float<T>(p);
            }
#pragma unroll
        for (int r = 0; r < 2; ++r)
            total[r] = total[r] * fade[r] + over_row(sum[r], [](float x, float y) { return x + y; });
#pragma unroll
        for (int i = 0; i < tiles; ++i) {
#pragma unroll
            for (int n = 0; n < 8; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e) sums.tile[i].sums[n][e] *= fade[e / 2];
            const T* values = v + b * s.v.b + h * s.v.h;
            add_staged_product<Math>(sums.tile[i], P, held, [&](int d, int c) {
                d += i * side;
                return d < s.D && key0 + c < s.S ? values[(key0 + c) * s.v.t + d] : from_float<T>(0.f);
            });
        }
    }
#pragma unroll
    for (int i = 0; i < tiles; ++i)
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int d = Tile::column(n, e) + i * side;
                const int64_t query = query0 + Tile::row(e);
                if (query >= s.T || d >= s.D) continue;
                const float x = sums.tile[i].sums[n][e];
                out[((b * s.T + query) * s.H + h) * s.D + d] =
                    from_float<T>(total[e / 2] == 0.f ? 0.f : x / total[e / 2]);
            }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int64_t query = query0 + Tile::row(2 * r);
        if (threadIdx.x % 4 == 0 && query < s.T) {
            float* peak = peaks + (head * s.T + query) * 2;
            peak[0] = total[r] == 0.f ? 0.f : top[r];
            peak[1] = total[r];
        }
    }
}

// What both backward kernels need of a query: its largest score, 1 / the sum beneath it (0 where it sees no key), and
// sum_d grad * out.
struct QueryFacts {
    float largest, share, along;
};

template <class T>
DEVICE QueryFacts query_facts(const T* grad, const T* out, const float* peaks, int64_t head, int64_t query,
                              const Attention& s) {
    if (query >= s.T) return {0.f, 0.f, 0.f};
    const int64_t at = ((head / s.H * s.T + query) * s.H + head % s.H) * s.D;
    float along = 0.f;
    for (int d = 0; d < s.D; ++d) along += to_float(grad[at + d]) * to_float(out[at + d]);
    const float* peak = peaks + (head * s.T + query) * 2;
    return {peak[0], peak[1] == 0.f ? 0.f : 1.f / peak[1], along};
}

template <class Math, int tiles, class T = typename Math::Number>
KERNEL void attention_bwd_q_kernel(const T* grad, const T* out, const float* peaks, const T* q, const T* k, const T* v,
                                   T* grad_q, Attention s) {
    constexpr int wide = pitch<T>(side);
    SHARED Operands<T> held;
    alignas(16) SHARED T P[side * wide];
    SHARED QueryFacts facts[side];
    const int64_t blocks = (s.T + side - 1) / side, head = blockIdx.x / blocks, b = head / s.H, h = head % s.H;
    const int64_t query0 = blockIdx.x % blocks * side;
    const int64_t own = (b * s.T * s.H + h) * s.D, step = int64_t(s.H) * s.D;
    const HeadRows<T> queries{q + b * s.q.b + h * s.q.h, s.q.t, query0, s.T};
    const HeadRows<T> grads{grad + own, step, query0, s.T};
    if (int(threadIdx.x) < side) facts[threadIdx.x] = query_facts(grad, out, peaks, head, query0 + threadIdx.x, s);
    Wide<tiles> sums;
    for (int64_t key0 = 0; key0 < s.S; key0 += side) {
        const T* key_data = k + b * s.k.b + h * s.k.h;
        Tile score, dw;
        add_rows_product<Math>(score, held, s.D, queries, HeadRows<T>{key_data, s.k.t, key0, s.S});
        add_rows_product<Math>(dw, held, s.D, grads, HeadRows<T>{v + b * s.v.b + h * s.v.h, s.v.t, key0, s.S});
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int r = Tile::row(e), c = Tile::column(n, e);
                float ds = 0.f;
                if (s.sees(b, query0 + r, key0 + c)) {
                    const float w = s.exponential(score.sums[n][e] * s.sign(), facts[r].largest) * facts[r].share;
                    const float g = s.dropout(dw.sums[n][e], s.element(head, query0 + r, key0 + c));
                    ds = w * (g - facts[r].along) * s.scale;
                }
                P[r * wide + c] = from_float<T>(ds);
            }
#pragma unroll
        for (int i = 0; i < tiles; ++i)
            add_staged_product<Math>(sums.tile[i], P, held, [&](int d, int c) {
                d += i * side;
                return d < s.D && key0 + c < s.S ? key_data[(key0 + c) * s.k.t + d] : from_float<T>(0.f);
            });
    }
#pragma unroll
    for (int i = 0; i < tiles; ++i)
        sums.tile[i].each([&](float x, int r, int d) {
            d += i * side;
            if (query0 + r < s.T && d < s.D) grad_q[own + (query0 + r) * step + d] = from_float<T>(x);
        });
}

// Rows are keys, columns queries.
template <class Math, int tiles, class T = typename Math::Number>
KERNEL void attention_bwd_kv_kernel(const T* grad, const T* out, const float* peaks, const T* q, const T* k, const T* v,
                                    T* grad_k, T* grad_v, Attention s) {
    constexpr int wide = pitch<T>(side);
    SHARED Operands<T> held;
    alignas(16) SHARED T P[side * wide];
    SHARED QueryFacts facts[side];
    const int64_t blocks = (s.S + side - 1) / side, head = blockIdx.x / blocks, b = head / s.H, h = head % s.H;
    const int64_t key0 = blockIdx.x % blocks * side;
    const int64_t own = (b * s.T * s.H + h) * s.D, step = int64_t(s.H) * s.D;
    const HeadRows<T> keys{k + b * s.k.b + h * s.k.h, s.k.t, key0, s.S};
    const HeadRows<T> values{v + b * s.v.b + h * s.v.h, s.v.t, key0, s.S};
    const T* query_data = q + b * s.q.b + h * s.q.h;
    Wide<tiles> sums_k, sums_v;
    for (int64_t query0 = 0; query0 < s.T; query0 += side) {
        sync();
        if (int(threadIdx.x) < side) facts[threadIdx.x] = query_facts(grad, out, peaks, head, query0 + threadIdx.x, s);
        Tile score, dw;
        add_rows_product<Math>(score, held, s.D, keys, HeadRows<T>{query_data, s.q.t, query0, s.T});
        add_rows_product<Math>(dw, held, s.D, values, HeadRows<T>{grad + own, step, query0, s.T});
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const int r = Tile::row(e), c = Tile::column(n, e);
                float dropped = 0.f, ds = 0.f;
                if (s.sees(b, query0 + c, key0 + r)) {
                    const int64_t element = s.element(head, query0 + c, key0 + r);
                    const float w = s.exponential(score.sums[n][e] * s.sign(), facts[c].largest) * facts[c].share;
                    const bool keep = !s.dropout.threshold || s.dropout.keeps(element);
                    dropped = keep ? w * s.dropout.factor : 0.f;
                    ds = w * ((keep ? dw.sums[n][e] * s.dropout.factor : 0.f) - facts[c].along) * s.scale;
                }
                P[r * wide + c] = from_float<T>(dropped);
                score.sums[n][e] = ds;
            }
#pragma unroll
        for (int i = 0; i < tiles; ++i)
            add_staged_product<Math>(sums_v.tile[i], P, held, [&](int d, int c) {
                d += i * side;
                return d < s.D && query0 + c < s.T ? grad[own + (query0 + c) * step + d] : from_float<T>(0.f);
            });
        score.each([&](float x, int r, int c) { P[r * wide + c] = from_float<T>(x); });
#pragma unroll
        for (int i = 0; i < tiles; ++i)
            add_staged_product<Math>(sums_k.tile[i], P, held, [&](int d, int c) {
                d += i * side;
                return d < s.D && query0 + c < s.T ? query_data[(query0 + c) * s.q.t + d] : from_float<T>(0.f);
            });
    }
    const int64_t to = (b * s.S * s.H + h) * s.D;
#pragma unroll
    for (int i = 0; i < tiles; ++i) {
        sums_k.tile[i].each([&](float x, int r, int d) {
            d += i * side;
            if (key0 + r < s.S && d < s.D) grad_k[to + (key0 + r) * step + d] = from_float<T>(x);
        });
        sums_v.tile[i].each([&](float x, int r, int d) {
            d += i * side;
            if (key0 + r < s.S && d < s.D) grad_v[to + (key0 + r) * step + d] = from_float<T>(x);
        });
    }
}

// f(Math{}, tiles of 64 dims as a constant)
template <class F>
void each_width(int math, int D, F f) {
    each_math(math, [&](auto m) {
        if (D <= side) {
            f(m, std::integral_constant<int, 1>{});
        } else {
            f(m, std::integral_constant<int, 2>{});
        }
    });
}

void temporal_attention_cuda(const void* stream, int math, const void* q, const void* k, const void* v,
                             const uint8_t* padding, void* out, float* peaks, const int64_t* seed, int64_t T, int64_t S,
                             int H, int D, int64_t q0, int64_t q1, int64_t q2, int64_t k0, int64_t k1, int64_t k2,
                             int64_t v0, int64_t v1, int64_t v2, float scale, int64_t threshold, float factor,
                             int64_t B, int causal) {
    const HeadStrides qs{q0, q1, q2}, ks{k0, k1, k2}, vs{v0, v1, v2};
    const DropoutMask dropout = dropout_mask(seed, 0, threshold, factor);
    const Attention s{B, T, S, H, D, qs, ks, vs, padding, scale, causal != 0, dropout};
    each_width(math, D, [&](auto m, auto tiles) {
        using E = typename decltype(m)::Number;
        const auto in = [](const void* p) { return static_cast<const E*>(p); };
        launch(attention_fwd_kernel<decltype(m), decltype(tiles)::value>, Grid{blocks_for(T, side) * B * H},
               Tile::threads, stream, in(q), in(k), in(v), static_cast<E*>(out), peaks, s);
    });
}
POSEKERNELS_KERNEL(temporal_attention_cuda)

void temporal_attention_backward_cuda(const void* stream, int math, const void* grad, const void* out,
                                      const float* peaks, const void* q, const void* k, const void* v,
                                      const uint8_t* padding, void* grad_q, void* grad_k, void* grad_v,
                                      const int64_t* seed, int64_t T, int64_t S, int H, int D, int64_t q0, int64_t q1,
                                      int64_t q2, int64_t k0, int64_t k1, int64_t k2, int64_t v0, int64_t v1,
                                      int64_t v2, float scale, int64_t threshold, float factor, int64_t B, int causal) {
    const HeadStrides qs{q0, q1, q2}, ks{k0, k1, k2}, vs{v0, v1, v2};
    const DropoutMask dropout = dropout_mask(seed, 0, threshold, factor);
    const Attention s{B, T, S, H, D, qs, ks, vs, padding, scale, causal != 0, dropout};
    each_width(math, D, [&](auto m, auto tiles) {
        using E = typename decltype(m)::Number;
        const auto in = [](const void* p) { return static_cast<const E*>(p); };
        launch(attention_bwd_q_kernel<decltype(m), decltype(tiles)::value>, Grid{blocks_for(T, side) * B * H},
               Tile::threads, stream, in(grad), in(out), peaks, in(q), in(k), in(v), static_cast<E*>(grad_q), s);
        launch(attention_bwd_kv_kernel<decltype(m), decltype(tiles)::value>, Grid{blocks_for(S, side) * B * H},
               Tile::threads, stream, in(grad), in(out), peaks, in(q), in(k), in(v), static_cast<E*>(grad_k),
               static_cast<E*>(grad_v), s);
    });
}
POSEKERNELS_KERNEL(temporal_attention_backward_cuda)

POSEKERNELS_END
