// Networks over frames with the frames in the lanes. A tile holds `panel` frames, channel by channel: [C][panel].
//
// That is what gemm.h calls a packed panel of B, so a linear layer on a tile is a product with the weight as PyTorch
// stores it, [N, C], row by row: nothing is packed or transposed between layers. Norms and softmaxes run down the
// rows, all lanes at once. Lanes without a frame hold zeros or garbage that is never written back.
#pragma once

#include "posekernels/gemm.h"

POSEKERNELS_BEGIN

// ---- elements: float, or bfloat16 as uint16_t

POSEKERNELS_INLINE float to_float(float x) {
    return x;
}
POSEKERNELS_INLINE float to_float(uint16_t x) {
    return from_bf16(x);
}

POSEKERNELS_INLINE Vec load_any(const float* p, int64_t n) {
    return load(p, n);
}
POSEKERNELS_INLINE void store_any(float* p, Vec v, int64_t n) {
    store(p, v, n);
}

POSEKERNELS_INLINE Vec load_any(const uint16_t* p, int64_t n) {
#if defined(__AVX512F__)
    const __mmask16 mask = n >= lanes ? 0xffff : static_cast<__mmask16>((1u << n) - 1);
    return reinterpret_cast<Vec>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p)), 16));
#else
    Vec v{};
    for (int64_t i = 0; i < (n < lanes ? n : lanes); ++i) v[i] = from_bf16(p[i]);
    return v;
#endif
}

// To nearest, ties to even, in the lower half of each lane; a NaN stays a NaN.
POSEKERNELS_INLINE UintVec bf16_of(Vec v) {
    const UintVec bits = bits_of(v);
    const UintVec rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return v == v ? rounded : (bits >> 16) | 0x40u;
}

POSEKERNELS_INLINE void store_any(uint16_t* p, Vec v, int64_t n) {
#if defined(__AVX512F__)
    const __mmask16 mask = n >= lanes ? 0xffff : static_cast<__mmask16>((1u << n) - 1);
    _mm256_mask_storeu_epi16(p, mask, _mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(bf16_of(v))));
#else
    for (int64_t i = 0; i < (n < lanes ? n : lanes); ++i) p[i] = to_bf16(v[i]);
#endif
}

// The lanes whose bit is set; 0 elsewhere, NaN included.
POSEKERNELS_INLINE Vec keep_lanes(uint32_t bits, Vec v) {
#if defined(__AVX512F__)
    return _mm512_maskz_mov_ps(static_cast<__mmask16>(bits), v);
#else
    UintVec keep;
    for (int i = 0; i < lanes; ++i) keep[i] = 0u - ((bits >> i) & 1u);
    return floats_of(bits_of(v) & keep);
#endif
}

// ---- rows to lanes and back

// tile[c][l] = x[frame[l] * stride + c] (+ add[frame[l] % period * stride + c]); 0 in lanes whose frame is negative.
template <class E>
inline void read_frames(const E* x, int64_t stride, int64_t C, const int64_t* frame, float* tile,
                        const E* add = nullptr, int64_t period = 1) {
    for (int64_t l = 0; l < panel; ++l)  // all at once: the transposes below would ask for few of them at a time
        for (int64_t c = 0; frame[l] >= 0 && c < C; c += 64 / sizeof(E)) __builtin_prefetch(x + frame[l] * stride + c);
    Vec rows[lanes];
    for (int64_t l = 0; l < panel; l += lanes) {
        const E* added[lanes];
        for (int64_t i = 0; add && i < lanes; ++i) added[i] = add + frame[l + i] % period * stride;
        for (int64_t c = 0; c < C; c += lanes) {
            const int64_t n = C - c < lanes ? C - c : lanes;
            for (int64_t i = 0; i < lanes; ++i) {
                const bool there = frame[l + i] >= 0;
                rows[i] = there ? load_any(x + frame[l + i] * stride + c, n) : Vec{};
                if (add && there) rows[i] = rows[i] + load_any(added[i] + c, n);
            }
            transpose(rows);
            for (int64_t i = 0; i < n; ++i) store(tile + (c + i) * panel + l, rows[i]);
        }
    }
}

// The same where lane l reads frame l, for lanes first <= l < end. x points at lane 0's frame, which need not exist
// when first > 0.
template <class E>
inline void read_tile(const E* x, int64_t stride, int64_t C, int64_t first, int64_t end, float* tile) {
    int64_t frame[panel];
    for (int64_t l = 0; l < panel; ++l) frame[l] = l < first || l >= end ? -1 : l;
    read_frames(x, stride, C, frame, tile);
}

