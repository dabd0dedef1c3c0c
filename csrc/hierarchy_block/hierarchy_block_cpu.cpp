// hierarchy_block: joint, part and body level on a third of the channels each, then an MLP on all; in inference.
//
// A task takes a tile of poses through the whole block in one core's cache; only x and y touch memory. A single pose is
// one tile on the calling thread, whose inner loops then go over the threads (inside a task they run in place).
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
#define ONE_BODY __attribute__((noinline))

// ---- products of float rows with panels of E

struct Operand {
    const float* data;
    int64_t ld;
};
struct HalfOperand {
    const uint16_t* data;
    int64_t ld;
};

inline Operand operand(const float*, const float* x, int64_t ld, int64_t, int64_t, Scratch&) {
    return {x, ld};
}
inline HalfOperand operand(const uint16_t*, const float* x, int64_t ld, int64_t rows, int64_t n, Scratch& scratch) {
    uint16_t* half = static_cast<uint16_t*>(scratch.bytes(static_cast<size_t>(2 * rows * n)));
    for (int64_t r = 0; r < rows; ++r) round_to_bf16(x + r * ld, n, half + r * n);
    return {half, n};
}

inline int64_t depth_of(const float*, int64_t K) {
    return K;
}
inline int64_t depth_of(const uint16_t*, int64_t K) {
    return (K + 1) / 2 * 2;
}

inline void block(Operand A, int64_t row, int64_t rows, int64_t K, const float* B, float* sums) {
    blocks_of_rows[rows](K, A.data + row * A.ld, A.ld, 1, B, sums);
}
inline void block(HalfOperand A, int64_t row, int64_t rows, int64_t K, const uint16_t* B, float* sums) {
    bf16_blocks[rows](K, A.data + row * A.ld, A.ld, B, sums);
}

// C[M, columns of the panels first .. last] = epilogue(A[M, K] B[k0 .. k0 + K, :]); B has `depth` rows in all, k0 is
// even. C points at column 0.
template <class A_, class E, class Epilogue>
ONE_BODY void product(A_ A, const E* B, int64_t depth, int64_t k0, int64_t K, float* C, int64_t ldc, int64_t M,
                      int64_t N, int64_t first, int64_t last, const Epilogue& epilogue) {
    const RowSplit split(M);
    alignas(64) float sums[max_rows * panel];
    for (int64_t p = first; p < last; ++p) {
        const int64_t column = p * panel, n = N - column < panel ? N - column : panel;
        const E* Bp = B + column * depth_of(B, depth) + k0 * panel;
        for (int64_t b = 0, r = 0; b < split.count; ++b) {
            const int64_t rows = split.rows(b);
            block(A, r, rows, K, Bp, sums);
            finish_block(sums, C + r * ldc + column, ldc, rows, r, column, n, epilogue);
            r += rows;
        }
    }
}

