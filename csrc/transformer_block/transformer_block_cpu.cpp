// transformer_block: a pre-norm transformer block over groups of tokens, in inference.
//
// Two passes over the tokens, each in tiles that one core keeps in its cache. The first makes a group's queries, keys
// and values and attends, leaving the mixed values in y; the second takes rows of y, whatever group they belong to,
// through projection, residual, norm, MLP, residual and last norm. Beside x and y, memory holds one tile per thread.
//
// E is the element of x, y and of the products' factors: float, or bfloat16 with float sums, norms and softmax.
#include "posekernels/gemm.h"
#include "posekernels/registry.h"
#include "posekernels/rows.h"

POSEKERNELS_BEGIN
namespace {

constexpr int64_t tile_rows = 112;
constexpr int64_t query_rows = 2 * max_rows;  // whose scores stay in the L1 cache

template <class E>
constexpr bool half = sizeof(E) == 2;

template <class E>
using GeluOf = std::conditional_t<half<E>, CoarseGelu, Gelu>;

struct RowScale {
    const float* factors;
    POSEKERNELS_INLINE Vec operator()(Vec v, int64_t row, int64_t, int64_t) const { return v * splat(factors[row]); }
};

template <class Epilogue>
void product(const float* A, int64_t lda, const float* B, float* C, int64_t ldc, int64_t M, int64_t N, int64_t K,
             int64_t first, int64_t last, const Epilogue& epilogue) {
    gemm_panels(A, lda, B, C, ldc, M, N, K, first, last, 0, epilogue);
}
template <class Out, class Epilogue>
void product(const uint16_t* A, int64_t lda, const uint16_t* B, Out* C, int64_t ldc, int64_t M, int64_t N, int64_t K,
             int64_t first, int64_t last, const Epilogue& epilogue) {
    gemm_tile_bf16(A, lda, B, C, ldc, M, N, K, epilogue, 0, first, last);
}

inline void pack_for(const float* source, int64_t row, int64_t column, int64_t K, int64_t N, float* to) {
    pack(source, row, column, K, N, to);
}
inline void pack_for(const uint16_t* source, int64_t row, int64_t column, int64_t K, int64_t N, uint16_t* to) {
    pack_bf16(source, row, column, K, N, to);
}

template <class E>
int64_t packed_count(int64_t K, int64_t N) {
    return half<E> ? packed_size_bf16(K, N) : packed_size(K, N);
}

// A linear layer: [out, in] as PyTorch keeps it, its panels, or both; bias may be null.
template <class E>
struct Dense {
    const float* weight;
    const E* panels;
    const float* bias;

    // Panels for this call, on all threads, where none were given.
    void prepare(int64_t in, int64_t out, Scratch& scratch) {
        if constexpr (!half<E>) {
            if (panels) return;
            float* made = scratch.floats(packed_size(in, out));
            parallel_for(panels_of(out), [&](int64_t p) { pack_panels(weight, 1, in, in, out, p, p + 1, made); });
            panels = made;
        }
    }
};

template <class E>
struct Block {
    const E* x;
    E* y;
    int64_t groups1, groups2, stride1, stride2, N, stride, C, heads, hidden;  // strides in elements
    const float *gain1, *shift1, *gain2, *shift2, *gain3, *shift3;            // gain3 may be null: no last norm
    Dense<E> qkv, proj, fc1, fc2;
    float scale, eps;

    int64_t start_of(int64_t group) const { return group / groups2 * stride1 + group % groups2 * stride2; }

