// softmax(q k' scale) v for `lanes` (sample, head) pairs at once: no sum across lanes anywhere, so no token count or
// head width wastes any.
#pragma once

#include "posekernels/scratch.h"
#include "posekernels/side_by_side.h"
#include "posekernels/vecmath.h"

POSEKERNELS_BEGIN
namespace attention {

// One matrix per lane: row n of lane l is D numbers at base[l] + n * stride.
struct Rows {
    const float* base[lanes];
    int64_t stride;
};

struct Mask {  // may_attend[l] + n * query + m * key, or null
    const uint8_t* base[lanes];
    int64_t query, key;
};

// 1 where the query may attend, 0 elsewhere, in every lane.
POSEKERNELS_INLINE Vec allowed(const Mask& mask, int64_t n, int64_t m) {
    Vec v;
    for (int l = 0; l < lanes; ++l) v[l] = mask.base[l][n * mask.query + m * mask.key] ? 1.0f : 0.0f;
    return v;
}

inline void gather(const Rows& rows, int64_t N, int64_t D, float* out) {
    for (int64_t n = 0; n < N; ++n) side_by_side::gather(rows.base, n * rows.stride, D, out + n * D * lanes);
}

// Q, K: [N, D]; P: [N, N] receives the weights, each row divided by its sum.
inline void weights(const float* Q, const float* K, const Mask* mask, float* P, int64_t N, int64_t D, float scale) {
    side_by_side::multiply(Q, D, 1, K, 1, D, P, N, N, N, D);
    for (int64_t n = 0; n < N; ++n) {
        float* row = P + n * N * lanes;
        Vec top = splat(-__builtin_inff());
        for (int64_t m = 0; m < N; ++m) {
            Vec s = load(row + m * lanes) * scale;
            if (mask != nullptr) s = allowed(*mask, n, m) > 0.0f ? s : splat(-__builtin_inff());
            store(row + m * lanes, s);
            top = larger(s, top);  // a NaN is found below
        }
        top = top == -__builtin_inff() ? Vec{} : top;  // a query that may attend to nothing: all weights 0
        Vec total{};
        for (int64_t m = 0; m < N; ++m) {
            const Vec e = exp(load(row + m * lanes) - top);
            store(row + m * lanes, e);
            total += e;
        }
        const Vec share = 1.0f / (total == 0.0f ? splat(1.0f) : total);
        for (int64_t m = 0; m < N; ++m) store(row + m * lanes, load(row + m * lanes) * share);
    }
}

// out[l] + n * out_stride receives the result of the first `count` lanes.
inline void attend(const Rows& q, const Rows& k, const Rows& v, const Mask* mask, float* const out[lanes],
                   int64_t out_stride, int64_t N, int64_t D, float scale, int64_t count) {
    Scratch scratch;
    float* Q = scratch.floats(N * D * lanes);
    float* K = scratch.floats(N * D * lanes);
    float* P = scratch.floats(N * N * lanes);
    gather(q, N, D, Q);
    gather(k, N, D, K);
    weights(Q, K, mask, P, N, D, scale);
    float* V = K;
    gather(v, N, D, V);
    side_by_side::multiply(P, N, 1, V, D, 1, Q, D, N, D, N);
    for (int64_t n = 0; n < N; ++n) side_by_side::scatter(Q + n * D * lanes, D, out, n * out_stride, count);
}

}  // namespace attention
POSEKERNELS_END
