// The PKD / siMLPe stack. A tile of the state stays in the L2 cache through all blocks:
//
//   tile [columns, T, lanes]   a column is T vectors, next to each other; the maps over time mix vectors of one column
//
// and what the lanes and columns are depends on the batch:
//
//   by sample       lanes = that many samples, columns = the C coordinates. Every norm is vertical, nothing is padded.
//   by coordinate   one sample; lanes and columns together = its coordinates, the last column padded. For small
//   batches.
//
// Weights are read as they are, one number at a time (a broadcast from the L1 cache costs the same wherever it lies),
// so nothing is packed and nothing can be stale. Backward recomputes a block from its stored input, which costs a
// quarter of the arithmetic and saves two thirds of the memory traffic.
#include <cmath>
#include <cstring>

#include "posekernels/parallel.h"
#include "posekernels/registry.h"
#include "posekernels/scratch.h"
#include "posekernels/vec.h"

POSEKERNELS_BEGIN
namespace {

#if POSEKERNELS_REGISTERS == 32
constexpr int max_r = 9;  // a register block: 9 x 3 sums, 3 of X, 1 of W in 32 registers
constexpr int max_s = 5;  // of a weight gradient: 5 x 5 sums, 5 + 1 operands
#else
constexpr int max_r = 4;  // 4 x 3 sums, 3 of X, 1 of W in 16 registers
constexpr int max_s = 3;
#endif
constexpr int max_j = 3;

enum Norm : int { norm_spatial = 0, norm_temporal = 1, norm_all = 2, norm_none = 3 };

// x - 0 is x for every x, so compilers make this a broadcast; 0 + x is not (-0).
POSEKERNELS_INLINE Vec broadcast(float x) {
    return x - Vec{};
}

struct Sizes {
    int64_t C, T, N;
    int mix_spatial, norm;
    float eps;
    int64_t mix_size() const { return mix_spatial ? C : T; }
    int64_t affine_size() const {  // of one block's scale
        return norm == norm_spatial ? C : norm == norm_temporal ? T : norm == norm_all ? C * T : 0;
    }
};

struct Block {  // the parameters of one block; pre_* null without the first map
    const float *weight, *bias, *scale, *shift, *pre_weight, *pre_bias, *pre_scale, *pre_shift;
};

struct Stack {
    const float *weight, *bias, *scale, *shift, *pre_weight, *pre_bias, *pre_scale, *pre_shift;
    Block block(const Sizes& s, int64_t n) const {
        const int64_t M = s.mix_size(), A = s.affine_size(), T = s.T;
        const auto at = [](const float* p, int64_t offset) { return p ? p + offset : p; };
        return {at(weight, n * M * M),     at(bias, n * M),     at(scale, n * A),     at(shift, n * A),
                at(pre_weight, n * T * T), at(pre_bias, n * T), at(pre_scale, n * T), at(pre_shift, n * T)};
    }
};

// ---- products

struct Product {  // Y(r, j) = [Y(r, j) +] sum_k W(r, k) X(k, j) [+ bias(r)]; X and Y are vectors, strides in floats
    int64_t M, J, K;
    const float* W;
    int64_t wr, wk;
    const float* X;
    int64_t xk, xj;
    float* Y;
    int64_t yr, yj;
    const float* bias;
    bool add;
};

template <int R, int J>
void product_block(const Product& p, int64_t r0, int64_t j0) {
    Vec sums[R][J];
    POSEKERNELS_UNROLL(16)
    for (int r = 0; r < R; ++r) POSEKERNELS_UNROLL(16)
    for (int j = 0; j < J; ++j) sums[r][j] = Vec{};
    const float* w = p.W + r0 * p.wr;
    const float* x = p.X + j0 * p.xj;
    const int64_t wr = p.wr, wk = p.wk, xk = p.xk, xj = p.xj;
    for (int64_t k = 0; k < p.K; ++k) {
        Vec xs[J];
        POSEKERNELS_UNROLL(16)
        for (int j = 0; j < J; ++j) xs[j] = load(x + j * xj);
        POSEKERNELS_UNROLL(16)
        for (int r = 0; r < R; ++r) {
            const Vec weight = broadcast(w[r * wr]);
            POSEKERNELS_UNROLL(16)
            for (int j = 0; j < J; ++j) sums[r][j] += weight * xs[j];
        }
        w += wk;
        x += xk;
    }
    float* y = p.Y + r0 * p.yr + j0 * p.yj;
    POSEKERNELS_UNROLL(16)
    for (int r = 0; r < R; ++r) {
        const Vec bias = p.bias ? broadcast(p.bias[r0 + r]) : Vec{};
        POSEKERNELS_UNROLL(16)
        for (int j = 0; j < J; ++j) {
            float* at = y + r * p.yr + j * p.yj;
            Vec v = sums[r][j] + bias;
            if (p.add) v += load(at);
            store(at, v);
        }
    }
}

template <int J>
void product_columns(const Product& p, int64_t j0) {
    const int64_t blocks = (p.M + max_r - 1) / max_r;
    for (int64_t b = 0, r0 = 0; b < blocks; ++b) {
        const int64_t rows = p.M / blocks + (b < p.M % blocks);
        switch (rows) {
#if POSEKERNELS_REGISTERS == 32
            case 9:
                product_block<9, J>(p, r0, j0);
                break;
            case 8:
                product_block<8, J>(p, r0, j0);
                break;
            case 7:
                product_block<7, J>(p, r0, j0);
                break;
            case 6:
                product_block<6, J>(p, r0, j0);
                break;
            case 5:
                product_block<5, J>(p, r0, j0);
                break;
#endif
            case 4:
                product_block<4, J>(p, r0, j0);
                break;
            case 3:
                product_block<3, J>(p, r0, j0);
                break;
            case 2:
                product_block<2, J>(p, r0, j0);
                break;
            default:
                product_block<1, J>(p, r0, j0);
                break;
        }
        r0 += rows;
    }
}

void multiply(const Product& p) {
    int64_t j = 0;
    for (; j + 3 <= p.J; j += 3) product_columns<3>(p, j);
    if (p.J - j == 2) product_columns<2>(p, j);
    if (p.J - j == 1) product_columns<1>(p, j);
}

// The maps of a tile [columns, T, lanes]. Transposed maps are those of the backward pass.
Product over_time(int64_t columns, int64_t T, int64_t out, const float* W, bool transposed, const float* X, float* Y,
                  const float* bias, bool add = false) {
    return {out,   columns,     T,    W,  transposed ? 1 : T, transposed ? T : 1, X, lanes, T * lanes, Y,
            lanes, out * lanes, bias, add};
}

Product over_columns(int64_t C, int64_t T, const float* W, bool transposed, const float* X, float* Y, const float* bias,
                     bool add = false) {
    return {C, T, C, W, transposed ? 1 : C, transposed ? C : 1, X, T * lanes, lanes, Y, T * lanes, lanes, bias, add};
}

// D[i, j] += sum over k < depth and lanes of P(k, i) Q(k, j); D row-major [I, J].
struct Outer {
    int64_t I, J, depth;
    const float* P;
    int64_t pk, pi;
    const float* Q;
    int64_t qk, qj;
    float* D;
};

template <int I, int J>
void outer_block(const Outer& o, int64_t i0, int64_t j0) {
    Vec sums[I][J];
    POSEKERNELS_UNROLL(16)
    for (int i = 0; i < I; ++i) POSEKERNELS_UNROLL(16)
    for (int j = 0; j < J; ++j) sums[i][j] = Vec{};
    const float* p = o.P + i0 * o.pi;
    const float* q = o.Q + j0 * o.qj;
    const int64_t pi = o.pi, qj = o.qj;
    for (int64_t k = 0; k < o.depth; ++k) {
        Vec ps[I];
        POSEKERNELS_UNROLL(16)
        for (int i = 0; i < I; ++i) ps[i] = load(p + i * pi);
        POSEKERNELS_UNROLL(16)
        for (int j = 0; j < J; ++j) {
            const Vec other = load(q + j * qj);
            POSEKERNELS_UNROLL(16)
            for (int i = 0; i < I; ++i) sums[i][j] += ps[i] * other;
        }
        p += o.pk;
        q += o.qk;
    }
    POSEKERNELS_UNROLL(16)
    for (int i = 0; i < I; ++i) POSEKERNELS_UNROLL(16)
    for (int j = 0; j < J; ++j) o.D[(i0 + i) * o.J + j0 + j] += sum(sums[i][j]);
}

template <int I>
void outer_rows(const Outer& o, int64_t i0) {
    int64_t j = 0;
    for (; j + max_s <= o.J; j += max_s) outer_block<I, max_s>(o, i0, j);
    for (; j < o.J; ++j) outer_block<I, 1>(o, i0, j);
}

void add_outer(const Outer& o) {
    int64_t i = 0;
    for (; i + max_s <= o.I; i += max_s) outer_rows<max_s>(o, i);
    for (; i < o.I; ++i) outer_rows<1>(o, i);
}

// ---- norms

// Mean and 1 / sqrt(variance + eps), lane by lane. Two passes: one would take the variance for a difference of squares,
// and an outlier or a mean far from 0 would cost its digits. What the second pass finds left of the sum is what the
// mean was rounded by: of n numbers that are all alike and large, n roundings of a float, where the variance may be 0.
struct Moments {
    Vec mean, inverse;
};

// From the sums of what is left of n numbers without the mean so far, and of its squares.
POSEKERNELS_INLINE Moments corrected(Vec mean, Vec left, Vec squares, float n, float eps) {
    const Vec off = left / n, variance = squares / n - off * off;
    return {mean + off, broadcast(1.f) / square_root((variance < 0.f ? Vec{} : variance) + eps)};
}

// Of n vectors one after the other.
POSEKERNELS_INLINE Moments moments_of(const float* y, int64_t n, float eps) {
    const auto each = [&](const auto& f) POSEKERNELS_INLINE_LAMBDA {  // a single chain would take its latency
        int64_t i = 0;
        for (; i + 4 <= n; i += 4)
            for (int64_t j = 0; j < 4; ++j) f(load(y + (i + j) * lanes), j);
        for (; i < n; ++i) f(load(y + i * lanes), 0);
    };
    const auto all = [](const Vec* sums)
                         POSEKERNELS_INLINE_LAMBDA { return (sums[0] + sums[1]) + (sums[2] + sums[3]); };
    Vec sums[4] = {}, left[4] = {}, squares[4] = {};
    each([&](Vec v, int64_t j) POSEKERNELS_INLINE_LAMBDA { sums[j] += v; });
    const Vec mean = all(sums) / static_cast<float>(n);
    each([&](Vec v, int64_t j) POSEKERNELS_INLINE_LAMBDA {
        const Vec d = v - mean;
        left[j] += d;
        squares[j] += d * d;
    });
    return corrected(mean, all(left), all(squares), static_cast<float>(n), eps);
}

// The norm over time of one column, in place: u = x + normalised * scale + shift. `normal`, where given, gets the
// normalised values (it may be y itself); returns 1 / sqrt(variance + eps).
POSEKERNELS_INLINE Vec norm_of_column(const float* y, const float* x, float* u, float* normal, int64_t T, float eps,
                                      const float* scale, const float* shift) {
    const Moments m = moments_of(y, T, eps);
    for (int64_t t = 0; t < T; ++t) {
        const Vec value = (load(y + t * lanes) - m.mean) * m.inverse;
        if (normal) store(normal + t * lanes, value);
        store(u + t * lanes, load(x + t * lanes) + (value * scale[t] + shift[t]));
    }
    return m.inverse;
}

// The first map and its norm over `columns` columns: u = x + LN(A x + a). y is scratch of the same size as u.
void first_map(const Sizes& s, const Block& b, int64_t columns, const float* x, float* y, float* u, float* normal,
               float* inverse) {
    multiply(over_time(columns, s.T, s.T, b.pre_weight, false, x, y, b.pre_bias));
    for (int64_t c = 0; c < columns; ++c) {
        const int64_t at = c * s.T * lanes;
        const Vec v = norm_of_column(y + at, x + at, u + at, normal ? normal + at : nullptr, s.T, s.eps, b.pre_scale,
                                     b.pre_shift);
        if (inverse) store(inverse + c * lanes, v);
    }
}

// How the last norm of a tile groups its vectors: every (c, t) belongs to group t, c, or 0. By sample only.
struct Groups {
    int64_t count, per_c, per_t, size;
    explicit Groups(const Sizes& s)
        : count(s.norm == norm_spatial    ? s.T
                : s.norm == norm_temporal ? s.C
                                          : 1),
          per_c(s.norm == norm_temporal),
          per_t(s.norm == norm_spatial),
          size(s.norm == norm_spatial    ? s.C
               : s.norm == norm_temporal ? s.T
                                         : s.C * s.T) {}
};

// Index of the scale of (c, t): [C], [T] or [C, T].
struct Affine {
    int64_t per_c, per_t;
    explicit Affine(const Sizes& s)
        : per_c(s.norm == norm_spatial ? 1
                : s.norm == norm_all   ? s.T
                                       : 0),
          per_t(s.norm != norm_spatial) {}
};

// Of `n` columns of vectors `column` floats apart, W columns side by side; into mean and inverse, a vector each.
template <int W>
POSEKERNELS_INLINE void moments_of_rows(const float* z, int64_t n, int64_t column, float eps, float* mean,
                                        float* inverse) {
    const float count = static_cast<float>(n);
    Vec means[W], left[W], squares[W];
    for (int j = 0; j < W; ++j) means[j] = left[j] = squares[j] = Vec{};
    for (int64_t c = 0; c < n; ++c) POSEKERNELS_UNROLL(16)
    for (int j = 0; j < W; ++j) means[j] += load(z + c * column + j * lanes);
    for (int j = 0; j < W; ++j) means[j] /= count;
    for (int64_t c = 0; c < n; ++c) POSEKERNELS_UNROLL(16)
    for (int j = 0; j < W; ++j) {
        const Vec d = load(z + c * column + j * lanes) - means[j];
        left[j] += d;
        squares[j] += d * d;
    }
    for (int j = 0; j < W; ++j) {
        const Moments m = corrected(means[j], left[j], squares[j], count, eps);
        store(mean + j * lanes, m.mean);
        store(inverse + j * lanes, m.inverse);
    }
}

// Means and inverse deviations of z by group.
void moments_by_group(const Sizes& s, const float* z, float* mean, float* inverse) {
    if (s.norm == norm_spatial) {  // a few slots at a time: their columns stay in the L1 cache for the second pass
        constexpr int some = lanes == 16 ? 8 : 4;
        int64_t t = 0;
        for (; t + some <= s.T; t += some)
            moments_of_rows<some>(z + t * lanes, s.C, s.T * lanes, s.eps, mean + t * lanes, inverse + t * lanes);
        for (; t < s.T; ++t)
            moments_of_rows<1>(z + t * lanes, s.C, s.T * lanes, s.eps, mean + t * lanes, inverse + t * lanes);
        return;
    }
    const Groups g(s);
    for (int64_t i = 0; i < g.count; ++i) {
        const Moments m = moments_of(z + i * g.size * lanes, g.size, s.eps);
        store(mean + i * lanes, m.mean);
        store(inverse + i * lanes, m.inverse);
    }
}

// x += LN(z), by sample.
void add_normalised(const Sizes& s, const Block& b, const float* z, float* x, Scratch& scratch) {
    if (s.norm == norm_none) {
        for (int64_t i = 0; i < s.C * s.T; ++i) store(x + i * lanes, load(x + i * lanes) + load(z + i * lanes));
        return;
    }
    const Groups g(s);
    const Affine a(s);
    float* mean = scratch.floats(g.count * lanes);
    float* inverse = scratch.floats(g.count * lanes);
    moments_by_group(s, z, mean, inverse);
    for (int64_t c = 0; c < s.C; ++c) {
        for (int64_t t = 0; t < s.T; ++t) {
            const int64_t group = (c * g.per_c + t * g.per_t) * lanes, at = (c * s.T + t) * lanes;
            const int64_t i = c * a.per_c + t * a.per_t;
            const Vec value = (load(z + at) - load(mean + group)) * load(inverse + group);
            store(x + at, load(x + at) + (value * b.scale[i] + b.shift[i]));
        }
    }
}

// x += LN(z), by coordinate: the columns of a slot, all lanes, belong together; lanes past C are not counted.
void add_normalised_across(const Sizes& s, const Block& b, int64_t columns, const float* z, float* x) {
    const int64_t tail = s.C - (columns - 1) * lanes;  // valid lanes of the last column
    const auto valid = [&](int64_t g) { return g + 1 < columns ? int64_t(lanes) : tail; };
    alignas(64) float ones[lanes];
    for (int64_t i = 0; i < lanes; ++i) ones[i] = i < tail ? 1.f : 0.f;
    const Vec keep = load(ones);
    if (s.norm == norm_none) {
        for (int64_t i = 0; i < columns * s.T; ++i) store(x + i * lanes, load(x + i * lanes) + load(z + i * lanes));
        return;
    }
    if (s.norm == norm_temporal) {
        for (int64_t g = 0; g < columns; ++g) {
            float* column = x + g * s.T * lanes;
            norm_of_column(z + g * s.T * lanes, column, column, nullptr, s.T, s.eps, b.scale, b.shift);
        }
        return;
    }
    const auto slots = [&](int64_t first, int64_t last) {  // one group of slots [first, last)
        const float n = static_cast<float>(s.C * (last - first));
        Vec total{};
        for (int64_t t = first; t < last; ++t) {
            for (int64_t g = 0; g + 1 < columns; ++g) total += load(z + (g * s.T + t) * lanes);
            total += load(z + ((columns - 1) * s.T + t) * lanes) * keep;
        }
        const float rough = sum(total) / n;
        Vec left{}, squares{};
        for (int64_t t = first; t < last; ++t) {
            for (int64_t g = 0; g + 1 < columns; ++g) {
                const Vec d = load(z + (g * s.T + t) * lanes) - rough;
                left += d;
                squares += d * d;
            }
            const Vec d = (load(z + ((columns - 1) * s.T + t) * lanes) - rough) * keep;
            left += d;
            squares += d * d;
        }
        const Moments m = corrected(broadcast(rough), broadcast(sum(left)), broadcast(sum(squares)), n, s.eps);
        const float mean = m.mean[0], inverse = m.inverse[0];
        for (int64_t t = first; t < last; ++t) {
            for (int64_t g = 0; g < columns; ++g) {
                const int64_t at = (g * s.T + t) * lanes;
                Vec scale, shift;
                if (s.norm == norm_spatial) {
                    scale = load(b.scale + g * lanes, valid(g));
                    shift = load(b.shift + g * lanes, valid(g));
                } else {
                    alignas(64) float buffer[2 * lanes] = {};
                    for (int64_t i = 0; i < valid(g); ++i) {
                        buffer[i] = b.scale[(g * lanes + i) * s.T + t];
                        buffer[lanes + i] = b.shift[(g * lanes + i) * s.T + t];
                    }
                    scale = load(buffer);
                    shift = load(buffer + lanes);
                }
                store(x + at, load(x + at) + ((load(z + at) - mean) * inverse * scale + shift));
            }
        }
    };
    if (s.norm == norm_all) {
        slots(0, s.T);
    } else {
        for (int64_t t = 0; t < s.T; ++t) slots(t, t + 1);
    }
}

// ---- forward

// z = F(u) with u = x + LN(A x + a); by sample. Where asked for, keeps u, and the normalised y with its deviations.
void inner(const Sizes& s, const Block& b, const float* x, float* z, float* u, float* normal, float* inverse,
           Scratch& scratch) {
    const int64_t column = s.T * lanes;
    if (s.mix_spatial) {
        const float* source = x;
        if (b.pre_weight) {
            float* whole = u ? u : scratch.floats(s.C * column);
            first_map(s, b, s.C, x, z, whole, normal, inverse);  // z is free to be y for now
            source = whole;
        }
        multiply(over_columns(s.C, s.T, b.weight, false, source, z, b.bias));
        return;
    }
    float* y = b.pre_weight ? scratch.floats(2 * max_j * column) : nullptr;
    for (int64_t c = 0; c < s.C; c += max_j) {  // a few columns at a time stay in the L1 cache through both maps
        const int64_t columns = s.C - c < max_j ? s.C - c : max_j;
        const float* source = x + c * column;
        if (b.pre_weight) {
            float* part = u ? u + c * column : y + max_j * column;
            first_map(s, b, columns, source, y, part, normal ? normal + c * column : nullptr,
                      inverse ? inverse + c * lanes : nullptr);
            source = part;
        }
        multiply(over_time(columns, s.T, s.T, b.weight, false, source, z + c * column, b.bias));
    }
}

// A tile by sample through the stack, in place; `saved`, where given, gets every block's input.
void run_by_sample(const Sizes& s, const Stack& stack, float* x, float* saved) {
    Scratch scratch;
    const int64_t size = s.C * s.T * lanes;
    float* z = scratch.floats(size);
    for (int64_t n = 0; n < s.N; ++n) {
        Scratch inside;
        const Block b = stack.block(s, n);
        if (saved) std::memcpy(saved + n * size, x, sizeof(float) * size);
        inner(s, b, x, z, nullptr, nullptr, nullptr, inside);
        add_normalised(s, b, z, x, inside);
    }
}

// One sample by coordinate through the stack, in place; maps over time only.
void run_by_coordinate(const Sizes& s, const Stack& stack, int64_t columns, float* x) {
    Scratch scratch;
    const int64_t column = s.T * lanes;
    float* z = scratch.floats(columns * column);
    float* y = scratch.floats(max_j * column);
    float* u = scratch.floats(max_j * column);
    for (int64_t n = 0; n < s.N; ++n) {
        const Block b = stack.block(s, n);
        for (int64_t g = 0; g < columns; g += max_j) {
            const int64_t some = columns - g < max_j ? columns - g : max_j;
            const float* source = x + g * column;
            if (b.pre_weight) {
                first_map(s, b, some, source, y, u, nullptr, nullptr);
                source = u;
            }
            multiply(over_time(some, s.T, s.T, b.weight, false, source, z + g * column, b.bias));
        }
        add_normalised_across(s, b, columns, z, x);
    }
}

// ---- memory <-> tiles

// tile(c, t, lane) = source[sample lane, c, t]; lanes past `samples` are 0.
void gather(const float* source, int64_t per_sample, int64_t c_stride, int64_t t_stride, int64_t samples, int64_t C,
            int64_t T, float* tile) {
    for (int64_t c = 0; c < C; ++c)
        for (int64_t t = 0; t < T; ++t) {
            const float* from = source + c * c_stride + t * t_stride;
            float* to = tile + (c * T + t) * lanes;
            for (int64_t i = 0; i < samples; ++i) to[i] = from[i * per_sample];
            for (int64_t i = samples; i < lanes; ++i) to[i] = 0;
        }
}

void scatter(const float* tile, int64_t samples, int64_t C, int64_t T, float* target, int64_t per_sample,
             int64_t c_stride, int64_t t_stride) {
    for (int64_t c = 0; c < C; ++c)
        for (int64_t t = 0; t < T; ++t) {
            const float* from = tile + (c * T + t) * lanes;
            float* to = target + c * c_stride + t * t_stride;
            for (int64_t i = 0; i < samples; ++i) to[i * per_sample] = from[i];
        }
}

// How a batch is cut: `tiles` tiles by sample, then `singles` samples by coordinate. The threads have no say in it.
struct Cut {
    int64_t tiles, singles;
    Cut(const Sizes& s, int64_t B) : tiles(B / lanes), singles(B % lanes) {
        if (s.mix_spatial || 4 * singles > 3 * lanes) {  // by coordinate a sample costs a third more
            tiles += singles > 0;
            singles = 0;
        }
    }
    int64_t single_from(int64_t B) const { return B - singles; }
};

// One sample [C, T] of any strides <-> columns of coordinates.
void gather_coordinates(const float* source, int64_t c_stride, int64_t t_stride, int64_t C, int64_t T, float* tile) {
    for (int64_t c = 0; c < C; c += lanes) {
        const int64_t some = C - c < lanes ? C - c : lanes;
        gather(source + c * c_stride, c_stride, 0, t_stride, some, 1, T, tile + c * T);
    }
}

void scatter_coordinates(const float* tile, int64_t C, int64_t T, float* target, int64_t c_stride, int64_t t_stride) {
    for (int64_t c = 0; c < C; c += lanes) {
        const int64_t some = C - c < lanes ? C - c : lanes;
        scatter(tile + c * T, some, 1, T, target + c * c_stride, c_stride, 0, t_stride);
    }
}

int64_t valid_lanes(int64_t B, int64_t tile) {
    return B - tile * lanes < lanes ? B - tile * lanes : lanes;
}

// ---- backward

// Sums over tiles of the gradients of one stack's parameters; null where nobody asked.
struct Gradients {
    float *weight, *bias, *scale, *shift, *pre_weight, *pre_bias, *pre_scale, *pre_shift;
};

void add_lane_sums(const float* vectors, int64_t n, float* sums) {
    for (int64_t i = 0; i < n; ++i) sums[i] += sum(load(vectors + i * lanes));
}

void zero(float* p, int64_t n) {
    std::memset(p, 0, sizeof(float) * static_cast<size_t>(n));
}

// Through LN(z): z becomes the gradient of z, given that of the norm's result.
void norm_backward(const Sizes& s, const Block& b, const float* grad, float* z, float* scale_grad, float* shift_grad,
                   Scratch& scratch) {
    if (s.norm == norm_none) {
        std::memcpy(z, grad, sizeof(float) * s.C * s.T * lanes);
        return;
    }
    const Groups g(s);
    const Affine a(s);
    float* mean = scratch.floats(g.count * lanes);
    float* inverse = scratch.floats(g.count * lanes);
    moments_by_group(s, z, mean, inverse);
    const int64_t affine = s.affine_size();
    float* sums = scratch.floats(2 * g.count * lanes);  // of v = grad * scale, and of v * normalised
    float* parts = scratch.floats(2 * affine * lanes);  // of grad * normalised, and of grad, per scale
    zero(sums, 2 * g.count * lanes);
    zero(parts, 2 * affine * lanes);
    for (int64_t c = 0; c < s.C; ++c) {
        for (int64_t t = 0; t < s.T; ++t) {
            const int64_t group = (c * g.per_c + t * g.per_t) * lanes, at = (c * s.T + t) * lanes;
            const int64_t i = c * a.per_c + t * a.per_t;
            const Vec normal = (load(z + at) - load(mean + group)) * load(inverse + group);
            store(z + at, normal);
            const Vec up = load(grad + at), v = up * b.scale[i];
            store(sums + 2 * group, load(sums + 2 * group) + v);
            store(sums + 2 * group + lanes, load(sums + 2 * group + lanes) + v * normal);
            store(parts + 2 * i * lanes, load(parts + 2 * i * lanes) + up * normal);
            store(parts + (2 * i + 1) * lanes, load(parts + (2 * i + 1) * lanes) + up);
        }
    }
    for (int64_t i = 0; i < affine; ++i) {
        scale_grad[i] += sum(load(parts + 2 * i * lanes));
        shift_grad[i] += sum(load(parts + (2 * i + 1) * lanes));
    }
    const Vec share = broadcast(1.f / static_cast<float>(g.size));
    for (int64_t i = 0; i < 2 * g.count; ++i) store(sums + i * lanes, load(sums + i * lanes) * share);
    for (int64_t c = 0; c < s.C; ++c) {
        for (int64_t t = 0; t < s.T; ++t) {
            const int64_t group = (c * g.per_c + t * g.per_t) * lanes, at = (c * s.T + t) * lanes;
            const int64_t i = c * a.per_c + t * a.per_t;
            const Vec v = load(grad + at) * b.scale[i];
            const Vec centred = v - load(sums + 2 * group) - load(z + at) * load(sums + 2 * group + lanes);
            store(z + at, centred * load(inverse + group));
        }
    }
}

// One block, backwards, for a tile by sample: grad becomes the gradient of x; parameters' gradients are added to `to`.
void block_backward(const Sizes& s, const Block& b, const float* x, float* grad, const Gradients& to) {
    Scratch scratch;
    const int64_t column = s.T * lanes, size = s.C * column, M = s.mix_size();
    float* z = scratch.floats(size);
    float* u = b.pre_weight ? scratch.floats(size) : nullptr;
    float* normal = b.pre_weight ? scratch.floats(size) : nullptr;  // normalised y, later the gradient of y
    float* inverse = b.pre_weight ? scratch.floats(s.C * lanes) : nullptr;
    inner(s, b, x, z, u, normal, inverse, scratch);
    norm_backward(s, b, grad, z, to.scale, to.shift, scratch);

    const float* source = u ? u : x;
    float* per_slot = scratch.floats(4 * (M > s.T ? M : s.T) * lanes);
    zero(per_slot, M * lanes);
    for (int64_t c = 0; c < s.C; ++c)
        for (int64_t t = 0; t < s.T; ++t) {
            float* at = per_slot + (s.mix_spatial ? c : t) * lanes;
            store(at, load(at) + load(z + c * column + t * lanes));
        }
    add_lane_sums(per_slot, M, to.bias);
    if (s.mix_spatial) {
        add_outer({s.C, s.C, s.T, z, lanes, column, source, lanes, column, to.weight});
    } else {
        add_outer({s.T, s.T, s.C, z, column, lanes, source, column, lanes, to.weight});
    }
    if (!b.pre_weight) {
        multiply(s.mix_spatial ? over_columns(s.C, s.T, b.weight, true, z, grad, nullptr, true)
                               : over_time(s.C, s.T, s.T, b.weight, true, z, grad, nullptr, true));
        return;
    }
    float* inward = u;  // the gradient of u takes its place: all columns at once, or a few at a time
    if (s.mix_spatial) multiply(over_columns(s.C, s.T, b.weight, true, z, inward, nullptr));
    float *bias_grad = per_slot, *scale_grad = per_slot + column, *shift_grad = per_slot + 2 * column;
    zero(per_slot, 3 * column);
    const Vec share = broadcast(1.f / static_cast<float>(s.T));
    for (int64_t c = 0; c < s.C; c += max_j) {
        const int64_t columns = s.C - c < max_j ? s.C - c : max_j;
        if (!s.mix_spatial) {
            multiply(over_time(columns, s.T, s.T, b.weight, true, z + c * column, inward + c * column, nullptr));
        }
        for (int64_t j = c; j < c + columns; ++j) {
            const float* up = inward + j * column;
            float *hat = normal + j * column, *out = grad + j * column;
            Vec total{}, product{};
            for (int64_t t = 0; t < s.T; ++t) {
                const Vec d = load(up + t * lanes), h = load(hat + t * lanes), v = d * b.pre_scale[t];
                total += v;
                product += v * h;
                store(scale_grad + t * lanes, load(scale_grad + t * lanes) + d * h);
                store(shift_grad + t * lanes, load(shift_grad + t * lanes) + d);
            }
            total *= share;
            product *= share;
            const Vec factor = load(inverse + j * lanes);
            for (int64_t t = 0; t < s.T; ++t) {
                const Vec d = load(up + t * lanes);
                const Vec dy = (d * b.pre_scale[t] - total - load(hat + t * lanes) * product) * factor;
                store(hat + t * lanes, dy);
                store(bias_grad + t * lanes, load(bias_grad + t * lanes) + dy);
                store(out + t * lanes, load(out + t * lanes) + d);
            }
        }
        multiply(
            over_time(columns, s.T, s.T, b.pre_weight, true, normal + c * column, grad + c * column, nullptr, true));
    }
    add_lane_sums(bias_grad, s.T, to.pre_bias);
    add_lane_sums(scale_grad, s.T, to.pre_scale);
    add_lane_sums(shift_grad, s.T, to.pre_shift);
    add_outer({s.T, s.T, s.C, normal, column, lanes, x, column, lanes, to.pre_weight});
}

// ---- a whole network

struct Network {
    Sizes s;
    int64_t S;  // future frames
    const float *history, *transform, *inverse, *weight_in, *bias_in;
    int64_t per_sample, t_stride, c_stride;  // of history
    Stack stacks[2];
    const float *weight_out[2], *bias_out[2];
    int branches;
    int64_t side_blocks;
    const float *in_packed, *out_packed[2];  // [C, columns * lanes]: transposed, for samples by coordinate
    const float* row_sums;                   // [S] of inverse: what a bias of the output layer becomes
    int64_t columns() const { return (s.C + lanes - 1) / lanes; }
};

// A tile of samples from history to future [B, S, C].
void network_by_sample(const Network& net, int64_t first, int64_t samples, float* future) {
    const Sizes& s = net.s;
    const int64_t C = s.C, T = s.T, S = net.S, size = C * T * lanes;
    Scratch scratch;
    float* h = scratch.floats(size);
    float* x = scratch.floats(size);
    float* short_x = scratch.floats(C * S * lanes);
    float* out = scratch.floats(C * S * lanes);
    gather(net.history + first * net.per_sample, net.per_sample, net.c_stride, net.t_stride, samples, C, T, h);
    for (int64_t c = 0; c < C; ++c) {
        float bias = net.bias_out[0][c];
        if (net.branches == 2) bias += net.bias_out[1][c];
        const Vec last = load(h + (c * T + T - 1) * lanes);
        for (int64_t i = 0; i < S; ++i) store(out + (c * S + i) * lanes, last + bias * net.row_sums[i]);
    }
    multiply(over_time(C, T, T, net.transform, false, h, x, nullptr));
    multiply(over_columns(C, T, net.weight_in, false, x, h, net.bias_in));
    for (int branch = 0; branch < net.branches; ++branch) {
        float* state = branch + 1 < net.branches ? x : h;  // the last one may use h up
        if (state != h) std::memcpy(x, h, sizeof(float) * size);
        Sizes own = s;
        own.N = branch == 0 ? s.N : net.side_blocks;
        run_by_sample(own, net.stacks[branch], state, nullptr);
        multiply(over_time(C, T, S, net.inverse, false, state, short_x, nullptr));
        multiply(over_columns(C, S, net.weight_out[branch], false, short_x, out, nullptr, true));
    }
    scatter(out, samples, C, S, future + first * S * C, S * C, 1, C);
}

// One branch of one sample, by coordinate: its part of the future, [S, columns * lanes].
void network_by_coordinate(const Network& net, int64_t sample, int branch, float* part) {
    const Sizes& s = net.s;
    const int64_t C = s.C, T = s.T, S = net.S, G = net.columns(), width = G * lanes;
    Scratch scratch;
    float* v = scratch.floats(width * (T > S ? T : S));  // both hold the future in the end
    float* h = scratch.floats(width * (T > S ? T : S));
    const float* x = net.history + sample * net.per_sample;
    // Coordinates first: rows are the frames of the history, vectors the columns of weight_in^T.
    multiply(
        {T, G, C, x, net.t_stride, net.c_stride, net.in_packed, width, lanes, v, lanes, T * lanes, nullptr, false});
    for (int64_t g = 0; g < G; ++g) {
        const Vec bias = load(net.bias_in + g * lanes, C - g * lanes);
        for (int64_t t = 0; t < T; ++t) store(h + (g * T + t) * lanes, bias);
    }
    multiply(over_time(G, T, T, net.transform, false, v, h, nullptr, true));
    Sizes own = s;
    own.N = branch == 0 ? s.N : net.side_blocks;
    run_by_coordinate(own, net.stacks[branch], G, h);
    multiply(over_time(G, T, S, net.inverse, false, h, v, nullptr));
    float* plain = h;  // [S, C]: the rows of the next product
    scatter_coordinates(v, C, S, plain, 1, C);
    multiply({S, G, C, plain, C, 1, net.out_packed[branch], width, lanes, part, width, lanes, nullptr, false});
}

// target[i, o] = source[o, i], rows padded with zeros to `width`.
void transpose(const float* source, int64_t n, int64_t width, float* target) {
    for (int64_t i = 0; i < n; ++i) {
        for (int64_t o = 0; o < n; ++o) target[i * width + o] = source[o * n + i];
        for (int64_t o = n; o < width; ++o) target[i * width + o] = 0;
    }
}

int norm_code(int64_t norm) {
    return static_cast<int>(norm);
}

}  // namespace