template <class A_, class E, class Epilogue>
void whole_product(A_ A, const E* B, int64_t K, float* C, int64_t ldc, int64_t M, int64_t N, const Epilogue& epilogue) {
    const int64_t panels = panels_of(N), groups = M * K * N < small_product ? 1 : (panels + 1) / 2;
    parallel_for(groups, [&](int64_t g) {
        product(A, B, K, 0, K, C, ldc, M, N, panels * g / groups, panels * (g + 1) / groups, epilogue);
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

ONE_BODY void norm_rows(const float* x, int64_t ld, int64_t rows, int64_t n, Norm norm, float eps, float* y,
                        int64_t ldy) {
    for (int64_t r = 0; r < rows; ++r) layer_norm_row(x + r * ld, n, norm.gain, norm.shift, eps, y + r * ldy);
}

// One panel of columns of out[rows, N] = act(graph convolution of A[rows, K]), pose by pose.
template <class A_, class E, class Act>
ONE_BODY void graph_conv_panel(const GraphConv<E>& conv, A_ A, int64_t K, float* out, int64_t N, int64_t poses,
                               int64_t J, const int32_t* joint, int64_t p, const Act& act) {
    const int64_t rows = poses * J, column = p * panel, n = N - column < panel ? N - column : panel;
    const E* others = conv.panels + panels_of(N) * panel * depth_of(conv.panels, K);
    Scratch scratch;
    float* self = scratch.floats(rows * panel);
    float* mixed = scratch.floats(rows * panel);
    for (int64_t i = 0; n < panel && i < rows * panel; ++i) mixed[i] = 0.0f;
    product(A, conv.panels, K, 0, K, self - column, panel, rows, N, p, p + 1, Modulated{conv.self, joint, N});
    product(A, others, K, 0, K, mixed - column, panel, rows, N, p, p + 1, Modulated{conv.others, joint, N});
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

template <class E, class Act>
void graph_conv(const GraphConv<E>& conv, const float* x, int64_t K, float* out, int64_t N, int64_t poses, int64_t J,
                const int32_t* joint, const Act& act) {
    Scratch scratch;
    const auto A = operand(static_cast<const E*>(nullptr), x, K, poses * J, K, scratch);
    parallel_for(panels_of(N), [&](int64_t p) { graph_conv_panel(conv, A, K, out, N, poses, J, joint, p, act); });
}

// h[rows, C] += fc2(gelu(fc1(n))) + bias2, a chunk of hidden columns at a time, summed in their order.
template <class E>
void mlp_onto(const Mlp<E>& mlp, const float* n, float* h, int64_t ldh, int64_t rows, int64_t C, int64_t H) {
    const int64_t chunks = (H + hidden_chunk - 1) / hidden_chunk;
    Scratch outer;
    const auto A = operand(static_cast<const E*>(nullptr), n, C, rows, C, outer);
    // Few rows: every chunk on its own into a partial sum, so that threads can share the weights.
    const bool apart = rows <= 64 && num_threads() > 1 && chunks > 1;
    float* partial = apart ? outer.floats(chunks * rows * C) : nullptr;
    const auto chunk_of = [&](int64_t chunk) {
        const int64_t k0 = chunk * hidden_chunk, K = H - k0 < hidden_chunk ? H - k0 : hidden_chunk;
        Scratch scratch;
        float* hidden = scratch.floats(rows * hidden_chunk);
        product(A, mlp.fc1, C, 0, C, hidden - k0, hidden_chunk, rows, H, k0 / panel, (k0 + K + panel - 1) / panel,
                then(Bias{mlp.bias1}, Gelu{}));
        const auto B = operand(static_cast<const E*>(nullptr), hidden, hidden_chunk, rows, K, scratch);
        if (apart) {
            product(B, mlp.fc2, H, k0, K, partial + chunk * rows * C, C, rows, C, 0, panels_of(C), Store{});
        } else if (chunk == 0) {
            product(B, mlp.fc2, H, k0, K, h, ldh, rows, C, 0, panels_of(C), then(Bias{mlp.bias2}, AddTo{h, ldh}));
        } else {
            product(B, mlp.fc2, H, k0, K, h, ldh, rows, C, 0, panels_of(C), AddTo{h, ldh});
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
    float* joined = scratch.floats(limbs * taps * C);
    for (int64_t pose = 0; pose < poses; ++pose)
        for (int64_t i = 0; i < w.limbs * taps; ++i)
            std::memcpy(joined + (pose * w.limbs * taps + i) * C, v + (pose * J + branch.joints[i]) * C,
                        sizeof(float) * static_cast<size_t>(C));
    float* limb = scratch.floats(limbs * C);
    float* normed = scratch.floats(limbs * C);
    const auto A = operand(static_cast<const E*>(nullptr), joined, taps * C, limbs, taps * C, scratch);
    product(A, branch.conv, taps * C, 0, taps * C, limb, C, limbs, C, 0, panels_of(C), then(Bias{branch.bias}, Gelu{}));
    norm_rows(limb, C, limbs, C, branch.norm_mlp, w.eps, normed, C);
    mlp_onto(branch.mlp, normed, limb, C, limbs, C, w.H);
    for (int64_t pose = 0; pose < poses; ++pose)
        for (int64_t l = 0; l < w.limbs; ++l)
            for (int64_t t = 1; t < taps; ++t)
                std::memcpy(v + (pose * J + branch.joints[l * taps + t]) * C, limb + (pose * w.limbs + l) * C,
                            sizeof(float) * static_cast<size_t>(C));
}

// t[rows, C] += proj(attention(qkv(n)))
template <class E>
void attend(const Weights<E>& w, const float* n, float* t, int64_t ldt, int64_t poses) {
    const int64_t J = w.J, C = w.C, rows = poses * J, pairs = poses * w.heads, D = C / w.heads;
    Scratch scratch;
    float* qkv = scratch.floats(rows * 3 * C);
    float* mixed = scratch.floats(rows * C);
    whole_product(operand(static_cast<const E*>(nullptr), n, C, rows, C, scratch), w.qkv, C, qkv, 3 * C, rows, 3 * C,
                  Bias{w.qkv_bias});
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
    whole_product(operand(static_cast<const E*>(nullptr), mixed, C, rows, C, scratch), w.proj, C, t, ldt, rows, C,
                  then(Bias{w.proj_bias}, AddTo{t, ldt}));
}

inline void read_rows(const float* x, int64_t n, float* h) {
    std::memcpy(h, x, sizeof(float) * static_cast<size_t>(n));
}
inline void read_rows(const uint16_t* x, int64_t n, float* h) {
    for (int64_t i = 0; i < n; ++i) h[i] = from_bf16(x[i]);
}
inline void write_rows(const float* h, int64_t n, float* y) {
    std::memcpy(y, h, sizeof(float) * static_cast<size_t>(n));
}
inline void write_rows(const float* h, int64_t n, uint16_t* y) {
    round_to_bf16(h, n, y);
}

template <class E>
void tile(const Weights<E>& w, const E* x, E* y, int64_t poses) {
    const int64_t J = w.J, C = w.C, ld = 3 * C, rows = poses * J;
    Scratch scratch;
    int32_t* joint = static_cast<int32_t*>(scratch.bytes(static_cast<size_t>(4 * rows)));
    for (int64_t r = 0; r < rows; ++r) joint[r] = static_cast<int32_t>(r % J);
    float* h = scratch.floats(rows * ld);  // the three thirds, each replaced by its level's result
    read_rows(x, rows * ld, h);
    float* n = scratch.floats(rows * ld);
    {  // joint level
        Scratch inner;
        float* hidden = inner.floats(rows * w.G);
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
    write_rows(h, rows * ld, y);
}

// Takes the next `count` floats of the constants.
struct Reader {
    const float* at;
    const float* operator()(int64_t count) {
        const float* here = at;
        at += count;
        return here;
    }
    Norm norm(int64_t n) {
        const float* gain = (*this)(n);
        return {gain, (*this)(n)};
    }
};

template <class E>
void run(const E* x, E* y, int64_t B, Weights<E>& w, const int64_t* joints, const float* constants,
         const E* const panels[12]) {
    const int64_t J = w.J, C = w.C, G = w.G, H = w.H;
    Reader next{constants};
    w.norm_in = next.norm(C);
    const auto conv = [&](const E* p, int64_t out) {
        GraphConv<E> c;
        c.panels = p;
        c.self = next(J * out);
        c.others = next(J * out);
        c.mixing = next(J * J);
        c.bias = next(out);
        return c;
    };
    w.conv1 = conv(panels[0], G);
    w.conv2 = conv(panels[1], C);
    w.norm_out = next.norm(C);
    for (int i = 0; i < 2; ++i) {
        Branch<E>& branch = w.branch[i];
        branch.taps = 3 - i;
        branch.joints = joints + i * 3 * w.limbs;
        branch.norm = next.norm(C);
        branch.bias = next(C);
        branch.norm_mlp = next.norm(C);
        branch.conv = panels[2 + 3 * i];
        branch.mlp.fc1 = panels[3 + 3 * i];
        branch.mlp.fc2 = panels[4 + 3 * i];
        branch.mlp.bias1 = next(H);
        branch.mlp.bias2 = next(C);
    }
    w.norm_body = next.norm(C);
    w.qkv_bias = next(3 * C);
    w.proj_bias = next(C);
    w.qkv = panels[8];
    w.proj = panels[9];
    w.norm = next.norm(3 * C);
    w.mlp.bias1 = next(H);
    w.mlp.bias2 = next(3 * C);
    w.mlp.fc1 = panels[10];
    w.mlp.fc2 = panels[11];
    // Even tiles, as many for every thread.
    const int64_t threads = num_threads();
    int64_t tiles = (B + tile_poses - 1) / tile_poses;
    tiles = (tiles + threads - 1) / threads * threads;
    if (tiles > B) tiles = B;
    parallel_for(tiles, [&](int64_t t) {
        const int64_t first = B * t / tiles, last = B * (t + 1) / tiles;
        tile(w, x + first * J * 3 * C, y + first * J * 3 * C, last - first);
    });
}

}  // namespace

// x, y: [B, J, 3 C] contiguous, of floats or (half) bfloat16. joints: [limbs, 3] then [limbs, 2]. constants: the small
// tensors one after the other in the order of `run`. The twelve matrices are packed, of the element of x.
void hierarchy_block(const void* x, void* y, int64_t B, int64_t J, int64_t C, int64_t G, int64_t H, int64_t heads,
                     int64_t limbs, const int64_t* joints, const float* constants, const void* conv1, const void* conv2,
                     const void* three_conv, const void* three_fc1, const void* three_fc2, const void* two_conv,
                     const void* two_fc1, const void* two_fc2, const void* qkv, const void* proj, const void* fc1,
                     const void* fc2, float eps, float eps_mlp, bool half) {
    const void* const given[12] = {conv1,   conv2,   three_conv, three_fc1, three_fc2, two_conv,
                                   two_fc1, two_fc2, qkv,        proj,      fc1,       fc2};
    const auto go = [&](auto* element) {
        typedef std::remove_pointer_t<decltype(element)> E;
        const E* panels[12];
        for (int i = 0; i < 12; ++i) panels[i] = static_cast<const E*>(given[i]);
        Weights<E> w{};
        w.J = J, w.C = C, w.G = G, w.H = H, w.heads = heads, w.limbs = limbs, w.eps = eps, w.eps_mlp = eps_mlp;
        run(static_cast<const E*>(x), static_cast<E*>(y), B, w, joints, constants, panels);
    };
    if (half) {
        go(static_cast<uint16_t*>(nullptr));
    } else {
        go(static_cast<float*>(nullptr));
    }
}
POSEKERNELS_KERNEL(hierarchy_block)

POSEKERNELS_END
