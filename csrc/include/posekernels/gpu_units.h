// Sums that turn into operands where they are: what the matrix units give, as they take it, for 16 bits and for 32.
#pragma once

#include "posekernels/gpu.h"
#include "posekernels/gpu_mma_k8.h"

namespace posekernels {

// A Piece is 8 columns of a warp's 16 rows, made of sums[4]; two of them meet a Right, 16 rows by 8 columns. Exact
// float32 goes as two TF32 numbers, in three products.
template <class Math>
struct Units {
    using T = typename Math::Number;
    static constexpr int wide = sizeof(T) / 2;  // words in place of one of 16 bits
    struct alignas(8 * wide) Piece {
        uint32_t w[2 * wide];
    };
    struct Right {
        uint32_t w[2 * wide];
    };

    static DEVICE uint32_t word(float v) {
        if constexpr (std::is_same_v<Math, Tf32>)
            return tf32_of(v);
        else
            return bits_of(v);
    }
    static DEVICE Piece piece(const float (&sums)[4]) {
        if constexpr (wide == 1)
            return {{word_of<T>(sums[0], sums[1]), word_of<T>(sums[2], sums[3])}};
        else
            return {{word(sums[0]), word(sums[2]), word(sums[1]), word(sums[3])}};
    }
    // Of exact float32 in two TF32 numbers: what the first leaves.
    static DEVICE uint32_t rest(uint32_t v, uint32_t first) { return bits_of(floats_of(v) - floats_of(first)); }

    static DEVICE void add(float (&sums)[4], const Piece& left, const Piece& next, const Right& right) {
        if constexpr (wide == 1) {
            const uint32_t a[4] = {left.w[0], left.w[1], next.w[0], next.w[1]}, b[2] = {right.w[0], right.w[1]};
            mma(sums, a, b, T{});
        } else {
            const uint32_t first[2] = {right.w[0], right.w[1]}, second[2] = {right.w[2], right.w[3]};
            add_eight(sums, left, first);
            add_eight(sums, next, second);
        }
    }
    // The same with the first 8 rows of `right` alone.
    static DEVICE void add_first(float (&sums)[4], const Piece& left, const Right& right) {
        if constexpr (wide == 1) {
            mma_k8(sums, left.w, right.w[0], T{});
        } else {
            const uint32_t first[2] = {right.w[0], right.w[1]};
            add_eight(sums, left, first);
        }
    }
    static DEVICE void add_eight(float (&sums)[4], const Piece& left, const uint32_t (&b)[2]) {
        if constexpr (std::is_same_v<Math, Tf32>) {
            mma(sums, left.w, b, float{});
        } else if constexpr (wide == 2) {
            uint32_t a1[4], a2[4], b1[2], b2[2];
#pragma unroll
            for (int i = 0; i < 4; ++i) a1[i] = tf32_of(floats_of(left.w[i])), a2[i] = rest(left.w[i], a1[i]);
#pragma unroll
            for (int i = 0; i < 2; ++i) b1[i] = tf32_of(floats_of(b[i])), b2[i] = rest(b[i], b1[i]);
            mma(sums, a2, b1, float{});
            mma(sums, a1, b2, float{});
            mma(sums, a1, b1, float{});
        }
    }
    static constexpr float largest = std::is_same_v<T, half_t> ? 65504.f : 3.38953139e38f;
};

}  // namespace posekernels
