// procrustes: align poses to targets, a pose per lane; and the gradient.
#include "posekernels/parallel.h"
#include "posekernels/procrustes.h"
#include "posekernels/registry.h"
#include "posekernels/scratch.h"
#include "posekernels/vec.h"

POSEKERNELS_BEGIN
namespace {

struct Math {
    static POSEKERNELS_INLINE Vec root(Vec x) { return square_root(x); }
    static POSEKERNELS_INLINE Vec absolute(Vec x) { return floats_of(bits_of(x) & 0x7FFFFFFFu); }
    template <class Condition>
    static POSEKERNELS_INLINE Vec select(Condition condition, Vec a, Vec b) {
        return condition ? a : b;
    }
};

// Everything about `lanes` poses and their targets, side by side. p and t are divided by a power of two each, size_p
// and size_t, that makes them about 1: squares and cubes of what they are would leave the numbers a float has.
struct Group {
    float *p, *t;  // [3 J, lanes], centred
    Vec mean_p[3], mean_t[3], size_p, size_t;
    Vec M[9], R[9], square, scale;  // of p and t as they are here
};

// The power of two at or below `top`; 1 where that is 0, infinite or denormal.
POSEKERNELS_INLINE Vec unit_of(Vec top) {
    const UintVec exponent = bits_of(top) & 0x7F800000u;
    const UintVec one = UintVec{} + 0x3F800000u;
    return floats_of(exponent == 0x7F800000u || exponent == 0u ? one : exponent);
}

// Poses first .. first + count of [B S, J, 3]; pose i belongs to target i / S.
void gather(const float* poses, const float* target, int64_t first, int64_t count, int64_t S, int64_t J, Group& g) {
    const int64_t n = 3 * J;
    for (int64_t l = 0; l < lanes; ++l) {
        const int64_t i = first + (l < count ? l : 0);  // the last group repeats a pose in its idle lanes
        const float *pose = poses + i * n, *truth = target + i / S * n;
        for (int64_t e = 0; e < n; ++e) g.p[e * lanes + l] = pose[e];
        for (int64_t e = 0; e < n; ++e) g.t[e * lanes + l] = truth[e];
    }
    const float share = 1.0f / static_cast<float>(J);
    for (int c = 0; c < 3; ++c) {
        Vec sum_p{}, sum_t{};
        for (int64_t j = 0; j < J; ++j) {
            sum_p += load(g.p + (3 * j + c) * lanes);
            sum_t += load(g.t + (3 * j + c) * lanes);
        }
        g.mean_p[c] = sum_p * share;
        g.mean_t[c] = sum_t * share;
    }
    Vec top_p{}, top_t{};
    for (int64_t j = 0; j < J; ++j)
        for (int c = 0; c < 3; ++c) {
            const int64_t e = (3 * j + c) * lanes;
            top_p = larger(top_p, Math::absolute(load(g.p + e) - g.mean_p[c]));
            top_t = larger(top_t, Math::absolute(load(g.t + e) - g.mean_t[c]));
        }
    g.size_p = unit_of(top_p);
    g.size_t = unit_of(top_t);
    const Vec by_p = 1.0f / g.size_p, by_t = 1.0f / g.size_t;
    for (int i = 0; i < 9; ++i) g.M[i] = Vec{};
    g.square = Vec{};
    for (int64_t j = 0; j < J; ++j) {
        Vec p[3], t[3];
        for (int c = 0; c < 3; ++c) {
            float *pc = g.p + (3 * j + c) * lanes, *tc = g.t + (3 * j + c) * lanes;
            p[c] = (load(pc) - g.mean_p[c]) * by_p;
            t[c] = (load(tc) - g.mean_t[c]) * by_t;
            store(pc, p[c]);
            store(tc, t[c]);
            g.square += p[c] * p[c];
        }
        for (int a = 0; a < 3; ++a)
            for (int b = 0; b < 3; ++b) g.M[3 * a + b] += p[a] * t[b];
    }
    posekernels::procrustes::fit<Vec, Math>(g.M, g.square, g.R, g.scale);
}

POSEKERNELS_INLINE Vec turned(const Group& g, int64_t j, int c) {
    const float* p = g.p + 3 * j * lanes;
    return load(p) * g.R[c] + load(p + lanes) * g.R[3 + c] + load(p + 2 * lanes) * g.R[6 + c];
}

}  // namespace

// poses [B, S, J, 3], target [B, J, 3] -> aligned [B, S, J, 3] (or null), errors [B, S].
void procrustes(const float* poses, const float* target, float* aligned, float* errors, int64_t B, int64_t S,
                int64_t J) {
    const int64_t N = B * S, groups = (N + lanes - 1) / lanes, each = 32;
    parallel_for((groups + each - 1) / each, [&](int64_t task) {
        Scratch scratch;
        Group g;
        g.p = scratch.floats(3 * J * lanes);
        g.t = scratch.floats(3 * J * lanes);
        const int64_t last = (task + 1) * each < groups ? (task + 1) * each : groups;
        for (int64_t group = task * each; group < last; ++group) {
            const int64_t first = group * lanes, count = N - first < lanes ? N - first : lanes;
            gather(poses, target, first, count, S, J, g);
            Vec sum{};
            for (int64_t j = 0; j < J; ++j) {
                Vec square{};
                for (int c = 0; c < 3; ++c) {
                    const Vec y = g.scale * turned(g, j, c);
                    const Vec d = y - load(g.t + (3 * j + c) * lanes);
                    square += d * d;
                    if (aligned != nullptr) {
                        const Vec moved = y * g.size_t + g.mean_t[c];
                        float lane[lanes];
                        store(lane, moved);
                        for (int64_t l = 0; l < count; ++l) aligned[((first + l) * J + j) * 3 + c] = lane[l];
                    }
                }
                sum += square_root(square);
            }
            store(errors + first, sum / static_cast<float>(J) * g.size_t, count);
        }
    });
}
POSEKERNELS_KERNEL(procrustes)

