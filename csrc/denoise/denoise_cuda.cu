// denoise on CUDA: a block takes as many whole poses as its rows hold through every layer of every step, in one launch.
// The math is in posekernels/ops/denoise/README.md.
//
// Warp w holds rows 16 w to 16 w + 15 of the state in registers, as the matrix units give their sums: poses lie one
// after the other, so that 7 of 17 joints fill 119 of 128 rows. Sums turn into operands where they are; only what
// joints exchange (keys, values, what a graph mixes) passes through shared memory. The weights come as the matrix units
// take them (cuda.py packs them), in the order of their use, through a ring of stages that cp.async fills.
#include "posekernels/gpu_products.h"
#include "posekernels/gpu_units.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN
namespace denoising {

constexpr int most_warps = 8, stages = 3;
constexpr uint32_t domain = 0x44440000u;  // of the noise's counters

struct Shape {
    int J, K, L, Cin, C, Cout, heads, head_tiles, warps, window;
    int64_t B;

    SHARED_MATH int rows() const { return 16 * warps; }
    SHARED_MATH int threads() const { return 32 * warps; }
    SHARED_MATH int poses() const { return rows() / J; }
    SHARED_MATH int out_tiles() const { return (Cout + 7) / 8; }
    SHARED_MATH int in_pairs() const { return ((Cin > Cout ? Cin : Cout) + 15) / 16; }
};

struct Arguments {
    const float *x, *vectors, *shifts, *coefficients, *noise;
    const void *weights, *mixing, *polynomials;
    float *y, *states, *estimates;
    int64_t first_pose;
    uint64_t seed;
    int steps;
    bool draws, per_pose;  // per_pose: each has shifts of its own
    float scale;           // of the scores, times log2 e
};

// Rows of `vectors` for a layer, after the one of the first convolution.
enum Vector {
    norm1_gain,
    norm1_shift,
    key_bias,
    value_bias,
    query_bias,
    proj_bias,
    norm2_gain,
    norm2_shift,
    fc1_bias,  // and the next
    fc2_bias = fc1_bias + 2,
    conv1_bias,
    conv2_bias,
    layer_vectors
};

// Where a thread is. Made anew where it is used: addresses that follow from it would fill the registers if they were
// kept from one part of the network to the next.
struct Lane {
    int warp, lane, g, t;

    DEVICE Lane() {
        const int thread = opaque(int(threadIdx.x));
        warp = thread / 32, lane = thread % 32, g = lane / 4, t = lane % 4;
    }
    DEVICE int row(int e) const { return 16 * warp + g + e / 2 * 8; }
    DEVICE int column(int n, int e) const { return 8 * n + 2 * t + e % 2; }
};

// The threads of a block; tiles: of 8 channels, as many as the widest layer has.
template <class Math, int tiles>
struct Block {
    using T = typename Math::Number;
    using U = Units<Math>;
    using Piece = typename U::Piece;
    using Right = typename U::Right;
    using Sums = float[tiles][4];
    static constexpr int channels = 8 * tiles, wide = U::wide, stage = 8 * tiles / 2 * channels;
    static constexpr int pitch = channels + 8;                        // words between rows (pairs of rows) of values
    static constexpr int key_pitch = channels * wide / 2 + 4 * wide;  // and of keys
    static_assert(tiles % 4 == 0, "a stage is half of a square of weights");

    static SHARED_MATH int exchanged_words(const Shape& s) { return s.rows() * wide / 2 * pitch; }
    static SHARED_MATH int bytes(const Shape& s) {
        return stages * stage * int(sizeof(T)) + 2 * 4 * exchanged_words(s) + s.rows() * channels * int(sizeof(T)) +
               s.in_pairs() * s.threads() * 32 + 4 * most_warps * 16;
    }

    const Shape& s;
    const Arguments& a;
    int warp;
    T* ring;
    uint32_t *values, *keys;  // rows that others read; while they do not, `keys` has pieces of the threads' own
    Piece *own, *spare;       // pieces of the threads' own; spare: in the place of `keys`
    Packet<float, 4>* state;  // their numbers of x
    int* bad;                 // [poses] a number that is not finite came up
    int filled = 0, used = 0, next_stage = 0, total_stages;
    int pose[2], identities = 0;
    int first_block;  // of 16 rows, that the poses of this warp begin in

