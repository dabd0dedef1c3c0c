// graph_conv: y = act(scale (sum_k A_k (M * (x W_k)) + bias) + shift) + residual, and its gradient.
//
// A task takes a tile of poses and goes through the columns one packed panel at a time: the products of the tile with
// W_k, modulated, land in the L1 cache in the very layout of a packed panel, so that mixing the joints of a pose is
// another register block, A_k times the pose's part of the panel. The K intermediates of the eager form never exist.
// An A_k that is diagonal is a factor per joint, folded into the modulation.
#include "posekernels/gemm.h"
#include "posekernels/graph_conv.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN
namespace {

constexpr int64_t max_matrices = 16;

// Which A_k mix joints (dense), and which only scale them (diagonal).
struct Structure {
    int64_t dense = 0, diagonal = 0;
    int64_t dense_k[max_matrices], diagonal_k[max_matrices];
    Structure(const float* adjacency, int64_t K, int64_t J) {
        for (int64_t k = 0; k < K; ++k) {
            bool off = false;
            for (int64_t i = 0; i < J; ++i)
                for (int64_t j = 0; j < J; ++j) off |= i != j && adjacency[(k * J + i) * J + j] != 0.0f;
            if (off) {
                dense_k[dense++] = k;
            } else {
                diagonal_k[diagonal++] = k;
            }
        }
    }
};

// Poses of a tile: about `rows` rows of x, which then stay in the L2 cache with the weights streaming past.
int64_t poses_of(int64_t J, int64_t rows) {
    return rows / J > 1 ? rows / J : 1;
}

// out(row, j, half, v) for every vector of the product of `rows` rows of x with one panel of W; j is row mod J, half 0
// or 1 says which half of the panel.
template <class Out>
POSEKERNELS_INLINE void product(const float* x, int64_t Cin, int64_t rows, int64_t J, const float* weight,
                                const Out& out) {
    const RowSplit split(rows);
    alignas(64) float sums[max_rows * panel];
    int64_t row = 0, j = 0;
    for (int64_t block = 0; block < split.count; ++block) {
        const int64_t height = split.rows(block);
        blocks_of_rows[height](Cin, x + row * Cin, Cin, 1, weight, sums);
        for (int64_t r = 0; r < height; ++r, ++row, j = j + 1 == J ? 0 : j + 1) {
            out(row, j, 0, load(sums + r * panel));
            out(row, j, 1, load(sums + r * panel + lanes));
        }
    }
}

// The part of [J, Cout] (or of a row) that a panel covers, in the panel's layout, zero past the last column; `fill`
// where there is no such tensor.
void panel_of(const float* source, int64_t rows, int64_t ld, int64_t column, int64_t n, float fill, float* out) {
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t half = 0; half < 2; ++half) {
            const int64_t left = n - half * lanes;
            const Vec v = source == nullptr ? splat(fill)
                          : left > 0        ? load(source + r * ld + column + half * lanes, left)
                                            : Vec{};
            store(out + r * panel + half * lanes, v);
        }
}

}  // namespace

