// dropout on CUDA: a thread draws four words and takes the four elements that they are for.
#include "posekernels/gpu_products.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN

// grid (blocks of fours,)
template <class T>
KERNEL void dropout_kernel(const T* x, T* y, int64_t n, DropoutMask mask) {
    const int64_t block = int64_t(blockIdx.x) * Tile::threads + threadIdx.x;
    if (4 * block >= n) return;
    const philox::Words words = mask.words(block);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
        const int64_t i = 4 * block + e;
        if (i < n) y[i] = from_float<T>(words.w[e] >= mask.threshold ? to_float(x[i]) * mask.factor : 0.f);
    }
}

void dropout_cuda(const void* stream, int math, const void* x, void* y, const int64_t* seed, int64_t n,
                  int64_t element_stream, int64_t threshold, float factor) {
    const DropoutMask mask = dropout_mask(seed, element_stream, threshold, factor);
    each_math(math, [&](auto m) {
        using E = typename decltype(m)::Number;
        launch(dropout_kernel<E>, Grid{blocks_for(n, 4 * Tile::threads)}, Tile::threads, stream,
               static_cast<const E*>(x), static_cast<E*>(y), n, mask);
    });
}
POSEKERNELS_KERNEL(dropout_cuda)

POSEKERNELS_END
