// temporal_mlp on CUDA: a block of threads takes one sample through the whole stack, or through the whole forecast, in
// one launch. The math is in posekernels/ops/temporal_mlp/README.md.
//
// The state stays in registers: warp w holds the coordinates 16 w to 16 w + 15, all (up to 64) slots. Every map is a
// product of what the warps put into shared memory (`operand`) with a weight; while one is multiplied, the next weight
// is copied from L2. A map over time reads its own warp's coordinates alone, one over coordinates everybody's.
#include "posekernels/gpu_mma_k8.h"
#include "posekernels/gpu_products.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN

constexpr int norm_spatial = 0, norm_temporal = 1, norm_all = 2, norm_none = 3;
// The published networks have 54 to 75 coordinates; two such blocks fit on a multiprocessor.
constexpr int coordinates = 80, slots = Tile::size;

struct Sizes {
    int C, T, S, N, side_N;
    bool mix_spatial;
    int norm;
    float eps;

    SHARED_MATH int warps() const { return (C + 15) / 16; }
    SHARED_MATH int mixed() const { return mix_spatial ? C : T; }
    SHARED_MATH int affine() const {  // numbers in the scale of one block
        return norm == norm_spatial ? C : norm == norm_temporal ? T : norm == norm_all ? C * T : 0;
    }
};

template <class T>
struct Stack {
    const T *weight, *bias, *scale, *shift, *pre_weight, *pre_bias, *pre_scale, *pre_shift;
};

template <class T>
struct Network {  // around a bare stack everything else is null
    const T *transform, *weight_in, *bias_in, *inverse;
    Stack<T> main, side;
    const T *weight_out, *bias_out, *side_weight_out, *side_bias_out;
};

template <class T>
struct Map {
    const T *weight = nullptr, *bias = nullptr, *scale = nullptr, *shift = nullptr;  // weight [out][in]
    int out = 0, in = 0;
    bool spatial = false, transposed = false;
    int norm = norm_none;  // that follows
};

template <class T>
DEVICE Map<T> first_map(const Stack<T>& k, int n, const Sizes& s, bool transposed = false) {
    const int64_t at = int64_t(n) * s.T;
    return {k.pre_weight + at * s.T,
            k.pre_bias + at,
            k.pre_scale + at,
            k.pre_shift + at,
            s.T,
            s.T,
            false,
            transposed,
            norm_temporal};
}
template <class T>
DEVICE Map<T> second_map(const Stack<T>& k, int n, const Sizes& s, bool transposed = false) {
    const int64_t at = int64_t(n) * s.mixed(), affine = int64_t(n) * s.affine();
    const bool has_norm = s.norm != norm_none;
    return {k.weight + at * s.mixed(),
            k.bias + at,
            has_norm ? k.scale + affine : nullptr,
            has_norm ? k.shift + affine : nullptr,
            s.mixed(),
            s.mixed(),
            s.mix_spatial,
            transposed,
            s.norm};
}

// One value per group of a norm, on every thread that holds part of the group.
template <int norm>
struct Group {
    static constexpr int size = norm == norm_spatial ? 16 : norm == norm_temporal ? 2 : 1;
    float v[size];
    static DEVICE int index(int n, int e) {
        return norm == norm_spatial ? 2 * n + e % 2 : norm == norm_temporal ? e / 2 : 0;
    }
    DEVICE float at(int n, int e) const { return v[index(n, e)]; }
};

template <class F>
DEVICE void each_sum(F f) {
#pragma unroll
    for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) f(n, e);
}

// f(the norm as a compile-time constant); nothing for norm_none.
template <class F>
DEVICE void with_norm(int norm, F f) {
    if (norm == norm_spatial) f(std::integral_constant<int, norm_spatial>{});
    if (norm == norm_temporal) f(std::integral_constant<int, norm_temporal>{});
    if (norm == norm_all) f(std::integral_constant<int, norm_all>{});
}

