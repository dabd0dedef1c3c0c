// The register blocks behind gemm.h, packing, and the plain product that tests and benchmarks call.
#include "posekernels/gemm.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN
namespace {

// One number in all lanes, straight from memory: splat() would add it to zeros first, which the loop below feels.
POSEKERNELS_INLINE Vec broadcast(const float& x) {
#if defined(__AVX512F__)
    return _mm512_set1_ps(x);
#elif defined(__AVX2__)
    return _mm256_set1_ps(x);
#elif defined(POSEKERNELS_NEON)
    return vld1q_dup_f32(&x);
#else
    return splat(x);
#endif
}

// Rows are reached as base + r * stride from every third row: with one pointer per row the compiler runs out of
// registers. The template's arguments are compile-time, so the loops below unroll into straight code.
template <int rows, bool unit_step, Ahead ahead = Ahead::nothing>
void block(int64_t depth, const float* A, int64_t row_stride, int64_t step, const float* B, float* sums) {
    Vec c0[rows], c1[rows];
    POSEKERNELS_UNROLL(16)
    for (int r = 0; r < rows; ++r) c0[r] = c1[r] = Vec{};
    const float* base[(rows + 2) / 3];
    POSEKERNELS_UNROLL(16)
    for (int r = 0; r < rows; r += 3) base[r / 3] = A + r * row_stride;
    for (int64_t k = 0; k < depth; ++k) {
        const Vec b0 = load(B), b1 = load(B + lanes);
        if (ahead == Ahead::of_B) prefetch(B);
        if (ahead == Ahead::of_A) __builtin_prefetch(A + rows * (row_stride + k));
        if (!unit_step) __builtin_prefetch(A + 2 * rows * row_stride + k * step);  // the block after the next one's
        B += panel;
        POSEKERNELS_UNROLL(16)
        for (int r = 0; r < rows; ++r) {
            const Vec a = broadcast(base[r / 3][(r % 3) * row_stride]);
            c0[r] = a * b0 + c0[r];
            c1[r] = a * b1 + c1[r];
        }
        POSEKERNELS_UNROLL(16)
        for (int i = 0; i < (rows + 2) / 3; ++i) base[i] += unit_step ? 1 : step;
    }
    POSEKERNELS_UNROLL(16)
    for (int r = 0; r < rows; ++r) {
        store(sums + r * panel, c0[r]);
        store(sums + r * panel + lanes, c1[r]);
    }
}

}  // namespace

#if POSEKERNELS_REGISTERS == 32
#define POSEKERNELS_BLOCKS(f) \
    {nullptr, f(1), f(2), f(3), f(4), f(5), f(6), f(7), f(8), f(9), f(10), f(11), f(12), f(13), f(14)}
#else
#define POSEKERNELS_BLOCKS(f) {nullptr, f(1), f(2), f(3), f(4), f(5), f(6)}
#endif
#define POSEKERNELS_STRIDED(r) block<r, false>
#define POSEKERNELS_ROWS(r) block<r, true>
#define POSEKERNELS_STREAMED(r) block<r, true, Ahead::of_B>
#define POSEKERNELS_ADVANCING(r) block<r, true, Ahead::of_A>
const Block blocks[max_rows + 1] = POSEKERNELS_BLOCKS(POSEKERNELS_STRIDED);
const Block blocks_of_rows[max_rows + 1] = POSEKERNELS_BLOCKS(POSEKERNELS_ROWS);
const Block streaming_blocks[max_rows + 1] = POSEKERNELS_BLOCKS(POSEKERNELS_STREAMED);
const Block advancing_blocks[max_rows + 1] = POSEKERNELS_BLOCKS(POSEKERNELS_ADVANCING);