// All contiguous but `weight`, which is K packed matrices [Cin, Cout]. h, bias, modulation, scale, shift and residual
// may be null; h receives the value before scale.
void graph_conv_forward(const float* x, const float* weight, const float* adjacency, const float* bias,
                        const float* modulation, const float* scale, const float* shift, const float* residual,
                        float* y, float* h, int64_t B, int64_t J, int64_t Cin, int64_t Cout, int64_t K,
                        int activation) {
    const Structure structure(adjacency, K, J);
    const int64_t P = poses_of(J, 126), panels = panels_of(Cout), each = packed_size(Cin, Cout);
    const int64_t tiles = (B + P - 1) / P;
    const int threads = B * J * Cin * Cout * K < 2 * small_product ? 1 : num_threads();
    int64_t groups = tiles < 2 * threads && threads > 1 ? (2 * threads + tiles - 1) / (tiles > 0 ? tiles : 1) : 1;
    if (groups > panels) groups = panels;

    const auto run = [&](auto act, int64_t task) {
        const int64_t first_pose = task / groups * P, group = task % groups;
        const int64_t poses = B - first_pose < P ? B - first_pose : P, rows = poses * J;
        const int64_t depth = structure.dense * J;
        Scratch scratch;
        float* mixed = scratch.floats((poses * depth + 1) * panel);  // [pose][dense k][J][panel]
        float* scaled = scratch.floats(rows * panel);                // the diagonal matrices' part
        float* factor = scratch.floats(K * J * panel);               // modulation, times the diagonal where A_k is one
        float* wide = scratch.floats(J * depth);                     // the dense A_k side by side: [J][dense k][J]
        for (int64_t i = 0; i < J; ++i)
            for (int64_t d = 0; d < structure.dense; ++d)
                for (int64_t j = 0; j < J; ++j)
                    wide[(i * structure.dense + d) * J + j] = adjacency[(structure.dense_k[d] * J + i) * J + j];
        const float* xt = x + first_pose * J * Cin;
        const int64_t first = panels * group / groups, last = panels * (group + 1) / groups;
        for (int64_t p = first; p < last; ++p) {
            const int64_t column = p * panel, n = Cout - column < panel ? Cout - column : panel;
            for (int64_t k = 0; k < K; ++k) panel_of(modulation, J, Cout, column, n, 1.0f, factor + k * J * panel);
            for (int64_t d = 0; d < structure.diagonal; ++d) {
                const int64_t k = structure.diagonal_k[d];
                for (int64_t j = 0; j < J; ++j) {
                    const float a = adjacency[(k * J + j) * J + j];
                    float* f = factor + (k * J + j) * panel;
                    store(f, load(f) * a);
                    store(f + lanes, load(f + lanes) * a);
                }
            }
            for (int64_t d = 0; d < structure.dense; ++d) {
                const int64_t k = structure.dense_k[d];
                const float* f = factor + k * J * panel;
                float* out = mixed + d * J * panel;  // rows of one pose lie together, poses `depth` rows apart
                const int64_t jump = (depth - J) * panel;
                product(xt, Cin, rows, J, weight + k * each + column * Cin,
                        [&](int64_t, int64_t j, int64_t half, Vec v) POSEKERNELS_INLINE_LAMBDA {
                            store(out + half * lanes, v * load(f + j * panel + half * lanes));
                            if (half) out += panel + (j + 1 == J ? jump : 0);
                        });
            }
            for (int64_t d = 0; d < structure.diagonal; ++d) {
                const int64_t k = structure.diagonal_k[d];
                const float* f = factor + k * J * panel;
                product(xt, Cin, rows, J, weight + k * each + column * Cin,
                        [&](int64_t row, int64_t j, int64_t half, Vec v) POSEKERNELS_INLINE_LAMBDA {
                            float* out = scaled + row * panel + half * lanes;
                            v = v * load(f + j * panel + half * lanes);
                            store(out, d ? v + load(out) : v);
                        });
            }
            // Mixing, one pose at a time, and everything after it.
            const RowSplit split(J);
            alignas(64) float sums[max_rows * panel];
            for (int64_t pose = 0; pose < poses; ++pose) {
                for (int64_t block = 0, i = 0; block < split.count; ++block) {
                    const int64_t height = split.rows(block);
                    blocks_of_rows[height](depth, wide + i * depth, depth, 1, mixed + pose * depth * panel, sums);
                    for (int64_t r = 0; r < height; ++r, ++i) {
                        const int64_t row = pose * J + i, at = (first_pose * J + row) * Cout + column;
                        for (int64_t c = 0; c < n; c += lanes) {
                            const int64_t left = n - c;
                            Vec v = load(sums + r * panel + c);
                            if (structure.diagonal) v = v + load(scaled + row * panel + c);
                            if (bias) v = v + load(bias + column + c, left);
                            if (h) store(h + at + c, v, left);
                            if (scale) v = v * load(scale + column + c, left);
                            if (shift) v = v + load(shift + column + c, left);
                            v = act(v, 0, 0, 0);
                            if (residual) v = v + load(residual + at + c, left);
                            store(y + at + c, v, left);
                        }
                    }
                }
            }
        }
    };
    with_activation(static_cast<Activation>(activation), [&](auto act) {
        const auto task = [&](int64_t t) { run(act, t); };
        if (threads > 1) {
            parallel_for(tiles * groups, task);
        } else {
            for (int64_t t = 0; t < tiles * groups; ++t) task(t);
        }
    });
}
POSEKERNELS_KERNEL(graph_conv_forward)

