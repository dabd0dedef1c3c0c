// The matrix units on 16 bits at half their depth, where a depth is no multiple of 16: apart from gpu.h, because few
// kernels want it.
#pragma once

#include "posekernels/gpu.h"

namespace posekernels {

// C += A B on a warp, A 16 x 8 and B 8 x 8, two halves to a word as PTX's mma.m16n8k8 says: the first half of a 16's.
#if defined(POSEKERNELS_EMULATE)
template <class T>
inline void mma_k8(float (&c)[4], const uint32_t (&a)[2], uint32_t b, T kind) {
    const uint32_t left[4] = {a[0], a[1], 0, 0}, right[2] = {b, 0};
    mma(c, left, right, kind);
}
#else
DEVICE void mma_k8(float (&c)[4], const uint32_t (&a)[2], uint32_t b, half_t) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b));
}
DEVICE void mma_k8(float (&c)[4], const uint32_t (&a)[2], uint32_t b, bf16_t) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(b));
}
#endif

}  // namespace posekernels