void pack_panels(const float* source, int64_t row_stride, int64_t column_stride, int64_t K, int64_t N, int64_t first,
                 int64_t last, float* packed) {
    for (int64_t p = first; p < last; ++p) {
        const int64_t column = p * panel;
        const int64_t n = N - column < panel ? N - column : panel;
        float* out = packed + column * K;
        const float* in = source + column * column_stride;
        if (column_stride == 1) {
            for (int64_t k = 0; k < K; ++k) {
                store(out + k * panel, load(in + k * row_stride, n));
                store(out + k * panel + lanes, n > lanes ? load(in + k * row_stride + lanes, n - lanes) : Vec{});
            }
        } else if (row_stride == 1) {  // the transpose of rows: squares of them turned in registers
            for (int64_t c = 0; c < panel; c += lanes)
                for (int64_t k = 0; k < K; k += lanes) {
                    Vec square[lanes];
                    for (int64_t i = 0; i < lanes; ++i)
                        square[i] = c + i < n ? load(in + k + (c + i) * column_stride, K - k) : Vec{};
                    transpose(square);
                    const int64_t rows = K - k < lanes ? K - k : lanes;
                    for (int64_t i = 0; i < rows; ++i) store(out + (k + i) * panel + c, square[i]);
                }
        } else {
            for (int64_t k = 0; k < K; ++k)
                for (int64_t c = 0; c < panel; ++c)
                    out[k * panel + c] = c < n ? in[k * row_stride + c * column_stride] : 0.0f;
        }
    }
}

void pack(const float* source, int64_t row_stride, int64_t column_stride, int64_t K, int64_t N, float* packed) {
    pack_panels(source, row_stride, column_stride, K, N, 0, panels_of(N), packed);
}

void pack_bf16(const float* source, int64_t row_stride, int64_t column_stride, int64_t K, int64_t N, uint16_t* packed) {
    Scratch scratch;
    float* one = scratch.floats(K * panel);
    for (int64_t p = 0; p < panels_of(N); ++p) {
        const int64_t column = p * panel;
        const int64_t n = N - column < panel ? N - column : panel;
        pack(source + column * column_stride, row_stride, column_stride, K, n, one);
        pairs_of(one, K, packed + packed_size_bf16(K, column));
    }
}

void pack_bf16(const uint16_t* source, int64_t row_stride, int64_t column_stride, int64_t K, int64_t N,
               uint16_t* packed) {
    const int64_t depth = (K + 1) / 2 * 2;
    const auto words = [](const uint16_t* p, int64_t n) { return bits_of(load(p, n)); };  // in the upper halves
    const auto pairs = [](const uint16_t* p, int64_t n) {  // `lanes` of them; 0 past n numbers
        Vec v{};
        if (n >= 2 * lanes) {
            std::memcpy(&v, p, sizeof v);
        } else {
            std::memcpy(&v, p, sizeof(uint16_t) * static_cast<size_t>(n));
        }
        return v;
    };
    for (int64_t p = 0; p < panels_of(N); ++p) {
        const int64_t column = p * panel;
        const int64_t n = N - column < panel ? N - column : panel;
        const uint16_t* in = source + column * column_stride;
        uint32_t* out = reinterpret_cast<uint32_t*>(packed + column * depth);
        for (int64_t c = 0; c < panel; c += lanes) {
            if (column_stride == 1) {
                for (int64_t k = 0; k < K; k += 2) {
                    const uint16_t* row = in + k * row_stride + c;
                    const UintVec low = n > c ? words(row, n - c) : UintVec{};
                    const UintVec high = n > c && k + 1 < K ? words(row + row_stride, n - c) : UintVec{};
                    *reinterpret_cast<UnalignedUintVec*>(out + k / 2 * panel + c) = low >> 16 | high;
                }
            } else {  // the transpose of rows: squares of pairs turned in registers
                for (int64_t k = 0; k < K; k += 2 * lanes) {
                    Vec square[lanes];
                    for (int64_t i = 0; i < lanes; ++i)
                        square[i] = c + i < n ? pairs(in + k + (c + i) * column_stride, K - k) : Vec{};
                    transpose(square);
                    for (int64_t i = 0; i < lanes && k + 2 * i < K; ++i)
                        *reinterpret_cast<UnalignedUintVec*>(out + (k / 2 + i) * panel + c) = bits_of(square[i]);
                }
            }
        }
    }
}

