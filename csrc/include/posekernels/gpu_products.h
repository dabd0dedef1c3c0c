// What the CUDA kernels over frames share: products of gathered rows, dropout masks, the choice of number type.
#pragma once

#include "posekernels/gpu.h"
#include "posekernels/isa.h"
#include "posekernels/philox.h"

POSEKERNELS_BEGIN

// tile += A B' over depths [0, depth): a(row, k) and b(column, k) give the elements, row and column < 64, k < depth.
// X and W are working memory of 64 rows of `pitch<T>(Tile::chunk)`. Barriers before and after every use of them.
template <class Math, class T = typename Math::Number, class A, class B>
DEVICE void add_rows_product(Tile& tile, T* X, T* W, int depth, A a, B b) {
    constexpr int narrow = pitch<T>(Tile::chunk);
    for (int start = 0; start < depth; start += Tile::chunk) {
        sync();
        stage(X, narrow, Tile::size, Tile::chunk,
              [&](int row, int k) { return start + k < depth ? a(row, start + k) : from_float<T>(0.f); });
        stage(W, narrow, Tile::size, Tile::chunk,
              [&](int column, int k) { return start + k < depth ? b(column, start + k) : from_float<T>(0.f); });
        sync();
        multiply<Math>(tile, X, narrow, W, narrow, 0, Tile::chunk);
    }
    sync();
}

// tile += P B', P [64][pitch<T>(64)] in shared memory, for `depth` <= 64 columns of it; b as above.
template <class Math, class T = typename Math::Number, class B>
DEVICE void add_staged_product(Tile& tile, const T* P, T* W, B b) {
    constexpr int narrow = pitch<T>(Tile::chunk), wide = pitch<T>(Tile::size);
    for (int start = 0; start < Tile::size; start += Tile::chunk) {
        sync();
        stage_transposed(W, narrow, Tile::chunk, Tile::size, [&](int k, int column) { return b(column, start + k); });
        sync();
        multiply<Math>(tile, P + start, wide, W, narrow, 0, Tile::chunk);
    }
    sync();
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
