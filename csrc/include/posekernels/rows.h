// Whole rows of floats (for norms, of bfloat16 too): norms and softmax, each as one call that ops make on rows still in
// the cache.
#pragma once

#include <cmath>

#include "posekernels/vec.h"
#include "posekernels/vecmath.h"

POSEKERNELS_BEGIN

// A vector of n valid lanes with `fill` in the others.
POSEKERNELS_INLINE Vec keep_lanes(Vec v, int64_t n, float fill) {
    if (n >= lanes) return v;
#if defined(__AVX512F__)
    return _mm512_mask_mov_ps(splat(fill), static_cast<__mmask16>((1u << n) - 1), v);
#else
    for (int64_t i = n; i < lanes; ++i) v[i] = fill;
    return v;
#endif
}

template <class In>
POSEKERNELS_INLINE float row_sum(const In* x, int64_t n) {
    Vec a{}, b{};
    int64_t i = 0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
        a += load(x + i);
        b += load(x + i + lanes);
    }
    for (; i < n; i += lanes) a += load(x + i, n - i);
    return sum(a + b);
}

// Mean, and the sum of squared distances from it (two passes: no cancellation).
struct Moments {
    float mean, squares;
};

template <class In>
POSEKERNELS_INLINE Moments row_moments(const In* x, int64_t n) {
    const float mean = row_sum(x, n) / static_cast<float>(n);
    Vec a{}, b{};
    int64_t i = 0;
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
        const Vec u = load(x + i) - mean, v = load(x + i + lanes) - mean;
        a += u * u;
        b += v * v;
    }
    for (; i < n; i += lanes) {
        const Vec v = keep_lanes(load(x + i, n - i) - mean, n - i, 0.0f);
        a += v * v;
    }
    return {mean, sum(a + b)};
}

// The same in one pass, as distances from the row's first number: that one lies within sqrt(n) standard deviations of
// the mean, so what cancels costs `squares` n roundings of a float at most.
template <class In>
POSEKERNELS_INLINE Moments coarse_row_moments(const In* x, int64_t n) {
    const Vec origin = splat(load(x, 1)[0]);
    Vec totals[4] = {}, squares[4] = {};
    int64_t i = 0;
    for (; i + 4 * lanes <= n; i += 4 * lanes)
        for (int64_t j = 0; j < 4; ++j) {
            const Vec v = load(x + i + j * lanes) - origin;
            totals[j] += v;
            squares[j] += v * v;
        }
    for (; i < n; i += lanes) {
        const Vec v = keep_lanes(load(x + i, n - i) - origin, n - i, 0.0f);
        totals[0] += v;
        squares[0] += v * v;
    }
    const float total = sum((totals[0] + totals[1]) + (totals[2] + totals[3])), mean = total / static_cast<float>(n);
    return {origin[0] + mean, sum((squares[0] + squares[1]) + (squares[2] + squares[3])) - total * mean};
}

// y = weight * ((x - mean) * factor) + bias; weight and bias may be null; y may be x.
template <class In, class Out>
POSEKERNELS_INLINE void scale_row(const In* x, int64_t n, float mean, float factor, const float* weight,
                                  const float* bias, Out* y) {
    const auto part = [&](int64_t i, int64_t left) POSEKERNELS_INLINE_LAMBDA {
        Vec v = (load(x + i, left) - mean) * factor;
        if (weight) v = v * load(weight + i, left);
        if (bias) v = v + load(bias + i, left);
        store(y + i, v, left);
    };
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes) part(i, lanes);
    if (i < n) part(i, n - i);
}

// nn.LayerNorm: the biased variance, eps inside the root. bfloat16 y takes the coarse moments.
template <class In, class Out>
inline void layer_norm_row(const In* x, int64_t n, const float* weight, const float* bias, float eps, Out* y) {
    const Moments m = sizeof(Out) == 2 ? coarse_row_moments(x, n) : row_moments(x, n);
    scale_row(x, n, m.mean, 1.0f / std::sqrt(m.squares / static_cast<float>(n) + eps), weight, bias, y);
}

// The published transformers' norm: the unbiased standard deviation, eps outside the root.
template <class In, class Out>
inline void layer_norm_row_unbiased(const In* x, int64_t n, const float* weight, const float* bias, float eps, Out* y) {
    const Moments m = row_moments(x, n);
    scale_row(x, n, m.mean, 1.0f / (std::sqrt(m.squares / static_cast<float>(n - 1)) + eps), weight, bias, y);
}

// y = exp(scale x - largest scale x) for n >= 1 numbers; returns the sum of y. y may be x; a NaN makes the sum one.
// bfloat16 y takes the coarse function. The difference comes first: that of two products would be that of a rounded one
// and, contracted, an exact one, which is anything where the numbers are large.
template <class Out>
inline float exponentials_row(const float* x, int64_t n, float scale, Out* y) {
    constexpr bool coarse = sizeof(Out) == 2;
    const float factor = coarse ? scale * 1.44269504f : scale, sign = factor < 0.0f ? -1.0f : 1.0f;
    const auto power = [](Vec v) POSEKERNELS_INLINE_LAMBDA { return coarse ? coarse_exp2(v) : exp(v); };
    const int64_t whole = n / lanes * lanes, left = n - whole;
    // Four of everything side by side: a single chain of maxima or sums would take their latency each.
    Vec top[4] = {splat(-INFINITY), splat(-INFINITY), splat(-INFINITY), splat(-INFINITY)};
    int64_t i = 0;
    for (; i + 4 * lanes <= whole; i += 4 * lanes)
        for (int64_t j = 0; j < 4; ++j) top[j] = larger(load(x + i + j * lanes) * sign, top[j]);
    for (; i < whole; i += lanes) top[0] = larger(load(x + i) * sign, top[0]);
    if (left) top[1] = larger(keep_lanes(load(x + i, left) * sign, left, -INFINITY), top[1]);
    const Vec end = splat(largest(larger(larger(top[0], top[1]), larger(top[2], top[3])))) * sign;
    Vec total[2] = {};
    for (i = 0; i + 2 * lanes <= whole; i += 2 * lanes)
        for (int64_t j = 0; j < 2; ++j) {
            const Vec e = power((load(x + i + j * lanes) - end) * factor);
            total[j] += e;
            store(y + i + j * lanes, e);
        }
    for (; i < n; i += lanes) {
        const Vec e = keep_lanes(power((load(x + i, n - i) - end) * factor), n - i, 0.0f);
        total[0] += e;
        store(y + i, e, n - i);
    }
    return sum(total[0] + total[1]);
}

// softmax(x * scale) in place, over n >= 1 numbers.
inline void softmax_row(float* x, int64_t n, float scale) {
    const Vec factor = splat(1.0f / exponentials_row(x, n, scale, x));
    for (int64_t i = 0; i < n; i += lanes) store(x + i, load(x + i, n - i) * factor, n - i);
}

POSEKERNELS_END