    DEVICE Block(const Shape& shape, const Arguments& arguments) : s(shape), a(arguments) {
        warp = threadIdx.x / 32;
        ring = static_cast<T*>(shared_memory());
        values = reinterpret_cast<uint32_t*>(ring + stages * stage);
        keys = values + exchanged_words(s);
        own = reinterpret_cast<Piece*>(keys + exchanged_words(s)), spare = reinterpret_cast<Piece*>(keys);
        state = reinterpret_cast<Packet<float, 4>*>(own + tiles * s.threads());
        bad = reinterpret_cast<int*>(state + 2 * s.in_pairs() * s.threads());
        total_stages = s.K + s.L * (16 + 4 * s.K) + 2;
        for (int r = 0; r < 2; ++r) pose[r] = Lane().row(2 * r) / s.J;
        first_block = 16 * warp / s.J * s.J / 16;
        for (int i = threadIdx.x; i < most_warps * 16; i += s.threads()) bad[i] = 0;
    }

    // Piece n of this thread; two neighbours of 16 bits lie side by side.
    static DEVICE Piece& piece_at(Piece* all, int n, const Lane& l) {
        return all[wide == 1 ? l.warp * tiles * 32 + n / 2 * 64 + 2 * l.lane + n % 2
                             : (l.warp * tiles + n) * 32 + l.lane];
    }
    DEVICE const float* vector(int i) const { return a.vectors + i * channels; }

    // Begins to copy the next stage of weights.
    DEVICE void fill() {
        const T* from = static_cast<const T*>(a.weights) + int64_t(next_stage) * stage;
        T* to = ring + filled * stage;
        constexpr int each = 16 / sizeof(T);
        for (int i = threadIdx.x * each; i < stage; i += s.threads() * each) copy_async<16>(to + i, from + i);
        copies_end_group();
        filled = filled + 1 == stages ? 0 : filled + 1;
        next_stage = next_stage + 1 == total_stages ? 0 : next_stage + 1;
    }
    // The next stage of weights; a barrier. What was got before is overwritten.
    DEVICE const T* turn() {
        copies_wait_but<stages - 2>();
        sync();
        const T* found = ring + used * stage;
        used = used + 1 == stages ? 0 : used + 1;
        fill();
        return found;
    }

    // sums += (left | next) times 16 rows of weights, for the first `count` tiles.
    static DEVICE void add_rows(Sums& sums, int count, const T* weights, const Piece& left, const Piece& next,
                                const Lane& l) {
#pragma unroll
        for (int n = 0; n < tiles; n += 2 / wide) {
            if (n >= count) break;
            const Packet<uint32_t, 4> w = packet<4>(reinterpret_cast<const uint32_t*>(weights + n * 128) + 4 * l.lane);
            if constexpr (wide == 1) {
                U::add(sums[n], left, next, {{w.v[0], w.v[1]}});
                U::add(sums[n + 1], left, next, {{w.v[2], w.v[3]}});
            } else {
                U::add(sums[n], left, next, {{w.v[0], w.v[1], w.v[2], w.v[3]}});
            }
        }
    }
    // sums += the threads' pieces times the next square of weights, for the first `count` tiles.
    DEVICE void add_product(Sums& sums, Piece* from, int count = tiles) {
#pragma unroll 1
        for (int half = 0; half < 2; ++half) {
            const T* weights = turn();
            const Lane l;
#pragma unroll 1
            for (int i = 0; i < tiles / 4; ++i) {
                const int n = 2 * (half * (tiles / 4) + i);
                add_rows(sums, count, weights + i * 16 * channels, piece_at(from, n, l), piece_at(from, n + 1, l), l);
            }
        }
    }

