// The activations and their slopes, one number at a time, for CPU and GPU.
#pragma once

#include <cmath>

#if defined(POSEKERNELS_BOTH)  // philox.h has the same
#elif defined(__CUDACC__)
#define POSEKERNELS_BOTH __host__ __device__ __forceinline__
#else
#define POSEKERNELS_BOTH inline
#endif

namespace posekernels {

enum Activation : int { activation_none = 0, activation_relu = 1, activation_gelu = 2 };

POSEKERNELS_BOTH float activate(float z, int activation) {
    if (activation == activation_relu) return z < 0.f ? 0.f : z;  // NaN stays
    if (activation == activation_gelu) return 0.5f * z * (1.f + erff(z * 0.70710678118654752f));
    return z;
}

// slope 1: nothing; 0: relu. NaN stays.
POSEKERNELS_BOTH float leaky_relu(float z, float slope) {
    return z > 0.f ? z : z * slope;
}

// The slope of relu at 0 is 0, as in PyTorch.
POSEKERNELS_BOTH float activation_slope(float z, int activation) {
    if (activation == activation_relu) return z <= 0.f ? 0.f : 1.f;
    if (activation == activation_gelu)
        return 0.5f * (1.f + erff(z * 0.70710678118654752f)) + z * expf(-0.5f * z * z) * 0.39894228040143268f;
    return 1.f;
}

}  // namespace posekernels
