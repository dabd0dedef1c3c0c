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

enum class Isa : int { generic = 0, avx2 = 1, avx512 = 2, cuda = 3 };

}  // namespace posekernels

// Arithmetic that CPU and CUDA kernels share, on scalars or vectors. Always inlined, so that no build of it is a
// symbol.
#if defined(__CUDACC__)
#define POSEKERNELS_BOTH __host__ __device__ __forceinline__
#define POSEKERNELS_UNROLL _Pragma("unroll")
#else
#define POSEKERNELS_BOTH inline __attribute__((always_inline))
#if defined(__clang__)
#define POSEKERNELS_UNROLL _Pragma("unroll")
#else
#define POSEKERNELS_UNROLL _Pragma("GCC unroll 16")
#endif
#endif

#ifdef POSEKERNELS_ISA
#define POSEKERNELS_BEGIN   \
    namespace posekernels { \
    namespace POSEKERNELS_ISA {
#define POSEKERNELS_END \
    }                   \
    }
#endif
