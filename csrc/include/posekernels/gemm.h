// Matrix products on tiles: C = epilogue(A B), float32, B packed once into panels.
//
//   packed B   panels of `panel` columns, each K x panel contiguous, the last one padded with zeros
//   A          rows of any stride; a tile that fits the L2 cache is best
//   epilogue   a functor on vectors, applied while the product is still in registers or the L1 cache
//
// gemm_tile works on the calling thread, for ops that fuse several steps over one tile; gemm splits a product over
// the threads. An epilogue is called as epilogue(v, row, column, n): v holds n valid lanes of row `row` starting at
// `column` of the whole product; it returns what is stored. Compose with then(f, g).
#pragma once

#include "posekernels/parallel.h"
#include "posekernels/scratch.h"
#include "posekernels/vec.h"
#include "posekernels/vecmath.h"

POSEKERNELS_BEGIN

constexpr int panel = 2 * lanes;  // columns of a packed panel
#if POSEKERNELS_REGISTERS == 32
constexpr int max_rows = 14;  // rows of the largest register block: 28 sums, 2 of B, 1 of A in 32 registers
#else
constexpr int max_rows = 6;  // 12 sums, 2 of B, 1 of A in 16 registers
#endif

// sums[r][c] = sum_k A[r * row_stride + k * step] B[k * panel + c] for r < rows <= max_rows, c < panel, k < depth.
typedef void (*Block)(int64_t depth, const float* A, int64_t row_stride, int64_t step, const float* B, float* sums);
extern const Block blocks[max_rows + 1];            // any strides
extern const Block blocks_of_rows[max_rows + 1];    // step == 1
extern const Block streaming_blocks[max_rows + 1];  // step == 1, B from memory
extern const Block advancing_blocks[max_rows + 1];  // step == 1, A from memory, row_stride == depth

// The same with bfloat16 A and B: B's panels hold pairs of rows interleaved, (k, c), (k + 1, c); depth is even in the
// panels (padded with zeros) while A is read up to `depth` only. Sums in float32.
typedef void (*Bf16Block)(int64_t depth, const uint16_t* A, int64_t row_stride, const uint16_t* B, float* sums);
extern const Bf16Block* bf16_blocks;  // chosen when the module loads: AVX512-BF16 where the CPU has it
extern const Bf16Block* bf16_streaming_blocks;
extern const Bf16Block* bf16_advancing_blocks;

// What a block asks the memory for while it computes: rows of B further on, or as many rows of A after its own.
enum class Ahead { nothing, of_B, of_A };

// Packed weights of more bytes than this are read from memory, not from L2, by the first block of rows that meets them.
// The sums of many rows keep the processor from looking far enough ahead by itself: asked for in time, weights come up
// to 2.4 times as fast (14 rows, two threads: 54 for 23 GB/s).
constexpr int64_t streamed_bytes = int64_t(512) << 10;
POSEKERNELS_INLINE void prefetch(const void* B) {  // a panel's row, 64 rows ahead
    const char* ahead = static_cast<const char*>(B) + 64 * 4 * panel;
    for (int i = 0; i < 4 * panel; i += 64) __builtin_prefetch(ahead + i);
}

inline int64_t panels_of(int64_t N) {
    return (N + panel - 1) / panel;
}
inline int64_t packed_size(int64_t K, int64_t N) {
    return panels_of(N) * panel * K;
}  // floats
inline int64_t packed_size_bf16(int64_t K, int64_t N) {
    return panels_of(N) * panel * ((K + 1) / 2 * 2);
}  // halves

// B[k, n] = source[k * row_stride + n * column_stride] into panels.
void pack(const float* source, int64_t row_stride, int64_t column_stride, int64_t K, int64_t N, float* packed);
// The panels [first, last) of it only, each to its place.
void pack_panels(const float* source, int64_t row_stride, int64_t column_stride, int64_t K, int64_t N, int64_t first,
                 int64_t last, float* packed);
void pack_bf16(const float* source, int64_t row_stride, int64_t column_stride, int64_t K, int64_t N, uint16_t* packed);
// Of bfloat16; one of the strides is 1.
void pack_bf16(const uint16_t* source, int64_t row_stride, int64_t column_stride, int64_t K, int64_t N,
               uint16_t* packed);
// rows[K][panel] -> one panel, its pairs of rows interleaved.
void pairs_of(const float* rows, int64_t K, uint16_t* pairs);
// The same by AVX512-BF16's instruction where the CPU has it, which takes denormal numbers for 0.
extern void (*const bf16_pairs)(const float* rows, int64_t K, uint16_t* pairs);
// n floats -> bfloat16, to nearest even.
void round_to_bf16(const float* source, int64_t n, uint16_t* rounded);

// ---- epilogues

struct Store {
    POSEKERNELS_INLINE Vec operator()(Vec v, int64_t, int64_t, int64_t) const { return v; }
};