    // Rows for others to mix: two rows of 16 bits to a word. A number that is not finite stays out, and is remembered
    // against its pose: it would reach other poses as 0 times itself.
    template <int n_tiles>
    DEVICE void put_values(uint32_t* to, const float (&v)[n_tiles][4], int first = 0, int count = n_tiles) const {
        const Lane l;
        bool fine[2] = {true, true};
#pragma unroll
        for (int n = 0; n < n_tiles; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e)
                if (n < count) fine[e / 2] &= fabsf(v[n][e]) <= U::largest;
#pragma unroll
        for (int r = 0; r < 2; ++r)
            if (!fine[r]) bad[pose[r]] = 1;
#pragma unroll
        for (int n = 0; n < n_tiles; ++n) {
            if (n >= count) break;
            float kept[4];
#pragma unroll
            for (int e = 0; e < 4; ++e) kept[e] = fine[e / 2] ? v[n][e] : 0.f;
            const int at = l.column(first + n, 0);
            if constexpr (wide == 1) {
                packet<2>(to + (8 * l.warp + l.g) * pitch + at) = {word_of<T>(kept[0], kept[2]),
                                                                   word_of<T>(kept[1], kept[3])};
            } else {
                packet<2>(to + l.row(0) * pitch + at) = {U::word(kept[0]), U::word(kept[1])};
                packet<2>(to + l.row(2) * pitch + at) = {U::word(kept[2]), U::word(kept[3])};
            }
        }
    }
    // Tile n of 16 such rows.
    static DEVICE Right values_at(const uint32_t* from, int block, int n, const Lane& l) {
        Right right;
#pragma unroll
        for (int i = 0; i < 2 * wide; ++i) right.w[i] = from[(8 * wide * block + l.t + 4 * i) * pitch + 8 * n + l.g];
        return right;
    }
    // Which of a block's 16 rows the number at sums[column] of tile j of the scores is about: the order above.
    static DEVICE int key_of(int j, int e, int t) {
        return (wide == 1 ? 4 * j : 8 * j) + t + e % 2 * (wide == 1 ? 8 : 4);
    }

    // Where a row of keys lies among its 16: so that 8 neighbours are the columns of a tile of scores.
    static DEVICE int key_place(int row) {
        if (wide == 1) return row % 8 / 4 * 8 + row % 4 * 2 + row / 8;
        return row / 8 * 8 + row % 4 * 2 + row % 8 / 4;
    }
    DEVICE void put_keys(const Sums& v) const {
        const Lane l;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            uint32_t* to = keys + (16 * l.warp + key_place(l.g + 8 * r)) * key_pitch;
#pragma unroll
            for (int n = 0; n < tiles; ++n)
                if constexpr (wide == 1)
                    to[4 * n + l.t] = word_of<T>(v[n][2 * r], v[n][2 * r + 1]);
                else
                    packet<2>(to + 8 * n + 2 * l.t) = {U::word(v[n][2 * r]), U::word(v[n][2 * r + 1])};
        }
    }
    // Keys of tile j of a block, at two neighbouring tiles of channels, of which the second may be missing.
    DEVICE Right keys_at(int block, int j, int n, bool both, const Lane& l) const {
        const uint32_t* from = keys + (16 * block + 8 * j + l.g) * key_pitch;
        from += wide == 1 ? 4 * n + l.t : 8 * n + 2 * l.t;
        Right right;
        if constexpr (wide == 1) {
            right = {{from[0], both ? from[4] : 0u}};
        } else {
            const Packet<uint32_t, 2> first = packet<2>(from), second = both ? packet<2>(from + 8) : first;
            right = {{first.v[0], first.v[1], second.v[0], second.v[1]}};
        }
        return right;
    }

    // A matrix of joints by joints as this warp multiplies with it: for every 16 rows of its poses two pieces, the
    // first of them on their way already.
    struct Matrix {
        const Piece* from;
        Piece left, next;

        DEVICE void read() {
            if constexpr (wide == 1) {
                const auto both = packet<4>(reinterpret_cast<const uint32_t*>(from));
                left = {{both.v[0], both.v[1]}}, next = {{both.v[2], both.v[3]}};
            } else {
                left = from[0], next = from[1];
            }
        }
    };
    DEVICE Matrix matrix(int i) const {
        const Lane l;
        Matrix m;
        m.from = static_cast<const Piece*>(a.mixing) + ((i * most_warps + l.warp) * s.window * 32 + l.lane) * 2;
        m.read();
        return m;
    }
    // sums += the matrix times tiles first .. first + count of what put_values put there.
    template <int n_tiles>
    DEVICE void mix(float (&sums)[n_tiles][4], Matrix m, const uint32_t* from, int first = 0,
                    int count = n_tiles) const {
        const Lane l;
        const int end = first_block + s.window < s.warps ? first_block + s.window : s.warps;
#pragma unroll 1
        for (int block = first_block; block < end; ++block) {
            const Piece left = m.left, next = m.next;
            m.from += 64;
            if (block + 1 < end) m.read();
#pragma unroll
            for (int n = 0; n < n_tiles; ++n) {
                if (n >= count) break;
                U::add(sums[n], left, next, values_at(from, block, first + n, l));
            }
        }
    }