namespace {

// sums[i][j] += sum over poses of a[pose][i] b[pose][j] in vectors: `sums` holds a vector per pair, added up over its
// lanes only once, at the very end. a and b are panels of `poses` poses, their poses a_step and b_step floats apart.
#if POSEKERNELS_REGISTERS == 32
constexpr int outer_rows = 6, outer_columns = 4;
#else
constexpr int outer_rows = 3, outer_columns = 4;
#endif

void add_outer(const float* a, int64_t a_step, const float* b, int64_t b_step, int64_t poses, int64_t J, float* sums) {
    for (int64_t i0 = 0; i0 < J; i0 += outer_rows)
        for (int64_t j0 = 0; j0 < J; j0 += outer_columns) {
            // Past the last joint a block repeats it, and drops what comes of it.
            int64_t at_i[outer_rows], at_j[outer_columns];
            for (int i = 0; i < outer_rows; ++i) at_i[i] = (i0 + i < J ? i0 + i : J - 1) * panel;
            for (int j = 0; j < outer_columns; ++j) at_j[j] = (j0 + j < J ? j0 + j : J - 1) * panel;
            Vec c[outer_rows][outer_columns] = {};
            for (int64_t pose = 0; pose < poses; ++pose)
                for (int half = 0; half < 2; ++half) {
                    const float* ap = a + pose * a_step + half * lanes;
                    const float* bp = b + pose * b_step + half * lanes;
                    Vec bv[outer_columns];
                    POSEKERNELS_UNROLL(4)
                    for (int j = 0; j < outer_columns; ++j) bv[j] = load(bp + at_j[j]);
                    POSEKERNELS_UNROLL(6)
                    for (int i = 0; i < outer_rows; ++i) {
                        const Vec av = load(ap + at_i[i]);
                        POSEKERNELS_UNROLL(4)
                        for (int j = 0; j < outer_columns; ++j) c[i][j] = av * bv[j] + c[i][j];
                    }
                }
            for (int i = 0; i < outer_rows && i0 + i < J; ++i)
                for (int j = 0; j < outer_columns && j0 + j < J; ++j) {
                    float* s = sums + ((i0 + i) * J + j0 + j) * lanes;
                    store(s, load(s) + c[i][j]);
                }
        }
}

void clear(float* p, int64_t n) {
    for (int64_t i = 0; i < n; i += lanes) store(p + i, Vec{}, n - i);
}

// What one group of poses adds up: the gradients that are sums over poses. Groups are fixed by the sizes alone, so
// the result does not depend on the threads.
struct Partial {
    float *weight, *modulation, *adjacency, *bias, *scale, *shift;
    int64_t size;
    Partial(float* base, int64_t J, int64_t Cin, int64_t Cout, int64_t K) {
        const int64_t wide = panels_of(Cout) * panel;
        int64_t used = 0;
        const auto take = [&](int64_t count) {
            float* p = base + used;
            used += (count + lanes - 1) / lanes * lanes;
            return p;
        };
        weight = take(K * Cin * wide);  // [k][panel][Cin][panel's columns]
        modulation = take(J * wide);    // [panel][J][panel's columns]
        bias = take(wide);
        scale = take(wide);
        shift = take(wide);
        adjacency = take(K * J * J * lanes);
        size = used;
    }
};

}  // namespace

