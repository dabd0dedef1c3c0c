// denoise: a graph transformer over poses, and the reverse diffusion that calls it at every step.
//
// A tile of poses (rows = poses x joints) stays in the cache of one core through every layer of every step; the packed
// weights stream past it. Everything derived from the weights alone (panels, the non-zeros of the polynomials) lies in
// one block of memory that denoise_pack fills once per weight change.
#include "posekernels/gemm.h"
#include "posekernels/philox.h"
#include "posekernels/registry.h"
#include "posekernels/rows.h"

POSEKERNELS_BEGIN
namespace {

constexpr int64_t tile_poses = 8;  // 136 rows of 17 joints: 365 KB of working memory at 96 channels, in a 1 MB L2

struct Shape {
    int64_t J, K, L, Cin, C, Cout, heads;
    bool bf16;
};

// Hands out aligned pieces of one block; with a null base it only counts.
struct Block64 {
    char* base;
    int64_t used = 0;
    template <class T>
    T* take(int64_t count) {
        char* piece = base ? base + used : nullptr;
        used += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
        return reinterpret_cast<T*>(piece);
    }
};

// One weight matrix, or one per layer, as panels.
struct Panels {
    char* data;
    int64_t each;  // bytes per layer
    const void* layer(int64_t l) const { return data + l * each; }
};

struct Weights {
    int32_t* start;   // [K J + 1] the non-zeros of row i of T_k are start[k J + i] .. start[k J + i + 1]
    int32_t* source;  // the joint each of them gathers from
    float* factor;
    float *graph, *in_bias, *norm1, *qkv_bias, *proj_bias, *norm2, *fc1_bias, *fc2_bias, *conv1_bias, *conv2_bias;
    float* out_bias;
    Panels in, qkv, proj, fc1, fc2, conv1, conv2, out;
    int64_t bytes;