// Samples in a tile: what the stored inputs of blocks are padded to.
int64_t temporal_mlp_lanes() {
    return lanes;
}

// y [B, C, T] from x [B, C, T]; saved [tiles, N, C, T, lanes] or null.
void temporal_mlp(const float* x, const float* weight, const float* bias, const float* scale, const float* shift,
                  const float* pre_weight, const float* pre_bias, const float* pre_scale, const float* pre_shift,
                  float* y, float* saved, int64_t B, int64_t C, int64_t T, int64_t N, int64_t mix_spatial, int64_t norm,
                  float eps) {
    const Sizes s{C, T, N, static_cast<int>(mix_spatial), norm_code(norm), eps};
    const Stack stack{weight, bias, scale, shift, pre_weight, pre_bias, pre_scale, pre_shift};
    Cut cut(s, B);
    if (saved) {
        cut.tiles = (B + lanes - 1) / lanes;
        cut.singles = 0;
    }
    const int64_t size = C * T, columns = (C + lanes - 1) / lanes;
    parallel_for(cut.tiles + cut.singles, [&](int64_t task) {
        Scratch scratch;
        if (task < cut.tiles) {
            const int64_t first = task * lanes, samples = valid_lanes(cut.single_from(B), task);
            float* tile = scratch.floats(size * lanes);
            gather(x + first * size, size, T, 1, samples, C, T, tile);
            run_by_sample(s, stack, tile, saved ? saved + task * N * size * lanes : nullptr);
            scatter(tile, samples, C, T, y + first * size, size, T, 1);
            return;
        }
        const int64_t sample = cut.single_from(B) + task - cut.tiles;
        float* tile = scratch.floats(columns * T * lanes);
        gather_coordinates(x + sample * size, T, 1, C, T, tile);
        run_by_coordinate(s, stack, columns, tile);
        scatter_coordinates(tile, C, T, y + sample * size, T, 1);
    });
}

