// hierarchy_block: joint, part and body level on a third of the channels each, then an MLP on all; in inference.
// hierarchy_network: such blocks between a linear layer on each joint and a norm and linear layer on each joint.
//
// A task takes a tile of poses through all blocks in one core's cache; only x and y touch memory. A single pose is one
// tile on the calling thread, whose inner loops then go over the threads (inside a task they run in place).
//
// E is the element of x, y and of the products' factors: float, or bfloat16 with float sums, norms and softmax.
#include "posekernels/attention.h"
#include "posekernels/gemm.h"
#include "posekernels/registry.h"
#include "posekernels/rows.h"

POSEKERNELS_BEGIN
namespace {

constexpr int64_t tile_poses = 14;     // of 17 joints: 238 rows, whole register blocks of 14
constexpr int64_t hidden_chunk = 256;  // columns of the MLP that exist at a time

// What is called both inside a task and from the loops of a single pose must be one piece of code: inlined twice, the
// compiler may fuse other multiply-adds, and the last bit would depend on the number of threads.
#define ONE_BODY POSEKERNELS_ONE_BODY

// ---- products of rows of E with panels of E

// Rows of floats as factors of a product: themselves, or rounded.
inline const float* factors(const float*, const float* x, int64_t, Scratch&) {
    return x;
}
inline const uint16_t* factors(const uint16_t*, const float* x, int64_t count, Scratch& scratch) {
    uint16_t* half = scratch_of<uint16_t>(scratch, count);
    round_to_bf16(x, count, half);
    return half;
}

inline int64_t depth_of(const float*, int64_t K) {
    return K;
}
inline int64_t depth_of(const uint16_t*, int64_t K) {
    return (K + 1) / 2 * 2;
}

inline void block(const float* A, int64_t lda, int64_t rows, int64_t K, const float* B, float* sums) {
    blocks_of_rows[rows](K, A, lda, 1, B, sums);
}
inline void block(const uint16_t* A, int64_t lda, int64_t rows, int64_t K, const uint16_t* B, float* sums) {
    bf16_blocks[rows](K, A, lda, B, sums);
}

// C[M, columns of the panels first .. last] = epilogue(A[M, K] B[k0 .. k0 + K, :]); B has `depth` rows in all, k0 is
// even. C points at column 0.
template <class E, class Out, class Epilogue>
ONE_BODY void product(const E* A, int64_t lda, const E* B, int64_t depth, int64_t k0, int64_t K, Out* C, int64_t ldc,
                      int64_t M, int64_t N, int64_t first, int64_t last, const Epilogue& epilogue) {
    const RowSplit split(M);
    alignas(64) float sums[max_rows * panel];
    for (int64_t p = first; p < last; ++p) {
        const int64_t column = p * panel, n = N - column < panel ? N - column : panel;
        const E* Bp = B + column * depth_of(B, depth) + k0 * panel;
        for (int64_t b = 0, r = 0; b < split.count; ++b) {
            const int64_t rows = split.rows(b);
            block(A + r * lda, lda, rows, K, Bp, sums);
            finish_block(sums, C + r * ldc + column, ldc, rows, r, column, n, epilogue);
            r += rows;
        }
    }
}

// A: rows without gaps.
template <class E, class Epilogue>
void whole_product(const E* A, const E* B, int64_t K, float* C, int64_t ldc, int64_t M, int64_t N,
                   const Epilogue& epilogue) {
    const int64_t panels = panels_of(N), groups = M * K * N < small_product ? 1 : (panels + 1) / 2;
    parallel_for(groups, [&](int64_t g) {
        product(A, K, B, K, 0, K, C, ldc, M, N, panels * g / groups, panels * (g + 1) / groups, epilogue);
    });
}

// ---- the block's tensors

struct Norm {
    const float *gain, *shift;
};

template <class E>
struct GraphConv {  // one matrix for the joint itself, one for the others
    const E* panels;
    const float *self, *others, *mixing, *bias;  // [J, out], [J, out], [J, J], [out]
};

template <class E>
struct Mlp {
    const E *fc1, *fc2;
    const float *bias1, *bias2;
};

template <class E>
struct Branch {  // one vector per limb from `taps` joints
    int64_t taps;
    const int64_t* joints;  // [limbs, taps]
    Norm norm, norm_mlp;
    const E* conv;
    const float* bias;
    Mlp<E> mlp;
};

template <class E>
struct Weights {
    int64_t J, C, G, H, heads, limbs;  // C is a third of the channels
    float eps, eps_mlp;
    Norm norm_in, norm_out, norm_body, norm;
    GraphConv<E> conv1, conv2;
    Branch<E> branch[2];
    const E *qkv, *proj;
    const float *qkv_bias, *proj_bias;
    Mlp<E> mlp;
};

struct Modulated {  // times the row of the row's joint
    const float* modulation;
    const int32_t* joint;
    int64_t ld;
    POSEKERNELS_INLINE Vec operator()(Vec v, int64_t row, int64_t column, int64_t n) const {
        return v * load(modulation + joint[row] * ld + column, n);
    }
};

struct AddTo {
    const float* sum;
    int64_t ld;
    POSEKERNELS_INLINE Vec operator()(Vec v, int64_t row, int64_t column, int64_t n) const {
        return v + load(sum + row * ld + column, n);
    }
};

template <class In, class Out>
POSEKERNELS_INLINE void copy_row(const In* x, int64_t n, Out* y) {
    for (int64_t i = 0; i < n; i += lanes) store(y + i, load(x + i, n - i), n - i);
}

template <class Out>
ONE_BODY void norm_rows(const float* x, int64_t ld, int64_t rows, int64_t n, Norm norm, float eps, Out* y,
                        int64_t ldy) {
    for (int64_t r = 0; r < rows; ++r) layer_norm_row(x + r * ld, n, norm.gain, norm.shift, eps, y + r * ldy);
}

// One panel of columns of out[rows, N] = act(graph convolution of A[rows, K]), pose by pose.
template <class E, class Out, class Act>
ONE_BODY void graph_conv_panel(const GraphConv<E>& conv, const E* A, int64_t K, Out* out, int64_t N, int64_t poses,
                               int64_t J, const int32_t* joint, int64_t p, const Act& act) {
    const int64_t rows = poses * J, column = p * panel, n = N - column < panel ? N - column : panel;
    const E* others = conv.panels + panels_of(N) * panel * depth_of(conv.panels, K);
    Scratch scratch;
    float* self = scratch.floats(rows * panel);
    float* mixed = scratch.floats(rows * panel);
    for (int64_t i = 0; n < panel && i < rows * panel; ++i) mixed[i] = 0.0f;
    product(A, K, conv.panels, K, 0, K, self - column, panel, rows, N, p, p + 1, Modulated{conv.self, joint, N});
    product(A, K, others, K, 0, K, mixed - column, panel, rows, N, p, p + 1, Modulated{conv.others, joint, N});
    const RowSplit split(J);
    alignas(64) float sums[max_rows * panel];
    for (int64_t pose = 0; pose < poses; ++pose)
        for (int64_t b = 0, i = 0; b < split.count; ++b) {
            const int64_t height = split.rows(b);
            blocks_of_rows[height](J, conv.mixing + i * J, J, 1, mixed + pose * J * panel, sums);
            for (int64_t r = 0; r < height; ++r, ++i)
                for (int64_t c = 0; c < n; c += lanes) {
                    const int64_t left = n - c, row = pose * J + i;
                    const Vec v = load(sums + r * panel + c) + load(self + row * panel + c, left) +
                                  load(conv.bias + column + c, left);
                    store(out + row * N + column + c, act(v, row, column + c, left), left);
                }
        }
}

template <class E, class Out, class Act>
void graph_conv(const GraphConv<E>& conv, const E* x, int64_t K, Out* out, int64_t N, int64_t poses, int64_t J,
                const int32_t* joint, const Act& act) {
    parallel_for(panels_of(N), [&](int64_t p) { graph_conv_panel(conv, x, K, out, N, poses, J, joint, p, act); });
}

// h[rows, C] += fc2(gelu(fc1(n))) + bias2, a chunk of hidden columns at a time, summed in their order.
template <class E>
void mlp_onto(const Mlp<E>& mlp, const E* n, float* h, int64_t ldh, int64_t rows, int64_t C, int64_t H) {
    const int64_t chunks = (H + hidden_chunk - 1) / hidden_chunk;
    Scratch outer;
    // Few rows: every chunk on its own into a partial sum, so that threads can share the weights.
    const bool apart = rows <= 64 && num_threads() > 1 && chunks > 1;
    float* partial = apart ? outer.floats(chunks * rows * C) : nullptr;
    const auto chunk_of = [&](int64_t chunk) {
        const int64_t k0 = chunk * hidden_chunk, K = H - k0 < hidden_chunk ? H - k0 : hidden_chunk;
        Scratch scratch;
        E* hidden = scratch_of<E>(scratch, rows * hidden_chunk);
        product(n, C, mlp.fc1, C, 0, C, hidden - k0, hidden_chunk, rows, H, k0 / panel, (k0 + K + panel - 1) / panel,
                then(Bias{mlp.bias1}, Gelu{}));
        if (apart) {
            product(hidden, hidden_chunk, mlp.fc2, H, k0, K, partial + chunk * rows * C, C, rows, C, 0, panels_of(C),
                    Store{});
        } else if (chunk == 0) {
            product(hidden, hidden_chunk, mlp.fc2, H, k0, K, h, ldh, rows, C, 0, panels_of(C),
                    then(Bias{mlp.bias2}, AddTo{h, ldh}));
        } else {
            product(hidden, hidden_chunk, mlp.fc2, H, k0, K, h, ldh, rows, C, 0, panels_of(C), AddTo{h, ldh});
        }
    };
    if (!apart) {
        for (int64_t chunk = 0; chunk < chunks; ++chunk) chunk_of(chunk);
        return;
    }
    parallel_for(chunks, chunk_of);
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < C; c += lanes) {
            const int64_t left = C - c;
            Vec v = load(partial + r * C + c, left) + load(mlp.bias2 + c, left) + load(h + r * ldh + c, left);
            for (int64_t chunk = 1; chunk < chunks; ++chunk) v = load(partial + (chunk * rows + r) * C + c, left) + v;
            store(h + r * ldh + c, v, left);
        }
}

