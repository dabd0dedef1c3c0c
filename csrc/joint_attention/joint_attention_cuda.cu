// joint_attention on CUDA. The math is in posekernels/ops/joint_attention/README.md.
//
// A block takes as many (sample, head) pairs as fill its threads: 14 of 17 joints. A thread owns two queries of one
// pair, whose scores stay in its registers; keys and values pass through shared memory, 16 channels at a time, where
// all threads of a pair read the same four numbers at once.
#include "posekernels/gpu_products.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN

constexpr int threads = Tile::threads;
constexpr int chunk = 16, row_pitch = chunk + 4;  // floats; 8 rows one after the other meet in no bank
constexpr int most_pairs = 64;
constexpr float log2_e = 1.44269504f;

// How a block is laid out for N tokens.
struct Layout {
    int N, half;  // threads of a pair: thread i has queries i and i + half
    int pairs, pair_pitch;

    SHARED_MATH constexpr explicit Layout(int N)
        : N(N),
          half((N + 1) / 2),
          pairs(threads / half < most_pairs ? threads / half : most_pairs),
          pair_pitch(N * row_pitch + (N % 2 ? 0 : 4)) {}  // pairs one after the other meet in no bank
    SHARED_MATH constexpr int floats() const { return pairs * pair_pitch; }
};

// The largest of `floats()` up to `tokens`.
SHARED_MATH constexpr int largest_buffer(int tokens) {
    int most = 0;
    for (int n = 1; n <= tokens; ++n) most = Layout(n).floats() > most ? Layout(n).floats() : most;
    return most;
}

struct HeadStrides {
    int64_t b, n, h;
};

template <class T>
struct Rows {
    const T* data;
    HeadStrides step;
};

struct Joints {
    int64_t B;
    int N, H, D;
    int width;  // numbers that one load may take
    const uint8_t* mask;
    int64_t mask_b, mask_q, mask_k;
    float scale;
};

// `exact`: N is `tokens`; else N is at most that.
template <class T, int tokens, bool exact>
struct Block {
    static constexpr int buffer = exact ? Layout(tokens).floats() : largest_buffer(tokens);

    const Joints& s;
    const Layout at;
    float *X, *Y;  // [pairs][pair_pitch] each, one behind the other
    int* samples;  // of each pair
    int64_t first;
    int count;    // pairs here
    bool active;  // this thread has a query
    int pair, token[2];
    bool second;  // and another one

    DEVICE Block(const Joints& s, float* memory, int* samples)
        : s(s),
          at(exact ? tokens : s.N),
          X(memory),
          Y(memory + buffer),
          samples(samples),
          first(blockIdx.x * int64_t(at.pairs)) {
        const int64_t left = s.B * s.H - first;
        count = left < at.pairs ? int(left) : at.pairs;
        if (int(threadIdx.x) < count) samples[threadIdx.x] = int((first + threadIdx.x) / s.H);
        pair = threadIdx.x / at.half;
        active = pair < count;
        if (!active) pair = 0;
        token[0] = threadIdx.x % at.half;
        second = active && token[0] + at.half < at.N;
        token[1] = second ? token[0] + at.half : token[0];
    }
    // Whether key m exists: no question where N is known.
    DEVICE bool key(int m) const { return exact || m < at.N; }
    DEVICE float* row(float* buffer_, int r) const { return buffer_ + pair * at.pair_pitch + token[r] * row_pitch; }

