// What CUDA kernels share: number types, the matrix units, launches. A .cu file that includes this and nothing of CUDA
// itself also compiles as plain C++ with POSEKERNELS_EMULATE, where every thread of a block is a fiber on the CPU and
// the matrix instruction is spelled out lane by lane (csrc/emulation): that is how the kernels are tested without a
// GPU. Kernels therefore use only what is here: KERNEL, KERNEL_WIDE, KERNEL_OF, SHARED, DEVICE, sync(), any(),
// warp_sync(), shuffle_xor(), copy_async(), multiply(), launch().
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#if defined(POSEKERNELS_EMULATE)
#include "posekernels/gpu_emulation.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "posekernels/cuda_check.h"

#define KERNEL_OF(...) __global__ __launch_bounds__(__VA_ARGS__)  // threads, blocks of them to a multiprocessor
#define KERNEL KERNEL_OF(128)                                     // Tile::threads
#define KERNEL_WIDE KERNEL_OF(128, 1)  // takes the registers it needs, if fewer blocks then fit
#define SHARED __shared__
#define DEVICE __device__ __forceinline__
#define SHARED_MATH __host__ __device__ inline

namespace posekernels {

using half_t = __half;
using bf16_t = __nv_bfloat16;

DEVICE float to_float(float v) {
    return v;
}
DEVICE float to_float(half_t v) {
    return __half2float(v);
}
DEVICE float to_float(bf16_t v) {
    return __bfloat162float(v);
}
// Two numbers as a word, the first in the low half.
template <class T>
DEVICE uint32_t word_of(float low, float high);
template <>
DEVICE uint32_t word_of<half_t>(float low, float high) {
    const __half2 two = __floats2half2_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&two);
}
template <>
DEVICE uint32_t word_of<bf16_t>(float low, float high) {
    const __nv_bfloat162 two = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t*>(&two);
}
template <class T>
DEVICE T from_float(float v);
template <>
DEVICE float from_float<float>(float v) {
    return v;
}
template <>
DEVICE half_t from_float<half_t>(float v) {
    return __float2half_rn(v);
}
template <>
DEVICE bf16_t from_float<bf16_t>(float v) {
    return __float2bfloat16_rn(v);
}

DEVICE void sync() {
    __syncthreads();
}
// Whether `v` holds for any thread of the block; also a barrier.
DEVICE bool any(bool v) {
    return __syncthreads_or(v);
}
// `v`, of which the compiler knows nothing: what is computed from it is not kept in registers from turn to turn of a
// loop.
DEVICE int64_t opaque(int64_t v) {
    asm volatile("" : "+l"(v));
    return v;
}
DEVICE int opaque(int v) {
    asm volatile("" : "+r"(v));
    return v;
}

// The memory of a block that its launch asked for (Grid::shared).
DEVICE void* shared_memory() {
    extern __shared__ uint4 posekernels_shared_memory[];
    return posekernels_shared_memory;
}

// 4, 8 or 16 bytes from global to shared memory, at addresses that are multiples of that; there after copies_wait()
// (for this thread) and a sync() (for the others).
template <int bytes>
DEVICE void copy_async(void* to_shared, const void* from) {
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(to_shared));
    if constexpr (bytes == 16)  // past the first-level cache
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(address), "l"(from), "n"(bytes) : "memory");
}
DEVICE void copies_wait() {
    asm volatile("cp.async.wait_all;" ::: "memory");
}
// Ends a group of copies; copies_wait_but<n>() waits for all groups of this thread but the last n.
DEVICE void copies_end_group() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int n>
DEVICE void copies_wait_but() {
    asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory");
}

// All lanes of a warp have written what they wrote.
DEVICE void warp_sync() {
    __syncwarp();
}
// The value of the lane whose number differs in the bits of `lanes`.
template <class T>
DEVICE T shuffle_xor(T v, int lanes) {
    return __shfl_xor_sync(0xffffffffu, v, lanes);
}
DEVICE uint32_t bits_of(float v) {
    return __float_as_uint(v);
}
DEVICE float floats_of(uint32_t bits) {
    return __uint_as_float(bits);
}

