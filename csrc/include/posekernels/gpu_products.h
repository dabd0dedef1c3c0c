// What the CUDA kernels over frames share: products of gathered rows, dropout masks, the choice of number type.
#pragma once

#include "posekernels/gpu.h"
#include "posekernels/isa.h"
#include "posekernels/philox.h"

POSEKERNELS_BEGIN

// Working memory of the products below, in shared memory: chunks of both sides.
template <class T>
struct Operands {
    alignas(16) T x[Tile::size * pitch<T>(Tile::chunk)];
    alignas(16) T w[Tile::size * pitch<T>(Tile::chunk)];
};

// tile += A B' over depths [0, depth): a(row, k) and b(column, k) give the elements, row and column < 64, k < depth.
// Barriers before and after every use of `held`.
template <class Math, class T = typename Math::Number, class A, class B>
DEVICE void add_rows_product(Tile& tile, Operands<T>& held, int depth, A a, B b) {
    constexpr int narrow = pitch<T>(Tile::chunk);
    for (int start = 0; start < depth; start += Tile::chunk) {
        sync();
        stage(held.x, narrow, Tile::size, Tile::chunk,
              [&](int row, int k) { return start + k < depth ? a(row, start + k) : from_float<T>(0.f); });
        stage(held.w, narrow, Tile::size, Tile::chunk,
              [&](int column, int k) { return start + k < depth ? b(column, start + k) : from_float<T>(0.f); });
        sync();
        multiply<Math>(tile, held.x, narrow, held.w, narrow, 0, Tile::chunk);
    }
    sync();
}

// tile += P B', P [64][pitch<T>(64)] in shared memory, for `depth` <= 64 columns of it; b as above.
template <class Math, class T = typename Math::Number, class B>
DEVICE void add_staged_product(Tile& tile, const T* P, Operands<T>& held, B b) {
    constexpr int narrow = pitch<T>(Tile::chunk), wide = pitch<T>(Tile::size);
    for (int start = 0; start < Tile::size; start += Tile::chunk) {
        sync();
        stage_transposed(held.w, narrow, Tile::chunk, Tile::size,
                         [&](int k, int column) { return b(column, start + k); });
        sync();
        multiply<Math>(tile, P + start, wide, held.w, narrow, 0, Tile::chunk);
    }
    sync();
}

// The first row and column of the 64 x 64 patch that is number `block` of a matrix, along the columns first.
struct Patch {
    int64_t row;
    int column;
};
DEVICE Patch patch_at(uint32_t block, int columns) {
    const uint32_t abreast = (columns + Tile::size - 1) / Tile::size;
    return {int64_t(block / abreast) * Tile::size, int(block % abreast) * Tile::size};
}

struct DropoutMask {
    uint64_t seed;
    uint32_t stream;
    uint32_t threshold;  // 0: nothing is dropped
    float factor;        // of what is kept

    DEVICE bool keeps(int64_t element) const {
        const uint64_t block = static_cast<uint64_t>(element) / 4;
        const philox::Words words =
            philox::words(static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), stream, 0x44524F50u, seed);
        return words.w[element % 4] >= threshold;
    }
    DEVICE float operator()(float v, int64_t element) const {
        if (threshold == 0) return v;
        return keeps(element) ? v * factor : 0.f;
    }
};

inline DropoutMask dropout_mask(int64_t seed, int64_t stream, int64_t threshold, float factor) {
    return {static_cast<uint64_t>(seed), static_cast<uint32_t>(stream), static_cast<uint32_t>(threshold), factor};
}

// f(Exact{} | Tf32{} | Half{} | Bf16{}) by the number that Python passes.
template <class F>
void each_math(int math, F f) {
    if (math == 0) f(Exact{});
    if (math == 1) f(Tf32{});
    if (math == 2) f(Half{});
    if (math == 3) f(Bf16{});
}

inline int64_t blocks_for(int64_t n, int64_t each) {
    return (n + each - 1) / each;
}

POSEKERNELS_END