template <class T>
DEVICE void copy_number(T* to, const T* from) {
    if constexpr (sizeof(T) == 4)
        copy_async<4>(to, from);
    else
        *to = *from;
}
// Copies n numbers by packets of `bytes`, if they come so; false if they do not.
template <int bytes, class T>
DEVICE bool copy_packets(T* to, const T* from, int n, int lane) {
    constexpr int each = bytes / sizeof(T);
    if (n % each || reinterpret_cast<uintptr_t>(from) % bytes) return false;
    for (int i = lane * each; i < n; i += 32 * each) copy_async<bytes>(to + i, from + i);
    return true;
}
// Sixteen, eight or four bytes at a time, as they lie. Rows in shared memory begin at multiples of 16.
template <class T>
DEVICE void copy_row(T* to, const T* from, int n, int lane) {
    if (copy_packets<16>(to, from, n, lane) || copy_packets<8>(to, from, n, lane) || copy_packets<4>(to, from, n, lane))
        return;
    for (int i = lane; i < n; i += 32) to[i] = from[i];
}

// Depths of a map come in steps of this many.
template <class Math>
constexpr int map_step = std::is_same_v<Math, Exact> ? 4 : 8;

// As multiply(), over depths [0, depth), but for the first `count` tiles of 8 columns alone, and in 16 bits with a last
// step of 8 where 16 would be too many: 50 slots are multiplied as 56, not as 64.
template <class Math, class T = typename Math::Number>
DEVICE void multiply_part(Tile& tile, const T* A, int pitch_a, const T* B, int pitch_b, int depth, int count) {
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const T* a_row = A + (threadIdx.x / 32 * 16 + g) * pitch_a;
    if constexpr (std::is_same_v<Math, Exact>) {
        multiply<Math>(tile, A, pitch_a, B, pitch_b, 0, depth);
    } else if constexpr (std::is_same_v<Math, Tf32>) {
        for (int k = t; k < depth; k += 8) {
            const float a[4] = {a_row[k], a_row[8 * pitch_a + k], a_row[k + 4], a_row[8 * pitch_a + k + 4]};
#pragma unroll
            for (int n = 0; n < 8; ++n) {
                if (n >= count) break;
                const float* b_row = B + (n * 8 + g) * pitch_b + k;
                const float b[2] = {b_row[0], b_row[4]};
                mma_tf32(tile.sums[n], a, b);
            }
        }
    } else {
        auto word = [](const T* p) { return *reinterpret_cast<const uint32_t*>(p); };  // two neighbours
        const auto add = [&](int k, auto whole) {
            const T* p = a_row + k + 2 * t;
            const uint32_t a[2] = {word(p), word(p + 8 * pitch_a)};
            uint32_t more[2] = {};
            if constexpr (whole) more[0] = word(p + 8), more[1] = word(p + 8 * pitch_a + 8);
#pragma unroll
            for (int n = 0; n < 8; ++n) {
                if (n >= count) break;
                const T* q = B + (n * 8 + g) * pitch_b + k + 2 * t;
                if constexpr (whole) {
                    const uint32_t all[4] = {a[0], a[1], more[0], more[1]}, b[2] = {word(q), word(q + 8)};
                    mma(tile.sums[n], all, b, T{});
                } else {
                    mma_k8(tile.sums[n], a, word(q), T{});
                }
            }
        };
        int k = 0;
        for (; k + 16 <= depth; k += 16) add(k, std::true_type{});
        if (k < depth) add(k, std::false_type{});
    }
}

// What the threads of a block do together.
template <class Math>
struct Block {
    using T = typename Math::Number;
    static constexpr int wide = pitch<T>(coordinates), narrow = pitch<T>(slots);
    static constexpr int operand_size = coordinates * narrow > slots* wide ? coordinates * narrow : slots * wide;
    static constexpr int partial_size = coordinates / 16 * slots;
    static constexpr int bytes =
        (operand_size + 2 * coordinates * wide + 6 * coordinates) * sizeof(T) + 2 * partial_size * 4;

    const Sizes& s;
    int warps;
    float* partial;  // 2 x [coordinates / 16][slots]
    T* operand;      // of a map over time [coordinates][narrow], over coordinates [slots][wide]
    T* weights;      // 2 x [out][narrow] or [out][wide]
    T* vectors;      // 2 x bias, scale, shift: [3][coordinates]
    int turn = 0, partial_turn = 0;

