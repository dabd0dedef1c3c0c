// dropout: one pass over the numbers, with the bits of the mask drawn on the way.
#include "posekernels/dropout.h"
#include "posekernels/registry.h"

POSEKERNELS_BEGIN

// y = dropout(x), element by element, of one stream.
void dropout(const float* x, float* y, int64_t n, int64_t seed, int64_t stream, int64_t threshold, float factor) {
    const Dropout drop{static_cast<uint64_t>(seed), static_cast<uint32_t>(stream), static_cast<uint32_t>(threshold),
                       factor};
    constexpr int64_t each = 4096;
    parallel_for((n + each - 1) / each, [&](int64_t task) {
        Scratch scratch;
        auto* bits = static_cast<uint64_t*>(scratch.bytes(8 * static_cast<size_t>(keep_words(each))));
        const int64_t first = task * each;
        drop_row(drop, first, n - first < each ? n - first : each, x + first, y + first, bits);
    });
}
POSEKERNELS_KERNEL(dropout)

POSEKERNELS_END