// Four matrices of 8 x 8 numbers of 16 bits in shared memory, turned over: lane 8 i + r says where row r of matrix i
// begins, a multiple of 16 bytes; this lane gets rows 2 t and 2 t + 1 of column g of each.
DEVICE void load_turned(uint32_t (&to)[4], const void* row) {
    const uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}

// C += A B on a warp: A is 16 x 16, B is 16 x 8, two halves to a word, laid out as PTX's mma.m16n8k16 says.
DEVICE void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], half_t) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEVICE void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], bf16_t) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// float32 rounded to TF32: its low 13 bits are 0.
DEVICE uint32_t tf32_of(float v) {
    uint32_t word;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(word) : "f"(v));
    return word;
}
// The same on 16 x 8 and 8 x 8 TF32 numbers, as mma.m16n8k8 has them; of words with low bits the unit drops them.
DEVICE void mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], float) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

struct Grid {
    int64_t x;
    int y = 1, z = 1;
    int shared = 0;  // bytes of shared_memory()
};

// Launches kernel(args...) on `stream` (a cudaStream_t as Python gives it); a launch that fails throws.
template <class... P, class... A>
void launch(void (*kernel)(P...), Grid grid, int threads, const void* stream, A... args) {
    const dim3 blocks(static_cast<unsigned>(grid.x), grid.y, grid.z);
    const auto queue = static_cast<cudaStream_t>(const_cast<void*>(stream));
    if (grid.shared > 48 * 1024)
        cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, grid.shared),
                   "shared memory of a block");
    // clang-format off
    kernel<<<blocks, threads, grid.shared, queue>>>(args...);
    // clang-format on
    cuda_check(cudaGetLastError(), "launch");
}

}  // namespace posekernels
#endif

namespace posekernels {

// What the arithmetic shared with the CPU kernels (philox.h, procrustes.h) asks for, a number per thread.
struct ScalarMath {
    static DEVICE float number(uint32_t word) { return static_cast<float>(static_cast<int32_t>(word)); }
    static DEVICE uint32_t bits_of(float v) { return posekernels::bits_of(v); }
    static DEVICE float floats_of(uint32_t bits) { return posekernels::floats_of(bits); }
    static DEVICE float exponent(uint32_t bits) { return static_cast<float>(static_cast<int32_t>(bits) >> 23); }
    static DEVICE float root(float v) { return sqrtf(v); }
    static DEVICE float absolute(float v) { return fabsf(v); }
    static DEVICE float select(bool condition, float a, float b) { return condition ? a : b; }
};

// n numbers that are loaded and stored as one: at an address that is a multiple of its size.
template <class T, int n>
struct alignas(n * sizeof(T)) Packet {
    T v[n];
};
template <int n, class T>
DEVICE Packet<T, n>& packet(T* p) {
    return *reinterpret_cast<Packet<T, n>*>(p);
}
template <int n, class T>
DEVICE const Packet<T, n>& packet(const T* p) {
    return *reinterpret_cast<const Packet<T, n>*>(p);
}

// float32 operands, rounded here.
DEVICE void mma_tf32(float (&c)[4], const float (&a)[4], const float (&b)[2]) {
    const uint32_t left[4] = {tf32_of(a[0]), tf32_of(a[1]), tf32_of(a[2]), tf32_of(a[3])};
    const uint32_t right[2] = {tf32_of(b[0]), tf32_of(b[1])};
    mma(c, left, right, float{});
}

// How float32 is multiplied: exactly, on the ordinary units, or rounded to TF32 on the matrix units.
struct Exact {
    using Number = float;
};
struct Tf32 {
    using Number = float;
};
struct Half {
    using Number = half_t;
};
struct Bf16 {
    using Number = bf16_t;
};

// A block of 4 warps owns a 64 x 64 tile of float32 sums: warp w the rows 16 w to 16 w + 15 (a block of more warps, as
// many more rows). What a thread holds is sums[n][e]: row(e), column(n, e).
struct Tile {
    static constexpr int size = 64, threads = 128, chunk = 32;

