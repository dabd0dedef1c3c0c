// merge_hypotheses: mirror the second view back, average, root to 0; and its gradient.
#include "posekernels/parallel.h"
#include "posekernels/registry.h"
#include "posekernels/scratch.h"

POSEKERNELS_BEGIN
namespace {

constexpr int64_t poses_each = 512;  // about 100 KB of a task's reads

}  // namespace

// poses [N, views, J, 3] -> out [N, J, 3]; mirrored [J].
void merge_hypotheses(const float* poses, const int64_t* mirrored, float* out, int64_t N, int64_t views, int64_t J,
                      int64_t root) {
    parallel_for((N + poses_each - 1) / poses_each, [&](int64_t task) {
        const int64_t last = (task + 1) * poses_each < N ? (task + 1) * poses_each : N;
        for (int64_t n = task * poses_each; n < last; ++n) {
            const float *first = poses + n * views * J * 3, *second = first + J * 3;
            float* y = out + n * J * 3;
            for (int64_t j = 0; j < J; ++j) {
                if (views == 2) {
                    const float* m = second + 3 * mirrored[j];
                    y[3 * j] = (first[3 * j] - m[0]) * 0.5f;
                    y[3 * j + 1] = (first[3 * j + 1] + m[1]) * 0.5f;
                    y[3 * j + 2] = (first[3 * j + 2] + m[2]) * 0.5f;
                } else {
                    for (int i = 0; i < 3; ++i) y[3 * j + i] = first[3 * j + i];
                }
            }
            if (root >= 0) y[3 * root] = y[3 * root + 1] = y[3 * root + 2] = 0.0f;
        }
    });
}
POSEKERNELS_KERNEL(merge_hypotheses)

// grad [N, J, 3] -> out [N, views, J, 3]. The mirror is its own inverse, so it is its own adjoint.
void merge_hypotheses_backward(const float* grad, const int64_t* mirrored, float* out, int64_t N, int64_t views,
                               int64_t J, int64_t root) {
    const float share = views == 2 ? 0.5f : 1.0f;
    parallel_for((N + poses_each - 1) / poses_each, [&](int64_t task) {
        const int64_t last = (task + 1) * poses_each < N ? (task + 1) * poses_each : N;
        for (int64_t n = task * poses_each; n < last; ++n) {
            const float* g = grad + n * J * 3;
            float *first = out + n * views * J * 3, *second = first + J * 3;
            for (int64_t j = 0; j < J; ++j) {
                const float keep = j == root ? 0.0f : share;
                for (int i = 0; i < 3; ++i) {
                    const float value = j == root ? 0.0f : keep * g[3 * j + i];  // not 0 * NaN
                    first[3 * j + i] = value;
                    if (views == 2) second[3 * mirrored[j] + i] = i == 0 ? -value : value;
                }
            }
        }
    });
}
POSEKERNELS_KERNEL(merge_hypotheses_backward)

POSEKERNELS_END
