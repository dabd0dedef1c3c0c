// What kernels share as kernels of their own, so that tests can hold it against float64, or watch it.
#include "posekernels/registry.h"
#include "posekernels/rows.h"
#include "posekernels/scratch.h"

POSEKERNELS_BEGIN

// 0 exp, 1 erf, 2 gelu, 3 gelu_gradient, 4 tanh, 5 relu, 6 coarse_exp2, 7 coarse_gelu
void vecmath(const float* x, float* y, int64_t n, int function) {
    for (int64_t i = 0; i < n; i += lanes) {
        Vec v = load(x + i, n - i);
        switch (function) {
            case 0:
                v = exp(v);
                break;
            case 1:
                v = erf(v);
                break;
            case 2:
                v = gelu(v);
                break;
            case 3:
                v = gelu_gradient(v);
                break;
            case 4:
                v = tanh(v);
                break;
            case 5:
                v = relu(v);
                break;
            case 6:
                v = coarse_exp2(v);
                break;
            default:
                v = coarse_gelu(v);
        }
        store(y + i, v, n - i);
    }
}
POSEKERNELS_KERNEL(vecmath)

void layer_norm_rows(const float* x, const float* weight, const float* bias, float* y, int64_t rows, int64_t n,
                     float eps, bool unbiased) {
    for (int64_t r = 0; r < rows; ++r)
        (unbiased ? layer_norm_row_unbiased<float, float> : layer_norm_row<float, float>)(x + r * n, n, weight, bias,
                                                                                          eps, y + r * n);
}
POSEKERNELS_KERNEL(layer_norm_rows)

void softmax_rows(float* x, int64_t rows, int64_t n, float scale) {
    for (int64_t r = 0; r < rows; ++r) softmax_row(x + r * n, n, scale);
}
POSEKERNELS_KERNEL(softmax_rows)

// Bytes of working memory that the calling thread keeps between calls.
int64_t scratch_kept() {
    return static_cast<int64_t>(posekernels::scratch_kept());
}
POSEKERNELS_KERNEL(scratch_kept)

POSEKERNELS_END
