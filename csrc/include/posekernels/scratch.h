// Working memory of a kernel: a stack of 64-byte aligned blocks per thread, kept between calls, so that taking some
// costs nothing and is never zeroed; what the last calls have outgrown is given back. What a Scratch handed out is
// valid until that Scratch goes out of scope.
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
    size_t block_, used_, taken_;  // where this thread's stack stood
};

// Bytes that this thread keeps.
size_t scratch_kept();

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