// v [rows, C] = norm(u) with the outer joints of every limb overwritten by the limb's vector.
template <class E>
ONE_BODY void limb_branch(const Weights<E>& w, const Branch<E>& branch, const float* u, int64_t ldu, float* v,
                          int64_t poses) {
    const int64_t J = w.J, C = w.C, taps = branch.taps, limbs = poses * w.limbs;
    norm_rows(u, ldu, poses * J, C, branch.norm, w.eps, v, C);
    Scratch scratch;
    E* joined = scratch_of<E>(scratch, limbs * taps * C);
    for (int64_t pose = 0; pose < poses; ++pose)
        for (int64_t i = 0; i < w.limbs * taps; ++i)
            copy_row(v + (pose * J + branch.joints[i]) * C, C, joined + (pose * w.limbs * taps + i) * C);
    float* limb = scratch.floats(limbs * C);
    E* normed = scratch_of<E>(scratch, limbs * C);
    product(joined, taps * C, branch.conv, taps * C, 0, taps * C, limb, C, limbs, C, 0, panels_of(C),
            then(Bias{branch.bias}, Gelu{}));
    norm_rows(limb, C, limbs, C, branch.norm_mlp, w.eps, normed, C);
    mlp_onto(branch.mlp, normed, limb, C, limbs, C, w.H);
    for (int64_t pose = 0; pose < poses; ++pose)
        for (int64_t l = 0; l < w.limbs; ++l)
            for (int64_t t = 1; t < taps; ++t)
                copy_row(limb + (pose * w.limbs + l) * C, C, v + (pose * J + branch.joints[l * taps + t]) * C);
}

