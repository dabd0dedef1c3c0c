// norm_activation: batch norm with the batch's own statistics, leaky ReLU and dropout on [rows, C]. A task owns a strip
// of columns, so statistics need no second stage, and a strip of a few thousand rows is read again from the cache.
#include "posekernels/dropout.h"
#include "posekernels/gemm.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN
namespace {

constexpr int64_t strip = 64, vectors = strip / lanes;  // as many columns as one draw of the dropout has bits

// sums[c] = sum_r f(r, c) in float64 over blocks of rows added in float32. f(row, vector) gives a Vec.
template <class F>
void column_sums(int64_t rows, const F& f, double* sums) {
    constexpr int64_t block = 256;
    for (int64_t c = 0; c < strip; ++c) sums[c] = 0;
    for (int64_t first = 0; first < rows; first += block) {
        Vec partial[vectors];
        for (int v = 0; v < vectors; ++v) partial[v] = Vec{};
        const int64_t last = first + block < rows ? first + block : rows;
        for (int64_t r = first; r < last; ++r)
            for (int v = 0; v < vectors; ++v) partial[v] += f(r, v);
        for (int v = 0; v < vectors; ++v)
            for (int i = 0; i < lanes; ++i) sums[v * lanes + i] += partial[v][i];
    }
}

struct Strip {
    int64_t column, width;
    Strip(int64_t task, int64_t C) : column(task * strip), width(C - column < strip ? C - column : strip) {}
    int64_t left(int v) const { return width - v * lanes < 0 ? 0 : width - v * lanes; }
    Vec get(const float* row, int v) const { return load(row + column + v * lanes, left(v)); }
    void put(float* row, int v, Vec value) const { store(row + column + v * lanes, value, left(v)); }
};

// What is kept of a row's strip, scaled.
struct Kept {
    uint64_t bits[3];
    int64_t offset;
    const Dropout& dropout;
    explicit Kept(const Dropout& d) : bits{}, offset(0), dropout(d) {}
    void draw(int64_t first, int64_t width) {
        offset = first % 64;
        if (dropout) draw_keep(dropout, first, width, bits);
    }
    Vec operator()(Vec value, int v) const {
        return dropout ? keep_lanes(bits_at(bits, offset + v * lanes), value * dropout.factor) : value;
    }
};

// z = (x - mean) * scale + bias, the difference first: a mean far from 0 costs no digits. Normalised x likewise.
struct Affine {
    Vec mean[vectors], rstd[vectors], scale[vectors], bias[vectors];
    Affine(const Strip& s, const float* mean_, const float* var, const float* weight, const float* bias_, float eps) {
        for (int v = 0; v < vectors; ++v) {
            mean[v] = s.get(mean_, v);
            rstd[v] = splat(1.0f) / square_root(s.get(var, v) + eps);
            scale[v] = s.get(weight, v) * rstd[v];
            bias[v] = s.get(bias_, v);
        }
    }
    Vec operator()(Vec x, int v) const { return (x - mean[v]) * scale[v] + bias[v]; }
};

}  // namespace

void norm_activation(const float* x, const float* weight, const float* bias, float* y, float* mean, float* var,
                     int64_t rows, int64_t C, float eps, float slope, int64_t seed, int64_t threshold, float factor) {
    const Dropout dropout{static_cast<uint64_t>(seed), 0, static_cast<uint32_t>(threshold), factor};
    parallel_for((C + strip - 1) / strip, [&](int64_t task) {
        const Strip s(task, C);
        // As distances from the first row: the mean of a constant column is that constant, to the last bit.
        double sums[strip];
        Vec origin[vectors];
        for (int v = 0; v < vectors; ++v) origin[v] = s.get(x, v);
        column_sums(rows, [&](int64_t r, int v) { return s.get(x + r * C, v) - origin[v]; }, sums);
        for (int64_t c = 0; c < s.width; ++c) mean[s.column + c] = static_cast<float>(x[s.column + c] + sums[c] / rows);
        Vec center[vectors];
        for (int v = 0; v < vectors; ++v) center[v] = s.get(mean, v);
        column_sums(
            rows,
            [&](int64_t r, int v) {
                const Vec d = s.get(x + r * C, v) - center[v];
                return d * d;
            },
            sums);
        for (int64_t c = 0; c < s.width; ++c) var[s.column + c] = static_cast<float>(sums[c] / rows);
        const Affine affine(s, mean, var, weight, bias, eps);
        Kept kept(dropout);
        for (int64_t r = 0; r < rows; ++r) {
            kept.draw(r * C + s.column, s.width);
            for (int v = 0; v < vectors; ++v) {
                const Vec z = affine(s.get(x + r * C, v), v);
                s.put(y + r * C, v, kept(leaky_relu(z, slope), v));
            }
        }
    });
}
POSEKERNELS_KERNEL(norm_activation)

void norm_activation_backward(const float* grad, const float* x, const float* weight, const float* bias,
                              const float* mean, const float* var, float* grad_x, float* grad_weight, float* grad_bias,
                              int64_t rows, int64_t C, float eps, float slope, int64_t seed, int64_t threshold,
                              float factor) {
    const Dropout dropout{static_cast<uint64_t>(seed), 0, static_cast<uint32_t>(threshold), factor};
    parallel_for((C + strip - 1) / strip, [&](int64_t task) {
        const Strip s(task, C);
        const Affine affine(s, mean, var, weight, bias, eps);
        Kept kept(dropout);
        for (int64_t r = 0; r < rows; ++r) {  // grad_x holds the gradient of z for now
            kept.draw(r * C + s.column, s.width);
            for (int v = 0; v < vectors; ++v) {
                const Vec z = affine(s.get(x + r * C, v), v);
                const Vec g = kept(s.get(grad + r * C, v), v);
                s.put(grad_x + r * C, v, z > 0.0f ? g : g * slope);
            }
        }
        double shift[strip], scale[strip];
        column_sums(rows, [&](int64_t r, int v) { return s.get(grad_x + r * C, v); }, shift);
        column_sums(
            rows,
            [&](int64_t r, int v) {
                return s.get(grad_x + r * C, v) * ((s.get(x + r * C, v) - affine.mean[v]) * affine.rstd[v]);
            },
            scale);
        for (int64_t c = 0; c < s.width; ++c) {
            grad_bias[s.column + c] = static_cast<float>(shift[c]);
            grad_weight[s.column + c] = static_cast<float>(scale[c]);
        }
        const float share = 1.0f / static_cast<float>(rows);
        Vec of_shift[vectors], of_scale[vectors];
        for (int v = 0; v < vectors; ++v) {
            of_shift[v] = s.get(grad_bias, v) * share;
            of_scale[v] = s.get(grad_weight, v) * share;
        }
        for (int64_t r = 0; r < rows; ++r)
            for (int v = 0; v < vectors; ++v) {
                const Vec normed = (s.get(x + r * C, v) - affine.mean[v]) * affine.rstd[v];
                const Vec g = s.get(grad_x + r * C, v) - of_shift[v] - normed * of_scale[v];
                s.put(grad_x + r * C, v, g * affine.scale[v]);
            }
    });
}
POSEKERNELS_KERNEL(norm_activation_backward)

POSEKERNELS_END