    float sums[8][4];

    DEVICE Tile() { clear(); }
    DEVICE void clear() {
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) sums[n][e] = 0.f;
    }
    static DEVICE int row(int e) { return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + e / 2 * 8; }
    static DEVICE int column(int n, int e) { return n * 8 + threadIdx.x % 4 * 2 + e % 2; }
    // f(value, row, column) on every sum of this thread.
    template <class F>
    DEVICE void each(F f) {
#pragma unroll
        for (int n = 0; n < 8; ++n)
#pragma unroll
            for (int e = 0; e < 4; ++e) f(sums[n][e], row(e), column(n, e));
    }
};

// Words between rows of a staged operand: off the multiples of 32 banks, so that a fragment is read without conflicts.
template <class T>
SHARED_MATH constexpr int pitch(int columns) {
    return columns + 16 / int(sizeof(T));
}

// Depths come in steps of this many.
template <class Math>
SHARED_MATH constexpr int depth_step() {
    return std::is_same_v<Math, Exact> ? 4 : std::is_same_v<Math, Tf32> ? 8 : 16;
}

// sums += A B over depths [first, last), from shared memory: A [64][depth], B [64 columns][depth] (transposed), of the
// given pitches, which are multiples of 16 bytes as the addresses are. first and last are multiples of depth_step. A
// warp reads its 16 rows of A alone.
template <class Math>
DEVICE void multiply(Tile& tile, const typename Math::Number* A, int pitch_a, const typename Math::Number* B,
                     int pitch_b, int first, int last) {
    using Number = typename Math::Number;
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const Number* a_row = A + (threadIdx.x / 32 * 16 + g) * pitch_a;
    if constexpr (std::is_same_v<Math, Exact>) {
        using Four = Packet<float, 4>;
        auto four = [](const float* p) { return packet<4>(p); };
#pragma unroll 1  // a step is 128 products and 18 loads already
        for (int k = first; k < last; k += 4) {
            const Four a0 = four(a_row + k), a1 = four(a_row + 8 * pitch_a + k);
#pragma unroll
            for (int n = 0; n < 8; ++n) {
                const float* b_row = B + (n * 8 + 2 * t) * pitch_b + k;
                const Four b0 = four(b_row), b1 = four(b_row + pitch_b);
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    tile.sums[n][0] += a0.v[i] * b0.v[i];
                    tile.sums[n][1] += a0.v[i] * b1.v[i];
                    tile.sums[n][2] += a1.v[i] * b0.v[i];
                    tile.sums[n][3] += a1.v[i] * b1.v[i];
                }
            }
        }
    } else if constexpr (std::is_same_v<Math, Tf32>) {
        for (int k = first; k < last; k += 8) {
            const float a[4] = {a_row[k + t], a_row[8 * pitch_a + k + t], a_row[k + t + 4],
                                a_row[8 * pitch_a + k + t + 4]};
#pragma unroll
            for (int n = 0; n < 8; ++n) {
                const float* b_row = B + (n * 8 + g) * pitch_b + k + t;
                const float b[2] = {b_row[0], b_row[4]};
                mma_tf32(tile.sums[n], a, b);
            }
        }
    } else {
        auto word = [](const Number* p) { return *reinterpret_cast<const uint32_t*>(p); };  // two neighbours
        for (int k = first; k < last; k += 16) {
            const Number* p = a_row + k + 2 * t;
            const uint32_t a[4] = {word(p), word(p + 8 * pitch_a), word(p + 8), word(p + 8 * pitch_a + 8)};
#pragma unroll
            for (int n = 0; n < 8; ++n) {
                const Number* q = B + (n * 8 + g) * pitch_b + k + 2 * t;
                const uint32_t b[2] = {word(q), word(q + 8)};
                mma(tile.sums[n], a, b, Number{});
            }
        }
    }
}