    // f(width, pair, token, channel of the chunk) for every `width` channels of the block's rows, neighbours side by
    // side; the width is a constant, the widest packet that s.width allows.
    template <class F>
    DEVICE void each_packet(F f) const {
        if (s.width == 4) {
            each_packet_of(std::integral_constant<int, 4>{}, f);
        } else if (s.width == 2) {
            each_packet_of(std::integral_constant<int, 2>{}, f);
        } else {
            each_packet_of(std::integral_constant<int, 1>{}, f);
        }
    }
    template <int width, class F>
    DEVICE void each_packet_of(std::integral_constant<int, width> constant, F f) const {
        constexpr int abreast = chunk / width;
        const int channel = threadIdx.x % abreast * width;
        for (int i = threadIdx.x / abreast; i < count * at.N; i += threads / abreast)
            f(constant, i / at.N, i % at.N, channel);
    }
    // Channels start .. start + chunk into a buffer, 0 past the last; no barrier.
    DEVICE void stage(float* to, const Rows<T>& rows, int start) const {
        each_packet([&](auto constant, int p, int n, int channel) {
            constexpr int width = decltype(constant)::value;
            Packet<float, width> found{};
            if (start + channel < s.D) {
                const int64_t b = samples[p], h = first + p - b * s.H;
                const Packet<T, width> given =
                    packet<width>(rows.data + b * rows.step.b + n * rows.step.n + h * rows.step.h + start + channel);
#pragma unroll
                for (int e = 0; e < width; ++e) found.v[e] = to_float(given.v[e]);
            }
            packet<width>(to + p * at.pair_pitch + n * row_pitch + channel) = found;
        });
    }
    // A buffer to channels start .. of [B, N, H, D].
    DEVICE void unstage(const float* from, T* out, int start) const {
        each_packet([&](auto constant, int p, int n, int channel) {
            constexpr int width = decltype(constant)::value;
            if (start + channel >= s.D) return;
            const int64_t b = samples[p], h = first + p - b * s.H;
            Packet<T, width> given;
#pragma unroll
            for (int e = 0; e < width; ++e)
                given.v[e] = from_float<T>(from[p * at.pair_pitch + n * row_pitch + channel + e]);
            packet<width>(out + ((b * at.N + n) * s.H + h) * s.D + start + channel) = given;
        });
    }

    // w[r][m] = (row token[r] of a) . (row m of b)
    DEVICE void products(float (&w)[2][tokens], const Rows<T>& a, const Rows<T>& b) const {
#pragma unroll
        for (int m = 0; m < tokens; ++m) w[0][m] = w[1][m] = 0.f;
        for (int start = 0; start < s.D; start += chunk) {
            sync();
            stage(X, a, start);
            stage(Y, b, start);
            sync();
            const float *x0 = row(X, 0), *x1 = row(X, 1), *y = Y + pair * at.pair_pitch;
#pragma unroll 1
            for (int c = 0; c < chunk; c += 4) {
                const Packet<float, 4> p = packet<4>(x0 + c), q = packet<4>(x1 + c);
#pragma unroll
                for (int m = 0; m < tokens; ++m)
                    if (key(m)) {
                        const Packet<float, 4> k = packet<4>(y + m * row_pitch + c);
#pragma unroll
                        for (int e = 0; e < 4; ++e) {
                            w[0][m] += p.v[e] * k.v[e];
                            w[1][m] += q.v[e] * k.v[e];
                        }
                    }
            }
        }
    }

