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
    int64_t first[most_groups + 1];  // patch of each group
};

// Which 64 x 64 patch of which network a block makes.
struct Place {
    Group group;
    float slope;
    int64_t row, column;  // its first

    DEVICE Place(const Groups& all, int64_t patch) {
        int own = 0;
        while (all.first[own + 1] <= patch) ++own;
        group = all.group[own];
        slope = all.slope[own];
        const int64_t place = patch - all.first[own], blocks = (group.Co + Tile::size - 1) / Tile::size;
        row = place / blocks * Tile::size, column = place % blocks * Tile::size;
    }
    DEVICE bool has(int r, int n) const { return row + r < group.rows && column + n < group.Co; }

    // sums += the product over depths [begin, end) of it.
    template <class Math, class T>
    DEVICE void add_product(Tile& sums, Operands<T>& held, int64_t begin, int64_t end) const {
        const T *x = static_cast<const T*>(group.x) + begin, *weight = static_cast<const T*>(group.weight) + begin;
        if (begin >= end) return;
        add_rows_product<Math>(
            sums, held, int(end - begin),
            [&](int r) { return row + r < group.rows ? x + (row + r) * group.pitch : nullptr; },
            [&](int n) { return column + n < group.Co ? weight + (column + n) * group.K : nullptr; });
    }
    // The epilogue of a number at (r, n).
    template <class T>
    DEVICE void finish(float v, int r, int n) const {
        const auto at = [](const void* p, int64_t i) { return to_float(static_cast<const T*>(p)[i]); };
        const int64_t y = row + r, c = column + n;
        if (group.bias) v += at(group.bias, c);
        if (group.scale) v *= at(group.scale, c);
        if (group.shift) v += at(group.shift, c);
        v = leaky_relu(v, slope);
        if (group.residual) v += at(group.residual, (y * group.stride + group.tap) * group.Co + c);
        static_cast<T*>(group.y)[y * group.Co + c] = from_float<T>(v);
    }
};

// grid (patches of 64 x 64, of all groups)
template <class Math, class T = typename Math::Number>
KERNEL_WIDE void strided_temporal_conv_fwd_kernel(Groups all) {
    SHARED Operands<T> held;
    const Place place(all, blockIdx.x);
    Tile sums;
    place.add_product<Math>(sums, held, 0, place.group.K);
    sums.each([&](float v, int r, int n) {
        if (place.has(r, n)) place.finish<T>(v, r, n);
    });
}

// Where patches are few, their depths go to `parts` blocks each, so that all processors read weights: sums
// [patches][parts][64][64] here, and what becomes of them below. grid (patches * parts)
template <class Math, class T = typename Math::Number>
KERNEL_WIDE void strided_temporal_conv_parts_kernel(Groups all, float* sums_of, int parts) {
    SHARED Operands<T> held;
    const Place place(all, blockIdx.x / parts);
    const int64_t most = (place.group.K + parts - 1) / parts,
                  each = (most + 63) / 64 * 64;  // rows keep their alignment
    const int64_t begin = blockIdx.x % parts * each, end = begin + each;
    Tile sums;
    place.add_product<Math>(sums, held, begin, end < place.group.K ? end : place.group.K);
    float* to = sums_of + int64_t(blockIdx.x) * Tile::size * Tile::size;
    sums.each([&](float v, int r, int n) {
        if (place.has(r, n)) to[r * Tile::size + n] = v;
    });
}
// grid (patches, 16): four rows of a patch each
template <class T>
KERNEL void strided_temporal_conv_finish_kernel(Groups all, const float* sums_of, int parts) {
    constexpr int numbers = Tile::size * Tile::size;
    const Place place(all, blockIdx.x);
    const float* from = sums_of + int64_t(blockIdx.x) * parts * numbers;
    for (int i = threadIdx.x; i < 4 * Tile::size; i += Tile::threads) {
        const int r = 4 * blockIdx.y + i / Tile::size, n = i % Tile::size;
        if (!place.has(r, n)) continue;
        float v = 0.f;
        for (int part = 0; part < parts; ++part) v += from[part * numbers + r * Tile::size + n];
        place.finish<T>(v, r, n);
    }
}

// parts: blocks to a patch, and room for their sums, [patches, parts, 64, 64]; 1 and null: patches are many.
void strided_temporal_conv_cuda(const void* stream, int math, const int64_t* table, const double* slopes, int count,
                                int parts, float* sums) {
    Groups all{};
    for (int i = 0; i < most_groups; ++i) {
        const bool there = i < count;
        if (there) all.group[i] = reinterpret_cast<const Group*>(table)[i];
        if (there) all.slope[i] = static_cast<float>(slopes[i]);
        const Group& g = all.group[i];
        all.first[i + 1] = all.first[i] + (there ? blocks_for(g.rows, Tile::size) * blocks_for(g.Co, Tile::size) : 0);
    }
    each_math(math, [&](auto m) {
        using Math = decltype(m);
        const int64_t patches = all.first[most_groups];
        if (parts == 1) {
            launch(strided_temporal_conv_fwd_kernel<Math>, Grid{patches}, Tile::threads, stream, all);
        } else {
            launch(strided_temporal_conv_parts_kernel<Math>, Grid{patches * parts}, Tile::threads, stream, all, sums,
                   parts);
            launch(strided_temporal_conv_finish_kernel<typename Math::Number>, Grid{patches, 16}, Tile::threads, stream,
                   all, static_cast<const float*>(sums), parts);
        }
    });
}
POSEKERNELS_KERNEL(strided_temporal_conv_cuda)

POSEKERNELS_END
