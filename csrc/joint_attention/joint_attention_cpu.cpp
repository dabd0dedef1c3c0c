// joint_attention and its gradient, `lanes` (sample, head) pairs per task.
#include "posekernels/attention.h"
#include "posekernels/parallel.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN
namespace {

// [B, N, H, D] with any strides but 1 for the last.
struct View {
    const float* data;
    int64_t sample, token, head;
};

// The pairs first .. first + lanes (the last one again where there are fewer).
attention::Rows rows_of(const View& view, int64_t first, int64_t count, int64_t H) {
    attention::Rows rows;
    rows.stride = view.token;
    for (int64_t l = 0; l < lanes; ++l) {
        const int64_t pair = first + (l < count ? l : count - 1);
        rows.base[l] = view.data + pair / H * view.sample + pair % H * view.head;
    }
    return rows;
}

attention::Mask mask_of(const uint8_t* mask, int64_t sample, int64_t query, int64_t key, int64_t first, int64_t count,
                        int64_t H) {
    attention::Mask result{{}, query, key};
    for (int64_t l = 0; l < lanes && mask != nullptr; ++l)
        result.base[l] = mask + (first + (l < count ? l : count - 1)) / H * sample;
    return result;
}

void outputs_of(float* out, int64_t first, int64_t N, int64_t H, int64_t D, float* rows[lanes]) {
    for (int64_t l = 0; l < lanes; ++l) rows[l] = out + (first + l) / H * N * H * D + (first + l) % H * D;
}

}  // namespace

// q, k, v: [B, N, H, D] of strides (sample, token, head, 1); mask: bytes of strides (sample, query, key), or null;
// out: [B, N, H, D] contiguous.
void joint_attention(const float* q, int64_t q_sample, int64_t q_token, int64_t q_head, const float* k,
                     int64_t k_sample, int64_t k_token, int64_t k_head, const float* v, int64_t v_sample,
                     int64_t v_token, int64_t v_head, const uint8_t* mask, int64_t m_sample, int64_t m_query,
                     int64_t m_key, float* out, int64_t B, int64_t N, int64_t H, int64_t D, float scale) {
    const int64_t pairs = B * H, groups = (pairs + lanes - 1) / lanes, each = groups > 64 ? 4 : 1;
    parallel_for((groups + each - 1) / each, [&](int64_t task) {
        const int64_t last = (task + 1) * each < groups ? (task + 1) * each : groups;
        for (int64_t group = task * each; group < last; ++group) {
            const int64_t first = group * lanes, count = pairs - first < lanes ? pairs - first : lanes;
            const auto allowed = mask_of(mask, m_sample, m_query, m_key, first, count, H);
            float* rows[lanes];
            outputs_of(out, first, N, H, D, rows);
            attention::attend(rows_of({q, q_sample, q_token, q_head}, first, count, H),
                              rows_of({k, k_sample, k_token, k_head}, first, count, H),
                              rows_of({v, v_sample, v_token, v_head}, first, count, H), mask ? &allowed : nullptr, rows,
                              H * D, N, D, scale, count);
        }
    });
}
POSEKERNELS_KERNEL(joint_attention)

// The gradients, [B, N, H, D] contiguous like grad. The weights are computed again.
void joint_attention_backward(const float* grad, const float* q, int64_t q_sample, int64_t q_token, int64_t q_head,
                              const float* k, int64_t k_sample, int64_t k_token, int64_t k_head, const float* v,
                              int64_t v_sample, int64_t v_token, int64_t v_head, const uint8_t* mask, int64_t m_sample,
                              int64_t m_query, int64_t m_key, float* grad_q, float* grad_k, float* grad_v, int64_t B,
                              int64_t N, int64_t H, int64_t D, float scale) {
    using side_by_side::multiply;
    const int64_t pairs = B * H;
    parallel_for((pairs + lanes - 1) / lanes, [&](int64_t group) {
        const int64_t first = group * lanes, count = pairs - first < lanes ? pairs - first : lanes;
        const auto allowed = mask_of(mask, m_sample, m_query, m_key, first, count, H);
        Scratch scratch;
        float *Q = scratch.floats(N * D * lanes), *K = scratch.floats(N * D * lanes),
              *V = scratch.floats(N * D * lanes);
        float *G = scratch.floats(N * D * lanes), *out = scratch.floats(N * D * lanes);
        float *P = scratch.floats(N * N * lanes), *dS = scratch.floats(N * N * lanes);
        attention::gather(rows_of({q, q_sample, q_token, q_head}, first, count, H), N, D, Q);
        attention::gather(rows_of({k, k_sample, k_token, k_head}, first, count, H), N, D, K);
        attention::gather(rows_of({v, v_sample, v_token, v_head}, first, count, H), N, D, V);
        attention::gather(rows_of({grad, N * H * D, H * D, D}, first, count, H), N, D, G);
        attention::weights(Q, K, mask ? &allowed : nullptr, P, N, D, scale);
        multiply(G, D, 1, V, 1, D, dS, N, N, N, D);
        for (int64_t n = 0; n < N; ++n) {
            float *p = P + n * N * lanes, *d = dS + n * N * lanes;
            // A NaN where a query may not look is none of its own, and its own goes nowhere else.
            const auto masked = [&](float* row) {
                for (int64_t m = 0; m < N && mask; ++m)
                    store(row + m * lanes, attention::allowed(allowed, n, m) > 0.0f ? load(row + m * lanes) : Vec{});
            };
            masked(p);
            masked(d);
            Vec mean{};
            for (int64_t m = 0; m < N; ++m) mean += load(p + m * lanes) * load(d + m * lanes);
            for (int64_t m = 0; m < N; ++m)
                store(d + m * lanes, load(p + m * lanes) * (load(d + m * lanes) - mean) * scale);
            masked(d);
        }
        float* rows[lanes];
        const auto put = [&](float* target) {
            outputs_of(target, first, N, H, D, rows);
            for (int64_t n = 0; n < N; ++n) side_by_side::scatter(out + n * D * lanes, D, rows, n * H * D, count);
        };
        multiply(dS, N, 1, K, D, 1, out, D, N, D, N);
        put(grad_q);
        multiply(dS, 1, N, Q, D, 1, out, D, N, D, N);
        put(grad_k);
        multiply(P, 1, N, G, D, 1, out, D, N, D, N);
        put(grad_v);
    });
}
POSEKERNELS_KERNEL(joint_attention_backward)

POSEKERNELS_END
