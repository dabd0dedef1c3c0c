// temporal_networks: several chains of strided temporal convolutions side by side. Step s of all of them is one list of
// tasks, so small layers of one network fill the gaps of another. Everything that follows from the weights alone
// (packed panels, where each layer's result lies) is in a table made once.
#include "posekernels/gemm.h"
#include "posekernels/registry.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

POSEKERNELS_BEGIN
namespace {

constexpr int64_t nowhere = -1, network_input = -2;

// One layer, as Python writes it into the table. Places are numbers per clip into the workspace: a clip count times a
// place is where the layer's rows of all clips begin.
struct Layer {
    const void* weight;             // packed [K, N], float32 or bfloat16
    const float *scale, *shift;     // [N]
    int64_t K, N, rows;             // rows per clip
    int64_t input, output;          // places; nowhere: the network's x, the network's y
    int64_t residual, stride, tap;  // a place, nowhere or network_input
    double slope;
};
static_assert(sizeof(Layer) == 12 * 8, "the table is made of 64-bit numbers");

struct Run {
    const Layer* layers;
    int64_t depth, networks;  // layers of a network at networks * depth; K == 0 past its last one
    int64_t clips;            // of this run
    float* floats;            // the workspace
    uint16_t* halves;         // its values rounded to bfloat16, where that is the type
};

template <class Number>
const Number* input_of(const Run& run, const Layer& layer, const Number* x);
template <>
const float* input_of(const Run& run, const Layer& layer, const float* x) {
    return layer.input == nowhere ? x : run.floats + run.clips * layer.input;
}
template <>
const uint16_t* input_of(const Run& run, const Layer& layer, const uint16_t* x) {
    return layer.input == nowhere ? x : run.halves + run.clips * layer.input;
}

// bfloat16 residuals, widened.
struct HalfResidual {
    const uint16_t* residual;
    int64_t ld;
    POSEKERNELS_INLINE Vec operator()(Vec v, int64_t row, int64_t column, int64_t n) const {
        const uint16_t* p = residual + row * ld + column;
        for (int64_t i = 0; i < lanes && i < n; ++i) v[i] += from_bf16(p[i]);
        return v;
    }
};

inline Residual residual_of(const float* values, int64_t ld) {
    return {values, ld};
}
inline HalfResidual residual_of(const uint16_t* values, int64_t ld) {
    return {values, ld};
}

template <class Number, class Body>
void with_epilogue(const Run& run, const Layer& layer, const Number* x, const Body& body) {
    const int64_t skipped = layer.tap * layer.N, ld = layer.N * layer.stride;
    const auto with = [&](auto add) {
        const ScaleShift affine{layer.scale, layer.shift};
        if (layer.slope == 1.0) return body(then(affine, add));
        body(then(affine, LeakyRelu{static_cast<float>(layer.slope)}, add));
    };
    if (layer.residual == network_input) return with(residual_of(x + skipped, ld));
    with(Residual{layer.residual == nowhere ? nullptr : run.floats + run.clips * layer.residual + skipped, ld});
}

// Rows [row, row + height) and panels [first, last) of one layer; x and y are the network's.
void part_of(const Run& run, const Layer& layer, const float* x, float* y, int64_t row, int64_t height, int64_t first,
             int64_t last) {
    float* out = layer.output == nowhere ? y : run.floats + run.clips * layer.output;
    with_epilogue(run, layer, x, [&](auto epilogue) {
        gemm_panels(input_of(run, layer, x) + row * layer.K, layer.K, static_cast<const float*>(layer.weight),
                    out + row * layer.N, layer.N, height, layer.N, layer.K, first, last, row, epilogue);
    });
}

// Sums, epilogue and residual stay float32; the next layer reads them rounded.
void part_of(const Run& run, const Layer& layer, const uint16_t* x, uint16_t* y, int64_t row, int64_t height,
             int64_t first, int64_t last) {
    const int64_t column = first * panel, width = (last * panel < layer.N ? last * panel : layer.N) - column;
    Scratch scratch;
    const bool kept = layer.output != nowhere;
    float* sums = kept ? run.floats + run.clips * layer.output + row * layer.N : scratch.floats(height * layer.N);
    uint16_t* out = (kept ? run.halves + run.clips * layer.output : y) + row * layer.N;
    with_epilogue(run, layer, x, [&](auto epilogue) {
        gemm_tile_bf16(input_of(run, layer, x) + row * layer.K, layer.K, static_cast<const uint16_t*>(layer.weight),
                       sums, layer.N, height, layer.N, layer.K, epilogue, row, first, last);
    });
    for (int64_t r = 0; r < height; ++r) round_to_bf16(sums + r * layer.N + column, width, out + r * layer.N + column);
}

// How one layer is cut into tasks. With few rows the weights are what a task waits for: small pieces, so that no thread
// idles at the end of a step.
struct Cut {
    int64_t tile_rows, panels_each, panel_groups, tasks;
    Cut() : tile_rows(1), panels_each(1), panel_groups(0), tasks(0) {}
    Cut(int64_t rows, const Layer& layer, int threads) {
        const Split split(rows, layer.N, layer.K, threads);
        tile_rows = split.tile_rows;
        panels_each = split.panels_each;
        const int64_t piece = (int64_t(256) << 10) / (4 * panel * (layer.K > 0 ? layer.K : 1));
        if (threads > 1 && split.row_tiles == 1 && panels_each > piece) panels_each = piece > 0 ? piece : 1;
        panel_groups = (panels_of(layer.N) + panels_each - 1) / panels_each;
        tasks = split.row_tiles * panel_groups;
    }
};

template <class Number>
void run_networks(const Run& run, const Number* const* x, Number* const* y) {
    constexpr int64_t most = 64;
    for (int64_t step = 0; step < run.depth; ++step) {
        Cut cuts[most];
        int64_t first[most + 1] = {0}, work = 0;
        const auto layer_of = [&](int64_t i) -> const Layer& { return run.layers[i * run.depth + step]; };
        for (int64_t i = 0; i < run.networks; ++i) work += run.clips * layer_of(i).rows * layer_of(i).K * layer_of(i).N;
        const int threads = work < small_product ? 1 : num_threads();
        for (int64_t i = 0; i < run.networks; ++i) {
            if (layer_of(i).K) cuts[i] = Cut(run.clips * layer_of(i).rows, layer_of(i), threads);
            first[i + 1] = first[i] + cuts[i].tasks;
        }
        const auto task = [&](int64_t t) {
            int64_t i = 0;
            while (first[i + 1] <= t) ++i;
            const Layer& layer = layer_of(i);
            const Cut& cut = cuts[i];
            const int64_t rows = run.clips * layer.rows, panels = panels_of(layer.N);
            const int64_t row = (t - first[i]) / cut.panel_groups * cut.tile_rows;
            const int64_t start = (t - first[i]) % cut.panel_groups * cut.panels_each;
            part_of(run, layer, x[i], y[i], row, rows - row < cut.tile_rows ? rows - row : cut.tile_rows, start,
                    start + cut.panels_each < panels ? start + cut.panels_each : panels);
        };
        if (threads <= 1) {
            for (int64_t t = 0; t < first[run.networks]; ++t) task(t);
        } else {
            parallel_for(first[run.networks], task);
        }
    }
}

template <class Number>
void run_in_chunks(const int64_t* table, const int64_t* ends, int64_t networks, int64_t depth, int64_t clips,
                   int64_t chunk, int64_t place, bool half) {
    Scratch scratch;
    Run run{reinterpret_cast<const Layer*>(table), depth, networks, 0, nullptr, nullptr};
    run.floats = scratch.floats((clips < chunk ? clips : chunk) * place);
    if (half) run.halves = static_cast<uint16_t*>(scratch.bytes(2 * (clips < chunk ? clips : chunk) * place));
    for (int64_t clip = 0; clip < clips; clip += chunk) {
        run.clips = clips - clip < chunk ? clips - clip : chunk;
        const Number* x[64];
        Number* y[64];
        for (int64_t i = 0; i < networks; ++i) {  // ends: address of x, numbers per clip, address of y, the same
            const int64_t* e = ends + 4 * i;
            x[i] = reinterpret_cast<const Number*>(e[0]) + clip * e[1];
            y[i] = reinterpret_cast<Number*>(e[2]) + clip * e[3];
        }
        run_networks<Number>(run, x, y);
    }
}

}  // namespace