// t[rows, C] += proj(attention(qkv(n)))
template <class E>
void attend(const Weights<E>& w, const E* n, float* t, int64_t ldt, int64_t poses) {
    const int64_t J = w.J, C = w.C, rows = poses * J, pairs = poses * w.heads, D = C / w.heads;
    Scratch scratch;
    float* qkv = scratch.floats(rows * 3 * C);
    float* mixed = scratch.floats(rows * C);
    whole_product(n, w.qkv, C, qkv, 3 * C, rows, 3 * C, Bias{w.qkv_bias});
    const float scale = 1.0f / std::sqrt(static_cast<float>(D));
    for (int64_t first = 0; first < pairs; first += lanes) {
        const int64_t count = pairs - first < lanes ? pairs - first : lanes;
        attention::Rows rows_of[3];
        float* out[lanes];
        for (int64_t l = 0; l < lanes; ++l) {
            const int64_t pair = first + (l < count ? l : count - 1), at = pair / w.heads * J,
                          head = pair % w.heads * D;
            for (int i = 0; i < 3; ++i) rows_of[i].base[l] = qkv + at * 3 * C + i * C + head;
            out[l] = mixed + at * C + head;
        }
        for (auto& r : rows_of) r.stride = 3 * C;
        attention::attend(rows_of[0], rows_of[1], rows_of[2], nullptr, out, C, J, D, scale, count);
    }
    whole_product(factors(static_cast<const E*>(nullptr), mixed, rows * C, scratch), w.proj, C, t, ldt, rows, C,
                  then(Bias{w.proj_bias}, AddTo{t, ldt}));
}

