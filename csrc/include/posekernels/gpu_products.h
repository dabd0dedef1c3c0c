// What the CUDA kernels over frames share: products of gathered rows, dropout masks, the choice of number type.
#pragma once

#include "posekernels/gpu.h"
#include "posekernels/isa.h"
#include "posekernels/philox.h"

POSEKERNELS_BEGIN

// Working memory of the products below, in shared memory: chunks of both sides, 64 bytes of 64 rows each.
template <class T>
struct Operands {
    static constexpr int stages = 3, chunk = 64 / sizeof(T), row = pitch<T>(chunk), side = Tile::size * row;
    // A product whose left side is elsewhere has room for a wider chunk of the right one.
    static constexpr int wide_chunk = Tile::chunk, wide_row = pitch<T>(wide_chunk);
    static_assert(Tile::size * wide_row <= 2 * stages * side, "fits");

    alignas(16) T numbers[2 * stages * side];

    DEVICE T* left(int stage) { return numbers + 2 * stage * side; }
    DEVICE T* right(int stage) { return numbers + (2 * stage + 1) * side; }
};

// Numbers [start, start + chunk) of 64 rows of `depth` numbers begin to be copied into `to`; behind the end, and in
// rows that are null, zeros. from: the rows of this thread, threadIdx.x / 4 and 32 on.
template <class T>
DEVICE void fill_rows(T* to, const T* const (&from)[2], int start, int depth) {
    constexpr int each = 16 / sizeof(T);
    const int at = threadIdx.x % 4 * each, left = depth - start - at;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        T* target = to + (threadIdx.x / 4 + 32 * i) * Operands<T>::row + at;
        const T* source = from[i] ? from[i] + start + at : nullptr;
        if (source && left >= each && reinterpret_cast<uintptr_t>(source) % 16 == 0) {
            copy_async<16>(target, source);
        } else {
            Packet<T, each> numbers;
#pragma unroll
            for (int e = 0; e < each; ++e) numbers.v[e] = source && e < left ? source[e] : from_float<T>(0.f);
            packet<each>(target) = numbers;
        }
    }
}

// tile += A B' over depths [0, depth): a(row) and b(column), of 64, give where the row's numbers begin, or null for
// zeros. Chunks of both sides come through shared memory, two on their way while one is multiplied. Before and after
// it `held` is free for others behind a barrier.
template <class Math, class T = typename Math::Number, class A, class B>
DEVICE void add_rows_product(Tile& tile, Operands<T>& held, int depth, A a, B b) {
    using O = Operands<T>;
    const int first = threadIdx.x / 4;
    const T* const left[2] = {a(first), a(first + 32)};
    const T* const right[2] = {b(first), b(first + 32)};
    const auto fill = [&](int start, int stage) {
        if (start < depth) {
            fill_rows(held.left(stage), left, start, depth);
            fill_rows(held.right(stage), right, start, depth);
        }
        copies_end_group();
    };
    sync();
    for (int stage = 0; stage + 1 < O::stages; ++stage) fill(stage * O::chunk, stage);
    int stage = 0, next = O::stages - 1;
#pragma unroll 1
    for (int start = 0; start < depth; start += O::chunk) {
        copies_wait_but<O::stages - 2>();
        sync();
        fill(start + (O::stages - 1) * O::chunk, next);
        multiply<Math>(tile, held.left(stage), O::row, held.right(stage), O::row, 0, O::chunk);
        next = stage;
        stage = stage + 1 == O::stages ? 0 : stage + 1;
    }
}

// Depths [start, start + chunk) of `columns` <= 64 columns begin to be copied into `to`, across_pitch numbers apart;
// behind the ends, zeros. Row k of them begins at from + k * stride.
template <class T>
DEVICE void fill_columns(T* to, const T* from, int64_t stride, int start, int depth, int columns) {
    constexpr int each = 16 / sizeof(T), abreast = Tile::size / each, chunk = Operands<T>::chunk;
    const int at = threadIdx.x % abreast * each;
#pragma unroll
    for (int i = 0; i < chunk; i += Tile::threads / abreast) {
        const int k = i + threadIdx.x / abreast;
        T* target = to + k * across_pitch + at;
        const T* source = from + (start + k) * stride + at;
        const int left = start + k < depth ? columns - at : 0;
        if (left >= each && reinterpret_cast<uintptr_t>(source) % 16 == 0) {
            copy_async<16>(target, source);
        } else {
            Packet<T, each> numbers;
#pragma unroll
            for (int e = 0; e < each; ++e) numbers.v[e] = e < left ? source[e] : from_float<T>(0.f);
            packet<each>(target) = numbers;
        }
    }
}