// Numbers between rows of an operand that is staged with a row to a depth: read without conflicts, too.
constexpr int across_pitch = Tile::size + 8;

// sums += A B over depths [first, last), B a row to a depth, [depth][64 columns], across_pitch numbers apart; of its
// columns alone the first `tiles` times 8.
template <class Math>
DEVICE void multiply_across(Tile& tile, const typename Math::Number* A, int pitch_a, const typename Math::Number* B,
                            int first, int last, int tiles) {
    using Number = typename Math::Number;
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const Number* a_row = A + (threadIdx.x / 32 * 16 + g) * pitch_a;
    if constexpr (std::is_same_v<Math, Exact>) {
#pragma unroll 1
        for (int k = first; k < last; k += 4) {
            const Packet<float, 4> a0 = packet<4>(a_row + k), a1 = packet<4>(a_row + 8 * pitch_a + k);
#pragma unroll
            for (int n = 0; n < 8; ++n) {
                if (n >= tiles) break;
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    const Packet<float, 2> b = packet<2>(B + (k + i) * across_pitch + n * 8 + 2 * t);
                    tile.sums[n][0] += a0.v[i] * b.v[0];
                    tile.sums[n][1] += a0.v[i] * b.v[1];
                    tile.sums[n][2] += a1.v[i] * b.v[0];
                    tile.sums[n][3] += a1.v[i] * b.v[1];
                }
            }
        }
    } else if constexpr (std::is_same_v<Math, Tf32>) {
#pragma unroll 1
        for (int k = first; k < last; k += 8) {
            const float a[4] = {a_row[k + t], a_row[8 * pitch_a + k + t], a_row[k + t + 4],
                                a_row[8 * pitch_a + k + t + 4]};
#pragma unroll
            for (int n = 0; n < 8; ++n) {
                if (n >= tiles) break;
                const float* from = B + (k + t) * across_pitch + n * 8 + g;
                const float b[2] = {from[0], from[4 * across_pitch]};
                mma_tf32(tile.sums[n], a, b);
            }
        }
    } else {
        auto word = [](const Number* p) { return *reinterpret_cast<const uint32_t*>(p); };  // two neighbours
        const Number* b_row = B + lane % 16 * across_pitch + lane / 16 * 8;
#pragma unroll 1
        for (int k = first; k < last; k += 16) {
            const Number* p = a_row + k + 2 * t;
            const uint32_t a[4] = {word(p), word(p + 8 * pitch_a), word(p + 8), word(p + 8 * pitch_a + 8)};
#pragma unroll
            for (int n = 0; n < 8; n += 2) {
                if (n >= tiles) break;
                uint32_t b[4];
                load_turned(b, b_row + k * across_pitch + n * 8);
                mma(tile.sums[n], a, {b[0], b[1]}, Number{});
                if (n + 1 < tiles) mma(tile.sums[n + 1], a, {b[2], b[3]}, Number{});
            }
        }
    }
}

// target[row][column] = f(row, column) for `rows` x `columns`, the threads of the block side by side along a row.
template <class T, class F>
DEVICE void stage(T* target, int target_pitch, int rows, int columns, F f) {
    for (int i = threadIdx.x; i < rows * columns; i += Tile::threads)
        target[i / columns * target_pitch + i % columns] = f(i / columns, i % columns);
}
// The same, stored transposed: target[column][row].
template <class T, class F>
DEVICE void stage_transposed(T* target, int target_pitch, int rows, int columns, F f) {
    for (int i = threadIdx.x; i < rows * columns; i += Tile::threads)
        target[i % columns * target_pitch + i / columns] = f(i / columns, i % columns);
}

}  // namespace posekernels
