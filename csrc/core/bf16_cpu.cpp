// bfloat16 register blocks: vdpbf16ps where the CPU has AVX512-BF16, shifts and float32 multiply-adds elsewhere.
// The AVX-512 build holds both, and picks when the module loads.
#include "posekernels/gemm.h"

POSEKERNELS_BEGIN
namespace {

// Two bfloat16 of a row, or the last one and a zero: reading past the row's end is not allowed.
POSEKERNELS_INLINE uint32_t pair_of(const uint16_t* a, int64_t left) {
    uint32_t pair = 0;
    std::memcpy(&pair, a, left >= 2 ? 4 : 2);
    return pair;
}

template <int rows, Ahead ahead>
void block(int64_t depth, const uint16_t* A, int64_t row_stride, const uint16_t* B, float* sums) {
    Vec c0[rows], c1[rows];
    POSEKERNELS_UNROLL(16)
    for (int r = 0; r < rows; ++r) c0[r] = c1[r] = Vec{};
    const uint32_t* b = reinterpret_cast<const uint32_t*>(B);
    int64_t k = 0;
    const auto step = [&](auto pair) POSEKERNELS_INLINE_LAMBDA {
        const UintVec p0 = *reinterpret_cast<const UnalignedUintVec*>(b);
        const UintVec p1 = *reinterpret_cast<const UnalignedUintVec*>(b + lanes);
        if (ahead == Ahead::of_B) prefetch(b);
        if (ahead == Ahead::of_A) __builtin_prefetch(A + rows * (row_stride + k));
        b += panel;
        const Vec even0 = floats_of(p0 << 16), odd0 = floats_of(p0 & 0xffff0000u);
        const Vec even1 = floats_of(p1 << 16), odd1 = floats_of(p1 & 0xffff0000u);
        POSEKERNELS_UNROLL(16)
        for (int r = 0; r < rows; ++r) {
            const uint32_t bits = pair(A + r * row_stride + k);
            const Vec even = splat(from_bf16(static_cast<uint16_t>(bits)));
            const Vec odd = splat(from_bf16(static_cast<uint16_t>(bits >> 16)));
            c0[r] = even * even0 + c0[r];
            c1[r] = even * even1 + c1[r];
            c0[r] = odd * odd0 + c0[r];
            c1[r] = odd * odd1 + c1[r];
        }
    };
    for (; k + 2 <= depth; k += 2) step([](const uint16_t* a) { return pair_of(a, 2); });
    if (k < depth) step([](const uint16_t* a) { return pair_of(a, 1); });
    POSEKERNELS_UNROLL(16)
    for (int r = 0; r < rows; ++r) {
        store(sums + r * panel, c0[r]);
        store(sums + r * panel + lanes, c1[r]);
    }
}

#if defined(__AVX512F__)
#define POSEKERNELS_DOT POSEKERNELS_TARGET("avx512f,avx512bf16")

template <int rows, Ahead ahead>
POSEKERNELS_DOT void dot_block(int64_t depth, const uint16_t* A, int64_t row_stride, const uint16_t* B, float* sums) {
    __m512 c0[rows], c1[rows];
    POSEKERNELS_UNROLL(16)
    for (int r = 0; r < rows; ++r) c0[r] = c1[r] = _mm512_setzero_ps();
    int64_t k = 0;
    const auto step = [&](auto pair) POSEKERNELS_INLINE_LAMBDA POSEKERNELS_DOT {
        const __m512bh b0 = (__m512bh)_mm512_loadu_ps(B);
        const __m512bh b1 = (__m512bh)_mm512_loadu_ps(B + 2 * lanes);
        if (ahead == Ahead::of_B) prefetch(B);
        if (ahead == Ahead::of_A) __builtin_prefetch(A + rows * (row_stride + k));
        B += 2 * panel;
        POSEKERNELS_UNROLL(16)
        for (int r = 0; r < rows; ++r) {
            const __m512bh a = (__m512bh)_mm512_set1_epi32(static_cast<int>(pair(A + r * row_stride + k)));
            c0[r] = _mm512_dpbf16_ps(c0[r], a, b0);
            c1[r] = _mm512_dpbf16_ps(c1[r], a, b1);
        }
    };
    for (; k + 2 <= depth; k += 2) step([](const uint16_t* a) { return pair_of(a, 2); });
    if (k < depth) step([](const uint16_t* a) { return pair_of(a, 1); });
    POSEKERNELS_UNROLL(16)
    for (int r = 0; r < rows; ++r) {
        _mm512_storeu_ps(sums + r * panel, c0[r]);
        _mm512_storeu_ps(sums + r * panel + lanes, c1[r]);
    }
}

POSEKERNELS_DOT void converted_pairs_of(const float* rows, int64_t K, uint16_t* pairs) {
    alignas(64) uint16_t order[2 * lanes];
    for (int i = 0; i < lanes; ++i) order[2 * i] = static_cast<uint16_t>(i), order[2 * i + 1] = order[2 * i] + lanes;
    const __m512i interleaved = _mm512_load_si512(order);
    for (int64_t k = 0; k < K; k += 2, rows += 2 * panel, pairs += 2 * panel)
        for (int64_t l = 0; l < panel; l += lanes) {
            const __m512 even = _mm512_loadu_ps(rows + l);
            const __m512 odd = k + 1 < K ? _mm512_loadu_ps(rows + panel + l) : _mm512_setzero_ps();
            const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
            _mm512_storeu_si512(pairs + 2 * l, _mm512_permutexvar_epi16(interleaved, both));
        }
}
#endif

#if POSEKERNELS_REGISTERS == 32
#define POSEKERNELS_BLOCKS(f, s)                                                 \
    {nullptr, f<1, s>, f<2, s>,  f<3, s>,  f<4, s>,  f<5, s>,  f<6, s>, f<7, s>, \
     f<8, s>, f<9, s>, f<10, s>, f<11, s>, f<12, s>, f<13, s>, f<14, s>}
#else
#define POSEKERNELS_BLOCKS(f, s) {nullptr, f<1, s>, f<2, s>, f<3, s>, f<4, s>, f<5, s>, f<6, s>}
#endif
const Bf16Block plain[3][max_rows + 1] = {POSEKERNELS_BLOCKS(block, Ahead::nothing),
                                          POSEKERNELS_BLOCKS(block, Ahead::of_B),
                                          POSEKERNELS_BLOCKS(block, Ahead::of_A)};
#if defined(__AVX512F__)
const Bf16Block with_dot[3][max_rows + 1] = {POSEKERNELS_BLOCKS(dot_block, Ahead::nothing),
                                             POSEKERNELS_BLOCKS(dot_block, Ahead::of_B),
                                             POSEKERNELS_BLOCKS(dot_block, Ahead::of_A)};
#endif

#if defined(__AVX512F__)
bool look_for_bf16() {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512bf16");
}
#endif

}  // namespace