// A tile of poses through one block: h [poses J, 3 C], in place.
template <class E>
void block_of_tile(const Weights<E>& w, float* h, const int32_t* joint, int64_t poses) {
    const int64_t J = w.J, C = w.C, ld = 3 * C, rows = poses * J;
    Scratch scratch;
    E* n = scratch_of<E>(scratch, rows * ld);
    {  // joint level
        Scratch inner;
        E* hidden = scratch_of<E>(inner, rows * w.G);
        float* local = inner.floats(rows * C);
        norm_rows(h, ld, rows, C, w.norm_in, w.eps, n, C);
        graph_conv(w.conv1, n, C, hidden, w.G, poses, J, joint, Gelu{});
        graph_conv(w.conv2, hidden, w.G, local, C, poses, J, joint, Store{});
        norm_rows(local, C, rows, C, w.norm_out, w.eps, local, C);
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t c = 0; c < C; c += lanes) {
                const int64_t left = C - c;
                float *a = h + r * ld + c, *b = a + C;
                const Vec joined = load(a, left) + load(local + r * C + c, left);
                const Vec u = load(b, left) + joined;
                store(a, joined, left);
                store(b, u, left);
            }
    }
    {  // part level
        Scratch inner;
        float* v[2] = {inner.floats(rows * C), inner.floats(rows * C)};
        parallel_for(2, [&](int64_t i) { limb_branch(w, w.branch[i], h + C, ld, v[i], poses); });
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t c = 0; c < C; c += lanes) {
                const int64_t left = C - c;
                float *b = h + r * ld + C + c, *g = b + C;
                const Vec part = load(v[0] + r * C + c, left) + load(v[1] + r * C + c, left) + load(b, left);
                const Vec t = load(g, left) + part;
                store(b, part, left);
                store(g, t, left);
            }
    }
    norm_rows(h + 2 * C, ld, rows, C, w.norm_body, w.eps, n, C);
    attend(w, n, h + 2 * C, ld, poses);
    norm_rows(h, ld, rows, ld, w.norm, w.eps_mlp, n, ld);
    mlp_onto(w.mlp, n, h, ld, rows, ld, w.H);
}