// grad, h, x as in the forward pass; weight: packed [Cin, Cout] matrices, weight_t: packed transposes [Cout, Cin].
// The d* receive the gradients, null where not wanted. h may be null when there is neither activation nor scale.
void graph_conv_backward(const float* grad, const float* h, const float* x, const float* weight, const float* weight_t,
                         const float* adjacency, const float* modulation, const float* scale, const float* shift,
                         float* dx, float* dweight, float* dadjacency, float* dbias, float* dmodulation, float* dscale,
                         float* dshift, int64_t B, int64_t J, int64_t Cin, int64_t Cout, int64_t K, int activation) {
    const int64_t panels = panels_of(Cout), each = packed_size(Cin, Cout), each_t = packed_size(Cout, Cin);
    int64_t P = poses_of(J, 119);
    while (P > 1 && P * J * Cout * K * 4 > (int64_t(400) << 10)) --P;  // its gradients of the products, in L2
    const int64_t tiles = (B + P - 1) / P;
    int64_t groups = B * J / 400;
    groups = groups < 1 ? 1 : groups > 64 ? 64 : groups;
    if (groups > tiles) groups = tiles > 0 ? tiles : 1;
    const bool sums_wanted = dweight || dadjacency || dbias || dmodulation || dscale || dshift;
    const bool products_wanted = dadjacency || dmodulation;
    const bool deep = dx || dweight || products_wanted;
    const Activation act = static_cast<Activation>(activation);

    Scratch shared;
    const int64_t partial_size = Partial(nullptr, J, Cin, Cout, K).size;
    float* partials = sums_wanted ? shared.floats(groups * partial_size) : nullptr;

    const auto run_group = [&](int64_t group) {
        Scratch scratch;
        float* dh = scratch.floats(P * J * panel);
        float* dmixed = scratch.floats(P * J * panel);  // gradient of M * (x W_k), then of x W_k
        float* modulated = scratch.floats(P * J * panel);
        float* dproduct = scratch.floats(K * P * J * Cout);  // [k][row][Cout]
        float* factor = scratch.floats(J * panel);
        alignas(64) float sums[max_rows * panel];
        Partial total(partials, J, Cin, Cout, K);
        if (sums_wanted) {
            total = Partial(partials + group * partial_size, J, Cin, Cout, K);
            clear(total.weight, partial_size);
        }
        const int64_t begin = tiles * group / groups, end = tiles * (group + 1) / groups;
        for (int64_t tile = begin; tile < end; ++tile) {
            const int64_t first_pose = tile * P, poses = B - first_pose < P ? B - first_pose : P, rows = poses * J;
            const float* xt = x + first_pose * J * Cin;
            for (int64_t p = 0; p < panels; ++p) {
                const int64_t column = p * panel, n = Cout - column < panel ? Cout - column : panel;
                // Through the epilogue: the gradient of h.
                for (int64_t half = 0; half < 2; ++half) {
                    const int64_t left = n - half * lanes, c = column + half * lanes;
                    Vec bias_sum{}, scale_sum{}, shift_sum{};
                    if (left <= 0) {
                        for (int64_t r = 0; r < rows; ++r) store(dh + r * panel + half * lanes, Vec{});
                        continue;
                    }
                    const Vec s = scale ? load(scale + c, left) : splat(1.0f);
                    const Vec t = shift ? load(shift + c, left) : Vec{};
                    for (int64_t r = 0; r < rows; ++r) {
                        const int64_t at = (first_pose * J + r) * Cout + c;
                        Vec d = load(grad + at, left);
                        const Vec value = h ? load(h + at, left) : Vec{};
                        const Vec z = value * s + t;
                        if (act == Activation::relu) d = z <= 0.0f ? Vec{} : d;
                        if (act == Activation::gelu) d = d * gelu_gradient(z);
                        shift_sum += d;
                        scale_sum += d * value;
                        d = d * s;
                        bias_sum += d;
                        store(dh + r * panel + half * lanes, d);
                    }
                    if (sums_wanted) {
                        store(total.bias + c, load(total.bias + c) + bias_sum);
                        store(total.scale + c, load(total.scale + c) + scale_sum);
                        store(total.shift + c, load(total.shift + c) + shift_sum);
                    }
                }
                if (!deep) continue;
                panel_of(modulation, J, Cout, column, n, 1.0f, factor);
                for (int64_t k = 0; k < K; ++k) {
                    const float* A = adjacency + k * J * J;
                    // Gradient of the modulated product: the transpose of A_k times dh, pose by pose.
                    const RowSplit split(J);
                    for (int64_t pose = 0; pose < poses; ++pose)
                        for (int64_t block = 0, j = 0; block < split.count; ++block) {
                            const int64_t height = split.rows(block);
                            blocks[height](J, A + j, 1, J, dh + pose * J * panel, dmixed + (pose * J + j) * panel);
                            j += height;
                        }
                    if (products_wanted) {
                        float* dM = total.modulation + column * J;
                        product(xt, Cin, rows, J, weight + k * each + column * Cin,
                                [&](int64_t row, int64_t j, int64_t half, Vec v) POSEKERNELS_INLINE_LAMBDA {
                                    const int64_t at = row * panel + half * lanes, m = j * panel + half * lanes;
                                    store(dM + m, load(dM + m) + load(dmixed + at) * v);
                                    store(modulated + at, v * load(factor + m));
                                });
                        if (dadjacency)
                            add_outer(dh, J * panel, modulated, J * panel, poses, J,
                                      total.adjacency + k * J * J * lanes);
                    }
                    if (!dx && !dweight) continue;
                    float* out = dproduct + k * P * J * Cout + column;
                    for (int64_t row = 0, j = 0; row < rows; ++row, j = j + 1 == J ? 0 : j + 1)
                        for (int64_t c = 0; c < panel; c += lanes) {
                            const Vec v = load(dmixed + row * panel + c) * load(factor + j * panel + c);
                            store(dmixed + row * panel + c, v);
                            if (dx && c < n) store(out + row * Cout + c, v, n - c);
                        }
                    if (!dweight) continue;
                    const RowSplit inputs(Cin);
                    float* dW = total.weight + k * Cin * panels * panel + column * Cin;
                    for (int64_t block = 0, m = 0; block < inputs.count; ++block) {
                        const int64_t height = inputs.rows(block);
                        blocks[height](rows, xt + m, 1, Cin, dmixed, sums);
                        for (int64_t i = 0; i < height * panel; i += lanes)
                            store(dW + m * panel + i, load(dW + m * panel + i) + load(sums + i));
                        m += height;
                    }
                }
            }
            if (!dx) continue;
            float* out = dx + first_pose * J * Cin;
            for (int64_t k = 0; k < K; ++k) {
                const float* d = dproduct + k * P * J * Cout;
                gemm_tile(d, Cout, weight_t + k * each_t, out, Cin, rows, Cin, Cout, Residual{k ? out : nullptr, Cin});
            }
        }
    };
    if (B * J * Cin * Cout * K < small_product) {
        for (int64_t g = 0; g < groups; ++g) run_group(g);
    } else {
        parallel_for(groups, run_group);
    }
    if (!sums_wanted) return;

    // Add up the groups, in their order, and lay the sums out as the caller's arrays.
    const Partial total(partials, J, Cin, Cout, K);
    const int64_t chunk = 4096, chunks = (partial_size + chunk - 1) / chunk;
    const auto add = [&](int64_t t) {
        const int64_t from = t * chunk, to = from + chunk < partial_size ? from + chunk : partial_size;
        for (int64_t g = 1; g < groups; ++g)
            for (int64_t i = from; i < to; i += lanes)
                store(partials + i, load(partials + i) + load(partials + g * partial_size + i));
    };
    if (groups > 1) parallel_for(chunks, add);
    for (int64_t p = 0; p < panels; ++p) {
        const int64_t column = p * panel, n = Cout - column < panel ? Cout - column : panel;
        for (int64_t c = 0; c < n; c += lanes) {
            const int64_t left = n - c;
            if (dbias) store(dbias + column + c, load(total.bias + column + c), left);
            if (dscale) store(dscale + column + c, load(total.scale + column + c), left);
            if (dshift) store(dshift + column + c, load(total.shift + column + c), left);
            for (int64_t j = 0; dmodulation && j < J; ++j)
                store(dmodulation + j * Cout + column + c, load(total.modulation + (column * J + j * panel) + c), left);
            for (int64_t k = 0; dweight && k < K; ++k)
                for (int64_t i = 0; i < Cin; ++i)
                    store(dweight + (k * Cin + i) * Cout + column + c,
                          load(total.weight + k * Cin * panels * panel + column * Cin + i * panel + c), left);
        }
    }
    for (int64_t i = 0; dadjacency && i < K * J * J; ++i) dadjacency[i] = sum(load(total.adjacency + i * lanes));
}
POSEKERNELS_KERNEL(graph_conv_backward)

POSEKERNELS_END
