// Attention over frames; see posekernels/ops/temporal_attention/README.md. Queries are lanes (posekernels/frames.h); a
// whole row of scores is kept, so there is no rescaling. Heads are read where they lie in q, k and v: element
// (b, t, h, d) of each is at b * stride[0] + t * stride[1] + h * stride[2] + d.
#include "posekernels/dropout.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN
namespace {

struct Attention {
    int64_t B, T, S, H, D;
    float scale;
    bool causal;
    const uint8_t* padding;  // [B, S] or null
    Dropout dropout;

    // Keys that any query of the tile at `lane0` sees.
    int64_t keys(int64_t lane0) const {
        const int64_t last = T < lane0 + panel ? T : lane0 + panel;
        const int64_t seen = last + S - T;
        return !causal || seen > S ? S : seen < 0 ? 0 : seen;
    }
    Visible visible(int64_t b, int64_t lane0) const {
        return {padding ? padding + b * S : nullptr, causal, lane0 + S - T};
    }
    // Applies the mask of head (b, h) to a tile of weights, without the factor.
    void draw(int64_t b, int64_t h, int64_t lane0, uint32_t* masks, uint64_t* bits) const {
        const int64_t end = T - lane0 < panel ? T - lane0 : panel;
        draw_tile(dropout, ((b * H + h) * T + lane0) * S, S, 0, end, keys(lane0), masks, bits);
    }
};

POSEKERNELS_INLINE int64_t valid(int64_t T, int64_t lane0) {
    return T - lane0 < panel ? T - lane0 : panel;
}

}  // namespace

// out [B, T, H, D] contiguous; peaks [B, H, T, 2]: the largest product of a query with a key and the sum beneath it.
void temporal_attention(const float* q, const float* k, const float* v, const uint8_t* padding, float* out,
                        float* peaks, int64_t B, int64_t T, int64_t S, int64_t H, int64_t D, int64_t q0, int64_t q1,
                        int64_t q2, int64_t k0, int64_t k1, int64_t k2, int64_t v0, int64_t v1, int64_t v2, float scale,
                        int causal, int64_t seed, int64_t threshold, float factor) {
    const Attention a{B,           T,       S,
                      H,           D,       scale,
                      causal != 0, padding, {static_cast<uint64_t>(seed), 0, static_cast<uint32_t>(threshold), factor}};
    const int64_t panels = panels_of(T);
    parallel_for(B * H * panels, [&](int64_t task) {
        const int64_t b = task / panels / H, h = task / panels % H, lane0 = task % panels * panel;
        const int64_t end = valid(T, lane0), seen = a.keys(lane0);
        Scratch scratch;
        float* tile = scratch.floats(D * panel);
        float* weights = scratch.floats(S * panel);
        read_tile(q + b * q0 + lane0 * q1 + h * q2, q1, D, 0, end, tile);
        Vec inverse[2], largest[2];
        softmax_tile({k + b * k0 + h * k2, k1, 1}, seen, D, tile, scale, a.visible(b, lane0), weights, inverse,
                     largest);
        for (int64_t l = 0; l < end; ++l) {
            const float inv = inverse[l / lanes][l % lanes];
            float* peak = peaks + ((b * H + h) * T + lane0 + l) * 2;
            peak[0] = largest[l / lanes][l % lanes];
            peak[1] = inv == 0.0f ? 0.0f : 1.0f / inv;
        }
        if (a.dropout) {
            auto* masks = static_cast<uint32_t*>(scratch.bytes(4 * static_cast<size_t>(S)));
            a.draw(b, h, lane0, masks, static_cast<uint64_t*>(scratch.bytes(8 * static_cast<size_t>(keep_words(S)))));
            for (int64_t s = 0; s < seen; ++s) {
                store(weights + s * panel, keep_lanes(masks[s], load(weights + s * panel)));
                store(weights + s * panel + lanes, keep_lanes(masks[s] >> lanes, load(weights + s * panel + lanes)));
            }
            for (Vec& i : inverse) i = i * a.dropout.factor;
        }
        products_over_keys({v + b * v0 + h * v2, v1, 1}, seen, D, weights, [&](int64_t d, Vec x, Vec y) {
            store_two(tile + d * panel, x * inverse[0], y * inverse[1]);
        });
        write_tile(tile, D, 0, end, out + ((b * T + lane0) * H + h) * D, H * D);
    });
}
POSEKERNELS_KERNEL(temporal_attention)