// Tiles are summed in this many groups, whatever the number of threads: the same bits on every machine of one width.
int64_t temporal_mlp_groups(int64_t B) {
    const int64_t tiles = (B + lanes - 1) / lanes;
    return tiles < 32 ? tiles : 32;
}

// grad_x [B, C, T] and the gradients of the parameters, from grad [B, C, T] and `saved` of the forward pass. `partial`
// has room for the parameters' gradients of every group; a null result is not wanted.
void temporal_mlp_backward(const float* grad, const float* saved, const float* weight, const float* bias,
                           const float* scale, const float* shift, const float* pre_weight, const float* pre_bias,
                           const float* pre_scale, const float* pre_shift, float* grad_x, float* grad_weight,
                           float* grad_bias, float* grad_scale, float* grad_shift, float* grad_pre_weight,
                           float* grad_pre_bias, float* grad_pre_scale, float* grad_pre_shift, float* partial,
                           int64_t B, int64_t C, int64_t T, int64_t N, int64_t mix_spatial, int64_t norm, float eps) {
    const Sizes s{C, T, N, static_cast<int>(mix_spatial), norm_code(norm), eps};
    const Stack stack{weight, bias, scale, shift, pre_weight, pre_bias, pre_scale, pre_shift};
    const int64_t size = C * T, tiles = (B + lanes - 1) / lanes, groups = temporal_mlp_groups(B);
    const int64_t M = s.mix_size(), A = s.affine_size(), P = pre_weight ? T : 0;
    const int64_t counts[8] = {N * M * M, N * M, N * A, N * A, N * P * P, N * P, N * P, N * P};
    int64_t total = 0;
    for (const int64_t count : counts) total += count;
    parallel_for(groups, [&](int64_t group) {
        Scratch scratch;
        float* own = partial + group * total;
        zero(own, total);
        float* parts[8];
        for (int64_t i = 0, at = 0; i < 8; at += counts[i++]) parts[i] = own + at;
        float* tile = scratch.floats(size * lanes);
        for (int64_t t = tiles * group / groups; t < tiles * (group + 1) / groups; ++t) {
            const int64_t samples = valid_lanes(B, t);
            gather(grad + t * lanes * size, size, T, 1, samples, C, T, tile);
            for (int64_t n = N; n-- > 0;) {
                const Gradients to{parts[0] + n * M * M, parts[1] + n * M, parts[2] + n * A, parts[3] + n * A,
                                   parts[4] + n * P * P, parts[5] + n * P, parts[6] + n * P, parts[7] + n * P};
                block_backward(s, stack.block(s, n), saved + (t * N + n) * size * lanes, tile, to);
            }
            if (grad_x) scatter(tile, samples, C, T, grad_x + t * lanes * size, size, T, 1);
        }
    });
    float* results[8] = {grad_weight,     grad_bias,     grad_scale,     grad_shift,
                         grad_pre_weight, grad_pre_bias, grad_pre_scale, grad_pre_shift};
    int64_t at = 0;
    for (int i = 0; i < 8; ++i) {
        if (results[i] && counts[i]) {
            const float* first = partial + at;
            float* result = results[i];
            const int64_t count = counts[i], pieces = (count + 4095) / 4096;
            parallel_for(pieces, [&](int64_t piece) {
                const int64_t end = count < (piece + 1) * 4096 ? count : (piece + 1) * 4096;
                for (int64_t k = piece * 4096; k < end; k += lanes) {
                    Vec v{};
                    for (int64_t group = 0; group < groups; ++group) v += load(first + group * total + k, end - k);
                    store(result + k, v, end - k);
                }
            });
        }
        at += counts[i];
    }
}