    DEVICE explicit Block(const Sizes& sizes) : s(sizes), warps(sizes.warps()) {
        partial = static_cast<float*>(shared_memory());
        operand = reinterpret_cast<T*>(partial + 2 * partial_size);
        weights = operand + operand_size;
        vectors = weights + 2 * coordinates * wide;
    }
    DEVICE bool valid(int row, int column) const { return row < s.C && column < s.T; }

    // Begins to copy what the map after this one needs. No barriers.
    DEVICE void prefetch(const Map<T>& map, int to) const {
        if (!map.weight) return;
        constexpr int step = map_step<Math>;
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        T* target = weights + to * coordinates * wide;
        const int columns = map.spatial ? wide : narrow;
        const int rows = map.transposed ? map.in : map.out, depth = map.transposed ? map.out : map.in;
#pragma unroll 1
        for (int row = warp; row < map.out; row += warps) {
            const T* from = map.weight + row * map.in;
            if (map.transposed)
                for (int i = lane; i < map.in; i += 32) copy_number(target + i * columns + row, from + i);
            else
                copy_row(target + row * columns, from, map.in, lane);
        }
        const int pad = (depth + step - 1) / step * step - depth;
        for (int row = threadIdx.x; pad && row < rows; row += 32 * warps)
            for (int i = 0; i < pad; ++i) target[row * columns + depth + i] = from_float<T>(0.f);
        T* vector = vectors + to * 3 * coordinates;
        const int affine = map.norm == norm_spatial ? s.C : map.norm == norm_temporal ? s.T : 0;
        if (map.bias && warp == 0) copy_row(vector, map.bias, map.out, lane);
        if (map.scale && warp == 1 % warps) copy_row(vector + coordinates, map.scale, affine, lane);
        if (map.shift && warp == 2 % warps) copy_row(vector + 2 * coordinates, map.shift, affine, lane);
    }

    // z := map(z) + bias (its transposed form without), 0 outside; begins to fetch the next map.
    DEVICE void apply(Tile& z, const Map<T>& map, const Map<T>& next) {
        const T* weight = weights + turn * coordinates * wide;
        sync();  // nobody reads the operand, nor the weights that the next map will overwrite
        z.each([&](float v, int row, int column) {
            operand[map.spatial ? column * wide + row : row * narrow + column] = from_float<T>(v);
        });
        copies_wait();
        sync();
        turn ^= 1;
        prefetch(next, turn);
        constexpr int step = map_step<Math>;
        const int depth = ((map.transposed ? map.out : map.in) + step - 1) / step * step;
        const int columns = map.spatial ? s.T : map.transposed ? map.in : map.out;
        z.clear();
        if (map.spatial)
            multiply_part<Math>(z, weight, wide, operand, wide, depth, (columns + 7) / 8);
        else
            multiply_part<Math>(z, operand, narrow, weight, narrow, depth, (columns + 7) / 8);
        const T* bias = vectors + (turn ^ 1) * 3 * coordinates;
        z.each([&](float& v, int row, int column) {
            const bool inside = row < s.C && column < columns;
            if (map.bias && !map.transposed && inside) v += to_float(bias[map.spatial ? row : column]);
            if (!inside) v = 0.f;
        });
    }