// y[l * stride + c] = tile[c][l] for lanes first <= l < end; the tile's rows are `row` floats apart.
template <class E>
inline void write_tile(const float* tile, int64_t C, int64_t first, int64_t end, E* y, int64_t stride,
                       int64_t row = panel) {
    Vec rows[lanes];
    for (int64_t l = 0; l < panel && l < end; l += lanes)
        for (int64_t c = 0; c < C; c += lanes) {
            const int64_t n = C - c < lanes ? C - c : lanes;
            for (int64_t i = 0; i < lanes; ++i) rows[i] = i < n ? load(tile + (c + i) * row + l) : Vec{};
            transpose(rows);
            for (int64_t i = 0; i < lanes; ++i)
                if (l + i >= first && l + i < end) store_any(y + (l + i) * stride + c, rows[i], n);
        }
}

// The frames that tap k of a strided convolution reads for the tile of outputs from lane0 on: lane l reads frame
// first + l * stride. Lanes outside [begin, end) have no output, or read padding.
struct TapFrames {
    int64_t first, begin, end;
    TapFrames(int64_t lane0, int64_t k, int64_t taps, int64_t stride, int64_t T, int64_t outputs)
        : first(lane0 * stride + k - taps / 2),
          begin(first < 0 ? 1 : 0),
          end(outputs - lane0 < panel ? outputs - lane0 : panel) {
        while (end > begin && first + (end - 1) * stride >= T) --end;
    }
    uint32_t lane_bits() const {
        const uint32_t below_end = end >= 32 ? 0xffffffffu : (1u << end) - 1;
        return end > begin ? below_end & ~((1u << begin) - 1) : 0;
    }
};

// ---- products

// The tile that a product with weights of type W reads: floats as they are, or bfloat16 with pairs of rows interleaved.
inline int64_t tile_size(const float*, int64_t K) {
    return K * panel;
}
inline int64_t tile_size(const uint16_t*, int64_t K) {
    return (K + 1) / 2 * 2 * panel;
}

inline const float* tile_for(const float*, const float* tiles, int64_t, int64_t, Scratch&) {
    return tiles;
}
inline const uint16_t* tile_for(const uint16_t*, const float* tiles, int64_t K, int64_t count, Scratch& scratch) {
    const int64_t size = tile_size(static_cast<const uint16_t*>(nullptr), K);
    auto* pairs = static_cast<uint16_t*>(scratch.bytes(sizeof(uint16_t) * static_cast<size_t>(size * count)));
    for (int64_t p = 0; p < count; ++p) bf16_pairs(tiles + p * K * panel, K, pairs + p * size);
    return pairs;
}

POSEKERNELS_INLINE void run_block(int64_t rows, int64_t K, const float* W, int64_t ldw, const float* X, float* sums,
                                  bool advancing = false) {
    (advancing ? advancing_blocks : blocks_of_rows)[rows](K, W, ldw, 1, X, sums);
}
POSEKERNELS_INLINE void run_block(int64_t rows, int64_t K, const uint16_t* W, int64_t ldw, const uint16_t* X,
                                  float* sums, bool advancing = false) {
    (advancing ? bf16_advancing_blocks : bf16_blocks)[rows](K, W, ldw, X, sums);
}

// put(p, n, a, b) for every tile p and row n: a and b are the two vectors of (W X_p)[n], W [N, K], X from `tile_for`.
// Shared by the threads where the caller is not one of several already.
template <class W, class Put>
inline void product_of(const W* weight, int64_t N, int64_t K, const W* X, int64_t count, const Put& put) {
    const int64_t size = tile_size(weight, K);
    const RowSplit split(N);
    const auto block = [&](int64_t b) {
        const int64_t n = b * split.base + (b < split.longer ? b : split.longer), rows = split.rows(b);
        alignas(64) float sums[max_rows * panel];
        for (int64_t p = 0; p < count; ++p) {  // a block of weights stays in L1 for all tiles
            run_block(rows, K, weight + n * K, K, X + p * size, sums, p == 0);  // the first asks for the next block's
            for (int64_t r = 0; r < rows; ++r) put(p, n + r, load(sums + r * panel), load(sums + r * panel + lanes));
        }
    };
    if (N * K * count * panel < small_product) {
        for (int64_t b = 0; b < split.count; ++b) block(b);
    } else {
        parallel_for(split.count, block);
    }
}