// Gradients of q [B, T, H, D], k, v [B, S, H, D], contiguous; grad is contiguous too. The weights are computed again,
// by the same steps.
void temporal_attention_backward(const float* grad, const float* q, const float* k, const float* v,
                                 const uint8_t* padding, float* grad_q, float* grad_k, float* grad_v, int64_t B,
                                 int64_t T, int64_t S, int64_t H, int64_t D, int64_t q0, int64_t q1, int64_t q2,
                                 int64_t k0, int64_t k1, int64_t k2, int64_t v0, int64_t v1, int64_t v2, float scale,
                                 int causal, int64_t seed, int64_t threshold, float factor) {
    const Attention a{B,           T,       S,
                      H,           D,       scale,
                      causal != 0, padding, {static_cast<uint64_t>(seed), 0, static_cast<uint32_t>(threshold), factor}};
    const int64_t panels = panels_of(T), width = panels * panel + lanes;
    const float* none = nullptr;
    parallel_for(B * H, [&](int64_t task) {
        const int64_t b = task / H, h = task % H;
        Scratch scratch;
        float* q_tile = scratch.floats(D * panel);
        float* grad_tile = scratch.floats(D * panel);
        float* p = scratch.floats(S * panel);       // weights of a tile of queries
        float* dp = scratch.floats(S * panel);      // their gradients, then those of the scores
        float* all_p = scratch.floats(S * width);   // [S][T]: weights after dropout, of all queries
        float* all_ds = scratch.floats(S * width);  // [S][T]: gradients of the scores
        auto* masks = static_cast<uint32_t*>(scratch.bytes(4 * static_cast<size_t>(S)));
        auto* bits = static_cast<uint64_t*>(scratch.bytes(8 * static_cast<size_t>(keep_words(S))));
        const Strided keys{k + b * k0 + h * k2, k1, 1}, values{v + b * v0 + h * v2, v1, 1};
        const int64_t row = H * D;
        for (int64_t lane0 = 0; lane0 < T; lane0 += panel) {
            const int64_t end = valid(T, lane0), seen = a.keys(lane0), at = (b * T + lane0) * row + h * D;
            read_tile(q + b * q0 + lane0 * q1 + h * q2, q1, D, 0, end, q_tile);
            read_tile(grad + at, row, D, 0, end, grad_tile);
            Vec inverse[2], largest[2];
            softmax_tile(keys, seen, D, q_tile, scale, a.visible(b, lane0), p, inverse, largest);
            products_over_dims(values, seen, D, grad_tile, dp);
            if (a.dropout) a.draw(b, h, lane0, masks, bits);
            for (int64_t half = 0; half < 2; ++half) {
                const int64_t l0 = half * lanes;
                if (a.dropout)
                    for (int64_t s = 0; s < seen; ++s) {
                        float* g = dp + s * panel + l0;
                        store(g, keep_lanes(masks[s] >> l0, load(g) * a.dropout.factor));
                    }
                // The sum over keys of weights times their gradients: what the softmax takes off each.
                Vec sums[2] = {};
                int64_t s0 = 0;
                for (; s0 + 2 <= seen; s0 += 2)
                    for (int64_t j = 0; j < 2; ++j)
                        sums[j] += load(p + (s0 + j) * panel + l0) * load(dp + (s0 + j) * panel + l0);
                if (s0 < seen) sums[0] += load(p + s0 * panel + l0) * load(dp + s0 * panel + l0);
                const Vec along = (sums[0] + sums[1]) * inverse[half];
                for (int64_t s = 0; s < seen; ++s) {
                    const int64_t i = s * panel + l0;
                    const Vec weight = load(p + i) * inverse[half];
                    Vec dropped = weight;
                    if (a.dropout) dropped = keep_lanes(masks[s] >> l0, weight * a.dropout.factor);
                    const Vec ds = weight * (load(dp + i) - along) * scale;
                    store(all_p + s * width + lane0 + l0, dropped);
                    store(all_ds + s * width + lane0 + l0, ds);
                    store(dp + i, ds);
                }
            }
            for (int64_t s = seen; s < S; ++s)
                for (int64_t l = 0; l < panel; l += lanes) {
                    store(all_p + s * width + lane0 + l, Vec{});
                    store(all_ds + s * width + lane0 + l, Vec{});
                }
            products_over_keys(keys, seen, D, dp,
                               [&](int64_t d, Vec x, Vec y) { store_two(q_tile + d * panel, x, y); });
            write_tile(q_tile, D, 0, end, grad_q + at, row);
        }
        // The other two contract over the queries, whose rows are then what a packed panel holds.
        Scratch inner;
        float* packed = inner.floats(packed_size(T, D));
        pack(q + b * q0 + h * q2, q1, 1, T, D, packed);
        gemm_tile(all_ds, width, packed, grad_k + b * S * row + h * D, row, S, D, T, Store{});
        pack(grad + b * T * row + h * D, row, 1, T, D, packed);
        gemm_tile(all_p, width, packed, grad_v + b * S * row + h * D, row, S, D, T, Store{});
    });
}
POSEKERNELS_KERNEL(temporal_attention_backward)

POSEKERNELS_END
