// Small problems solved `lanes` at a time: element i of all of them is one vector. Moving rows in and out of that
// layout, and products of small matrices in it.
#pragma once

#include "posekernels/vec.h"

POSEKERNELS_BEGIN
namespace side_by_side {

#if defined(__AVX512F__)
// Lane l of row[i] becomes lane i of row[l].
POSEKERNELS_INLINE void transpose(__m512 row[16]) {
    __m512 t[16];
    for (int i = 0; i < 16; i += 4) {
        const __m512 a = _mm512_unpacklo_ps(row[i], row[i + 1]), b = _mm512_unpackhi_ps(row[i], row[i + 1]);
        const __m512 c = _mm512_unpacklo_ps(row[i + 2], row[i + 3]), d = _mm512_unpackhi_ps(row[i + 2], row[i + 3]);
        t[i] = (__m512)_mm512_unpacklo_pd((__m512d)a, (__m512d)c);
        t[i + 1] = (__m512)_mm512_unpackhi_pd((__m512d)a, (__m512d)c);
        t[i + 2] = (__m512)_mm512_unpacklo_pd((__m512d)b, (__m512d)d);
        t[i + 3] = (__m512)_mm512_unpackhi_pd((__m512d)b, (__m512d)d);
    }
    // t[4 g + c] holds column 4 q + c of rows 4 g .. 4 g + 3 in its quarter q; exchange quarters between the groups.
    for (int c = 0; c < 4; ++c) {
        const __m512 a = _mm512_shuffle_f32x4(t[c], t[4 + c], 0x88), b = _mm512_shuffle_f32x4(t[c], t[4 + c], 0xDD);
        const __m512 d = _mm512_shuffle_f32x4(t[8 + c], t[12 + c], 0x88);
        const __m512 e = _mm512_shuffle_f32x4(t[8 + c], t[12 + c], 0xDD);
        row[c] = _mm512_shuffle_f32x4(a, d, 0x88);
        row[8 + c] = _mm512_shuffle_f32x4(a, d, 0xDD);
        row[4 + c] = _mm512_shuffle_f32x4(b, e, 0x88);
        row[12 + c] = _mm512_shuffle_f32x4(b, e, 0xDD);
    }
}
#endif

// out[i * lanes + l] = rows[l][i] for i < n.
POSEKERNELS_INLINE void gather(const float* const rows[lanes], int64_t offset, int64_t n, float* out) {
#if defined(__AVX512F__)
    for (int64_t i = 0; i < n; i += lanes) {
        __m512 block[16];
        for (int l = 0; l < 16; ++l) block[l] = load(rows[l] + offset + i, n - i);
        transpose(block);
        for (int64_t c = 0; c < lanes && i + c < n; ++c) store(out + (i + c) * lanes, block[c]);
    }
#else
    for (int l = 0; l < lanes; ++l)
        for (int64_t i = 0; i < n; ++i) out[i * lanes + l] = rows[l][offset + i];
#endif
}

// The way back, for the first `count` lanes.
POSEKERNELS_INLINE void scatter(const float* in, int64_t n, float* const rows[lanes], int64_t offset, int64_t count) {
#if defined(__AVX512F__)
    for (int64_t i = 0; i < n; i += lanes) {
        __m512 block[16];
        for (int64_t c = 0; c < lanes; ++c)
            block[c] = i + c < n ? (__m512)load(in + (i + c) * lanes) : _mm512_setzero_ps();
        transpose(block);
        for (int64_t l = 0; l < count; ++l) store(rows[l] + offset + i, block[l], n - i);
    }
#else
    for (int64_t l = 0; l < count; ++l)
        for (int64_t i = 0; i < n; ++i) rows[l][offset + i] = in[i * lanes + l];
#endif
}

#if POSEKERNELS_REGISTERS == 32
constexpr int tile = 4;  // 16 sums, 4 of B and 1 of A in 32 registers
#else
constexpr int tile = 3;
#endif

template <int rows, int columns>
POSEKERNELS_INLINE void multiply_tile(const float* A, int64_t a_i, int64_t a_k, const float* B, int64_t b_k,
                                      int64_t b_j, float* C, int64_t c_i, int64_t K) {
    Vec sums[rows][columns];
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < columns; ++j) sums[i][j] = Vec{};
    for (int64_t k = 0; k < K; ++k) {
        Vec b[columns];
        for (int j = 0; j < columns; ++j) b[j] = load(B + (k * b_k + j * b_j) * lanes);
        for (int i = 0; i < rows; ++i) {
            const Vec a = load(A + (i * a_i + k * a_k) * lanes);
            for (int j = 0; j < columns; ++j) sums[i][j] = a * b[j] + sums[i][j];
        }
    }
    for (int i = 0; i < rows; ++i)
        for (int j = 0; j < columns; ++j) store(C + (i * c_i + j) * lanes, sums[i][j]);
}

template <int rows>
inline void multiply_rows(const float* A, int64_t a_i, int64_t a_k, const float* B, int64_t b_k, int64_t b_j, float* C,
                          int64_t c_i, int64_t J, int64_t K) {
    int64_t j = 0;
    for (; j + tile <= J; j += tile)
        multiply_tile<rows, tile>(A, a_i, a_k, B + j * b_j * lanes, b_k, b_j, C + j * lanes, c_i, K);
    for (; j < J; ++j) multiply_tile<rows, 1>(A, a_i, a_k, B + j * b_j * lanes, b_k, b_j, C + j * lanes, c_i, K);
}

// C[i, j] = sum_k A[i, k] B[k, j] in every lane. Strides count vectors; C's columns are adjacent.
inline void multiply(const float* A, int64_t a_i, int64_t a_k, const float* B, int64_t b_k, int64_t b_j, float* C,
                     int64_t c_i, int64_t I, int64_t J, int64_t K) {
    for (int64_t i = 0; i < I;) {
        // Evenly: 17 rows are 4, 4, 3, 3, 3, not 4, 4, 4, 4, 1.
        const int64_t left = I - i, blocks = (left + tile - 1) / tile, rows = (left + blocks - 1) / blocks;
        const float* a = A + i * a_i * lanes;
        float* c = C + i * c_i * lanes;
        switch (rows) {
            case 1:
                multiply_rows<1>(a, a_i, a_k, B, b_k, b_j, c, c_i, J, K);
                break;
            case 2:
                multiply_rows<2>(a, a_i, a_k, B, b_k, b_j, c, c_i, J, K);
                break;
            case 3:
                multiply_rows<3>(a, a_i, a_k, B, b_k, b_j, c, c_i, J, K);
                break;
            default:
                multiply_rows<tile>(a, a_i, a_k, B, b_k, b_j, c, c_i, J, K);
                break;
        }
        i += rows;
    }
}

}  // namespace side_by_side
POSEKERNELS_END