// Gradients of poses [B, S, J, 3] and target [B, J, 3]; either of grad_aligned, grad_errors may be null. The formula
// is in the op's README. grad_target_each [B, S, J, 3]: its sum over S is the target's gradient.
void procrustes_backward(const float* grad_aligned, const float* grad_errors, const float* poses, const float* target,
                         float* grad_poses, float* grad_target_each, int64_t B, int64_t S, int64_t J) {
    const int64_t N = B * S, groups = (N + lanes - 1) / lanes;
    parallel_for(groups, [&](int64_t group) {
        Scratch scratch;
        Group g;
        const int64_t n = 3 * J;
        g.p = scratch.floats(n * lanes);
        g.t = scratch.floats(n * lanes);
        float* G = scratch.floats(n * lanes);  // gradient of the aligned pose
        float* out_p = scratch.floats(n * lanes);
        float* out_t = scratch.floats(n * lanes);
        const int64_t first = group * lanes, count = N - first < lanes ? N - first : lanes;
        gather(poses, target, first, count, S, J, g);
        const float share = 1.0f / static_cast<float>(J);
        Vec share_e{};
        if (grad_errors != nullptr) share_e = load(grad_errors + first, count) * share;
        // G: what reaches a (P R) + mean(T); out_t: what the distance passes to the target directly.
        Vec sum_G[3] = {}, sum_direct[3] = {};
        for (int64_t j = 0; j < J; ++j) {
            Vec d[3], square{};
            for (int c = 0; c < 3; ++c) {
                d[c] = g.scale * turned(g, j, c) - load(g.t + (3 * j + c) * lanes);
                square += d[c] * d[c];
            }
            const Vec distance = square_root(square);
            const Vec weight = distance == 0.0f ? Vec{} : share_e / distance;
            for (int c = 0; c < 3; ++c) {
                const Vec direct = weight * d[c];
                Vec from{};
                if (grad_aligned != nullptr)
                    for (int64_t l = 0; l < count; ++l) from[l] = grad_aligned[((first + l) * J + j) * 3 + c];
                store(G + (3 * j + c) * lanes, from + direct);
                store(out_t + (3 * j + c) * lanes, -direct);
                sum_G[c] += from + direct;
                sum_direct[c] += direct;
            }
        }
        // y = a P R + mean(T): gradients of a and of R (as a matrix of nine numbers).
        Vec H[9] = {};
        for (int64_t j = 0; j < J; ++j)
            for (int a = 0; a < 3; ++a) {
                const Vec p = load(g.p + (3 * j + a) * lanes);
                for (int b = 0; b < 3; ++b) H[3 * a + b] += p * load(G + (3 * j + b) * lanes);
            }
        Vec grad_M[9], grad_square;
        posekernels::procrustes::fit_gradient<Vec, Math>(g.M, g.square, g.R, g.scale, H, grad_M, grad_square);
        // M = P' T and |P|^2, then the centring. G is in true units; per unit of p it counts size_t / size_p times, per
        // unit of t once.
        const Vec to_p = g.size_t / g.size_p;
        Vec sum_p[3] = {}, sum_t[3] = {};
        for (int64_t j = 0; j < J; ++j)
            for (int i = 0; i < 3; ++i) {
                const float* G_j = G + 3 * j * lanes;
                Vec gp = load(g.p + (3 * j + i) * lanes) * grad_square * 2.0f, gt{};
                for (int k = 0; k < 3; ++k) {
                    gp += g.scale * load(G_j + k * lanes) * g.R[3 * i + k];
                    gp += load(g.t + (3 * j + k) * lanes) * grad_M[3 * i + k];
                    gt += load(g.p + (3 * j + k) * lanes) * grad_M[3 * k + i];
                }
                store(out_p + (3 * j + i) * lanes, gp);
                store(out_t + (3 * j + i) * lanes, load(out_t + (3 * j + i) * lanes) + gt);
                sum_p[i] += gp;
                sum_t[i] += gt;
            }
        for (int64_t j = 0; j < J; ++j)
            for (int i = 0; i < 3; ++i) {
                const Vec gp = (load(out_p + (3 * j + i) * lanes) - sum_p[i] * share) * to_p;
                // The aligned pose carries mean(T); the direct part met T itself, not its centred form.
                const Vec gt = load(out_t + (3 * j + i) * lanes) - sum_t[i] * share + sum_G[i] * share;
                for (int64_t l = 0; l < count; ++l) {
                    grad_poses[((first + l) * J + j) * 3 + i] = gp[l];
                    grad_target_each[((first + l) * J + j) * 3 + i] = gt[l];
                }
            }
    });
}
POSEKERNELS_KERNEL(procrustes_backward)

POSEKERNELS_END
