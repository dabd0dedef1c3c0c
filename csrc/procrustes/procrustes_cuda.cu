// procrustes on CUDA: a pose per thread, its joints in shared memory. The math is in posekernels/procrustes.h.
#include "posekernels/gpu_poses.h"
#include "posekernels/procrustes.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN

constexpr int poses_each = 64;  // threads of a block
constexpr int window_floats = poses_each * window_pitch;

// This thread's pose and its target, joint by joint. Windows are loaded by all threads together, and once where the
// whole skeleton is one. Hypotheses of one target read it where it lies: neighbours read the same number.
template <class T>
struct Pair {
    float *P, *Q;  // windows of all poses, and of all targets where each pose has its own
    const T *poses, *targets, *own_target;
    int64_t first;
    int rows, J;
    bool each;  // a target per pose
    float* G = nullptr;
    const T* grads = nullptr;  // of the aligned poses, where there are any
    int held = -1;

    DEVICE Pair(float* P, float* Q, const T* poses, const T* target, int64_t N, int64_t S, int J)
        : P(P), Q(Q), first(blockIdx.x * int64_t(poses_each)), J(J), each(S == 1) {
        rows = N - first < poses_each ? int(N - first) : poses_each;
        this->poses = poses + first * 3 * J;
        targets = target + first * 3 * J;
        const int64_t mine = there() ? first + threadIdx.x : first;
        own_target = target + (each ? mine : mine / S) * 3 * J;
    }
    DEVICE void also(float* window_of_grads, const T* grad_aligned) {
        G = window_of_grads;
        if (grad_aligned) grads = grad_aligned + first * 3 * J;
    }
    DEVICE bool there() const { return int(threadIdx.x) < rows; }
    DEVICE void show(int start) {
        if (held == start) return;
        sync();
        stage_joints(P, poses, rows, J, start, threadIdx.x, poses_each);
        if (each) stage_joints(Q, targets, rows, J, start, threadIdx.x, poses_each);
        if (grads) stage_joints(G, grads, rows, J, start, threadIdx.x, poses_each);
        sync();
        held = start;
    }
    // f(place in a window, p, t) for every joint, window by window; then after(first joint of the window).
    template <class F, class G>
    DEVICE void walk(F f, G after) {
        for (int start = 0; start < J; start += window) {
            show(start);
            const int joints = J - start < window ? J - start : window;
            for (int j = 0; there() && j < joints; ++j) {
                const int place = threadIdx.x * window_pitch + 3 * j;
                float p[3], t[3];
#pragma unroll
                for (int c = 0; c < 3; ++c) {
                    p[c] = P[place + c];
                    t[c] = each ? Q[place + c] : to_float(own_target[3 * (start + j) + c]);
                }
                f(place, p, t);
            }
            after(start);
        }
    }
    template <class F>
    DEVICE void walk(F f) {
        walk(f, [](int) {});
    }
};

// Where the numbers of a pose lie, coordinate by coordinate.
struct Extent {
    float low[3] = {INFINITY, INFINITY, INFINITY}, high[3] = {-INFINITY, -INFINITY, -INFINITY};

    DEVICE void take(const float* p) {
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            low[c] = p[c] < low[c] ? p[c] : low[c];
            high[c] = p[c] > high[c] ? p[c] : high[c];
        }
    }
    // The power of two at or below the largest number without the mean; 1 where that is 0, infinite or denormal.
    DEVICE float unit(const float* mean) const {
        float top = 0.f;
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            const float a = high[c] - mean[c], b = mean[c] - low[c], most = a > b ? a : b;
            top = most > top ? most : top;
        }
        const uint32_t exponent = bits_of(top) & 0x7F800000u;
        return floats_of(exponent == 0u || exponent == 0x7F800000u ? 0x3F800000u : exponent);
    }
};

// Pose and target are divided by a power of two each that makes them about 1: squares and cubes of what they are would
// leave the numbers a float has.
struct Alignment {
    float mean_p[3] = {}, mean_t[3] = {}, unit_p, unit_t, M[9] = {}, R[9], square = 0.f, scale;

    template <class T>
    DEVICE explicit Alignment(Pair<T>& pair) {
        Extent extent_p, extent_t;
        pair.walk([&](int, const float* p, const float* t) {
            extent_p.take(p);
            extent_t.take(t);
#pragma unroll
            for (int c = 0; c < 3; ++c) {
                mean_p[c] += p[c];
                mean_t[c] += t[c];
            }
        });
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            mean_p[c] /= float(pair.J);
            mean_t[c] /= float(pair.J);
        }
        unit_p = extent_p.unit(mean_p);
        unit_t = extent_t.unit(mean_t);
        pair.walk([&](int, float* p, float* t) {
            centre(p, t);
#pragma unroll
            for (int a = 0; a < 3; ++a) {
                square += p[a] * p[a];
#pragma unroll
                for (int b = 0; b < 3; ++b) M[3 * a + b] += p[a] * t[b];
            }
        });
        procrustes::fit<float, ScalarMath>(M, square, R, scale);
    }
    DEVICE void centre(float* p, float* t) const {
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            p[c] = (p[c] - mean_p[c]) * (1.f / unit_p);
            t[c] = (t[c] - mean_t[c]) * (1.f / unit_t);
        }
    }
    // Coordinate c of a p R.
    DEVICE float turned(const float* p, int c) const {
        return scale * (p[0] * R[c] + p[1] * R[3 + c] + p[2] * R[6 + c]);
    }
};