    // Scores to weights; `seen`: a bit per key that a query may attend to.
    DEVICE void softmax(float (&w)[2][tokens], uint32_t (&seen)[2]) const {
        const float factor = s.scale * log2_e;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            seen[r] = ~0u;
            if (s.mask && active) {
                const uint8_t* allowed = s.mask + samples[pair] * s.mask_b + token[r] * s.mask_q;
                seen[r] = 0;
                for (int m = 0; m < at.N; ++m) seen[r] |= uint32_t(allowed[m * s.mask_k] != 0) << m;
            }
            float top = -INFINITY, total = 0.f;
#pragma unroll
            for (int m = 0; m < tokens; ++m) {
                w[r][m] *= factor;
                if (key(m) && seen[r] >> m & 1) top = w[r][m] > top ? w[r][m] : top;
            }
#pragma unroll
            for (int m = 0; m < tokens; ++m) {
                w[r][m] = key(m) && seen[r] >> m & 1 ? exp2f(w[r][m] - top) : 0.f;
                total += w[r][m];
            }
            const float inverse = total == 0.f ? 0.f : 1.f / total;  // a query that sees nothing receives 0
#pragma unroll
            for (int m = 0; m < tokens; ++m) w[r][m] *= inverse;
        }
    }

    // out[token[r]] = sum_m w[r][m] (row m of `rows`)
    DEVICE void sums(const float (&w)[2][tokens], const Rows<T>& rows, T* out) const {
        sync();
        for (int start = 0; start < s.D; start += chunk) {
            stage(Y, rows, start);
            sync();
            const float* y = Y + pair * at.pair_pitch;
#pragma unroll 1
            for (int c = 0; c < chunk; c += 4) {
                Packet<float, 4> p{}, q{};
#pragma unroll
                for (int m = 0; m < tokens; ++m)
                    if (key(m)) {
                        const Packet<float, 4> k = packet<4>(y + m * row_pitch + c);
#pragma unroll
                        for (int e = 0; e < 4; ++e) {
                            p.v[e] += w[0][m] * k.v[e];
                            q.v[e] += w[1][m] * k.v[e];
                        }
                    }
                if (active) packet<4>(row(X, 0) + c) = p;
                if (second) packet<4>(row(X, 1) + c) = q;
            }
            sync();
            unstage(X, out, start);
        }
    }

    // Weights of two queries, all keys, to those of two keys, all queries.
    DEVICE void turn(float (&w)[2][tokens]) const {
        const int pitch = at.N | 1;
        float* mine = X + pair * at.N * pitch;
        sync();
#pragma unroll
        for (int r = 0; r < 2; ++r)
#pragma unroll
            for (int m = 0; m < tokens; ++m)
                if (key(m) && (r ? second : active)) mine[token[r] * pitch + m] = w[r][m];
        sync();
#pragma unroll
        for (int r = 0; r < 2; ++r)
#pragma unroll
            for (int m = 0; m < tokens; ++m)
                if (key(m)) w[r][m] = mine[m * pitch + token[r]];
    }
};

// grid (blocks of pairs)
template <class T, int tokens, bool exact>
KERNEL_WIDE void joint_attention_fwd_kernel(Rows<T> q, Rows<T> k, Rows<T> v, T* out, Joints s) {
    alignas(16) SHARED float memory[2 * Block<T, tokens, exact>::buffer];
    SHARED int samples[most_pairs];
    const Block<T, tokens, exact> block(s, memory, samples);
    float w[2][tokens];
    uint32_t seen[2];
    block.products(w, q, k);
    block.softmax(w, seen);
    block.sums(w, v, out);
}

template <class T, int tokens, bool exact>
KERNEL_WIDE void joint_attention_bwd_kernel(Rows<T> grad, Rows<T> q, Rows<T> k, Rows<T> v, T* grad_q, T* grad_k,
                                            T* grad_v, Joints s) {
    alignas(16) SHARED float memory[2 * Block<T, tokens, exact>::buffer];
    SHARED int samples[most_pairs];
    const Block<T, tokens, exact> block(s, memory, samples);
    float w[2][tokens], slope[2][tokens];
    uint32_t seen[2];
    block.products(w, q, k);
    block.softmax(w, seen);
    block.products(slope, grad, v);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        float mean = 0.f;
#pragma unroll
        for (int m = 0; m < tokens; ++m) {
            if (!(block.key(m) && seen[r] >> m & 1)) slope[r][m] = 0.f;  // not 0 * NaN
            mean += w[r][m] * slope[r][m];
        }
#pragma unroll
        for (int m = 0; m < tokens; ++m) {
            const bool own = block.key(m) && seen[r] >> m & 1;  // the NaN of a query goes to no key it does not see
            slope[r][m] = own ? w[r][m] * (slope[r][m] - mean) * s.scale : 0.f;
            w[r][m] = own ? w[r][m] : 0.f;
        }
    }
    block.sums(slope, k, grad_q);
    block.turn(slope);
    block.sums(slope, q, grad_k);
    block.turn(w);
    block.sums(w, grad, grad_v);
}

// Numbers that one load may take: 4, 2 or 1; all addresses are multiples of it.
template <class T>
int load_width(int64_t steps, uintptr_t addresses) {
    for (int width = 4; width > 1; width /= 2)
        if (steps % width == 0 && addresses % (width * sizeof(T)) == 0) return width;
    return 1;
}