void add_transposed_product(const float* A, int64_t lda, const float* B, int64_t ldb, float* C, int64_t ldc, int64_t R,
                            int64_t M, int64_t N) {
    // The depth runs over rows, so blocks of rows short enough for A's and B's parts to stay in L2 are added up in C.
    constexpr int64_t depth = 256;
    Scratch scratch;
    float* packed = scratch.floats(depth * panel);
    alignas(64) float sums[max_rows * panel];
    const RowSplit split(M);
    for (int64_t r = 0; r < R; r += depth) {
        const int64_t rows = R - r < depth ? R - r : depth;
        for (int64_t p = 0; p < panels_of(N); ++p) {
            const int64_t column = p * panel;
            const int64_t n = N - column < panel ? N - column : panel;
            pack(B + r * ldb + column, ldb, 1, rows, n, packed);
            for (int64_t block = 0, m = 0; block < split.count; ++block) {
                const int64_t height = split.rows(block);
                blocks[height](rows, A + r * lda + m, 1, lda, packed, sums);
                finish_block(sums, C + m * ldc + column, ldc, height, 0, 0, n,
                             [&](Vec v, int64_t row, int64_t c, int64_t left) {
                                 return v + load(C + (m + row) * ldc + column + c, left);
                             });
                m += height;
            }
        }
    }
}

// ---- for Python

int64_t gemm_packed_size(int64_t K, int64_t N) {
    return packed_size(K, N);
}
POSEKERNELS_KERNEL(gemm_packed_size)

int64_t gemm_packed_size_bf16(int64_t K, int64_t N) {
    return packed_size_bf16(K, N);
}
POSEKERNELS_KERNEL(gemm_packed_size_bf16)

// `count` matrices, `matrix_stride` apart, into `count` packed ones one after the other.
void gemm_pack(const float* source, int64_t count, int64_t matrix_stride, int64_t row_stride, int64_t column_stride,
               int64_t K, int64_t N, float* packed) {
    const int64_t panels = panels_of(N);
    parallel_for(K * N * count < small_product ? 1 : count, [&](int64_t task) {
        const int64_t last = K * N * count < small_product ? count : task + 1;
        for (int64_t i = task; i < last; ++i)
            pack_panels(source + i * matrix_stride, row_stride, column_stride, K, N, 0, panels,
                        packed + i * packed_size(K, N));
    });
}
POSEKERNELS_KERNEL(gemm_pack)

void gemm_pack_bf16(const float* source, int64_t row_stride, int64_t column_stride, int64_t K, int64_t N,
                    uint16_t* packed) {
    pack_bf16(source, row_stride, column_stride, K, N, packed);
}
POSEKERNELS_KERNEL(gemm_pack_bf16)

// C = act(A B + bias) + residual, B packed.
void gemm_forward(const float* A, int64_t lda, const float* B, const float* bias, const float* residual, float* C,
                  int64_t ldc, int64_t M, int64_t N, int64_t K, int activation) {
    with_activation(static_cast<Activation>(activation), [&](auto act) {
        gemm(A, lda, B, C, ldc, M, N, K, then(Bias{bias}, act, Residual{residual, ldc}));
    });
}
POSEKERNELS_KERNEL(gemm_forward)

// C = A B with A rounded to bfloat16 and B packed as bfloat16; sums in float32.
void gemm_forward_bf16(const float* A, int64_t lda, const uint16_t* B, float* C, int64_t ldc, int64_t M, int64_t N,
                       int64_t K) {
    const Split split(M, N, K, num_threads());
    parallel_for(split.row_tiles, [&](int64_t tile) {
        const int64_t row = tile * split.tile_rows;
        const int64_t rows = M - row < split.tile_rows ? M - row : split.tile_rows;
        Scratch scratch;
        uint16_t* half = static_cast<uint16_t*>(scratch.bytes(2 * rows * K));
        for (int64_t r = 0; r < rows; ++r) round_to_bf16(A + (row + r) * lda, K, half + r * K);
        gemm_tile_bf16(half, K, B, C + row * ldc, ldc, rows, N, K, Store{}, row);
    });
}
POSEKERNELS_KERNEL(gemm_forward_bf16)

// C = A^T B (C is overwritten), A [R, M], B [R, N].
void gemm_transposed(const float* A, int64_t lda, const float* B, int64_t ldb, float* C, int64_t R, int64_t M,
                     int64_t N) {
    const int64_t groups = (M + max_rows - 1) / max_rows;
    parallel_for(groups, [&](int64_t g) {
        const int64_t m = g * max_rows;
        const int64_t rows = M - m < max_rows ? M - m : max_rows;
        for (int64_t i = 0; i < rows * N; ++i) C[m * N + i] = 0.0f;
        add_transposed_product(A + m, lda, B, ldb, C + m * N, N, R, rows, N);
    });
}
POSEKERNELS_KERNEL(gemm_transposed)

POSEKERNELS_END