    Weights(const Shape& s, void* memory) {
        Block64 block{static_cast<char*>(memory)};
        start = block.take<int32_t>(s.K * s.J + 1);
        source = block.take<int32_t>(s.K * s.J * s.J);
        factor = block.take<float>(s.K * s.J * s.J);
        graph = block.take<float>(s.L * s.J * s.J);
        in_bias = block.take<float>(s.C);
        norm1 = block.take<float>(s.L * 2 * s.C);
        qkv_bias = block.take<float>(s.L * 3 * s.C);
        proj_bias = block.take<float>(s.L * s.C);
        norm2 = block.take<float>(s.L * 2 * s.C);
        fc1_bias = block.take<float>(s.L * 2 * s.C);
        fc2_bias = block.take<float>(s.L * s.C);
        conv1_bias = block.take<float>(s.L * s.C);
        conv2_bias = block.take<float>(s.L * s.C);
        out_bias = block.take<float>(s.Cout);
        const auto panels = [&](int64_t layers, int64_t depth, int64_t columns) {
            const int64_t bytes = s.bf16 ? 2 * packed_size_bf16(depth, columns) : 4 * packed_size(depth, columns);
            return Panels{block.take<char>(layers * bytes), bytes};
        };
        in = panels(1, s.K * s.Cin, s.C);
        qkv = panels(s.L, s.C, 3 * s.C);
        proj = panels(s.L, s.C, s.C);
        fc1 = panels(s.L, s.C, 2 * s.C);
        fc2 = panels(s.L, 2 * s.C, s.C);
        conv1 = panels(s.L, s.K * s.C, s.C);
        conv2 = panels(s.L, s.K * s.C, s.C);
        out = panels(1, s.C, s.K * s.Cout);
        bytes = block.used;
    }
};

void copy(const float* from, int64_t n, float* to) {
    std::memcpy(to, from, sizeof(float) * static_cast<size_t>(n));
}

void pack_one(const Shape& s, const float* source, int64_t row_stride, int64_t column_stride, int64_t depth,
              int64_t columns, const void* to) {
    void* place = const_cast<void*>(to);
    if (s.bf16)
        pack_bf16(source, row_stride, column_stride, depth, columns, static_cast<uint16_t*>(place));
    else
        pack(source, row_stride, column_stride, depth, columns, static_cast<float*>(place));
}

void pack_layers(const Shape& s, const float* source, int64_t layers, int64_t depth, int64_t columns,
                 const Panels& to) {
    for (int64_t l = 0; l < layers; ++l)
        pack_one(s, source + l * depth * columns, columns, 1, depth, columns, to.layer(l));
}

// C = epilogue(A B) on this thread, in float32 or with A rounded to bfloat16.
struct Product {
    bool bf16;
    uint16_t* rounded;  // room for the widest A of the tile
    template <class Epilogue>
    void operator()(const float* A, int64_t lda, const void* B, float* C, int64_t ldc, int64_t M, int64_t N, int64_t K,
                    const Epilogue& epilogue) const {
        if (!bf16) {
            gemm_tile(A, lda, static_cast<const float*>(B), C, ldc, M, N, K, epilogue);
            return;
        }
        if (lda == K)
            round_to_bf16(A, M * K, rounded);
        else
            for (int64_t r = 0; r < M; ++r) round_to_bf16(A + r * lda, K, rounded + r * K);
        gemm_tile_bf16(rounded, K, static_cast<const uint16_t*>(B), C, ldc, M, N, K, epilogue);
    }
};

// The first n lanes of p, all of them when `full`.
template <bool full>
POSEKERNELS_INLINE Vec part(const float* p, int64_t n) {
    return full ? load(p) : load(p, n);
}

template <bool full>
POSEKERNELS_INLINE void put(float* p, Vec v, int64_t n) {
    full ? store(p, v) : store(p, v, n);
}

// gain (x - mean) / (std + 1e-6) + shift over each row.
void norm_rows(const float* x, int64_t rows, int64_t C, const float* gain_shift, float* y) {
    for (int64_t r = 0; r < rows; ++r)
        layer_norm_row_unbiased(x + r * C, C, gain_shift, gain_shift + C, 1e-6f, y + r * C);
}

// Row (pose, i) of y gets sum_j T_k[i, j] x[(pose, j)] in columns k C .. (k + 1) C, from the non-zeros of T.
template <int vectors, bool full>
void gather_columns(const Shape& s, const Weights& w, const float* x, int64_t ldx, float* y, int64_t ldy, int64_t C,
                    int64_t valid) {
    for (int64_t k = 0; k < s.K; ++k)
        for (int64_t i = 0; i < s.J; ++i) {
            Vec sums[vectors] = {};
            for (int32_t e = w.start[k * s.J + i]; e < w.start[k * s.J + i + 1]; ++e) {
                const float* row = x + w.source[e] * ldx;
                const Vec factor = splat(w.factor[e]);
                for (int v = 0; v < vectors; ++v) sums[v] += factor * part<full>(row + v * lanes, valid);
            }
            float* to = y + i * ldy + k * C;
            for (int v = 0; v < vectors; ++v) put<full>(to + v * lanes, sums[v], valid);
        }
}

void gather(const Shape& s, const Weights& w, const float* x, int64_t poses, int64_t C, float* y) {
    constexpr int most = POSEKERNELS_REGISTERS == 32 ? 6 : 4;
    const int64_t ldy = s.K * C;
    for (int64_t p = 0; p < poses; ++p, x += s.J * C, y += s.J * ldy) {
        int64_t c = 0;
        for (; C - c >= most * lanes; c += most * lanes)
            gather_columns<most, true>(s, w, x + c, C, y + c, ldy, C, lanes);
        for (; c < C; c += lanes) gather_columns<1, false>(s, w, x + c, C, y + c, ldy, C, C - c);
    }
}

// y[i, c] (+)= sum_j G[i, j] x[j, c] for `rows` rows of G and `vectors` vectors of channels.
template <int rows, int vectors, bool full, bool add>
POSEKERNELS_INLINE void mix_block(const float* G, int64_t J, const float* x, int64_t C, float* y, const float* bias,
                                  int64_t valid) {
    Vec sums[rows][vectors];
    for (int r = 0; r < rows; ++r)
        for (int v = 0; v < vectors; ++v) sums[r][v] = bias ? part<full>(bias + v * lanes, valid) : Vec{};
    for (int64_t j = 0; j < J; ++j) {
        Vec from[vectors];
        for (int v = 0; v < vectors; ++v) from[v] = part<full>(x + j * C + v * lanes, valid);
        for (int r = 0; r < rows; ++r) {
            const Vec factor = splat(G[r * J + j]);
            for (int v = 0; v < vectors; ++v) sums[r][v] += factor * from[v];
        }
    }
    for (int r = 0; r < rows; ++r)
        for (int v = 0; v < vectors; ++v) {
            float* to = y + r * C + v * lanes;
            put<full>(to, add ? part<full>(to, valid) + sums[r][v] : sums[r][v], valid);
        }
}

template <int vectors, bool full, bool add>
void mix_columns(const float* G, int64_t J, const float* x, int64_t C, float* y, const float* bias, int64_t valid) {
    int64_t i = 0;
    for (; i + 4 <= J; i += 4) mix_block<4, vectors, full, add>(G + i * J, J, x, C, y + i * C, bias, valid);
    for (; i < J; ++i) mix_block<1, vectors, full, add>(G + i * J, J, x, C, y + i * C, bias, valid);
}

// y = G x (+ bias), or y += G x + bias, pose by pose; G dense.
template <bool add>
void mix(const float* G, int64_t J, const float* x, int64_t poses, int64_t C, float* y, const float* bias) {
    for (int64_t p = 0; p < poses; ++p, x += J * C, y += J * C) {
        int64_t c = 0;
        for (; C - c >= 3 * lanes; c += 3 * lanes)
            mix_columns<3, true, add>(G, J, x + c, C, y + c, bias ? bias + c : nullptr, lanes);
        for (; c < C; c += lanes) mix_columns<1, false, add>(G, J, x + c, C, y + c, bias ? bias + c : nullptr, C - c);
    }
}

// scores[i][j] of `rows` queries against `vectors` vectors of keys; kT is [d, ld].
template <int rows, int vectors>
POSEKERNELS_INLINE void score_block(const float* q, int64_t ldq, const float* kT, int64_t ld, int64_t d,
                                    float* scores) {
    Vec sums[rows][vectors] = {};
    for (int64_t c = 0; c < d; ++c) {
        Vec keys[vectors];
        for (int v = 0; v < vectors; ++v) keys[v] = load(kT + c * ld + v * lanes);
        for (int r = 0; r < rows; ++r) {
            const Vec query = splat(q[r * ldq + c]);
            for (int v = 0; v < vectors; ++v) sums[r][v] += query * keys[v];
        }
    }
    for (int r = 0; r < rows; ++r)
        for (int v = 0; v < vectors; ++v) store(scores + r * ld + v * lanes, sums[r][v]);
}

template <int vectors>
void score_rows(const float* q, int64_t ldq, const float* kT, int64_t ld, int64_t d, int64_t J, float* scores) {
    int64_t i = 0;
    for (; i + 4 <= J; i += 4) score_block<4, vectors>(q + i * ldq, ldq, kT, ld, d, scores + i * ld);
    for (; i < J; ++i) score_block<1, vectors>(q + i * ldq, ldq, kT, ld, d, scores + i * ld);
}

// out[i, :] = sum_j p[i, j] v[j, :] for `rows` rows and one or two vectors of the head's d channels.
template <int rows, int vectors>
POSEKERNELS_INLINE void value_block(const float* p, int64_t ldp, const float* v, int64_t ldv, int64_t J, float* out,
                                    int64_t ldo, int64_t valid) {
    Vec sums[rows][vectors] = {};
    for (int64_t j = 0; j < J; ++j) {
        Vec from[vectors];
        for (int u = 0; u < vectors; ++u)
            from[u] =
                u + 1 < vectors ? load(v + j * ldv + u * lanes) : load(v + j * ldv + u * lanes, valid - u * lanes);
        for (int r = 0; r < rows; ++r) {
            const Vec weight = splat(p[r * ldp + j]);
            for (int u = 0; u < vectors; ++u) sums[r][u] += weight * from[u];
        }
    }
    for (int r = 0; r < rows; ++r)
        for (int u = 0; u < vectors; ++u) store(out + r * ldo + u * lanes, sums[r][u], valid - u * lanes);
}

template <int vectors>
void value_columns(const float* p, int64_t ldp, const float* v, int64_t ldv, int64_t J, float* out, int64_t ldo,
                   int64_t valid) {
    int64_t i = 0;
    for (; i + 4 <= J; i += 4) value_block<4, vectors>(p + i * ldp, ldp, v, ldv, J, out + i * ldo, ldo, valid);
    for (; i < J; ++i) value_block<1, vectors>(p + i * ldp, ldp, v, ldv, J, out + i * ldo, ldo, valid);
}

// qkv [rows, 3C] -> out [rows, C], every pose and head by itself.
void attend(const Shape& s, const float* qkv, int64_t poses, float* out, float* kT, float* scores) {
    const int64_t d = s.C / s.heads, ldq = 3 * s.C, ld = (s.J + lanes - 1) / lanes * lanes;
    const float scale = 1.0f / std::sqrt(static_cast<float>(d));
    for (int64_t p = 0; p < poses; ++p, qkv += s.J * ldq, out += s.J * s.C)
        for (int64_t h = 0; h < s.heads; ++h) {
            const float *q = qkv + h * d, *k = q + s.C, *v = k + s.C;
            for (int64_t j = 0; j < s.J; ++j)
                for (int64_t c = 0; c < d; ++c) kT[c * ld + j] = k[j * ldq + c];
            int64_t j = 0;
            for (; ld - j >= 2 * lanes; j += 2 * lanes) score_rows<2>(q, ldq, kT + j, ld, d, s.J, scores + j);
            for (; j < ld; j += lanes) score_rows<1>(q, ldq, kT + j, ld, d, s.J, scores + j);
            for (int64_t i = 0; i < s.J; ++i) softmax_row(scores + i * ld, s.J, scale);
            int64_t c = 0;
            for (; d - c > lanes; c += 2 * lanes)
                value_columns<2>(scores, ld, v + c, ldq, s.J, out + h * d + c, s.C, d - c);
            for (; c < d; c += lanes) value_columns<1>(scores, ld, v + c, ldq, s.J, out + h * d + c, s.C, d - c);
        }
}

// Working memory of one tile.
struct Tile {
    float *h, *n, *wide, *kT, *scores;
    Product product;

