// Working memory of a kernel: a stack of 64-byte aligned blocks per thread, kept between calls, so that taking some
// costs nothing and is never zeroed. What a Scratch handed out is valid until that Scratch goes out of scope.
//
//     Scratch scratch;
//     float* tile = scratch.floats(rows * columns);
#pragma once

#include <cstddef>
#include <cstdint>

#include "posekernels/isa.h"

namespace posekernels {

class Scratch {
  public:
    Scratch();
    ~Scratch();
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    void* bytes(size_t count);  // throws std::bad_alloc
    float* floats(int64_t count) { return static_cast<float*>(bytes(sizeof(float) * static_cast<size_t>(count))); }

  private:
    size_t block_, used_;  // where this thread's stack stood
};

}  // namespace posekernels

#ifdef POSEKERNELS_ISA
POSEKERNELS_BEGIN

// `count` elements, not constructed.
template <class E>
E* scratch_of(Scratch& scratch, int64_t count) {
    return static_cast<E*>(scratch.bytes(sizeof(E) * static_cast<size_t>(count)));
}

POSEKERNELS_END
#endif
