// Dropout masks as functions of (seed, stream, element), bit for bit those of posekernels/_dropout.py.
#pragma once

#include "posekernels/frames.h"
#include "posekernels/philox.h"

POSEKERNELS_BEGIN

struct Dropout {
    uint64_t seed;
    uint32_t stream, threshold;  // words below the threshold are dropped; 0: nothing is
    float factor;                // of what is kept: 1 / (1 - rate)
    explicit operator bool() const { return threshold != 0; }
};

constexpr uint32_t dropout_domain = 0x44524F50u;  // "DROP"

// Words of `uint64_t` that hold the bits of `count` elements from any start, and one to read past the end.
inline int64_t keep_words(int64_t count) {
    return (count + 63) / 64 + 2;
}

// Bits 0, 1, ... of x to bits 0, 4, 8, ...
POSEKERNELS_INLINE uint64_t every_fourth(uint64_t x) {
    x = (x | x << 24) & 0x000000ff000000ffu;
    x = (x | x << 12) & 0x000f000f000f000fu;
    x = (x | x << 6) & 0x0303030303030303u;
    return (x | x << 3) & 0x1111111111111111u;
}

// Bit i of the array (from bit first % 64 of bits[0] on) says whether element first + i is kept.
inline void draw_keep(const Dropout& dropout, int64_t first, int64_t count, uint64_t* bits) {
    UintVec lane;
    for (int i = 0; i < lanes; ++i) lane[i] = static_cast<uint32_t>(i);
    const int64_t last = (first + count + 63) / 64;
    for (int64_t word = first / 64; word < last; ++word) {
        uint64_t keep = 0;
        for (int part = 0; part < 16; part += lanes) {  // 16 counters make 64 words
            const uint64_t block = static_cast<uint64_t>(word) * 16 + part;
            const philox_lanes::Counter counter{lane + static_cast<uint32_t>(block),
                                                UintVec{} + static_cast<uint32_t>(block >> 32), dropout.stream,
                                                dropout_domain};
            UintVec words[4];
            philox_lanes::words(counter, dropout.seed, words);
            for (int w = 0; w < 4; ++w) {
#if defined(__AVX512F__)
                const uint32_t mask = _mm512_cmpge_epu32_mask(reinterpret_cast<__m512i>(words[w]),
                                                              _mm512_set1_epi32(static_cast<int>(dropout.threshold)));
#else
                uint32_t mask = 0;
                for (int i = 0; i < lanes; ++i) mask |= uint32_t(words[w][i] >= dropout.threshold) << i;
#endif
                keep |= every_fourth(mask) << (4 * part + w);
            }
        }
        *bits++ = keep;
    }
    *bits = 0;
}

// `lanes` bits from bit `at` on.
POSEKERNELS_INLINE uint32_t bits_at(const uint64_t* bits, int64_t at) {
    const int64_t word = at / 64, offset = at % 64;
    return static_cast<uint32_t>(bits[word] >> offset | (offset ? bits[word + 1] << (64 - offset) : 0));
}

// y = dropout(x) for elements first, first + 1, ... of the mask; y may be x.
inline void drop_row(const Dropout& dropout, int64_t first, int64_t n, const float* x, float* y, uint64_t* bits) {
    draw_keep(dropout, first, n, bits);
    for (int64_t i = 0; i < n; i += lanes)
        store(y + i, keep_lanes(bits_at(bits, first % 64 + i), load(x + i, n - i) * dropout.factor), n - i);
}

// Masks of a tile: bit l of masks[r] for lane l, row r; lane l's elements are first + l * stride + r, r < rows.
// Lanes begin <= l < end are drawn, the others 0. `bits` has keep_words(rows) words.
inline void draw_tile(const Dropout& dropout, int64_t first, int64_t stride, int64_t begin, int64_t end, int64_t rows,
                      uint32_t* masks, uint64_t* bits) {
    for (int64_t r = 0; r < rows; ++r) masks[r] = 0;
    for (int64_t l = begin; l < end; ++l) {
        const int64_t start = first + l * stride, offset = start % 64;
        draw_keep(dropout, start, rows, bits);
        for (int64_t r = 0; r < rows; r += 64) {
            const int64_t word = r / 64, n = rows - r < 64 ? rows - r : 64;
            uint64_t keep = bits[word] >> offset | (offset ? bits[word + 1] << (64 - offset) : 0);
            for (int64_t i = 0; i < n; ++i, keep >>= 1) masks[r + i] |= static_cast<uint32_t>(keep & 1) << l;
        }
    }
}

POSEKERNELS_END