    static DEVICE void clear(Sums& v) {
#pragma unroll
        for (int n = 0; n < tiles; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) v[n][e] = 0.f;
    }
    // f(number, tile, place in it, what the vector has for its column) on all of them.
    template <class F>
    DEVICE void with_vector(Sums& v, int i, F f) const {
        const Lane l;
#pragma unroll
        for (int n = 0; n < tiles; ++n) {
            const Packet<float, 2> two = packet<2>(vector(i) + l.column(n, 0));
#pragma unroll
            for (int e = 0; e < 4; ++e) f(v[n][e], two.v[e % 2]);
        }
    }
    DEVICE void start(Sums& v, int i) const {
        with_vector(v, i, [](float& number, float bias) { number = bias; });
    }
    static DEVICE void put_pieces(Piece* to, const Sums& v) {
        const Lane l;
#pragma unroll
        for (int n = 0; n < tiles; ++n) piece_at(to, n, l) = U::piece(v[n]);
    }
    static DEVICE void relu(Sums& v) {
#pragma unroll
        for (int n = 0; n < tiles; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) v[n][e] = v[n][e] < 0.f ? 0.f : v[n][e];  // NaN stays
    }
    static DEVICE float of_row(float v) {  // the sum over the lanes of a row
        v += shuffle_xor(v, 1);
        return v + shuffle_xor(v, 2);
    }

    // to := gain (h - mean) / (std + 1e-6) + shift, std with the divisor C - 1.
    DEVICE void norm(const Sums& h, Sums& to, int gain) const {
        const Lane l;
        float mean[2] = {0.f, 0.f}, scale[2] = {0.f, 0.f};
#pragma unroll
        for (int n = 0; n < tiles; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) mean[e / 2] += h[n][e];
#pragma unroll
        for (int r = 0; r < 2; ++r) mean[r] = of_row(mean[r]) / s.C;
#pragma unroll
        for (int n = 0; n < tiles; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                to[n][e] = l.column(n, e) < s.C ? h[n][e] - mean[e / 2] : 0.f;
                scale[e / 2] += to[n][e] * to[n][e];
            }
#pragma unroll
        for (int r = 0; r < 2; ++r) scale[r] = 1.f / (sqrtf(of_row(scale[r]) / (s.C - 1)) + 1e-6f);
#pragma unroll
        for (int n = 0; n < tiles; ++n) {
            const Packet<float, 2> by = packet<2>(vector(gain) + l.column(n, 0));
            const Packet<float, 2> plus = packet<2>(vector(gain + 1) + l.column(n, 0));
#pragma unroll
            for (int e = 0; e < 4; ++e) to[n][e] = to[n][e] * scale[e / 2] * by.v[e % 2] + plus.v[e % 2];
        }
    }

