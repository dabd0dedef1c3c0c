// strided_temporal_conv: with the stride equal to the width, a window's frames lie one after the other in memory, so
// the convolution is a product whose rows are the windows. Several networks run side by side: one task list for all
// groups.
#include "posekernels/gemm.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN
namespace {

// One group, as Python writes it into the table: addresses, then sizes.
struct Group {
    const void *x, *weight;             // [rows, K] float32 or bfloat16; packed [K, N]
    const float *bias, *scale, *shift;  // [N], may be null
    const void* residual;               // [rows * stride, N], may be null
    void* y;                            // [rows, N]
    float* sums;                        // [rows, N] float32, for bfloat16 only
    int64_t K, N;
};
static_assert(sizeof(Group) == 10 * sizeof(int64_t), "the table is made of 64-bit numbers");

constexpr int64_t max_groups = 64;

// Row r of the result takes row r * stride + tap of the residual: frame t * stride + tap of the same clip.
template <class Body>
void with_epilogue(const Group& g, float slope, int64_t stride, int64_t tap, const float* residual, const Body& body) {
    const auto norm = then(Bias{g.bias}, ScaleShift{g.scale, g.shift});
    const Residual add{residual ? residual + tap * g.N : nullptr, g.N * stride};
    if (slope == 1.0f) return body(then(norm, add));
    body(then(norm, LeakyRelu{slope}, add));
}

// Calls task(group, first row, rows, first panel, last panel) over all groups, split over the threads.
template <class Task>
void over_groups(const Group* groups, int64_t count, int64_t rows, const Task& task) {
    int64_t work = 0, first[max_groups + 1] = {0};
    for (int64_t i = 0; i < count; ++i) work += rows * groups[i].N * groups[i].K;
    const int threads = work < small_product ? 1 : num_threads();
    for (int64_t i = 0; i < count; ++i)
        first[i + 1] = first[i] + Split(rows, groups[i].N, groups[i].K, threads).tasks();
    const auto run = [&](int64_t t) {
        int64_t i = 0;
        while (first[i + 1] <= t) ++i;
        const Group& g = groups[i];
        const Split split(rows, g.N, g.K, threads);
        const int64_t tile = (t - first[i]) / split.panel_groups, part = (t - first[i]) % split.panel_groups;
        const int64_t row = tile * split.tile_rows, panels = panels_of(g.N);
        const int64_t height = rows - row < split.tile_rows ? rows - row : split.tile_rows;
        const int64_t last = (part + 1) * split.panels_each;
        task(g, row, height, part * split.panels_each, last < panels ? last : panels);
    };
    if (threads <= 1) {
        for (int64_t t = 0; t < first[count]; ++t) run(t);
    } else {
        parallel_for(first[count], run);
    }
}

}  // namespace

void strided_temporal_conv(const int64_t* table, int64_t count, int64_t rows, float slope, int64_t stride,
                           int64_t tap) {
    over_groups(reinterpret_cast<const Group*>(table), count, rows,
                [&](const Group& g, int64_t row, int64_t height, int64_t first, int64_t last) {
                    const float* x = static_cast<const float*>(g.x) + row * g.K;
                    float* y = static_cast<float*>(g.y) + row * g.N;
                    with_epilogue(g, slope, stride, tap, static_cast<const float*>(g.residual), [&](auto epilogue) {
                        gemm_panels(x, g.K, static_cast<const float*>(g.weight), y, g.N, height, g.N, g.K, first, last,
                                    row, epilogue);
                    });
                });
}
POSEKERNELS_KERNEL(strided_temporal_conv)

// bfloat16 x, weight, residual and y; sums, bias and batch norm in float32. The residual is widened block by block.
void strided_temporal_conv_bf16(const int64_t* table, int64_t count, int64_t rows, float slope, int64_t stride,
                                int64_t tap) {
    over_groups(reinterpret_cast<const Group*>(table), count, rows,
                [&](const Group& g, int64_t row, int64_t height, int64_t first, int64_t last) {
                    const uint16_t* x = static_cast<const uint16_t*>(g.x) + row * g.K;
                    float* sums = g.sums + row * g.N;
                    with_epilogue(g, slope, 1, 0, nullptr, [&](auto epilogue) {
                        gemm_tile_bf16(x, g.K, static_cast<const uint16_t*>(g.weight), sums, g.N, height, g.N, g.K,
                                       epilogue, row, first, last);
                    });
                    const int64_t column = first * panel;
                    const int64_t width = (last * panel < g.N ? last * panel : g.N) - column;
                    for (int64_t r = 0; r < height; ++r) {
                        float* line = sums + r * g.N + column;
                        if (g.residual) {
                            const uint16_t* add =
                                static_cast<const uint16_t*>(g.residual) + ((row + r) * stride + tap) * g.N + column;
                            for (int64_t c = 0; c < width; ++c) line[c] += from_bf16(add[c]);
                        }
                        round_to_bf16(line, width, static_cast<uint16_t*>(g.y) + (row + r) * g.N + column);
                    }
                });
}
POSEKERNELS_KERNEL(strided_temporal_conv_bf16)

POSEKERNELS_END