    // The sum of f(n, e) over each group of a norm. Successive calls use two halves of `partial` in turn, so that one
    // barrier does.
    template <int norm, class F>
    DEVICE Group<norm> sum(F f) {
        Group<norm> out;
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        if constexpr (norm == norm_temporal) {
#pragma unroll
            for (int p = 0; p < 2; ++p) {
                float v = 0.f;
#pragma unroll
                for (int n = 0; n < 8; ++n) v += f(n, 2 * p) + f(n, 2 * p + 1);
                v += shuffle_xor(v, 1);
                out.v[p] = v + shuffle_xor(v, 2);
            }
            return out;
        }
        float* mine = partial + (partial_turn ^= 1) * partial_size;
        if constexpr (norm == norm_spatial) {
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                float v = f(i / 2, i % 2) + f(i / 2, i % 2 + 2);
                v += shuffle_xor(v, 4);
                v += shuffle_xor(v, 8);
                v += shuffle_xor(v, 16);
                if (lane < 4) mine[warp * slots + Tile::column(i / 2, i % 2)] = v;
                out.v[i] = 0.f;
            }
            sync();
#pragma unroll 1
            for (int w = 0; w < warps; ++w)
#pragma unroll
                for (int i = 0; i < 16; ++i) out.v[i] += mine[w * slots + Tile::column(i / 2, i % 2)];
        } else {
            float v = 0.f;
            each_sum([&](int n, int e) { v += f(n, e); });
            for (int distance = 1; distance < 32; distance *= 2) v += shuffle_xor(v, distance);
            if (lane == 0) mine[warp] = v;
            sync();
            out.v[0] = 0.f;
            for (int w = 0; w < warps; ++w) out.v[0] += mine[w];
        }
        return out;
    }
    template <int norm>
    DEVICE float share() const {  // 1 / the size of a group
        return 1.f / (norm == norm_spatial ? s.C : norm == norm_temporal ? s.T : s.C * s.T);
    }

    // z := (z - mean) / sqrt(variance + eps), 0 outside. Returns 1 / sqrt(variance + eps).
    template <int norm>
    DEVICE Group<norm> normalise(Tile& z) {
        const float share = this->template share<norm>();
        const Group<norm> total = sum<norm>([&](int n, int e) { return z.sums[n][e]; });
        each_sum([&](int n, int e) {
            float& v = z.sums[n][e];
            v = valid(Tile::row(e), Tile::column(n, e)) ? v - total.at(n, e) * share : 0.f;
        });
        Group<norm> inverse = sum<norm>([&](int n, int e) { return z.sums[n][e] * z.sums[n][e]; });
#pragma unroll
        for (int i = 0; i < Group<norm>::size; ++i) inverse.v[i] = 1.f / sqrtf(inverse.v[i] * share + s.eps);
        each_sum([&](int n, int e) { z.sums[n][e] *= inverse.at(n, e); });
        return inverse;
    }
    // Number (row, column) of the scale (which = 1) or shift (2) of the map that apply() was given last.
    template <int norm>
    DEVICE float affine(const Map<T>& map, int which, int row, int column) const {
        if constexpr (norm == norm_all) return to_float((which == 1 ? map.scale : map.shift)[row * s.T + column]);
        return to_float(vectors[((turn ^ 1) * 3 + which) * coordinates + (norm == norm_spatial ? row : column)]);
    }
    template <int norm>
    DEVICE void scale_and_shift(Tile& z, const Map<T>& map) const {
        z.each([&](float& v, int row, int column) {
            if (valid(row, column)) v = v * affine<norm>(map, 1, row, column) + affine<norm>(map, 2, row, column);
        });
    }
    // out[t] = the sum of f over the coordinates of slot t.
    template <class F>
    DEVICE void slot_sums(float* out, F f) {
        const Group<norm_spatial> total = sum<norm_spatial>(f);
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            const int column = Tile::column(i / 2, i % 2);
            if (threadIdx.x < 4 && column < s.T) out[column] = total.v[i];
        }
    }
    // z := the gradient before a norm, of v = (gradient after it) * scale; `normal` and `inverse` are of the forward.
    template <int norm, class F>
    DEVICE void unnormalise(Tile& z, F v, const Tile& normal, const Group<norm>& inverse) {
        const float share = this->template share<norm>();
        const Group<norm> mean = sum<norm>(v);
        const Group<norm> along = sum<norm>([&](int n, int e) { return v(n, e) * normal.sums[n][e]; });
        each_sum([&](int n, int e) {
            const float d = v(n, e) - mean.at(n, e) * share - normal.sums[n][e] * along.at(n, e) * share;
            z.sums[n][e] = valid(Tile::row(e), Tile::column(n, e)) ? d * inverse.at(n, e) : 0.f;
        });
    }
};

struct Strides {
    int64_t sample, row, column;

    // Made where it is used: 64 of these kept through the blocks would fill the registers.
    DEVICE int64_t operator()(int64_t b, int i, int j) const {
        return opaque(b) * sample + opaque(i) * row + opaque(j) * column;
    }
};

// Steps of one pass of the forecast: transform, input layer, blocks, output layer, inverse; of a bare stack its blocks.
template <class T>
struct Steps {
    const Network<T>& net;
    const Sizes& s;
    bool side;  // which of the two stacks

