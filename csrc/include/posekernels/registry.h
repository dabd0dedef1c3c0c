// How Python reaches a kernel: any function over pointers, integers and floats is registered under its own name,
//
//     POSEKERNELS_BEGIN
//     void scale(const float* x, float* y, int64_t n, float factor) { ... }
//     POSEKERNELS_KERNEL(scale)
//     POSEKERNELS_END
//
// and is then `posekernels._native.core.scale(threads, x.data_ptr(), y.data_ptr(), n, 2.0)`. None is a null pointer.
// The argument count and kinds are checked against the signature; the GIL is released while it runs. A kernel may
// return an integer. No Python here, so a kernel file compiles fast.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "posekernels/isa.h"

namespace posekernels {

union Slot {
    int64_t integer;
    double real;
};

struct KernelEntry {
    const char* name;
    Isa isa;
    const char* kinds;  // one letter per argument: p pointer, i integer, f float
    int64_t (*call)(const Slot*);
    KernelEntry* next;
};

bool register_kernel(KernelEntry* entry);  // true

}  // namespace posekernels

#ifdef POSEKERNELS_ISA
POSEKERNELS_BEGIN

template <class T>
constexpr char kind_of() {
    static_assert(std::is_pointer_v<T> || std::is_arithmetic_v<T>, "kernels take pointers, integers and floats");
    return std::is_pointer_v<T> ? 'p' : std::is_floating_point_v<T> ? 'f' : 'i';
}

template <class T>
T from_slot(Slot slot) {
    if constexpr (std::is_pointer_v<T>) {
        return reinterpret_cast<T>(static_cast<uintptr_t>(slot.integer));
    } else if constexpr (std::is_floating_point_v<T>) {
        return static_cast<T>(slot.real);
    } else {
        return static_cast<T>(slot.integer);
    }
}

template <auto Function>
struct Registered;

template <class R, class... P, R (*Function)(P...)>
struct Registered<Function> {
    static constexpr char kinds[] = {kind_of<P>()..., 0};
    template <size_t... I>
    static int64_t unpack(const Slot* slots, std::index_sequence<I...>) {
        if constexpr (std::is_void_v<R>) {
            Function(from_slot<P>(slots[I])...);
            return 0;
        } else {
            return static_cast<int64_t>(Function(from_slot<P>(slots[I])...));
        }
    }
    static int64_t call(const Slot* slots) { return unpack(slots, std::index_sequence_for<P...>()); }
};

POSEKERNELS_END
// The entry is constant data and its registration a plain call: a static constructor of the AVX-512 build runs on every
// CPU, so it must not hold a single vector instruction.
#define POSEKERNELS_KERNEL(function)                                                                   \
    static KernelEntry function##_entry{#function, Isa::POSEKERNELS_ISA, Registered<&function>::kinds, \
                                        &Registered<&function>::call, nullptr};                        \
    [[maybe_unused]] static const bool function##_registered = register_kernel(&function##_entry);
#endif