    // The queries among the threads' own pieces become what they attend to.
    DEVICE void attend() const {
        const float none = -INFINITY;
        for (int head = 0; head < s.heads; ++head) {
            const int first = head * s.head_tiles;
            const Lane l;
            Sums out;
            clear(out);
            float most[2] = {none, none}, total[2] = {0.f, 0.f};
            for (int block = first_block; block < first_block + s.window && block < s.warps; ++block) {
                float scores[2][4] = {};
                for (int n = 0; n < s.head_tiles; n += 2) {
                    const bool both = n + 1 < s.head_tiles;
                    const Piece left = piece_at(own, first + n, l);
                    const Piece next = both ? piece_at(own, first + n + 1, l) : Piece{};
#pragma unroll
                    for (int j = 0; j < 2; ++j) U::add(scores[j], left, next, keys_at(block, j, first + n, both, l));
                }
                float top[2] = {none, none}, fade[2];
#pragma unroll
                for (int j = 0; j < 2; ++j)
#pragma unroll
                    for (int e = 0; e < 4; ++e) {
                        const int key = 16 * block + key_of(j, e, l.t) - pose[e / 2] * s.J;
                        float& v = scores[j][e];
                        v = key >= 0 && key < s.J ? v : none;
                        top[e / 2] = v > top[e / 2] ? v : top[e / 2];
                    }
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    top[r] = fmaxf(top[r], shuffle_xor(top[r], 1));
                    top[r] = fmaxf(top[r], shuffle_xor(top[r], 2));
                    top[r] = fmaxf(top[r], most[r]);
                    const float finite = top[r] == none ? 0.f : top[r];  // where no key so far is of this pose
                    fade[r] = exp2f(most[r] - finite);
                    total[r] *= fade[r];
                    most[r] = top[r];
                    top[r] = finite;
                }
#pragma unroll
                for (int j = 0; j < 2; ++j)
#pragma unroll
                    for (int e = 0; e < 4; ++e) {
                        scores[j][e] = exp2f(scores[j][e] - top[e / 2]);
                        total[e / 2] += scores[j][e];
                    }
                const Piece left = U::piece(scores[0]), next = U::piece(scores[1]);
#pragma unroll
                for (int n = 0; n < tiles; ++n) {
                    if (n >= s.head_tiles) break;
#pragma unroll
                    for (int e = 0; e < 4; ++e) out[n][e] *= fade[e / 2];
                    U::add(out[n], left, next, values_at(values, block, first + n, l));
                }
            }
#pragma unroll
            for (int r = 0; r < 2; ++r) total[r] = 1.f / of_row(total[r]);
#pragma unroll
            for (int n = 0; n < tiles; ++n) {
                if (n >= s.head_tiles) break;
#pragma unroll
                for (int e = 0; e < 4; ++e) out[n][e] *= total[e / 2];
                piece_at(own, first + n, l) = U::piece(out[n]);
            }
        }
    }

    // y := sum_k T_k v W_k + bias, by way of `exchange`.
    DEVICE void convolve(const Sums& v, Sums& y, int bias, uint32_t* exchange) {
        put_pieces(own, v);
        put_values(exchange, v);
        start(y, bias);
        if (identities == 0) sync();
#pragma unroll 1
        for (int k = 0; k < s.K; ++k) {
            if (k >= identities) {
                Sums mixed;
                clear(mixed);
                mix(mixed, matrix(k), exchange);
                put_pieces(own, mixed);
            }
            add_product(y, own);
        }
    }

    // f(tile, e, row, column) for the numbers of this thread that are of a pose.
    template <class F>
    DEVICE void each_number(int count, int columns, F f) const {
        const Lane l;
        const int64_t left = s.B - int64_t(blockIdx.x) * s.poses();
        const int rows = (left < s.poses() ? int(left) : s.poses()) * s.J;
        for (int n = 0; n < count; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e)
                if (l.row(e) < rows && l.column(n, e) < columns) f(n, e, l.row(e), l.column(n, e));
    }
};

// Unit noise for element `at` of a pose.
DEVICE float drawn(uint64_t seed, int step, uint64_t pose, int at) {
    const philox::Words words =
        philox::words(uint32_t(at / 4), domain + uint32_t(step), uint32_t(pose), uint32_t(pose >> 32), seed);
    float first, second;
    const bool late = at % 4 >= 2;
    philox::box_muller<ScalarMath>(late ? words.w[2] : words.w[0], late ? words.w[3] : words.w[1], first, second);
    return at % 2 ? second : first;
}