// poses [N, J, 3], target [N / S, J, 3] -> aligned [N, J, 3] (or null), errors [N]. grid (blocks of poses_each), as
// many to a multiprocessor as its shared memory holds.
template <class T>
KERNEL_OF(poses_each, 8)
void procrustes_fwd_kernel(const T* poses, const T* target, T* aligned, T* errors, int64_t N, int64_t S, int J) {
    alignas(16) SHARED float P[window_floats];
    alignas(16) SHARED float Q[window_floats];
    Pair<T> pair(P, Q, poses, target, N, S, J);
    const Alignment fit(pair);
    float error = 0.f;
    pair.walk(
        [&](int place, float* p, float* t) {
            fit.centre(p, t);
            float square = 0.f;
#pragma unroll
            for (int c = 0; c < 3; ++c) {
                const float y = fit.turned(p, c), d = y - t[c];
                square += d * d;
                P[place + c] = y * fit.unit_t + fit.mean_t[c];
            }
            error += sqrtf(square);
        },
        [&](int start) {
            if (!aligned) return;
            sync();
            unstage_joints(P, aligned + pair.first * 3 * J, pair.rows, J, start, threadIdx.x, poses_each);
        });
    if (pair.there()) errors[pair.first + threadIdx.x] = from_float<T>(error / float(J) * fit.unit_t);
}

// Gradients of poses and, pose by pose, of target: grad_target [N, J, 3] float32. grad_aligned [N, J, 3] and
// grad_errors [N] may be null.
template <class T>
KERNEL_WIDE void procrustes_bwd_kernel(const T* grad_aligned, const T* grad_errors, const T* poses, const T* target,
                                       T* grad_poses, float* grad_target, int64_t N, int64_t S, int J) {
    alignas(16) SHARED float P[window_floats];
    alignas(16) SHARED float Q[window_floats];
    alignas(16) SHARED float G[window_floats];
    Pair<T> pair(P, Q, poses, target, N, S, J);
    pair.also(G, grad_aligned);
    const Alignment fit(pair);
    const float share = grad_errors && pair.there() ? to_float(grad_errors[pair.first + threadIdx.x]) / float(J) : 0.f;
    // g: all that reaches the aligned joint; direct: what of it comes from the distance.
    const auto reaching = [&](int place, const float* p, const float* t, float* direct, float* g) {
        float square = 0.f;
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            direct[c] = fit.turned(p, c) - t[c];
            square += direct[c] * direct[c];
        }
        const float distance = sqrtf(square), weight = distance == 0.f ? 0.f : share / distance;
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            direct[c] *= weight;
            g[c] = direct[c] + (grad_aligned ? G[place + c] : 0.f);
        }
    };
    float H[9] = {}, mean_g[3] = {};
    pair.walk([&](int place, float* p, float* t) {
        fit.centre(p, t);
        float direct[3], g[3];
        reaching(place, p, t, direct, g);
#pragma unroll
        for (int a = 0; a < 3; ++a) {
            mean_g[a] += g[a] / float(J);
#pragma unroll
            for (int b = 0; b < 3; ++b) H[3 * a + b] += p[a] * g[b];
        }
    });
    float to_M[9], grad_square;
    procrustes::fit_gradient<float, ScalarMath>(fit.M, fit.square, fit.R, fit.scale, H, to_M, grad_square);
    // G is in the target's own unit; per unit of P it counts as often as that unit has the target's.
    const float to_p = fit.unit_t / fit.unit_p;
    // P and T are centred, so their parts sum to nil over the joints: what is left to centre is G's.
    pair.walk(
        [&](int place, float* p, float* t) {
            fit.centre(p, t);
            float direct[3], g[3];
            reaching(place, p, t, direct, g);
#pragma unroll
            for (int i = 0; i < 3; ++i) {
                float gp = 2.f * grad_square * p[i], gt = mean_g[i] - direct[i];  // the distance meets T itself
#pragma unroll
                for (int k = 0; k < 3; ++k) {
                    gp += fit.scale * (g[k] - mean_g[k]) * fit.R[3 * i + k] + t[k] * to_M[3 * i + k];
                    gt += p[k] * to_M[3 * k + i];
                }
                P[place + i] = gp * to_p;
                G[place + i] = gt;
            }
        },
        [&](int start) {
            sync();
            const int64_t at = pair.first * 3 * J;
            unstage_joints(P, grad_poses + at, pair.rows, J, start, threadIdx.x, poses_each);
            unstage_joints(G, grad_target + at, pair.rows, J, start, threadIdx.x, poses_each);
        });
}

void procrustes_cuda(const void* stream, int math, const void* poses, const void* target, void* aligned, void* errors,
                     int64_t N, int64_t S, int J) {
    each_math(math, [&](auto m) {
        using E = typename decltype(m)::Number;
        launch(procrustes_fwd_kernel<E>, Grid{blocks_for(N, poses_each)}, poses_each, stream,
               static_cast<const E*>(poses), static_cast<const E*>(target), static_cast<E*>(aligned),
               static_cast<E*>(errors), N, S, J);
    });
}
POSEKERNELS_KERNEL(procrustes_cuda)

void procrustes_backward_cuda(const void* stream, int math, const void* grad_aligned, const void* grad_errors,
                              const void* poses, const void* target, void* grad_poses, float* grad_target, int64_t N,
                              int64_t S, int J) {
    each_math(math, [&](auto m) {
        using E = typename decltype(m)::Number;
        launch(procrustes_bwd_kernel<E>, Grid{blocks_for(N, poses_each)}, poses_each, stream,
               static_cast<const E*>(grad_aligned), static_cast<const E*>(grad_errors), static_cast<const E*>(poses),
               static_cast<const E*>(target), static_cast<E*>(grad_poses), grad_target, N, S, J);
    });
}
POSEKERNELS_KERNEL(procrustes_backward_cuda)

POSEKERNELS_END
