// One source, several instruction sets. CMake compiles every csrc/<op>/<op>_cpu.cpp once per instruction set with
// POSEKERNELS_ISA set to its name; all code of such a file, and of the headers it uses, lives in
// `namespace posekernels::POSEKERNELS_ISA`, so the builds never share a symbol. The one that runs is chosen when the
// module loads.
//
// Trap: a function template of the standard library that is not inlined (std::vector's, std::sort's) is a weak symbol
// that all builds share, and the linker may keep the AVX-512 one for everybody. Kernels use no containers: memory
// comes from scratch.h. tests/build checks the objects.
#pragma once

#include <cstdint>

namespace posekernels {

enum class Isa : int { generic = 0, avx2 = 1, avx512 = 2, neon = 3, cuda = 4 };

}  // namespace posekernels

// All that is a compiler's own is spelled here: kernels use these words, and GCC's and Clang's vector types (vec.h).
//
// POSEKERNELS_BOTH    arithmetic that CPU and CUDA kernels share, on scalars or vectors; always inlined, so that no
// build
//                     of it is a symbol
// POSEKERNELS_UNROLL  before a loop of up to n rounds: no loop is left of it
#define POSEKERNELS_TEXT(x) #x
#define POSEKERNELS_PRAGMA(x) _Pragma(POSEKERNELS_TEXT(x))
#if defined(__CUDACC__)
#define POSEKERNELS_BOTH __host__ __device__ __forceinline__
#define POSEKERNELS_UNROLL(n) _Pragma("unroll")
#elif defined(__GNUC__)  // Clang too
#define POSEKERNELS_INLINE inline __attribute__((always_inline))
#define POSEKERNELS_INLINE_LAMBDA __attribute__((always_inline))
#define POSEKERNELS_ONE_BODY __attribute__((noinline))
#define POSEKERNELS_VECTOR(bytes) __attribute__((vector_size(bytes)))
#define POSEKERNELS_VECTOR_AT(alignment, bytes) __attribute__((vector_size(bytes), aligned(alignment), may_alias))
#define POSEKERNELS_TARGET(features) __attribute__((target(features)))
#define POSEKERNELS_BOTH POSEKERNELS_INLINE
#if defined(__clang__)
#define POSEKERNELS_UNROLL(n) _Pragma("unroll")
#else
#define POSEKERNELS_UNROLL(n) POSEKERNELS_PRAGMA(GCC unroll n)
#endif
#else
#error "posekernels needs vector types: GCC, Clang, or clang-cl in place of MSVC's cl"
#endif

#ifdef POSEKERNELS_ISA
#define POSEKERNELS_BEGIN   \
    namespace posekernels { \
    namespace POSEKERNELS_ISA {
#define POSEKERNELS_END \
    }                   \
    }
#endif
