// relative_encoding on CUDA: one launch for all body parts. The math is in posekernels/ops/relative_encoding/README.md.
#include "posekernels/gpu_products.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN

constexpr int most_parts = 16, most_places = 128, threads = Tile::threads;

// The parts and, one part after the other, the joint at each of their places.
struct Parts {
    void* address[most_parts];  // [B, T, 3 F size]
    int first[most_parts + 1];  // place
    int joint[most_places];
    int count;
};

// A thread is at a place's coordinate f, for which f(part, where in the part's row the raw number is, width of a block
// there, joint) is called.
template <class F>
DEVICE void at_place(const Parts& parts, int place, int f, int features, F call) {
    int part = 0;
    while (parts.first[part + 1] <= place) ++part;
    const int width = (parts.first[part + 1] - parts.first[part]) * features;
    call(part, (place - parts.first[part]) * features + f, width, parts.joint[place]);
}

// x [B, T, J, F]; grid (blocks of rows * places * F)
template <class T>
KERNEL void relative_encoding_fwd_kernel(const T* x, Parts parts, int64_t rows, int frames, int J, int F) {
    const int width = parts.first[parts.count] * F;
    const int64_t i = int64_t(blockIdx.x) * threads + threadIdx.x, row = i / width;
    const int place = int(i % width) / F, f = int(i % width) % F;
    if (row >= rows) return;
    at_place(parts, place, f, F, [&](int part, int where, int block, int joint) {
        const int64_t middle = row / frames * frames + frames / 2;
        const float own = to_float(x[(row * J + joint) * F + f]);
        T* out = static_cast<T*>(parts.address[part]) + row * 3 * block + where;
        out[0] = from_float<T>(own);
        out[block] = from_float<T>(own - to_float(x[row * J * F + f]));
        out[2 * block] = from_float<T>(own - to_float(x[(middle * J + joint) * F + f]));
    });
}

// Here the addresses are those of the parts' gradients; grad_x [B, T, J, F]; grid (B): the middle frame sums over its
// window.
template <class T>
KERNEL void relative_encoding_bwd_kernel(Parts parts, T* grad_x, int frames, int J, int F) {
    SHARED float shared[threads / 32];
    const int64_t first = int64_t(blockIdx.x) * frames;  // row
    const int places = parts.first[parts.count], middle = frames / 2;
    // g(raw, to the root, to the middle frame) for every place of a joint (of all joints: -1) in row `row`
    const auto each = [&](int64_t row, int joint, int f, auto g) {
        for (int place = 0; place < places; ++place)
            if (joint < 0 || parts.joint[place] == joint)
                at_place(parts, place, f, F, [&](int part, int where, int block, int) {
                    const T* p = static_cast<const T*>(parts.address[part]) + row * 3 * block + where;
                    g(to_float(p[0]), to_float(p[block]), to_float(p[2 * block]));
                });
    };
    for (int i = threadIdx.x; i < frames * J * F; i += threads) {
        const int t = i / (J * F), joint = i / F % J, f = i % F;
        if (t == middle) continue;
        float total = 0.f;
        each(first + t, joint, f, [&](float raw, float root, float window) { total += raw + root + window; });
        if (joint == 0) each(first + t, -1, f, [&](float, float root, float) { total -= root; });
        grad_x[first * J * F + i] = from_float<T>(total);
    }
    for (int i = 0; i < J * F; ++i) {  // the middle frame, one number at a time
        const int joint = i / F, f = i % F;
        float total = 0.f;
        for (int t = threadIdx.x; t < frames; t += threads) {
            const bool own = t == middle;  // what a frame is relative to itself is 0
            each(first + t, joint, f,
                 [&](float raw, float root, float window) { total += own ? raw + root : -window; });
            if (own && joint == 0) each(first + t, -1, f, [&](float, float root, float) { total -= root; });
        }
        for (int distance = 1; distance < 32; distance *= 2) total += shuffle_xor(total, distance);
        sync();
        if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = total;
        sync();
        if (threadIdx.x == 0)
            grad_x[(first + middle) * J * F + i] = from_float<T>(shared[0] + shared[1] + shared[2] + shared[3]);
    }
}

inline Parts parts_of(const int64_t* addresses, const int64_t* joints, const int64_t* sizes, int count) {
    Parts parts{};
    parts.count = count;
    for (int i = 0; i < count; ++i) {
        parts.address[i] = reinterpret_cast<void*>(addresses[i]);
        parts.first[i + 1] = parts.first[i] + static_cast<int>(sizes[i]);
    }
    for (int i = 0; i < parts.first[count]; ++i) parts.joint[i] = static_cast<int>(joints[i]);
    return parts;
}

// The tables are on the host, as relative_encoding_cpu.cpp takes them; at most 16 parts of together 128 places.
void relative_encoding_cuda(const void* stream, int math, const void* x, const int64_t* addresses,
                            const int64_t* joints, const int64_t* sizes, int count, int64_t B, int T, int J, int F) {
    const Parts parts = parts_of(addresses, joints, sizes, count);
    each_math(math, [&](auto m) {
        using E = typename decltype(m)::Number;
        launch(relative_encoding_fwd_kernel<E>, Grid{blocks_for(B * T * parts.first[count] * F, threads)}, threads,
               stream, static_cast<const E*>(x), parts, B * T, T, J, F);
    });
}
POSEKERNELS_KERNEL(relative_encoding_cuda)

void relative_encoding_backward_cuda(const void* stream, int math, const int64_t* addresses, const int64_t* joints,
                                     const int64_t* sizes, void* grad_x, int count, int64_t B, int T, int J, int F) {
    const Parts parts = parts_of(addresses, joints, sizes, count);
    each_math(math, [&](auto m) {
        using E = typename decltype(m)::Number;
        launch(relative_encoding_bwd_kernel<E>, Grid{B}, threads, stream, parts, static_cast<E*>(grad_x), T, J, F);
    });
}
POSEKERNELS_KERNEL(relative_encoding_backward_cuda)

POSEKERNELS_END
