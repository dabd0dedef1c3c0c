// The forward graph convolution, for ops made of several: csrc/graph_conv/graph_conv_cpu.cpp.
#pragma once

#include "posekernels/vec.h"

POSEKERNELS_BEGIN

void graph_conv_forward(const float* x, const float* weight, const float* adjacency, const float* bias,
                        const float* modulation, const float* scale, const float* shift, const float* residual,
                        float* y, float* h, int64_t B, int64_t J, int64_t Cin, int64_t Cout, int64_t K, int activation);

POSEKERNELS_END