void pairs_of(const float* rows, int64_t K, uint16_t* pairs) {
    auto* out = reinterpret_cast<uint32_t*>(pairs);
    for (int64_t k = 0; k < K; k += 2, rows += 2 * panel, out += panel)
        for (int64_t l = 0; l < panel; l += lanes) {
            const UintVec even = bf16_words(load(rows + l));
            const UintVec odd = k + 1 < K ? bf16_words(load(rows + panel + l)) : UintVec{};
            *reinterpret_cast<UnalignedUintVec*>(out + l) = even >> 16 | odd;
        }
}

#if defined(__AVX512F__)
const bool bf16_instructions = look_for_bf16();
const Bf16Block* bf16_blocks = (bf16_instructions ? with_dot : plain)[0];
const Bf16Block* bf16_streaming_blocks = (bf16_instructions ? with_dot : plain)[1];
const Bf16Block* bf16_advancing_blocks = (bf16_instructions ? with_dot : plain)[2];
void (*const bf16_pairs)(const float*, int64_t, uint16_t*) = bf16_instructions ? converted_pairs_of : pairs_of;
#else
const Bf16Block* bf16_blocks = plain[0];
const Bf16Block* bf16_streaming_blocks = plain[1];
const Bf16Block* bf16_advancing_blocks = plain[2];
void (*const bf16_pairs)(const float*, int64_t, uint16_t*) = pairs_of;
#endif

void round_to_bf16(const float* source, int64_t n, uint16_t* rounded) {
    for (int64_t i = 0; i < n; i += lanes) store(rounded + i, load(source + i, n - i), n - i);
}

POSEKERNELS_END