// f(T{}, tokens as a constant, whether N is exactly that)
template <class F>
void each_kind(int math, int N, F f) {
    each_math(math, [&](auto m) {
        using T = typename decltype(m)::Number;
        if (N == 17) {
            f(T{}, std::integral_constant<int, 17>{}, std::true_type{});
        } else if (N <= 16) {
            f(T{}, std::integral_constant<int, 16>{}, std::false_type{});
        } else {
            f(T{}, std::integral_constant<int, 32>{}, std::false_type{});
        }
    });
}

inline uintptr_t bits(const void* p) {
    return reinterpret_cast<uintptr_t>(p);
}

// q, k, v [B, N, H, D] of strides (sample, token, head, 1); mask: bytes of strides (sample, query, key), or null;
// out [B, N, H, D] contiguous.
void joint_attention_cuda(const void* stream, int math, const void* q, const void* k, const void* v, int64_t q0,
                          int64_t q1, int64_t q2, int64_t k0, int64_t k1, int64_t k2, int64_t v0, int64_t v1,
                          int64_t v2, const uint8_t* mask, int64_t m0, int64_t m1, int64_t m2, void* out, int64_t B,
                          int N, int H, int D, float scale) {
    const int64_t steps = D | q0 | q1 | q2 | k0 | k1 | k2 | v0 | v1 | v2;
    each_kind(math, N, [&](auto number, auto tokens, auto exact) {
        using T = decltype(number);
        const auto rows = [](const void* p, HeadStrides step) { return Rows<T>{static_cast<const T*>(p), step}; };
        const int width = load_width<T>(steps, bits(q) | bits(k) | bits(v) | bits(out));
        const Joints s{B, N, H, D, width, mask, m0, m1, m2, scale};
        launch(joint_attention_fwd_kernel<T, tokens(), exact()>, Grid{blocks_for(B * H, Layout(N).pairs)}, threads,
               stream, rows(q, {q0, q1, q2}), rows(k, {k0, k1, k2}), rows(v, {v0, v1, v2}), static_cast<T*>(out), s);
    });
}
POSEKERNELS_KERNEL(joint_attention_cuda)

// grad and the gradients are [B, N, H, D] contiguous.
void joint_attention_backward_cuda(const void* stream, int math, const void* grad, const void* q, const void* k,
                                   const void* v, int64_t q0, int64_t q1, int64_t q2, int64_t k0, int64_t k1,
                                   int64_t k2, int64_t v0, int64_t v1, int64_t v2, const uint8_t* mask, int64_t m0,
                                   int64_t m1, int64_t m2, void* grad_q, void* grad_k, void* grad_v, int64_t B, int N,
                                   int H, int D, float scale) {
    const int64_t steps = D | q0 | q1 | q2 | k0 | k1 | k2 | v0 | v1 | v2;
    each_kind(math, N, [&](auto number, auto tokens, auto exact) {
        using T = decltype(number);
        const auto rows = [](const void* p, HeadStrides step) { return Rows<T>{static_cast<const T*>(p), step}; };
        const uintptr_t inputs = bits(q) | bits(k) | bits(v) | bits(grad);
        const int width = load_width<T>(steps, inputs | bits(grad_q) | bits(grad_k) | bits(grad_v));
        const Joints s{B, N, H, D, width, mask, m0, m1, m2, scale};
        launch(joint_attention_bwd_kernel<T, tokens(), exact()>, Grid{blocks_for(B * H, Layout(N).pairs)}, threads,
               stream, rows(grad, {int64_t(N) * H * D, int64_t(H) * D, D}), rows(q, {q0, q1, q2}),
               rows(k, {k0, k1, k2}), rows(v, {v0, v1, v2}), static_cast<T*>(grad_q), static_cast<T*>(grad_k),
               static_cast<T*>(grad_v), s);
    });
}
POSEKERNELS_KERNEL(joint_attention_backward_cuda)

POSEKERNELS_END
