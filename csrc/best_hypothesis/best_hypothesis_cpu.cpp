// best_hypothesis: mean joint distance of every hypothesis, and the least; and its gradient.
#include "posekernels/parallel.h"
#include "posekernels/registry.h"
#include "posekernels/scratch.h"
#include "posekernels/vec.h"

POSEKERNELS_BEGIN
namespace {

// `lanes` poses of n floats each, side by side: out[i * lanes + l] = source[l * stride + i], 0 beyond `count` poses.
void side_by_side(const float* source, int64_t stride, int64_t count, int64_t n, float* out) {
    for (int64_t l = 0; l < lanes; ++l) {
        const float* row = source + l * stride;
        if (l < count) {
            for (int64_t i = 0; i < n; ++i) out[i * lanes + l] = row[i];
        } else {
            for (int64_t i = 0; i < n; ++i) out[i * lanes + l] = 0.0f;
        }
    }
}

}  // namespace

// poses [B, S, J, 3], target [B, J, 3] -> errors [B, S], error [B], index [B].
void best_hypothesis(const float* poses, const float* target, float* error, int64_t* index, float* errors, int64_t B,
                     int64_t S, int64_t J) {
    const int64_t n = 3 * J;
    parallel_for(B, [&](int64_t b) {
        Scratch scratch;
        float* p = scratch.floats(n * lanes);
        const float* t = target + b * n;
        float* e = errors + b * S;
        for (int64_t s = 0; s < S; s += lanes) {
            side_by_side(poses + (b * S + s) * n, n, S - s, n, p);
            Vec sum{};
            for (int64_t j = 0; j < J; ++j) {
                const Vec x = load(p + 3 * j * lanes) - t[3 * j];
                const Vec y = load(p + (3 * j + 1) * lanes) - t[3 * j + 1];
                const Vec z = load(p + (3 * j + 2) * lanes) - t[3 * j + 2];
                sum += square_root(x * x + y * y + z * z);
            }
            store(e + s, sum / static_cast<float>(J), S - s);
        }
        int64_t best = 0;
        for (int64_t s = 1; s < S && e[best] == e[best]; ++s)
            if (e[s] < e[best] || e[s] != e[s]) best = s;
        error[b] = e[best];
        index[b] = best;
    });
}
POSEKERNELS_KERNEL(best_hypothesis)

// grad [B, S] of errors -> grad_poses [B, S, J, 3], grad_target [B, J, 3].
void best_hypothesis_backward(const float* grad, const float* poses, const float* target, float* grad_poses,
                              float* grad_target, int64_t B, int64_t S, int64_t J) {
    const int64_t n = 3 * J;
    parallel_for(B, [&](int64_t b) {
        const float* t = target + b * n;
        float* gt = grad_target + b * n;
        for (int64_t i = 0; i < n; ++i) gt[i] = 0.0f;
        for (int64_t s = 0; s < S; ++s) {
            const float* p = poses + (b * S + s) * n;
            float* gp = grad_poses + (b * S + s) * n;
            const float share = grad[b * S + s] / static_cast<float>(J);
            for (int64_t i = 0; i < n; i += 3) {
                const float x = p[i] - t[i], y = p[i + 1] - t[i + 1], z = p[i + 2] - t[i + 2];
                const float distance = __builtin_sqrtf(x * x + y * y + z * z);
                const float scale = distance == 0.0f ? 0.0f : 1.0f / distance;  // NaN stays
                const float d[3] = {x, y, z};
                for (int c = 0; c < 3; ++c) {
                    gp[i + c] = share * (d[c] * scale);
                    gt[i + c] -= gp[i + c];
                }
            }
        }
    });
}
POSEKERNELS_KERNEL(best_hypothesis_backward)

POSEKERNELS_END
