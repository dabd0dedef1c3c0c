// Rows of C values, one after the other; see posekernels/ops/annotated_norm/README.md.
#include "posekernels/dropout.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN
namespace {

constexpr int64_t task_rows = 32;

struct Moments {
    float mean, std;
};

// Two passes: the deviation from the mean is what is squared, so a large mean costs no digits.
inline Moments moments(const float* x, int64_t C) {
    Vec s0{}, s1{};
    int64_t c = 0;
    for (; c + 2 * lanes <= C; c += 2 * lanes) s0 = s0 + load(x + c), s1 = s1 + load(x + c + lanes);
    for (; c < C; c += lanes) s0 = s0 + load(x + c, C - c);
    const float mean = sum(s0 + s1) / static_cast<float>(C);
    s0 = s1 = Vec{};
    for (c = 0; c + lanes <= C; c += lanes) {
        const Vec d = load(x + c) - mean;
        s0 = s0 + d * d;
    }
    float squares = sum(s0);
    for (; c < C; ++c) squares += (x[c] - mean) * (x[c] - mean);
    return {mean, __builtin_sqrtf(squares / static_cast<float>(C - 1))};
}

}  // namespace

// y = norm(total), total = dropout(x) + residual; without a residual total is x and is not written.
void annotated_norm(const float* x, const float* residual, const float* gain, const float* shift, float* y,
                    float* total, int64_t N, int64_t C, float eps, int64_t seed, int64_t threshold, float factor) {
    const Dropout dropout{static_cast<uint64_t>(seed), 0, static_cast<uint32_t>(threshold), factor};
    parallel_for((N + task_rows - 1) / task_rows, [&](int64_t task) {
        Scratch scratch;
        auto* bits = static_cast<uint64_t*>(scratch.bytes(8 * static_cast<size_t>(keep_words(C))));
        for (int64_t n = task * task_rows; n < N && n < (task + 1) * task_rows; ++n) {
            const float* row = x + n * C;
            if (residual) {
                float* sums = total + n * C;
                if (dropout) {
                    drop_row(dropout, n * C, C, row, sums, bits);
                    row = sums;
                }
                for (int64_t c = 0; c < C; c += lanes)
                    store(sums + c, load(row + c, C - c) + load(residual + n * C + c, C - c), C - c);
                row = sums;
            }
            const Moments m = moments(row, C);
            const float inverse = 1.0f / (m.std + eps);
            for (int64_t c = 0; c < C; c += lanes) {
                const Vec unit = (load(row + c, C - c) - m.mean) * inverse;
                store(y + n * C + c, unit * load(gain + c, C - c) + load(shift + c, C - c), C - c);
            }
        }
    });
}
POSEKERNELS_KERNEL(annotated_norm)

// Gradients of x, residual [N, C], gain, shift [C]; any may be null. grad_total, of the other output, may be null.
void annotated_norm_backward(const float* grad, const float* grad_total, const float* total, const float* gain,
                             float* grad_x, float* grad_residual, float* grad_gain, float* grad_shift, int64_t N,
                             int64_t C, float eps, int64_t seed, int64_t threshold, float factor) {
    const Dropout dropout{static_cast<uint64_t>(seed), 0, static_cast<uint32_t>(threshold), factor};
    // Sums over rows go through one partial sum per task, so that they do not depend on the number of threads.
    const int64_t most = 16, rows = (N + most - 1) / most < task_rows ? task_rows : (N + most - 1) / most;
    const int64_t tasks = (N + rows - 1) / rows;
    Scratch outer;
    float* partial = outer.floats(tasks * 2 * C);
    parallel_for(tasks, [&](int64_t task) {
        Scratch scratch;
        auto* bits = static_cast<uint64_t*>(scratch.bytes(8 * static_cast<size_t>(keep_words(C))));
        float* own = scratch.floats(C);
        float *sum_gain = partial + task * 2 * C, *sum_shift = sum_gain + C;
        for (int64_t c = 0; c < 2 * C; ++c) sum_gain[c] = 0.0f;
        for (int64_t n = task * rows; n < N && n < (task + 1) * rows; ++n) {
            const float *t = total + n * C, *g = grad + n * C;
            const Moments m = moments(t, C);
            const float inverse = 1.0f / (m.std + eps);
            Vec sum_g{}, along{};
            for (int64_t c = 0; c < C; c += lanes) {
                const Vec gc = load(g + c, C - c), d = load(t + c, C - c) - m.mean;
                const Vec weighted = gc * load(gain + c, C - c);
                sum_g = sum_g + weighted;
                along = along + weighted * d;  // lanes past C: weighted is 0
                store(sum_gain + c, load(sum_gain + c, C - c) + gc * d * inverse, C - c);
                store(sum_shift + c, load(sum_shift + c, C - c) + gc, C - c);
            }
            if (!grad_x && !grad_residual) continue;
            const float mean_g = sum(sum_g) / static_cast<float>(C);
            // a constant row: the std counts as a constant
            const float slope =
                m.std > 0.0f || m.std != m.std ? sum(along) * inverse / (static_cast<float>(C - 1) * m.std) : 0.0f;
            float* to = grad_residual ? grad_residual + n * C : dropout ? own : grad_x + n * C;
            for (int64_t c = 0; c < C; c += lanes) {
                const Vec weighted = load(g + c, C - c) * load(gain + c, C - c), d = load(t + c, C - c) - m.mean;
                Vec v = (weighted - mean_g - d * slope) * inverse;
                if (grad_total) v = v + load(grad_total + n * C + c, C - c);
                store(to + c, v, C - c);
            }
            if (!grad_x || to == grad_x + n * C) continue;
            if (dropout) {
                drop_row(dropout, n * C, C, to, grad_x + n * C, bits);
            } else {
                for (int64_t c = 0; c < C; c += lanes) store(grad_x + n * C + c, load(to + c, C - c), C - c);
            }
        }
    });
    for (int64_t c = 0; c < C; ++c) {
        float a = 0.0f, b = 0.0f;
        for (int64_t task = 0; task < tasks; ++task) {
            a += partial[task * 2 * C + c];
            b += partial[task * 2 * C + C + c];
        }
        if (grad_gain) grad_gain[c] = a;
        if (grad_shift) grad_shift[c] = b;
    }
}
POSEKERNELS_KERNEL(annotated_norm_backward)

POSEKERNELS_END