struct Bias {  // may be null
    const float* bias;
    POSEKERNELS_INLINE Vec operator()(Vec v, int64_t, int64_t column, int64_t n) const {
        return bias ? v + load(bias + column, n) : v;
    }
};

struct ScaleShift {
    const float *scale, *shift;  // either may be null
    POSEKERNELS_INLINE Vec operator()(Vec v, int64_t, int64_t column, int64_t n) const {
        if (scale) v = v * load(scale + column, n);
        return shift ? v + load(shift + column, n) : v;
    }
};

struct Relu {
    POSEKERNELS_INLINE Vec operator()(Vec v, int64_t, int64_t, int64_t) const { return relu(v); }
};

struct Gelu {
    POSEKERNELS_INLINE Vec operator()(Vec v, int64_t, int64_t, int64_t) const { return gelu(v); }
};

struct CoarseGelu {  // for products stored as bfloat16
    POSEKERNELS_INLINE Vec operator()(Vec v, int64_t, int64_t, int64_t) const { return coarse_gelu(v); }
};

struct LeakyRelu {
    float slope;
    POSEKERNELS_INLINE Vec operator()(Vec v, int64_t, int64_t, int64_t) const { return leaky_relu(v, slope); }
};

struct Residual {  // may be null
    const float* residual;
    int64_t ld;
    POSEKERNELS_INLINE Vec operator()(Vec v, int64_t row, int64_t column, int64_t n) const {
        return residual ? v + load(residual + row * ld + column, n) : v;
    }
};

template <class First, class Second>
struct Then {
    First first;
    Second second;
    POSEKERNELS_INLINE Vec operator()(Vec v, int64_t row, int64_t column, int64_t n) const {
        return second(first(v, row, column, n), row, column, n);
    }
};

template <class First>
First then(First first) {
    return first;
}
template <class First, class Second, class... Rest>
auto then(First first, Second second, Rest... rest) {
    return then(Then<First, Second>{first, second}, rest...);
}

enum class Activation : int { none = 0, relu = 1, gelu = 2 };

// Calls body(functor) with the functor of a run-time activation, so that each gets its own loop.
template <class Body>
inline void with_activation(Activation activation, const Body& body) {
    switch (activation) {
        case Activation::relu:
            return body(Relu{});
        case Activation::gelu:
            return body(Gelu{});
        default:
            return body(Store{});
    }
}

// ---- products

// Rows of each register block when M rows are split evenly over as few blocks as possible.
struct RowSplit {
    int64_t count, base, longer;  // `count` blocks, the first `longer` of them of base + 1 rows
    explicit RowSplit(int64_t M)
        : count((M + max_rows - 1) / max_rows), base(count ? M / count : 0), longer(count ? M % count : 0) {}
    int64_t rows(int64_t block) const { return base + (block < longer); }
};

template <class Out, class Epilogue>
POSEKERNELS_INLINE void finish_block(const float* sums, Out* C, int64_t ldc, int64_t rows, int64_t row, int64_t column,
                                     int64_t n, const Epilogue& epilogue) {
    if (n == panel) {
        for (int64_t r = 0; r < rows; ++r) {
            store(C + r * ldc, epilogue(load(sums + r * panel), row + r, column, lanes));
            store(C + r * ldc + lanes, epilogue(load(sums + r * panel + lanes), row + r, column + lanes, lanes));
        }
        return;
    }
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < n; c += lanes)
            store(C + r * ldc + c, epilogue(load(sums + r * panel + c), row + r, column + c, n - c), n - c);
}

// C[M, N] = epilogue(A[M, K] B) for the panels [first, last) of B, on this thread. A and C point at the tile's first
// row, C and B at column 0; `row` is what the epilogue is told the first row is.
template <class Epilogue>
inline void gemm_panels(const float* A, int64_t lda, const float* B, float* C, int64_t ldc, int64_t M, int64_t N,
                        int64_t K, int64_t first, int64_t last, int64_t row, const Epilogue& epilogue) {
    const RowSplit split(M);
    alignas(64) float sums[max_rows * panel];
    for (int64_t p = first; p < last; ++p) {
        const int64_t column = p * panel;
        const int64_t n = N - column < panel ? N - column : panel;
        const float* Bp = B + column * K;
        for (int64_t block = 0, r = 0; block < split.count; ++block) {
            const int64_t rows = split.rows(block);
            const bool streamed = block == 0 && 4 * K * N > streamed_bytes;
            (streamed ? streaming_blocks : blocks_of_rows)[rows](K, A + r * lda, lda, 1, Bp, sums);
            finish_block(sums, C + r * ldc + column, ldc, rows, row + r, column, n, epilogue);
            r += rows;
        }
    }
}