// `chunk` clips at a time go through all steps; `place` numbers of workspace per clip.
void temporal_networks(const int64_t* table, const int64_t* ends, int64_t networks, int64_t depth, int64_t clips,
                       int64_t chunk, int64_t place) {
    run_in_chunks<float>(table, ends, networks, depth, clips, chunk, place, false);
}
POSEKERNELS_KERNEL(temporal_networks)

void temporal_networks_bf16(const int64_t* table, const int64_t* ends, int64_t networks, int64_t depth, int64_t clips,
                            int64_t chunk, int64_t place) {
    run_in_chunks<uint16_t>(table, ends, networks, depth, clips, chunk, place, true);
}
POSEKERNELS_KERNEL(temporal_networks_bf16)

// Asks for large pages under memory that will be streamed through: the walk over 4 KB pages costs as much as the reads.
void advise_large_pages(void* memory, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const int64_t page = int64_t(2) << 20;
    const int64_t begin = (reinterpret_cast<int64_t>(memory) + page - 1) / page * page;
    const int64_t end = (reinterpret_cast<int64_t>(memory) + bytes) / page * page;
    if (end > begin) (void)madvise(reinterpret_cast<void*>(begin), static_cast<size_t>(end - begin), MADV_HUGEPAGE);
#else
    (void)memory, (void)bytes;
#endif
}
POSEKERNELS_KERNEL(advise_large_pages)

POSEKERNELS_END