// The same of tiles of floats.
template <class W, class Put>
inline void product(const W* weight, int64_t N, int64_t K, const float* tiles, int64_t count, const Put& put) {
    Scratch scratch;
    product_of(weight, N, K, tile_for(weight, tiles, K, count, scratch), count, put);
}

POSEKERNELS_INLINE void store_two(float* p, Vec a, Vec b) {
    store(p, a);
    store(p + lanes, b);
}

// ---- the annotated norm, lane by lane: gain * (z - mean) / (std + eps) + shift, unbiased std

inline void norm_tile(const float* z, int64_t C, const float* gain, const float* shift, float eps, float* out) {
    for (int64_t l = 0; l < panel; l += lanes) {
        const float* in = z + l;
        Vec sums[4] = {};
        for (int64_t c = 0; c < C; ++c) sums[c % 4] = sums[c % 4] + load(in + c * panel);
        const Vec mean = ((sums[0] + sums[1]) + (sums[2] + sums[3])) / static_cast<float>(C);
        Vec squares[4] = {};
        for (int64_t c = 0; c < C; ++c) {
            const Vec d = load(in + c * panel) - mean;
            squares[c % 4] = squares[c % 4] + d * d;
        }
        const Vec variance = ((squares[0] + squares[1]) + (squares[2] + squares[3])) / static_cast<float>(C - 1);
        const Vec inverse = 1.0f / (square_root(variance) + eps);
        for (int64_t c = 0; c < C; ++c)
            store(out + l + c * panel, (load(in + c * panel) - mean) * inverse * gain[c] + shift[c]);
    }
}

// ---- attention of the queries in a tile

// 2^t for t <= 0, relative error 8e-8; 0 below -126, NaN in, NaN out.
POSEKERNELS_INLINE Vec exp2_nonpositive(Vec t) {
    t = larger(t, splat(-127.0f));
    const Vec magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
    const Vec shifted = t + magic;
    const Vec r = t - (shifted - magic);
    Vec p = splat(1.327647177e-03f);
    p = p * r + 9.675541333e-03f;
    p = p * r + 5.550713274e-02f;
    p = p * r + 2.402211972e-01f;
    p = p * r + 6.931469671e-01f;
    p = p * r + 1.000000072e+00f;
    const IntVec power = (reinterpret_cast<IntVec>(shifted) - 0x4B400000 + 127) << 23;  // -127 becomes the float 0
    return p * reinterpret_cast<Vec>(power);
}

// Element (key, d) of one head's keys is k[key * key_stride + d * dim_stride].
struct Strided {
    const float* data;
    int64_t key_stride, dim_stride;
};

// Which keys the queries of a tile see, beside all of them.
struct Visible {
    const uint8_t* padding;  // [S], 1 where a key is not looked at; null: none
    bool causal;
    int64_t last;  // of the tile's lane 0: the last key it sees; lane l sees l more
    bool all() const { return !padding && !causal; }
};

inline void products_over_dims(const Strided& k, int64_t S, int64_t D, const float* tile, float* out) {
    const RowSplit split(S);
    const Block* kind = k.dim_stride == 1 ? blocks_of_rows : blocks;
    for (int64_t block = 0, s = 0; block < split.count; ++block) {
        const int64_t rows = split.rows(block);
        kind[rows](D, k.data + s * k.key_stride, k.key_stride, k.dim_stride, tile, out + s * panel);
        s += rows;
    }
}

// put(d, a, b) with rows d of sum over keys of v[key, d] * weights[key][panel].
template <class Put>
inline void products_over_keys(const Strided& v, int64_t S, int64_t D, const float* weights, const Put& put) {
    const RowSplit split(D);
    const Block* kind = v.key_stride == 1 ? blocks_of_rows : blocks;
    alignas(64) float sums[max_rows * panel];
    for (int64_t block = 0, d = 0; block < split.count; ++block) {
        const int64_t rows = split.rows(block);
        kind[rows](S, v.data + d * v.dim_stride, v.dim_stride, v.key_stride, weights, sums);
        for (int64_t r = 0; r < rows; ++r) put(d + r, load(sums + r * panel), load(sums + r * panel + lanes));
        d += rows;
    }
}