    Tile(const Shape& s, int64_t poses, Scratch& scratch) {
        const int64_t rows = poses * s.J, ld = (s.J + lanes - 1) / lanes * lanes;
        int64_t width = s.K * (s.C > s.Cin ? s.C : s.Cin);  // wide holds qkv, both widths of the graph, the gathered x
        if (width < 3 * s.C) width = 3 * s.C;
        if (width < s.K * s.Cout) width = s.K * s.Cout;
        h = scratch.floats(rows * s.C);
        n = scratch.floats(rows * s.C);
        wide = scratch.floats(rows * width);
        kT = scratch.floats(s.C / s.heads * ld);
        scores = scratch.floats(s.J * ld);
        for (int64_t i = 0; i < s.C / s.heads * ld; ++i) kT[i] = 0.0f;  // the lanes past J are multiplied, then dropped
        product = {s.bf16,
                   s.bf16 ? static_cast<uint16_t*>(scratch.bytes(2 * static_cast<size_t>(rows * width))) : nullptr};
    }
};

// x [(poses, J), C] += shift of the pose, `apart` numbers from one to the next.
void add_to_poses(const float* shift, int64_t apart, int64_t poses, int64_t J, int64_t C, float* x) {
    for (int64_t p = 0; p < poses; ++p, shift += apart)
        for (int64_t j = 0; j < J; ++j, x += C)
            for (int64_t c = 0; c < C; ++c) x[c] += shift[c];
}

// x [poses, J, Cin] -> y [poses, J, Cout]; shift is [L, C], with `apart` that of the first pose, or null.
void network(const Shape& s, const Weights& w, const Tile& t, const float* x, int64_t poses, const float* shift,
             int64_t apart, float* y) {
    const int64_t rows = poses * s.J, C = s.C;
    gather(s, w, x, poses, s.Cin, t.wide);
    t.product(t.wide, s.K * s.Cin, w.in.layer(0), t.h, C, rows, C, s.K * s.Cin, Bias{w.in_bias});
    for (int64_t l = 0; l < s.L; ++l) {
        const Residual residual{t.h, C};
        norm_rows(t.h, rows, C, w.norm1 + l * 2 * C, t.n);
        t.product(t.n, C, w.qkv.layer(l), t.wide, 3 * C, rows, 3 * C, C, Bias{w.qkv_bias + l * 3 * C});
        attend(s, t.wide, poses, t.n, t.kT, t.scores);
        t.product(t.n, C, w.proj.layer(l), t.h, C, rows, C, C, then(Bias{w.proj_bias + l * C}, residual));

        // G (relu(G n W1 + b1) W2) + b2: the second mixing comes after the product, where it is half as wide.
        const float* G = w.graph + l * s.J * s.J;
        float *mixed = t.wide, *hidden = t.wide + rows * C;
        norm_rows(t.h, rows, C, w.norm2 + l * 2 * C, t.n);
        mix<false>(G, s.J, t.n, poses, C, mixed, nullptr);
        t.product(mixed, C, w.fc1.layer(l), hidden, 2 * C, rows, 2 * C, C, then(Bias{w.fc1_bias + l * 2 * C}, Relu{}));
        t.product(hidden, 2 * C, w.fc2.layer(l), t.n, C, rows, C, 2 * C, Store{});
        mix<true>(G, s.J, t.n, poses, C, t.h, w.fc2_bias + l * C);

        gather(s, w, t.h, poses, C, t.wide);
        t.product(t.wide, s.K * C, w.conv1.layer(l), t.n, C, rows, C, s.K * C,
                  then(Bias{w.conv1_bias + l * C}, Relu{}, Bias{shift && !apart ? shift + l * C : nullptr}));
        if (shift && apart) add_to_poses(shift + l * C, apart, poses, s.J, C, t.n);
        gather(s, w, t.n, poses, C, t.wide);
        t.product(t.wide, s.K * C, w.conv2.layer(l), t.h, C, rows, C, s.K * C,
                  then(Bias{w.conv2_bias + l * C}, Relu{}, residual));
    }
    // The output convolution mixes its few output channels rather than the many input ones.
    const int64_t ld = s.K * s.Cout;
    t.product(t.h, C, w.out.layer(0), t.wide, ld, rows, ld, C, Store{});
    for (int64_t p = 0; p < poses; ++p, y += s.J * s.Cout)
        for (int64_t i = 0; i < s.J; ++i) {
            copy(w.out_bias, s.Cout, y + i * s.Cout);
            for (int64_t k = 0; k < s.K; ++k)
                for (int32_t e = w.start[k * s.J + i]; e < w.start[k * s.J + i + 1]; ++e) {
                    const float* from = t.wide + (p * s.J + w.source[e]) * ld + k * s.Cout;
                    for (int64_t c = 0; c < s.Cout; ++c) y[i * s.Cout + c] += w.factor[e] * from[c];
                }
        }
}

// z[e] for one pose and step: number e % 4 of the Philox counter (e / 4, domain + step, pose). z has room for `lanes`
// counters more than it needs.
void draw(uint64_t seed, int64_t step, int64_t pose, int64_t count, float* z) {
    constexpr uint32_t domain = 0x44440000;  // as in reference.py: apart from the counters of other ops
    UintVec ahead;
    for (int i = 0; i < lanes; ++i) ahead[i] = static_cast<uint32_t>(i);
    for (int64_t first = 0; 4 * first < count; first += lanes) {
        const philox_lanes::Counter counter{ahead + static_cast<uint32_t>(first),
                                            UintVec{} + (domain + static_cast<uint32_t>(step)),
                                            static_cast<uint32_t>(pose), static_cast<uint32_t>(pose >> 32)};
        UintVec words[4];
        philox_lanes::words(counter, seed, words);
        Vec numbers[4];
        philox_lanes::box_muller(words[0], words[1], numbers[0], numbers[1]);
        philox_lanes::box_muller(words[2], words[3], numbers[2], numbers[3]);
        for (int i = 0; i < lanes; ++i)
            for (int k = 0; k < 4; ++k) z[4 * (first + i) + k] = numbers[k][i];
    }
}

}  // namespace