    // softmax(q k' scale) v of one head of one group into rows of `out`.
    void attend(const E* q, const E* k, const E* v, int64_t ld, E* out, int64_t ldo) const {
        const int64_t d = C / heads;
        Scratch scratch;
        E* keys = scratch_of<E>(scratch, packed_count<E>(d, N));
        E* values = scratch_of<E>(scratch, packed_count<E>(N, d));
        pack_for(k, 1, ld, d, N, keys);
        pack_for(v, ld, 1, N, d, values);
        float* scores = scratch.floats(query_rows * N);
        E* weights = half<E> ? scratch_of<E>(scratch, query_rows * N) : reinterpret_cast<E*>(scores);
        float factors[query_rows];  // the rows' sums divide the mixed values: N x d numbers, not N x N
        for (int64_t first = 0; first < N; first += query_rows) {
            const int64_t rows = N - first < query_rows ? N - first : query_rows;
            product(q + first * ld, ld, keys, scores, N, rows, N, d, 0, panels_of(N), Store{});
            for (int64_t n = 0; n < rows; ++n)
                factors[n] = 1.0f / exponentials_row(scores + n * N, N, scale, weights + n * N);
            product(weights, N, values, out + first * ldo, ldo, rows, d, N, 0, panels_of(d), RowScale{factors});
        }
    }

    // Groups [first, first + count), part `part` of `parts` of their heads: mixed values into y.
    void attention(int64_t first, int64_t count, int64_t part, int64_t parts) const {
        const int64_t rows = count * N, width = C / parts, from = part * width, d = C / heads;
        Scratch scratch;
        E* a = scratch_of<E>(scratch, rows * C);
        for (int64_t g = 0; g < count; ++g)
            for (int64_t n = 0; n < N; ++n)
                layer_norm_row(x + start_of(first + g) + n * stride, C, gain1, shift1, eps, a + (g * N + n) * C);
        E* made = scratch_of<E>(scratch, rows * 3 * width);
        if (parts == 1) {
            product(a, C, qkv.panels, made, 3 * C, rows, 3 * C, C, 0, panels_of(3 * C), Bias{qkv.bias});
        } else {  // whole panels, as the caller has checked: columns from, C + from and 2 C + from, side by side
            for (int64_t i = 0; i < 3; ++i)
                product(a, C, qkv.panels, made + i * width - (i * C + from), 3 * width, rows, 3 * C, C,
                        (i * C + from) / panel, (i * C + from + width) / panel, Bias{qkv.bias});
        }
        for (int64_t g = 0; g < count; ++g)
            for (int64_t h = 0; h < width / d; ++h) {
                const E* q = made + g * N * 3 * width + h * d;
                attend(q, q + width, q + 2 * width, 3 * width, y + start_of(first + g) + from + h * d, stride);
            }
    }

    // Rows [first, first + rows) of y, in the order of memory: mixed values -> the block's result.
    void feed_forward(int64_t first, int64_t rows) const {
        Scratch scratch;
        float* h = scratch.floats(rows * C);
        E* a = scratch_of<E>(scratch, rows * C);
        E* wide = scratch_of<E>(scratch, rows * hidden);
        E* to = y + first * C;
        // In the order of memory first: the epilogue would reach a line here, a line there of x.
        for (int64_t i = 0; i < rows * C; i += lanes) store(h + i, load(x + first * C + i, rows * C - i), rows * C - i);
        const Residual residual{h, C};
        product(to, C, proj.panels, h, C, rows, C, C, 0, panels_of(C), then(Bias{proj.bias}, residual));
        for (int64_t r = 0; r < rows; ++r) layer_norm_row(h + r * C, C, gain2, shift2, eps, a + r * C);
        product(a, C, fc1.panels, wide, hidden, rows, hidden, C, 0, panels_of(hidden),
                then(Bias{fc1.bias}, GeluOf<E>{}));
        product(wide, hidden, fc2.panels, h, C, rows, C, hidden, 0, panels_of(C), then(Bias{fc2.bias}, residual));
        if (gain3) {
            for (int64_t r = 0; r < rows; ++r) layer_norm_row(h + r * C, C, gain3, shift3, eps, to + r * C);
        } else {
            for (int64_t i = 0; i < rows * C; i += lanes) store(to + i, load(h + i, rows * C - i), rows * C - i);
        }
    }