// Grid (tiles of poses). x, noise, states, estimates [(S,) B, J, Cin], y [B, J, Cout], shifts [S, (B,) L, C],
// coefficients [S, 5] or null for one pass of the network; weights, mixing, vectors as cuda.py packs them.
template <class Math, int tiles>
KERNEL_OF(32 * most_warps, 1)
void denoise_kernel(Shape s, Arguments a) {
    using B = Block<Math, tiles>;
    using T = typename Math::Number;
    B block(s, a);
    typename B::Sums h, v, w;
    const int in_pairs = s.in_pairs(), out_tiles = s.out_tiles();
    const int64_t first_row = int64_t(blockIdx.x) * s.poses() * s.J, all = s.B * s.J * s.Cin;
    const auto at = [&](int row, int column) { return (first_row + row) * s.Cin + column; };
    const auto state = [&](int n) -> Packet<float, 4>& { return block.state[n * s.threads() + threadIdx.x]; };

    for (int i = 1; i < stages; ++i) block.fill();
    for (int n = 0; n < 2 * in_pairs; ++n) state(n) = {};
    block.each_number(2 * in_pairs, s.Cin,
                      [&](int n, int e, int row, int column) { state(n).v[e] = a.x[at(row, column)]; });
    const T* polynomial = static_cast<const T*>(a.polynomials);
    for (; block.identities < s.K; ++block.identities, polynomial += s.J * s.J) {
        bool other = false;
        for (int i = threadIdx.x; i < s.J * s.J; i += s.threads())
            other |= to_float(polynomial[i]) != (i / s.J == i % s.J ? 1.f : 0.f);
        if (any(other)) break;
    }
    sync();

#pragma unroll 1
    for (int step = 0; step < a.steps; ++step) {
        block.start(h, 0);
        for (int n = 0; n < 2 * in_pairs; ++n) {
            float one[1][4];
#pragma unroll
            for (int e = 0; e < 4; ++e) one[0][e] = state(n).v[e];
            block.put_values(block.values, one, n);
        }
        for (int k = 0; k < s.K; ++k) {
            const typename B::Matrix matrix = block.matrix(k);
            const T* weights = block.turn();
            const Lane l;
            for (int pair = 0; pair < (s.Cin + 15) / 16; ++pair) {
                float mixed[2][4] = {};
                block.mix(mixed, matrix, block.values, 2 * pair);
                block.add_rows(h, tiles, weights + pair * 16 * B::channels, B::U::piece(mixed[0]),
                               B::U::piece(mixed[1]), l);
            }
        }
#pragma unroll 1
        for (int layer = 0; layer < s.L; ++layer) {
            const int vectors = 1 + layer * layer_vectors;
            block.norm(h, v, vectors + norm1_gain);
            block.put_pieces(block.own, v);
#pragma unroll 1
            for (int which = 0; which < 3; ++which) {
                block.start(v, vectors + key_bias + which);
                block.add_product(v, block.own);
                if (which == 0) block.put_keys(v);
                if (which == 1) block.put_values(block.values, v);
            }
#pragma unroll
            for (int n = 0; n < tiles; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e) v[n][e] *= a.scale;
            block.put_pieces(block.own, v);
            block.attend();
            block.with_vector(h, vectors + proj_bias, [](float& number, float bias) { number += bias; });
            block.add_product(h, block.own);

            block.norm(h, v, vectors + norm2_gain);
            block.put_values(block.values, v);
            typename B::Matrix graph = block.matrix(s.K + layer);
            sync();
            block.clear(v);
            block.mix(v, graph, block.values);
            block.put_pieces(block.own, v);
            block.clear(w);
#pragma unroll 1
            for (int half = 0; half < 2; ++half) {
                block.start(v, vectors + fc1_bias + half);
                block.add_product(v, block.own);
                block.relu(v);
                block.put_pieces(block.spare, v);
                block.add_product(w, block.spare);
            }
            block.put_values(block.values, w);
            graph = block.matrix(s.K + layer);
            block.with_vector(h, vectors + fc2_bias, [](float& number, float bias) { number += bias; });
            sync();
            block.mix(h, graph, block.values);

            block.convolve(h, v, vectors + conv1_bias, block.keys);
            block.relu(v);
            if (a.shifts) {
                const Lane l;
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    int64_t at = step;
                    if (a.per_pose) {
                        const int64_t pose = int64_t(blockIdx.x) * s.poses() + block.pose[r];
                        at = at * s.B + (pose < s.B ? pose : s.B - 1);  // rows behind the last are thrown away
                    }
                    const float* shifts = a.shifts + (at * s.L + layer) * s.C;
#pragma unroll
                    for (int n = 0; n < tiles; ++n)
#pragma unroll
                        for (int e = 2 * r; e < 2 * r + 2; ++e)
                            if (l.column(n, e) < s.C) v[n][e] += shifts[l.column(n, e)];
                }
            }
            block.convolve(v, w, vectors + conv2_bias, block.values);
            block.relu(w);
#pragma unroll
            for (int n = 0; n < tiles; ++n)
#pragma unroll
                for (int e = 0; e < 4; ++e) h[n][e] += w[n][e];
        }
        // The last convolution mixes after its product: Cout channels in place of C.
        block.clear(v);
        block.put_pieces(block.own, h);
        block.add_product(v, block.own, s.K * out_tiles);
        block.put_values(block.keys, v, 0, s.K * out_tiles);
        sync();
        const bool bad[2] = {block.bad[block.pose[0]] != 0, block.bad[block.pose[1]] != 0};
        for (int n = 0; n < out_tiles; ++n) {
            float out[1][4];
#pragma unroll
            for (int e = 0; e < 4; ++e) out[0][e] = block.vector(1 + s.L * layer_vectors)[Lane().column(n, e)];
            for (int k = 0; k < s.K; ++k) block.mix(out, block.matrix(k), block.keys, k * out_tiles + n);
#pragma unroll
            for (int e = 0; e < 4; ++e)
                if (bad[e / 2]) out[0][e] = NAN;
            if (a.coefficients == nullptr) {
                block.each_number(1, s.Cout - 8 * n, [&](int, int e, int row, int column) {
                    a.y[(first_row + row) * s.Cout + 8 * n + column] = out[0][e];
                });
                continue;
            }
            const float* c = a.coefficients + 5 * step;
            const float noisy = a.noise || a.draws ? c[4] : 0.f;
            Packet<float, 4> x = state(n);
            block.each_number(1, s.Cin - 8 * n, [&](int, int e, int row, int column) {
                const int64_t place = at(row, 8 * n + column), then = step * all + place;
                if (a.estimates) a.estimates[then] = c[0] * x.v[e] + c[1] * out[0][e];
                float next = c[2] * x.v[e] + c[3] * out[0][e];
                if (a.noise) {
                    next += noisy * a.noise[then];
                } else if (noisy != 0.f) {
                    const uint64_t pose = a.first_pose + int64_t(blockIdx.x) * s.poses() + row / s.J;
                    next += noisy * drawn(a.seed, step, pose, row % s.J * s.Cin + 8 * n + column);
                }
                x.v[e] = next;
                if (a.states) a.states[then] = next;
                if (step + 1 == a.steps) a.y[place] = next;
            });
            state(n) = x;
        }
        sync();
    }
    copies_wait();
}