// Bytes of the block that denoise_pack fills.
int64_t denoise_packed_size(int64_t J, int64_t K, int64_t L, int64_t Cin, int64_t C, int64_t Cout, int64_t heads,
                            int64_t bf16) {
    return Weights(Shape{J, K, L, Cin, C, Cout, heads, bf16 != 0}, nullptr).bytes;
}
POSEKERNELS_KERNEL(denoise_packed_size)

// The weights of a GraphDenoiser, contiguous float32, in the order of its fields -> packed.
void denoise_pack(const float* polynomials, const float* graph, const float* in_weight, const float* in_bias,
                  const float* norm1, const float* qkv_weight, const float* qkv_bias, const float* proj_weight,
                  const float* proj_bias, const float* norm2, const float* fc1_weight, const float* fc1_bias,
                  const float* fc2_weight, const float* fc2_bias, const float* conv1_weight, const float* conv1_bias,
                  const float* conv2_weight, const float* conv2_bias, const float* out_weight, const float* out_bias,
                  void* packed, int64_t J, int64_t K, int64_t L, int64_t Cin, int64_t C, int64_t Cout, int64_t heads,
                  int64_t bf16) {
    const Shape s{J, K, L, Cin, C, Cout, heads, bf16 != 0};
    const Weights w(s, packed);
    int32_t count = 0;
    for (int64_t row = 0; row < K * J; ++row) {
        w.start[row] = count;
        for (int64_t j = 0; j < J; ++j)
            if (polynomials[row * J + j] != 0.0f) {  // a NaN is kept
                w.source[count] = static_cast<int32_t>(j);
                w.factor[count++] = polynomials[row * J + j];
            }
    }
    w.start[K * J] = count;
    copy(graph, L * J * J, w.graph);
    copy(in_bias, C, w.in_bias);
    copy(norm1, L * 2 * C, w.norm1);
    copy(qkv_bias, L * 3 * C, w.qkv_bias);
    copy(proj_bias, L * C, w.proj_bias);
    copy(norm2, L * 2 * C, w.norm2);
    copy(fc1_bias, L * 2 * C, w.fc1_bias);
    copy(fc2_bias, L * C, w.fc2_bias);
    copy(conv1_bias, L * C, w.conv1_bias);
    copy(conv2_bias, L * C, w.conv2_bias);
    copy(out_bias, Cout, w.out_bias);
    // [K, Cin, Cout] read as [K Cin, Cout]: the gathered inputs of the K polynomials lie side by side.
    pack_layers(s, in_weight, 1, K * Cin, C, w.in);
    pack_layers(s, qkv_weight, L, C, 3 * C, w.qkv);
    pack_layers(s, proj_weight, L, C, C, w.proj);
    pack_layers(s, fc1_weight, L, C, 2 * C, w.fc1);
    pack_layers(s, fc2_weight, L, 2 * C, C, w.fc2);
    pack_layers(s, conv1_weight, L, K * C, C, w.conv1);
    pack_layers(s, conv2_weight, L, K * C, C, w.conv2);
    // [K, C, Cout] -> [C, K Cout]: mixed after the product.
    Scratch scratch;
    float* turned = scratch.floats(C * K * Cout);
    for (int64_t k = 0; k < K; ++k)
        for (int64_t c = 0; c < C; ++c) copy(out_weight + (k * C + c) * Cout, Cout, turned + (c * K + k) * Cout);
    pack_one(s, turned, K * Cout, 1, C, K * Cout, w.out.layer(0));
}
POSEKERNELS_KERNEL(denoise_pack)

