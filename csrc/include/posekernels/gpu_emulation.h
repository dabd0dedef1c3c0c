// The part of gpu.h that a GPU provides, on the CPU: see csrc/emulation/emulation.cpp for how threads are run.
#pragma once

#include <cstring>
#include <functional>
#include <stdexcept>
#include <type_traits>

#include "posekernels/isa.h"

#define KERNEL_OF(...)
#define KERNEL
#define KERNEL_WIDE
#define SHARED static
#define DEVICE inline
#define SHARED_MATH inline

struct Index3 {
    unsigned x = 0, y = 0, z = 0;
};
extern Index3 threadIdx, blockIdx, gridDim;  // of the fiber that is running

namespace posekernels {

using half_t = _Float16;
struct bf16_t {
    uint16_t bits;
};

inline float to_float(float v) {
    return v;
}
inline float to_float(half_t v) {
    return static_cast<float>(v);
}
inline float to_float(bf16_t v) {
    const uint32_t word = uint32_t(v.bits) << 16;
    float out;
    std::memcpy(&out, &word, 4);
    return out;
}
template <class T>
inline T from_float(float v) {
    if constexpr (std::is_same_v<T, bf16_t>) {
        uint32_t word;
        std::memcpy(&word, &v, 4);
        if (v != v) return bf16_t{0x7fff};
        return bf16_t{static_cast<uint16_t>((word + 0x7fff + (word >> 16 & 1)) >> 16)};  // to nearest, ties to even
    } else {
        return static_cast<T>(v);
    }
}

template <class T>
inline uint32_t word_of(float low, float high) {
    const T two[2] = {from_float<T>(low), from_float<T>(high)};
    uint32_t word;
    std::memcpy(&word, two, 4);
    return word;
}

namespace emulation {
void sync();
bool any(bool v);
// Posts this lane's 6 words (4 of A, 2 of B) and waits for its warp; then lane l's words are words[l].
struct Fragments {
    uint32_t words[32][6];
};
const Fragments& exchange(const uint32_t (&words)[6]);
void warp_sync();
void run_grid(int64_t x, int y, int z, int threads, int shared, const std::function<void()>& body);
void* shared_memory();
// What takes launches in place of the fibers, if set (tests/ptx runs the kernel that nvcc made): the kernel's address;
// x, y, z, threads, bytes of shared memory; where its parameters lie, how large they are, how many. Not 0: it failed.
using Runner = int (*)(const void* kernel, const int64_t* shape, const void* const* values, const int64_t* sizes, int);
extern Runner runner;
template <class... P>
void hand_over(const void* kernel, const int64_t (&shape)[5], P... parameters) {
    const void* values[] = {&parameters...};
    const int64_t sizes[] = {sizeof(P)...};
    if (runner(kernel, shape, values, sizes, sizeof...(P))) throw std::runtime_error("a launch failed");
}
}  // namespace emulation

inline void sync() {
    emulation::sync();
}
inline bool any(bool v) {
    return emulation::any(v);
}
inline int64_t opaque(int64_t v) {
    return v;
}
inline int opaque(int v) {
    return v;
}
inline void* shared_memory() {
    return emulation::shared_memory();
}
template <int bytes>
inline void copy_async(void* to_shared, const void* from) {  // at once: that a kernel waits for it is not seen here
    std::memcpy(to_shared, from, bytes);
}
inline void copies_wait() {}
inline void copies_end_group() {}
template <int n>
inline void copies_wait_but() {}

inline void warp_sync() {
    emulation::warp_sync();
}
template <class T>
inline T shuffle_xor(T v, int lanes) {
    static_assert(sizeof(T) == 4, "one word");
    uint32_t word;
    std::memcpy(&word, &v, 4);
    const emulation::Fragments& all = emulation::exchange({word, 0, 0, 0, 0, 0});
    std::memcpy(&v, &all.words[(threadIdx.x ^ lanes) % 32][0], 4);
    return v;
}
inline uint32_t bits_of(float v) {
    uint32_t word;
    std::memcpy(&word, &v, 4);
    return word;
}
inline float floats_of(uint32_t word) {
    float v;
    std::memcpy(&v, &word, 4);
    return v;
}

inline void load_turned(uint32_t (&to)[4], const void* row) {
    const auto address = reinterpret_cast<uintptr_t>(row);
    const emulation::Fragments& all = emulation::exchange({uint32_t(address), uint32_t(address >> 32), 0, 0, 0, 0});
    const unsigned g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    for (int i = 0; i < 4; ++i) {
        uint16_t pair[2];
        for (int e = 0; e < 2; ++e) {
            const uint32_t* of = all.words[8 * i + 2 * t + e];
            const auto* from = reinterpret_cast<const uint16_t*>(uintptr_t(of[0]) | uintptr_t(of[1]) << 32);
            std::memcpy(&pair[e], from + g, sizeof pair[e]);
        }
        std::memcpy(&to[i], pair, sizeof pair);
    }
}

// PTX ISA, "Matrix fragments for mma.m16n8k16": lane = 4 g + t. A word i: row g + 8 (i & 1), columns 2 t + 8 (i >> 1)
// and the next; B word i: rows 2 t + 8 i and the next, column g; C: rows g, g, g + 8, g + 8, columns 2 t, 2 t + 1.
template <class T>
inline void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], T) {
    const emulation::Fragments& all = emulation::exchange({a[0], a[1], a[2], a[3], b[0], b[1]});
    const unsigned lane = threadIdx.x % 32;
    auto element = [&](int lane_, int word, int which) {
        T pair[2];
        std::memcpy(pair, &all.words[lane_][word], 4);
        return to_float(pair[which]);
    };
    for (int e = 0; e < 4; ++e) {
        const int row = lane / 4 + e / 2 * 8, column = lane % 4 * 2 + e % 2;
        for (int k = 0; k < 16; ++k) {
            const float va = element(row % 8 * 4 + k % 8 / 2, row / 8 + k / 8 * 2, k % 2);
            const float vb = element(column * 4 + k % 8 / 2, 4 + k / 8, k % 2);
            c[e] += va * vb;
        }
    }
}
inline uint32_t tf32_of(float v) {
    return v == v ? (bits_of(v) + 0x1000) & ~0x1fffu : 0x7fffe000u;  // to 10 bits, nearest, ties away
}
// "Matrix fragments for mma.m16n8k8", tf32. A word i: row g + 8 (i & 1), column t + 4 (i >> 1); B word i: row t + 4 i,
// column g.
inline void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], float) {
    const emulation::Fragments& all = emulation::exchange({a[0], a[1], a[2], a[3], b[0], b[1]});
    const unsigned lane = threadIdx.x % 32;
    auto element = [&](int lane_, int word) { return floats_of(all.words[lane_][word] & ~0x1fffu); };
    for (int e = 0; e < 4; ++e) {
        const int row = lane / 4 + e / 2 * 8, column = lane % 4 * 2 + e % 2;
        for (int k = 0; k < 8; ++k)
            c[e] += element(row % 8 * 4 + k % 4, row / 8 + k / 4 * 2) * element(column * 4 + k % 4, 4 + k / 4);
    }
}

struct Grid {
    int64_t x;
    int y = 1, z = 1;
    int shared = 0;
};

template <class... P, class... A>
void launch(void (*kernel)(P...), Grid grid, int threads, const void*, A... args) {
    if (emulation::runner)
        emulation::hand_over<P...>(reinterpret_cast<const void*>(kernel),
                                   {grid.x, grid.y, grid.z, threads, grid.shared}, args...);
    else
        emulation::run_grid(grid.x, grid.y, grid.z, threads, grid.shared, [=] { kernel(args...); });
}

}  // namespace posekernels