template <class Epilogue>
inline void gemm_tile(const float* A, int64_t lda, const float* B, float* C, int64_t ldc, int64_t M, int64_t N,
                      int64_t K, const Epilogue& epilogue, int64_t row = 0) {
    gemm_panels(A, lda, B, C, ldc, M, N, K, 0, panels_of(N), row, epilogue);
}

// The same over bfloat16 A (rounded by the caller) and bfloat16 panels; C is float32, or bfloat16 (rounded at the end).
template <class Out, class Epilogue>
inline void gemm_tile_bf16(const uint16_t* A, int64_t lda, const uint16_t* B, Out* C, int64_t ldc, int64_t M, int64_t N,
                           int64_t K, const Epilogue& epilogue, int64_t row = 0, int64_t first = 0, int64_t last = -1) {
    const RowSplit split(M);
    alignas(64) float sums[max_rows * panel];
    if (last < 0) last = panels_of(N);
    const int64_t depth = (K + 1) / 2 * 2;
    for (int64_t p = first; p < last; ++p) {
        const int64_t column = p * panel;
        const int64_t n = N - column < panel ? N - column : panel;
        for (int64_t block = 0, r = 0; block < split.count; ++block) {
            const int64_t rows = split.rows(block);
            const bool streamed = block == 0 && 2 * K * N > streamed_bytes;
            (streamed ? bf16_streaming_blocks : bf16_blocks)[rows](K, A + r * lda, lda, B + column * depth, sums);
            finish_block(sums, C + r * ldc + column, ldc, rows, row + r, column, n, epilogue);
            r += rows;
        }
    }
}

// C[M, N] += A^T B, where A is [R, M] and B is [R, N], rows of any stride: the weight gradient. On this thread.
void add_transposed_product(const float* A, int64_t lda, const float* B, int64_t ldb, float* C, int64_t ldc, int64_t R,
                            int64_t M, int64_t N);

// How a product is split over threads: large M by rows (a tile of A stays in L2 while B streams by), small M by panels
// (each thread reads its own part of B, which is what a single pose waits for).
struct Split {
    int64_t tile_rows, row_tiles, panels_each, panel_groups;
    Split(int64_t M, int64_t N, int64_t K, int threads) {
        const int64_t panels = panels_of(N);
        const int64_t fit = (int64_t(192) << 10) / (4 * (K > 0 ? K : 1)) / max_rows * max_rows;
        tile_rows = fit < max_rows ? max_rows : fit > 16 * max_rows ? 16 * max_rows : fit;
        // Enough tiles for every thread to have a few, so that none waits long for the last one.
        const int64_t even = (M + 4 * threads - 1) / (4 * threads);
        if (even < tile_rows)
            tile_rows = even < 2 * max_rows ? 2 * max_rows : (even + max_rows - 1) / max_rows * max_rows;
        if (threads <= 1 && M <= 16 * max_rows) tile_rows = M > 0 ? M : 1;
        // Every tile of rows reads all of B: where B is the larger, all rows at once, if L2 holds them, and B by
        // panels.
        if (threads > 1 && M < N && M * K <= (int64_t(96) << 10)) tile_rows = M > 0 ? M : 1;
        row_tiles = (M + tile_rows - 1) / tile_rows;
        panel_groups = 1;
        if (row_tiles < 2 * threads && threads > 1) {
            panel_groups = (2 * threads + row_tiles - 1) / (row_tiles > 0 ? row_tiles : 1);
            if (panel_groups > panels) panel_groups = panels > 0 ? panels : 1;
        }
        panels_each = (panels + panel_groups - 1) / panel_groups;
        if (panels_each < 1) panels_each = 1;
        panel_groups = (panels + panels_each - 1) / panels_each;
    }
    int64_t tasks() const { return row_tiles * panel_groups; }
};

// Below this many multiply-adds a thread is not worth waking (about 3 microseconds of one core).
constexpr int64_t small_product = 150000;

template <class Epilogue>
inline void gemm(const float* A, int64_t lda, const float* B, float* C, int64_t ldc, int64_t M, int64_t N, int64_t K,
                 const Epilogue& epilogue) {
    const int threads = M * N * K < small_product ? 1 : num_threads();
    const Split split(M, N, K, threads);
    const auto task = [&](int64_t t) {
        const int64_t tile = t / split.panel_groups, group = t % split.panel_groups;
        const int64_t row = tile * split.tile_rows;
        const int64_t rows = M - row < split.tile_rows ? M - row : split.tile_rows;
        const int64_t first = group * split.panels_each;
        const int64_t last = first + split.panels_each < panels_of(N) ? first + split.panels_each : panels_of(N);
        gemm_panels(A + row * lda, lda, B, C + row * ldc, ldc, rows, N, K, first, last, row, epilogue);
    };
    if (threads <= 1) {
        for (int64_t t = 0; t < split.tasks(); ++t) task(t);
    } else {
        parallel_for(split.tasks(), task);
    }
}

POSEKERNELS_END