// Takes what comes next in the constants, or in the panels.
template <class T>
struct Reader {
    const T* at;
    const T* operator()(int64_t count) {
        const T* here = at;
        at += count;
        return here;
    }
};

inline Norm next_norm(Reader<float>& next, int64_t n) {
    const float* gain = next(n);
    return {gain, next(n)};
}

template <class E>
void read_block(Weights<E>& w, const int64_t* joints, Reader<float>& next, Reader<E>& panels) {
    const int64_t J = w.J, C = w.C, G = w.G, H = w.H;
    const auto matrix = [&](int64_t K, int64_t N) { return panels(panels_of(N) * panel * depth_of(panels.at, K)); };
    const auto conv = [&](int64_t in, int64_t out) {
        GraphConv<E> c;
        c.panels = matrix(in, out);
        matrix(in, out);
        c.self = next(J * out);
        c.others = next(J * out);
        c.mixing = next(J * J);
        c.bias = next(out);
        return c;
    };
    const auto mlp = [&](int64_t width) {
        Mlp<E> m;
        m.fc1 = matrix(width, H);
        m.fc2 = matrix(H, width);
        m.bias1 = next(H);
        m.bias2 = next(width);
        return m;
    };
    w.norm_in = next_norm(next, C);
    w.conv1 = conv(C, G);
    w.conv2 = conv(G, C);
    w.norm_out = next_norm(next, C);
    for (int i = 0; i < 2; ++i) {
        Branch<E>& branch = w.branch[i];
        branch.taps = 3 - i;
        branch.joints = joints + i * 3 * w.limbs;
        branch.norm = next_norm(next, C);
        branch.conv = matrix(branch.taps * C, C);
        branch.bias = next(C);
        branch.norm_mlp = next_norm(next, C);
        branch.mlp = mlp(C);
    }
    w.norm_body = next_norm(next, C);
    w.qkv = matrix(C, 3 * C);
    w.qkv_bias = next(3 * C);
    w.proj = matrix(C, C);
    w.proj_bias = next(C);
    w.norm = next_norm(next, 3 * C);
    w.mlp = mlp(3 * C);
}

// What a network has around its blocks; in == 0: nothing, rows of x are the state itself.
struct Ends {
    int64_t in, out;
    const float *embed, *position;  // [in, 3 C]; [J, 3 C], with the bias
    Norm norm;
    const float *head, *head_bias;  // [out, 3 C], [out]
};

// h = x embed + position
template <class E>
void enter(const Ends& ends, const E* x, float* h, int64_t ld, int64_t rows, const int32_t* joint) {
    for (int64_t r = 0; r < rows; ++r) {
        if (!ends.in) {
            copy_row(x + r * ld, ld, h + r * ld);
            continue;
        }
        for (int64_t c = 0; c < ld; c += lanes) {
            Vec v = load(ends.position + joint[r] * ld + c, ld - c);
            for (int64_t k = 0; k < ends.in; ++k) {
                const Vec column = load(x + r * ends.in + k, 1);
                v = splat(column[0]) * load(ends.embed + k * ld + c, ld - c) + v;
            }
            store(h + r * ld + c, v, ld - c);
        }
    }
}

