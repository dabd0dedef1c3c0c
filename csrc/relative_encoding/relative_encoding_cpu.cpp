// relative_encoding: one pass over the window writes, for every body part, its joints' coordinates, the same minus the
// root's and the same minus the middle frame's.
#include "posekernels/parallel.h"
#include "posekernels/registry.h"
#include "posekernels/vec.h"

POSEKERNELS_BEGIN
namespace {

inline float minus(float a, float b) {
    return a - b;
}
inline uint16_t minus(uint16_t a, uint16_t b) {
    return to_bf16(from_bf16(a) - from_bf16(b));
}

// x [B, T, J, F]; parts[i] is the address of part i's result [B, T, 3 F sizes[i]]; joints holds the parts one after
// the other.
template <class Number>
void encode(const Number* x, const int64_t* parts, const int64_t* joints, const int64_t* sizes, int64_t count,
            int64_t B, int64_t T, int64_t J, int64_t F) {
    constexpr int64_t frames = 64;  // per task: a few kilobytes
    const int64_t tasks = (B * T + frames - 1) / frames;
    const auto task = [&](int64_t t) {
        const int64_t last = (t + 1) * frames < B * T ? (t + 1) * frames : B * T;
        for (int64_t row = t * frames; row < last; ++row) {
            const Number* frame = x + row * J * F;
            const Number* middle = x + (row / T * T + T / 2) * J * F;
            const int64_t* joint = joints;
            for (int64_t i = 0; i < count; ++i) {
                const int64_t width = sizes[i] * F;
                Number* raw = reinterpret_cast<Number*>(parts[i]) + row * 3 * width;
                for (int64_t j = 0; j < sizes[i]; ++j)
                    for (int64_t f = 0; f < F; ++f) {
                        const Number value = frame[joint[j] * F + f];
                        raw[j * F + f] = value;
                        raw[width + j * F + f] = minus(value, frame[f]);
                        raw[2 * width + j * F + f] = minus(value, middle[joint[j] * F + f]);
                    }
                joint += sizes[i];
            }
        }
    };
    if (B * T < 512) {
        for (int64_t t = 0; t < tasks; ++t) task(t);
    } else {
        parallel_for(tasks, task);
    }
}

}  // namespace

void relative_encoding(const float* x, const int64_t* parts, const int64_t* joints, const int64_t* sizes, int64_t count,
                       int64_t B, int64_t T, int64_t J, int64_t F) {
    encode(x, parts, joints, sizes, count, B, T, J, F);
}
POSEKERNELS_KERNEL(relative_encoding)

void relative_encoding_bf16(const uint16_t* x, const int64_t* parts, const int64_t* joints, const int64_t* sizes,
                            int64_t count, int64_t B, int64_t T, int64_t J, int64_t F) {
    encode(x, parts, joints, sizes, count, B, T, J, F);
}
POSEKERNELS_KERNEL(relative_encoding_bf16)

// The gradient of x. A frame's joints belong to one part each or to several; the root also takes what is subtracted in
// its frame, the middle frame what is subtracted in its window, so a task is a whole window.
void relative_encoding_backward(const int64_t* grads, const int64_t* joints, const int64_t* sizes, float* grad_x,
                                int64_t count, int64_t B, int64_t T, int64_t J, int64_t F) {
    parallel_for(B, [&](int64_t b) {
        float* window = grad_x + b * T * J * F;
        for (int64_t i = 0; i < T * J * F; ++i) window[i] = 0;
        float* middle = window + T / 2 * J * F;
        for (int64_t t = 0; t < T; ++t) {
            float* frame = window + t * J * F;
            const int64_t* joint = joints;
            for (int64_t i = 0; i < count; ++i) {
                const int64_t width = sizes[i] * F;
                const float* raw = reinterpret_cast<const float*>(grads[i]) + (b * T + t) * 3 * width;
                for (int64_t j = 0; j < sizes[i]; ++j)
                    for (int64_t f = 0; f < F; ++f) {
                        const float to_root = raw[width + j * F + f], to_middle = raw[2 * width + j * F + f];
                        frame[joint[j] * F + f] += raw[j * F + f] + to_root + to_middle;
                        frame[f] -= to_root;
                        middle[joint[j] * F + f] -= to_middle;
                    }
                joint += sizes[i];
            }
        }
    });
}
POSEKERNELS_KERNEL(relative_encoding_backward)

POSEKERNELS_END