// As many rows to a block as leave no processor without one, and as its shared memory holds.
template <class Math, int tiles>
void run(Shape s, const Arguments& a, const void* stream, int limit, int processors) {
    using B = Block<Math, tiles>;
    if (s.rows() < s.J || blocks_for(s.B, s.poses()) > processors) s.warps = most_warps;
    while (B::bytes(s) > limit && s.rows() / 2 >= s.J) s.warps /= 2;
    launch(denoise_kernel<Math, tiles>, Grid{blocks_for(s.B, s.poses()), 1, 1, B::bytes(s)}, s.threads(), stream, s, a);
}

}  // namespace denoising

// See posekernels/ops/denoise/cuda.py. `limit` bytes of shared memory that a block may have, `processors` of the
// device.
void denoise_cuda(const void* stream, int math, const float* x, const void* weights, const void* mixing,
                  const float* vectors, const void* polynomials, const float* shifts, const float* coefficients,
                  const float* noise, float* y, float* states, float* estimates, bool draws, bool per_pose,
                  int64_t seed, int64_t first_pose, int64_t B, int steps, int J, int K, int L, int Cin, int C, int Cout,
                  int heads, int head_tiles, int window, float scale, int tiles, int limit, int processors) {
    using namespace denoising;
    const Shape s{J, K, L, Cin, C, Cout, heads, head_tiles, 4, window, B};
    const Arguments a{x,
                      vectors,
                      shifts,
                      coefficients,
                      noise,
                      weights,
                      mixing,
                      polynomials,
                      y,
                      states,
                      estimates,
                      first_pose,
                      static_cast<uint64_t>(seed),
                      steps,
                      draws,
                      per_pose,
                      scale};
    each_math(math, [&](auto m) {
        using Math = decltype(m);
        if (tiles == 4) run<Math, 4>(s, a, stream, limit, processors);
        if (tiles == 12) run<Math, 12>(s, a, stream, limit, processors);
    });
}
POSEKERNELS_KERNEL(denoise_cuda)

POSEKERNELS_END