// y = norm(h) head' + bias
template <class E>
void leave(const Ends& ends, const float* h, E* y, int64_t ld, int64_t rows, float eps) {
    Scratch scratch;
    float* normed = scratch.floats(ld);
    for (int64_t r = 0; r < rows; ++r) {
        if (!ends.in) {
            copy_row(h + r * ld, ld, y + r * ld);
            continue;
        }
        layer_norm_row(h + r * ld, ld, ends.norm.gain, ends.norm.shift, eps, normed);
        for (int64_t o = 0; o < ends.out; ++o) {
            Vec v{};
            for (int64_t c = 0; c < ld; c += lanes)
                v = load(normed + c, ld - c) * load(ends.head + o * ld + c, ld - c) + v;
            store(y + r * ends.out + o, splat(sum(v) + ends.head_bias[o]), 1);
        }
    }
}

template <class E>
void run(const E* x, E* y, int64_t B, int64_t blocks, const Weights<E>& sizes, int64_t in, int64_t out,
         const int64_t* joints, const float* constants, const E* panels) {
    const int64_t J = sizes.J, ld = 3 * sizes.C;
    Scratch scratch;
    Weights<E>* w = scratch_of<Weights<E>>(scratch, blocks);
    Reader<float> next{constants};
    Reader<E> next_panel{panels};
    Ends ends{};
    if (in) {
        ends.in = in, ends.out = out;
        ends.embed = next(in * ld);
        ends.position = next(J * ld);
        ends.norm = next_norm(next, ld);
        ends.head = next(out * ld);
        ends.head_bias = next(out);
    }
    for (int64_t i = 0; i < blocks; ++i) {
        w[i] = sizes;
        read_block(w[i], joints, next, next_panel);
    }
    const int64_t from = in ? in : ld, to = in ? out : ld;
    // Even tiles, as many for every thread.
    const int64_t threads = num_threads();
    int64_t tiles = (B + tile_poses - 1) / tile_poses;
    tiles = (tiles + threads - 1) / threads * threads;
    if (tiles > B) tiles = B;
    parallel_for(tiles, [&](int64_t t) {
        const int64_t first = B * t / tiles, last = B * (t + 1) / tiles, rows = (last - first) * J;
        Scratch inner;
        int32_t* joint = scratch_of<int32_t>(inner, rows);
        for (int64_t r = 0; r < rows; ++r) joint[r] = static_cast<int32_t>(r % J);
        float* h = inner.floats(rows * ld);
        enter(ends, x + first * J * from, h, ld, rows, joint);
        for (int64_t i = 0; i < blocks; ++i) block_of_tile(w[i], h, joint, last - first);
        leave(ends, h, y + first * J * to, ld, rows, sizes.eps_mlp);
    });
}

}  // namespace

// x, y: [B, J, 3 C] contiguous, of floats or (half) bfloat16; with in > 0 a whole network's, [B, J, in] and [B, J,
// out]. joints: [limbs, 3] then [limbs, 2]. constants: the small tensors one after the other in the order of `run` and
// `read_block`. panels: the matrices, packed, of the element of x, in the order of `read_block`.
void hierarchy_network(const void* x, void* y, int64_t B, int64_t J, int64_t C, int64_t G, int64_t H, int64_t heads,
                       int64_t limbs, const int64_t* joints, int64_t blocks, int64_t in, int64_t out,
                       const float* constants, const void* panels, float eps, float eps_mlp, bool half) {
    const auto go = [&](auto* element) {
        typedef std::remove_pointer_t<decltype(element)> E;
        Weights<E> sizes{};
        sizes.J = J, sizes.C = C, sizes.G = G, sizes.H = H, sizes.heads = heads, sizes.limbs = limbs;
        sizes.eps = eps, sizes.eps_mlp = eps_mlp;
        run(static_cast<const E*>(x), static_cast<E*>(y), B, blocks, sizes, in, out, joints, constants,
            static_cast<const E*>(panels));
    };
    if (half) {
        go(static_cast<uint16_t*>(nullptr));
    } else {
        go(static_cast<float*>(nullptr));
    }
}
POSEKERNELS_KERNEL(hierarchy_network)

POSEKERNELS_END