    void run() {
        const int64_t groups = groups1 * groups2, rows = groups * N;
        if (!rows) return;
        const int64_t threads = num_threads();
        {
            Scratch scratch;
            qkv.prepare(C, 3 * C, scratch);
            int64_t each = N < tile_rows ? tile_rows / N : 1;
            int64_t chunks = (groups + each - 1) / each, parts = 1;
            if (chunks % threads && groups > chunks) {  // no thread waits for the last chunk alone
                chunks += threads - chunks % threads;
                if (chunks > groups) chunks = groups;
            }
            // One large group each: heads by halves, so that an odd number of groups splits evenly over two threads.
            if (chunks == groups && chunks % threads && heads % 2 == 0 && C / 2 % panel == 0) parts = 2;
            const int64_t base = groups / chunks, longer = groups % chunks;
            parallel_for(chunks * parts, [&](int64_t task) {
                const int64_t c = task / parts;
                attention(c * base + (c < longer ? c : longer), base + (c < longer), task % parts, parts);
            });
        }
        Scratch scratch;
        proj.prepare(C, C, scratch);
        fc1.prepare(C, hidden, scratch);
        fc2.prepare(hidden, C, scratch);
        int64_t tiles = (rows + tile_rows - 1) / tile_rows;
        if (tiles % threads) tiles += threads - tiles % threads;
        if (tiles > rows) tiles = rows;
        const int64_t base = rows / tiles, longer = rows % tiles;
        parallel_for(tiles,
                     [&](int64_t t) { feed_forward(t * base + (t < longer ? t : longer), base + (t < longer)); });
    }
};

template <class E>
void run(const void* x, void* y, int64_t groups1, int64_t groups2, int64_t stride1, int64_t stride2, int64_t N,
         int64_t stride, int64_t C, int64_t heads, int64_t hidden, const float* norms, const Dense<E>& qkv,
         const Dense<E>& proj, const Dense<E>& fc1, const Dense<E>& fc2, bool last, float scale, float eps) {
    const float* third = last ? norms + 4 * C : nullptr;
    Block<E>{static_cast<const E*>(x),
             static_cast<E*>(y),
             groups1,
             groups2,
             stride1,
             stride2,
             N,
             stride,
             C,
             heads,
             hidden,
             norms,
             norms + C,
             norms + 2 * C,
             norms + 3 * C,
             third,
             third ? third + C : nullptr,
             qkv,
             proj,
             fc1,
             fc2,
             scale,
             eps}
        .run();
}

}  // namespace

// x, y [groups1, groups2, N, C] with these strides (in elements; rows of C are dense, and all rows together are the
// memory from x on). norms: gain and shift of two or three norms, [C] each. Weights [out, in] float32; panels (null in
// float32 to make them for this call) as packed for the transpose. bf16: x, y and panels are bfloat16.
void transformer_block(const void* x, void* y, int64_t groups1, int64_t groups2, int64_t stride1, int64_t stride2,
                       int64_t N, int64_t stride, int64_t C, int64_t heads, int64_t hidden, const float* norms,
                       const float* qkv_weight, const void* qkv_panels, const float* qkv_bias, const float* proj_weight,
                       const void* proj_panels, const float* proj_bias, const float* fc1_weight, const void* fc1_panels,
                       const float* fc1_bias, const float* fc2_weight, const void* fc2_panels, const float* fc2_bias,
                       int64_t last_norm, int64_t bf16, float scale, float eps) {
    if (bf16) {
        typedef const uint16_t* Half;
        run<uint16_t>(x, y, groups1, groups2, stride1, stride2, N, stride, C, heads, hidden, norms,
                      {nullptr, static_cast<Half>(qkv_panels), qkv_bias},
                      {nullptr, static_cast<Half>(proj_panels), proj_bias},
                      {nullptr, static_cast<Half>(fc1_panels), fc1_bias},
                      {nullptr, static_cast<Half>(fc2_panels), fc2_bias}, last_norm != 0, scale, eps);
    } else {
        typedef const float* Full;
        run<float>(x, y, groups1, groups2, stride1, stride2, N, stride, C, heads, hidden, norms,
                   {qkv_weight, static_cast<Full>(qkv_panels), qkv_bias},
                   {proj_weight, static_cast<Full>(proj_panels), proj_bias},
                   {fc1_weight, static_cast<Full>(fc1_panels), fc1_bias},
                   {fc2_weight, static_cast<Full>(fc2_panels), fc2_bias}, last_norm != 0, scale, eps);
    }
}
POSEKERNELS_KERNEL(transformer_block)

POSEKERNELS_END