// S steps over x [B, J, Cin]; see reference.loop. With coefficients null, one pass of the network: y [B, J, Cout].
// shifts [S, L, C], with `per_pose` [S, B, L, C], noise [S, B, J, Cin], states and estimates [S, B, J, Cin] may be
// null. `drawn`: the noise of a step whose coefficient is not 0 comes from `seed`, for poses first_pose + b.
void denoise(const float* x, void* packed, const float* shifts, const float* coefficients, const float* noise, float* y,
             float* states, float* estimates, int64_t drawn, int64_t seed, int64_t first_pose, int64_t B, int64_t S,
             int64_t per_pose, int64_t J, int64_t K, int64_t L, int64_t Cin, int64_t C, int64_t Cout, int64_t heads,
             int64_t bf16) {
    const Shape s{J, K, L, Cin, C, Cout, heads, bf16 != 0};
    const Weights w(s, packed);
    int64_t tiles = (B + tile_poses - 1) / tile_poses;
    const int64_t threads = num_threads();
    if (tiles % threads) tiles += threads - tiles % threads;  // no thread waits for the last tile alone
    if (tiles > B) tiles = B;
    if (!tiles) return;
    const int64_t base = B / tiles, longer = B % tiles;
    parallel_for(tiles, [&](int64_t tile) {
        const int64_t poses = base + (tile < longer), first = tile * base + (tile < longer ? tile : longer);
        const int64_t in = poses * J * Cin, from = first * J * Cin;
        Scratch scratch;
        const Tile t(s, poses, scratch);
        const int64_t apart = per_pose ? L * C : 0;
        const float* shift = shifts ? shifts + first * apart : nullptr;
        if (!coefficients) {
            network(s, w, t, x + from, poses, shift, apart, y + first * J * Cout);
            return;
        }
        float *state = scratch.floats(in), *e = scratch.floats(in), *z = scratch.floats(J * Cin + 4 * lanes);
        copy(x + from, in, state);
        for (int64_t step = 0; step < S; ++step) {
            network(s, w, t, state, poses, shift + step * (per_pose ? B : 1) * L * C, apart, e);
            const float* c = coefficients + 5 * step;
            const int64_t at = step * B * J * Cin + from;
            if (estimates)
                for (int64_t i = 0; i < in; ++i) estimates[at + i] = c[0] * state[i] + c[1] * e[i];
            for (int64_t i = 0; i < in; ++i) state[i] = c[2] * state[i] + c[3] * e[i];
            if (noise)
                for (int64_t i = 0; i < in; ++i) state[i] += c[4] * noise[at + i];
            for (int64_t p = 0; drawn && c[4] != 0.0f && p < poses; ++p) {
                draw(static_cast<uint64_t>(seed), step, first_pose + first + p, J * Cin, z);
                for (int64_t i = 0; i < J * Cin; ++i) state[p * J * Cin + i] += c[4] * z[i];
            }
            if (states) copy(state, in, states + at);
        }
        copy(state, in, y + from);
    });
}
POSEKERNELS_KERNEL(denoise)

POSEKERNELS_END
