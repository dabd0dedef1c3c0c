// strided_temporal_conv on CUDA: products of the windows of up to 16 networks with their weights, in one launch, the
// epilogue on the way out. Networks may differ in every size. The math is in
// posekernels/ops/strided_temporal_conv/README.md; the plain products of the backward pass are cuBLAS's.
#include "posekernels/activation.h"
#include "posekernels/gpu_products.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN

constexpr int most_groups = 16;

// One network, as Python writes it into the table: addresses, then sizes.
struct Group {
    const void *x, *weight;                   // [rows, K], rows `pitch` apart; [Co, K]
    const void *bias, *scale, *shift;         // [Co], may be null
    const void* residual;                     // [rows * stride, Co], may be null
    void* y;                                  // [rows, Co]
    int64_t rows, pitch, K, Co, stride, tap;  // row r takes row r * stride + tap of the residual
};
static_assert(sizeof(Group) == 13 * sizeof(int64_t), "the table is made of 64-bit numbers");

struct Groups {
    Group group[most_groups];
    float slope[most_groups];
    int64_t first[most_groups + 1];  // block of each group
};

// grid (blocks of rows * blocks of Co, of all groups)
template <class Math, class T = typename Math::Number>
KERNEL void strided_temporal_conv_fwd_kernel(Groups all) {
    SHARED Operands<T> held;
    int own = 0;
    while (all.first[own + 1] <= blockIdx.x) ++own;
    const Group g = all.group[own];
    const float slope = all.slope[own];
    const T *x = static_cast<const T*>(g.x), *weight = static_cast<const T*>(g.weight);
    const T *bias = static_cast<const T*>(g.bias), *scale = static_cast<const T*>(g.scale);
    const T *shift = static_cast<const T*>(g.shift), *residual = static_cast<const T*>(g.residual);
    T* y = static_cast<T*>(g.y);
    const int64_t place = int64_t(blockIdx.x) - all.first[own], blocks = (g.Co + Tile::size - 1) / Tile::size;
    const int64_t first = place / blocks * Tile::size, column = place % blocks * Tile::size;
    Tile sums;
    add_rows_product<Math>(
        sums, held, int(g.K),
        [&](int row, int k) { return first + row < g.rows ? x[(first + row) * g.pitch + k] : from_float<T>(0.f); },
        [&](int n, int k) { return column + n < g.Co ? weight[(column + n) * g.K + k] : from_float<T>(0.f); });
    sums.each([&](float v, int r, int n) {
        const int64_t row = first + r, c = column + n;
        if (row >= g.rows || c >= g.Co) return;
        if (bias) v += to_float(bias[c]);
        if (scale) v *= to_float(scale[c]);
        if (shift) v += to_float(shift[c]);
        v = leaky_relu(v, slope);
        if (residual) v += to_float(residual[(row * g.stride + g.tap) * g.Co + c]);
        y[row * g.Co + c] = from_float<T>(v);
    });
}

void strided_temporal_conv_cuda(const void* stream, int math, const int64_t* table, const double* slopes, int count) {
    Groups all{};
    for (int i = 0; i < most_groups; ++i) {
        const bool there = i < count;
        if (there) all.group[i] = reinterpret_cast<const Group*>(table)[i];
        if (there) all.slope[i] = static_cast<float>(slopes[i]);
        const Group& g = all.group[i];
        all.first[i + 1] = all.first[i] + (there ? blocks_for(g.rows, Tile::size) * blocks_for(g.Co, Tile::size) : 0);
    }
    each_math(math, [&](auto m) {
        launch(strided_temporal_conv_fwd_kernel<decltype(m)>, Grid{all.first[most_groups]}, Tile::threads, stream, all);
    });
}
POSEKERNELS_KERNEL(strided_temporal_conv_cuda)

POSEKERNELS_END