// tile += A B over depths [0, depth), for `columns` <= 64 of it: a(row) as above, row k of B at b + k * stride. mine:
// whether the rows of this warp are wanted. `held` as above.
template <class Math, class T = typename Math::Number, class A>
DEVICE void add_columns_product(Tile& tile, Operands<T>& held, int depth, A a, const T* b, int64_t stride, int columns,
                                bool mine) {
    using O = Operands<T>;
    static_assert(O::chunk * across_pitch <= O::side, "fits");
    constexpr int step = depth_step<Math>();
    const int first = threadIdx.x / 4;
    const T* const left[2] = {a(first), a(first + 32)};
    const auto fill = [&](int start, int stage) {
        if (start < depth) {
            fill_rows(held.left(stage), left, start, depth);
            fill_columns(held.right(stage), b, stride, start, depth, columns);
        }
        copies_end_group();
    };
    sync();
    for (int stage = 0; stage + 1 < O::stages; ++stage) fill(stage * O::chunk, stage);
    int stage = 0, next = O::stages - 1;
#pragma unroll 1
    for (int start = 0; start < depth; start += O::chunk) {
        copies_wait_but<O::stages - 2>();
        sync();
        fill(start + (O::stages - 1) * O::chunk, next);
        const int deep = depth - start < O::chunk ? (depth - start + step - 1) / step * step : O::chunk;
        if (mine) multiply_across<Math>(tile, held.left(stage), O::row, held.right(stage), 0, deep, (columns + 7) / 8);
        next = stage;
        stage = stage + 1 == O::stages ? 0 : stage + 1;
    }
}

// tile += P B', P [64][pitch<T>(64)] in shared memory, for `depth` <= 64 columns of it; b(column, k) as numbers.
template <class Math, class T = typename Math::Number, class B>
DEVICE void add_staged_product(Tile& tile, const T* P, Operands<T>& held, B b) {
    constexpr int chunk = Operands<T>::wide_chunk, narrow = Operands<T>::wide_row, wide = pitch<T>(Tile::size);
    for (int start = 0; start < Tile::size; start += chunk) {
        sync();
        stage_transposed(held.numbers, narrow, chunk, Tile::size,
                         [&](int k, int column) { return b(column, start + k); });
        sync();
        multiply<Math>(tile, P + start, wide, held.numbers, narrow, 0, chunk);
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
    const int64_t* seed;  // in memory: a CUDA graph replays with what is there then
    uint32_t stream;
    uint32_t threshold;  // 0: nothing is dropped, and there is no seed
    float factor;        // of what is kept

    // Of elements 4 block to 4 block + 3.
    DEVICE philox::Words words(uint64_t block) const {
        return philox::words(static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), stream, 0x44524F50u,
                             static_cast<uint64_t>(*seed));
    }
    DEVICE bool keeps(int64_t element) const {
        const philox::Words four = words(static_cast<uint64_t>(element) / 4);
        const uint32_t even = element & 2 ? four.w[2] : four.w[0], odd = element & 2 ? four.w[3] : four.w[1];
        return (element & 1 ? odd : even) >= threshold;  // an index known at run time would put the words into memory
    }
    DEVICE float operator()(float v, int64_t element) const {
        if (threshold == 0) return v;
        return keeps(element) ? v * factor : 0.f;
    }
};

inline DropoutMask dropout_mask(const int64_t* seed, int64_t stream, int64_t threshold, float factor) {
    return {seed, static_cast<uint32_t>(stream), static_cast<uint32_t>(threshold), factor};
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
