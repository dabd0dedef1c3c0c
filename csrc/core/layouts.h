// Where tensors lie and how, asked through DLPack's C exchange API: a table of functions that an array library hangs on
// its class. No header of that library is needed, and a tensor costs about 10 nanoseconds.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <cstring>
#include <string>

namespace posekernels {

// As dlpack.h, version 1, has them.
struct DLTensor {
    void* data;
    int32_t device_type, device_id;
    int32_t ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t* shape;
    int64_t* strides;
    uint64_t byte_offset;
};

struct DLExchange {
    uint32_t major, minor;
    void* previous;
    void* allocate;
    void* from_object;
    void* to_object;
    int (*borrow)(void* object, DLTensor* out);
    void* stream;
};

// Calls `take` with the bytes that tell one layout from another, piece by piece, until it says false.
template <class Take>
bool each_layout(const pybind11::capsule& exchange, const pybind11::list& tensors, Take take) {
    const auto* api = static_cast<const DLExchange*>(PyCapsule_GetPointer(exchange.ptr(), "dlpack_exchange_api"));
    if (!api) throw pybind11::error_already_set();
    if (api->major != 1) throw std::runtime_error("layouts: DLPack 1 is known, this is another");
    for (size_t i = 0; i < tensors.size(); ++i) {
        DLTensor t;
        if (api->borrow(PyList_GET_ITEM(tensors.ptr(), i), &t) != 0) throw pybind11::error_already_set();
        const int64_t fixed[] = {reinterpret_cast<int64_t>(t.data) + static_cast<int64_t>(t.byte_offset),
                                 t.device_type * (int64_t(1) << 32) + t.device_id, t.code * (int64_t(1) << 32) + t.bits,
                                 t.ndim};
        const size_t axes = sizeof(int64_t) * static_cast<size_t>(t.ndim);
        if (!take(fixed, sizeof(fixed)) || !take(t.shape, axes) || !take(t.strides, axes)) return false;
    }
    return true;
}

inline pybind11::bytes layouts(const pybind11::capsule& exchange, const pybind11::list& tensors) {
    std::string found;
    each_layout(exchange, tensors, [&](const void* piece, size_t size) {
        found.append(static_cast<const char*>(piece), size);
        return true;
    });
    return pybind11::bytes(found);
}

inline bool same_layouts(const pybind11::capsule& exchange, const pybind11::list& tensors,
                         const pybind11::bytes& known) {
    const char* at = PyBytes_AS_STRING(known.ptr());
    const char* const end = at + PyBytes_GET_SIZE(known.ptr());
    const bool same = each_layout(exchange, tensors, [&](const void* piece, size_t size) {
        if (size > static_cast<size_t>(end - at) || std::memcmp(at, piece, size) != 0) return false;
        at += size;
        return true;
    });
    return same && at == end;
}

}  // namespace posekernels