    DEVICE int before() const { return net.transform ? 2 : 0; }
    DEVICE int per_block() const { return (side ? net.side.pre_weight : net.main.pre_weight) ? 2 : 1; }
    DEVICE int inner() const { return (side ? s.side_N : s.N) * per_block(); }
    DEVICE int count() const { return inner() + 2 * before(); }
    DEVICE bool in_block(int i) const { return i >= before() && i < before() + inner(); }
    DEVICE int block(int i) const { return (i - before()) / per_block(); }
    DEVICE bool begins_block(int i) const { return in_block(i) && (i - before()) % per_block() == 0; }
    DEVICE bool ends_block(int i) const { return in_block(i) && (i - before()) % per_block() == per_block() - 1; }

    DEVICE Map<T> map(int i) const {
        if (i >= count()) return {};
        if (in_block(i)) {
            const bool second = ends_block(i);
            if (side) return second ? second_map(net.side, block(i), s) : first_map(net.side, block(i), s);
            return second ? second_map(net.main, block(i), s) : first_map(net.main, block(i), s);
        }
        Map<T> end;
        end.spatial = i == 1 || i == count() - 2;
        end.out = end.in = end.spatial ? s.C : s.T;
        if (i == 0) end.weight = net.transform;
        if (i == 1) end.weight = net.weight_in, end.bias = net.bias_in;
        if (i == count() - 2) end.weight = side ? net.side_weight_out : net.weight_out;
        if (i == count() - 2) end.bias = side ? net.side_bias_out : net.bias_out;
        if (i == count() - 1) end.weight = net.inverse, end.out = s.S;
        return end;
    }
};

// x [B, C, T] and y [B, C, T or S] at any strides; saved [N][B][C][T], every block's input, or null; grid (B).
template <class Math, class T = typename Math::Number>
KERNEL_OF(2 * coordinates, 2)
void temporal_mlp_fwd_kernel(const T* x, Strides from, Network<T> net, float* saved, T* y, Strides to, Sizes s) {
    Block<Math> block(s);
    const bool forecast = net.transform;
    const int passes = net.side_weight_out ? 2 : 1;
    const auto in = [&](int row, int column) -> const T& { return x[from(blockIdx.x, row, column)]; };
    Tile state, z;
    block.prefetch(Steps<T>{net, s, false}.map(0), 0);
    for (int pass = 0; pass < passes; ++pass) {
        const Steps<T> steps{net, s, pass == 1};
        state.each(
            [&](float& v, int row, int column) { v = block.valid(row, column) ? to_float(in(row, column)) : 0.f; });
        z = state;
        for (int i = 0; i < steps.count(); ++i) {
            const Map<T> map = steps.map(i);
            const bool last = i + 1 == steps.count();
            if (saved && steps.begins_block(i)) {
                float* kept = saved + (steps.block(i) * int64_t(gridDim.x) + blockIdx.x) * s.C * s.T;
                state.each([&](float v, int row, int column) {
                    if (block.valid(row, column)) kept[row * s.T + column] = v;
                });
            }
            block.apply(z, map, last && pass + 1 < passes ? Steps<T>{net, s, true}.map(0) : steps.map(i + 1));
            with_norm(map.norm, [&](auto norm) {
                block.template normalise<norm>(z);
                block.template scale_and_shift<norm>(z, map);
            });
            const bool adds = steps.in_block(i), first = adds && !steps.ends_block(i);
            each_sum([&](int n, int e) {  // the first map's result meets the block's input for the second alone
                float &v = z.sums[n][e], &kept = state.sums[n][e];
                if (adds) v += kept;
                if (!first) kept = v;
            });
        }
        state.each([&](float v, int row, int column) {
            if (row >= s.C || column >= (forecast ? s.S : s.T)) return;
            if (forecast && pass == 0) v += to_float(in(row, s.T - 1));
            T& out = y[to(blockIdx.x, row, column)];
            out = from_float<T>(pass ? v + to_float(out) : v);
        });
    }
}