// scores[key][panel] <- factor * scores, -inf where a key is not seen.
inline void masked_scores(float* scores, int64_t S, float factor, const Visible& visible) {
    const Vec never = splat(-__builtin_inff());
    for (int64_t l = 0; l < panel; l += lanes) {
        IntVec last;
        for (int i = 0; i < lanes; ++i) last[i] = static_cast<int32_t>(visible.last + l + i);
        for (int64_t s = 0; s < S; ++s) {
            float* at = scores + s * panel + l;
            Vec t = load(at) * factor;
            if (visible.causal) t = (IntVec{} + static_cast<int32_t>(s)) > last ? never : t;
            if (visible.padding && visible.padding[s]) t = never;
            store(at, t);
        }
    }
}

// The softmax weights of a tile's scores, in their place, not yet divided by their sum: 2^(t - largest t).
// inverse gets 1 / sum, or 0 where no key is seen; largest the product that was subtracted, of the scale's sign.
inline void softmax_of(float* weights, int64_t S, float scale, const Visible& visible, Vec* inverse, Vec* largest) {
    // The largest score is subtracted before the factor, see rows.h; it is that of the products too, once they have the
    // sign of the scale. A factor of 0 would make NaN of what is not seen.
    const float sign = scale < 0.0f ? -1.0f : 1.0f, size = scale * sign * 1.44269504f;
    const float factor = size > 2e-38f ? size : 2e-38f;
    if (!visible.all() || sign < 0.0f) masked_scores(weights, S, sign, visible);
    for (int64_t h = 0; h < 2; ++h) {
        float* w = weights + h * lanes;
        Vec top = splat(-__builtin_inff()), top2 = top;
        int64_t s = 0;
        for (; s + 2 <= S; s += 2) {
            top = larger(load(w + s * panel), top);
            top2 = larger(load(w + (s + 1) * panel), top2);
        }
        if (s < S) top = larger(load(w + s * panel), top);
        top = larger(top2, top);
        top = top == splat(-__builtin_inff()) ? Vec{} : top;
        Vec sum1{}, sum2{};
        for (s = 0; s + 2 <= S; s += 2) {
            const Vec p1 = exp2_nonpositive((load(w + s * panel) - top) * factor);
            const Vec p2 = exp2_nonpositive((load(w + (s + 1) * panel) - top) * factor);
            sum1 = sum1 + p1;
            sum2 = sum2 + p2;
            store(w + s * panel, p1);
            store(w + (s + 1) * panel, p2);
        }
        if (s < S) {
            const Vec p1 = exp2_nonpositive((load(w + s * panel) - top) * factor);
            sum1 = sum1 + p1;
            store(w + s * panel, p1);
        }
        const Vec total = sum1 + sum2;
        inverse[h] = total == Vec{} ? Vec{} : 1.0f / total;
        largest[h] = top;
    }
}

// weights[key][panel] of a tile of queries, see `softmax_of`.
inline void softmax_tile(const Strided& k, int64_t S, int64_t D, const float* q, float scale, const Visible& visible,
                         float* weights, Vec* inverse, Vec* largest) {
    products_over_dims(k, S, D, q, weights);
    softmax_of(weights, S, scale, visible, inverse, largest);
}

// ---- the same in bfloat16: keys with their dims side by side, values with their keys side by side

// scores[key][panel] of keys [S][stride], queries from `tile_for`.
inline void products_over_dims(const uint16_t* k, int64_t stride, int64_t S, int64_t D, const uint16_t* q,
                               float* scores) {
    const RowSplit split(S);
    for (int64_t block = 0, s = 0; block < split.count; s += split.rows(block++))
        run_block(split.rows(block), D, k + s * stride, stride, q, scores + s * panel);
}

// put(d, a, b) with rows d of sum over keys of v[d][key] * weights[key], weights from `tile_for`.
template <class Put>
inline void products_over_keys(const uint16_t* v, int64_t stride, int64_t S, int64_t D, const uint16_t* weights,
                               const Put& put) {
    const RowSplit split(D);
    alignas(64) float sums[max_rows * panel];
    for (int64_t block = 0, d = 0; block < split.count; d += split.rows(block++)) {
        run_block(split.rows(block), S, v + d * stride, stride, weights, sums);
        for (int64_t r = 0; r < split.rows(block); ++r)
            put(d + r, load(sums + r * panel), load(sums + r * panel + lanes));
    }
}

POSEKERNELS_END