// future [B, S, C] from history [B, T, C] of any strides (in floats); side_* null without a second stack.
void temporal_mlp_forecast(const float* history, int64_t per_sample, int64_t t_stride, int64_t c_stride,
                           const float* transform, const float* inverse, const float* weight_in, const float* bias_in,
                           const float* weight, const float* bias, const float* scale, const float* shift,
                           const float* pre_weight, const float* pre_bias, const float* pre_scale,
                           const float* pre_shift, const float* weight_out, const float* bias_out,
                           const float* side_weight, const float* side_bias, const float* side_scale,
                           const float* side_shift, const float* side_pre_weight, const float* side_pre_bias,
                           const float* side_pre_scale, const float* side_pre_shift, const float* side_weight_out,
                           const float* side_bias_out, float* future, int64_t B, int64_t C, int64_t T, int64_t S,
                           int64_t N, int64_t side_N, int64_t mix_spatial, int64_t norm, float eps) {
    Network net{};
    net.s = {C, T, N, static_cast<int>(mix_spatial), norm_code(norm), eps};
    net.S = S;
    net.history = history;
    net.per_sample = per_sample;
    net.t_stride = t_stride;
    net.c_stride = c_stride;
    net.transform = transform;
    net.inverse = inverse;
    net.weight_in = weight_in;
    net.bias_in = bias_in;
    net.stacks[0] = {weight, bias, scale, shift, pre_weight, pre_bias, pre_scale, pre_shift};
    net.stacks[1] = {side_weight,     side_bias,     side_scale,     side_shift,
                     side_pre_weight, side_pre_bias, side_pre_scale, side_pre_shift};
    net.weight_out[0] = weight_out;
    net.weight_out[1] = side_weight_out;
    net.bias_out[0] = bias_out;
    net.bias_out[1] = side_bias_out;
    net.branches = side_weight_out ? 2 : 1;
    net.side_blocks = side_N;
    Scratch scratch;
    float* row_sums = scratch.floats(S);
    for (int64_t i = 0; i < S; ++i) {
        row_sums[i] = 0;
        for (int64_t t = 0; t < T; ++t) row_sums[i] += inverse[i * T + t];
    }
    net.row_sums = row_sums;
    const Cut cut(net.s, B);
    const int64_t width = net.columns() * lanes, alone = cut.single_from(B);
    float* parts = nullptr;
    if (cut.singles) {
        float* packed = scratch.floats((1 + net.branches) * C * width);
        transpose(weight_in, C, width, packed);
        net.in_packed = packed;
        for (int i = 0; i < net.branches; ++i) {
            net.out_packed[i] = packed + (1 + i) * C * width;
            transpose(net.weight_out[i], C, width, packed + (1 + i) * C * width);
        }
        parts = scratch.floats(cut.singles * net.branches * S * width);
    }
    parallel_for(cut.tiles + cut.singles * net.branches, [&](int64_t task) {
        if (task < cut.tiles) return network_by_sample(net, task * lanes, valid_lanes(alone, task), future);
        const int64_t branch = task - cut.tiles;
        network_by_coordinate(net, alone + branch / net.branches, static_cast<int>(branch % net.branches),
                              parts + branch * S * width);
    });
    for (int64_t single = 0; single < cut.singles; ++single) {
        const float* last = history + (alone + single) * per_sample + (T - 1) * t_stride;
        for (int64_t i = 0; i < S; ++i) {
            const float* part = parts + (single * net.branches * S + i) * width;
            float* out = future + ((alone + single) * S + i) * C;
            for (int64_t c = 0; c < C; ++c) {
                float v = part[c] + bias_out[c] * row_sums[i];
                if (net.branches == 2) v += part[S * width + c] + side_bias_out[c] * row_sums[i];
                out[c] = last[c * c_stride] + v;
            }
        }
    }
}
POSEKERNELS_KERNEL(temporal_mlp_lanes)
POSEKERNELS_KERNEL(temporal_mlp)
POSEKERNELS_KERNEL(temporal_mlp_groups)
POSEKERNELS_KERNEL(temporal_mlp_backward)
POSEKERNELS_KERNEL(temporal_mlp_forecast)
POSEKERNELS_END