// Through blocks last - 1 down to first. grad [B, C, T], of the result of block last - 1, becomes that of the input of
// block `first`. h, dz, dy [last - first][B][C][T]: what the second map took, the gradients of what it and the first
// map gave; the sums over samples that make the weights' gradients are products of these. partial [last - first][B][2]
// [affine] and pre_partial [last - first][B][2][T]: of scale and shift. grid (B).
template <class Math, class T = typename Math::Number>
KERNEL_OF(2 * coordinates)
void temporal_mlp_bwd_kernel(float* grad, const float* saved, Stack<T> stack, float* h, float* dz, float* dy,
                             float* partial, float* pre_partial, int first, int last, Sizes s) {
    Block<Math> block(s);
    const int64_t b = blockIdx.x, B = gridDim.x, size = int64_t(s.C) * s.T;
    const bool pre = stack.pre_weight, norms = s.norm != norm_none;
    const auto read = [&](Tile& tile, const float* p) {
        tile.each([&](float& v, int row, int column) { v = block.valid(row, column) ? p[row * s.T + column] : 0.f; });
    };
    const auto write = [&](Tile& tile, float* p) {
        tile.each([&](float v, int row, int column) {
            if (block.valid(row, column)) p[row * s.T + column] = v;
        });
    };
    const auto begin = [&](int n) -> Map<T> {
        if (n < first) return {};
        return pre ? first_map(stack, n, s) : second_map(stack, n, s, !norms);
    };
    Tile g, z, y;  // y: the first map's result, normalised
    read(g, grad + b * size);
    block.prefetch(begin(last - 1), 0);
    for (int n = last - 1; n >= first; --n) {
        const int64_t at = (int64_t(n - first) * B + b) * size;
        const float* input = saved + (n * B + b) * size;
        const Map<T> second = second_map(stack, n, s), back = second_map(stack, n, s, true);
        Group<norm_temporal> y_inverse{};
        read(z, input);
        if (pre) {
            const Map<T> map = first_map(stack, n, s);
            block.apply(z, map, second_map(stack, n, s, !norms));
            y_inverse = block.template normalise<norm_temporal>(z);
            y = z;
            block.template scale_and_shift<norm_temporal>(z, map);
            z.each([&](float& v, int row, int column) {
                if (block.valid(row, column)) v += input[row * s.T + column];
            });
        }
        write(z, h + at);
        if (norms) {
            block.apply(z, second, back);
            with_norm(s.norm, [&](auto norm) {
                const Group<norm> inverse = block.template normalise<norm>(z);
                const auto gz = [&](int k, int e) { return g.sums[k][e] * z.sums[k][e]; };
                const auto g1 = [&](int k, int e) { return g.sums[k][e]; };
                float* out = partial + (int64_t(n - first) * B + b) * 2 * s.affine();
                if constexpr (norm == norm_all) {
                    each_sum([&](int k, int e) {
                        const int row = Tile::row(e), column = Tile::column(k, e);
                        if (!block.valid(row, column)) return;
                        out[row * s.T + column] = gz(k, e);
                        out[size + row * s.T + column] = g1(k, e);
                    });
                } else if constexpr (norm == norm_spatial) {
                    const auto scale = block.template sum<norm_temporal>(gz),
                               shift = block.template sum<norm_temporal>(g1);
#pragma unroll
                    for (int p = 0; p < 2; ++p)
                        if (threadIdx.x % 4 == 0 && Tile::row(2 * p) < s.C) {
                            out[Tile::row(2 * p)] = scale.v[p];
                            out[s.C + Tile::row(2 * p)] = shift.v[p];
                        }
                } else {
                    block.slot_sums(out, gz);
                    block.slot_sums(out + s.T, g1);
                }
                const Tile normal = z;
                block.template unnormalise<norm>(
                    z,
                    [&](int k, int e) {
                        const int row = Tile::row(e), column = Tile::column(k, e);
                        return block.valid(row, column)
                                   ? g.sums[k][e] * block.template affine<norm>(second, 1, row, column)
                                   : 0.f;
                    },
                    normal, inverse);
            });
        } else {
            z = g;
        }
        write(z, dz + at);
        block.apply(z, back, pre ? first_map(stack, n, s, true) : begin(n - 1));
        each_sum([&](int k, int e) { g.sums[k][e] += z.sums[k][e]; });
        if (!pre) continue;
        float* out = pre_partial + (int64_t(n - first) * B + b) * 2 * s.T;
        block.slot_sums(out, [&](int k, int e) { return z.sums[k][e] * y.sums[k][e]; });
        block.slot_sums(out + s.T, [&](int k, int e) { return z.sums[k][e]; });
        const T* scale = stack.pre_scale + int64_t(n) * s.T;
        z.each(
            [&](float& v, int row, int column) { v = block.valid(row, column) ? v * to_float(scale[column]) : 0.f; });
        const Tile v = z;
        block.template unnormalise<norm_temporal>(z, [&](int k, int e) { return v.sums[k][e]; }, y, y_inverse);
        write(z, dy + at);
        block.apply(z, first_map(stack, n, s, true), begin(n - 1));
        each_sum([&](int k, int e) { g.sums[k][e] += z.sums[k][e]; });
    }
    write(g, grad + b * size);
}

template <class T>
const T* as(const void* p) {
    return static_cast<const T*>(p);
}

// x and y in elements of the number type of `math`, contiguous for a bare stack ([B, C, T], inverse null), x at the
// strides given and y [B, S, C] for a forecast. side_* null without a second stack.
void temporal_mlp_cuda(const void* stream, int math, const void* x, int64_t sample, int64_t row, int64_t column,
                       const void* transform, const void* weight_in, const void* bias_in, const void* weight,
                       const void* bias, const void* scale, const void* shift, const void* pre_weight,
                       const void* pre_bias, const void* pre_scale, const void* pre_shift, const void* weight_out,
                       const void* bias_out, const void* side_weight, const void* side_bias, const void* side_scale,
                       const void* side_shift, const void* side_pre_weight, const void* side_pre_bias,
                       const void* side_pre_scale, const void* side_pre_shift, const void* side_weight_out,
                       const void* side_bias_out, const void* inverse, void* y, float* saved, int64_t B, int C, int T,
                       int S, int N, int side_N, bool mix_spatial, int norm, float eps) {
    const Sizes s{C, T, S, N, side_N, mix_spatial, norm, eps};
    const Strides to = inverse ? Strides{int64_t(S) * C, 1, C} : Strides{int64_t(C) * T, T, 1};
    each_math(math, [&](auto m) {
        using Math = decltype(m);
        using E = typename Math::Number;
        const Network<E> net{
            as<E>(transform),
            as<E>(weight_in),
            as<E>(bias_in),
            as<E>(inverse),
            {as<E>(weight), as<E>(bias), as<E>(scale), as<E>(shift), as<E>(pre_weight), as<E>(pre_bias),
             as<E>(pre_scale), as<E>(pre_shift)},
            {as<E>(side_weight), as<E>(side_bias), as<E>(side_scale), as<E>(side_shift), as<E>(side_pre_weight),
             as<E>(side_pre_bias), as<E>(side_pre_scale), as<E>(side_pre_shift)},
            as<E>(weight_out),
            as<E>(bias_out),
            as<E>(side_weight_out),
            as<E>(side_bias_out)};
        launch(temporal_mlp_fwd_kernel<Math>, Grid{B, 1, 1, Block<Math>::bytes}, 32 * s.warps(), stream, as<E>(x),
               Strides{sample, row, column}, net, saved, static_cast<E*>(y), to, s);
    });
}
POSEKERNELS_KERNEL(temporal_mlp_cuda)

void temporal_mlp_backward_cuda(const void* stream, int math, float* grad, const float* saved, const void* weight,
                                const void* bias, const void* scale, const void* shift, const void* pre_weight,
                                const void* pre_bias, const void* pre_scale, const void* pre_shift, float* h, float* dz,
                                float* dy, float* partial, float* pre_partial, int first, int last, int64_t B, int C,
                                int T, bool mix_spatial, int norm, float eps) {
    const Sizes s{C, T, T, last, 0, mix_spatial, norm, eps};
    each_math(math, [&](auto m) {
        using Math = decltype(m);
        using E = typename Math::Number;
        const Stack<E> stack{as<E>(weight),     as<E>(bias),     as<E>(scale),     as<E>(shift),
                             as<E>(pre_weight), as<E>(pre_bias), as<E>(pre_scale), as<E>(pre_shift)};
        launch(temporal_mlp_bwd_kernel<Math>, Grid{B, 1, 1, Block<Math>::bytes}, 32 * s.warps(), stream, grad, saved,
               stack, h, dz, dy, partial, pre_partial, first, last, s);
    });
}
POSEKERNELS_KERNEL(temporal_mlp_backward_cuda)

POSEKERNELS_END
