// Where tensors lie and how, asked through DLPack's C exchange API: a table of functions that an array library hangs on
// its class. No header of that library is needed, and a tensor costs about 10 nanoseconds.
#pragma once

#include <Python.h>

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

// Calls `take` with the bytes that tell one layout from another, piece by piece, until it says false. Returns whether
// it never did; -1, and a Python error, where a tensor cannot be asked.
template <class Take>
int each_layout(PyObject* exchange, PyObject* tensors, Take take) {
    const auto* api = static_cast<const DLExchange*>(PyCapsule_GetPointer(exchange, "dlpack_exchange_api"));
    if (!api) return -1;
    if (api->major != 1) {
        PyErr_SetString(PyExc_RuntimeError, "layouts: DLPack 1 is known, this is another");
        return -1;
    }
    const Py_ssize_t count = PyList_Size(tensors);
    if (count < 0) return -1;
    for (Py_ssize_t i = 0; i < count; ++i) {
        DLTensor t;
        if (api->borrow(PyList_GetItem(tensors, i), &t) != 0) return -1;
        const int64_t fixed[] = {reinterpret_cast<int64_t>(t.data) + static_cast<int64_t>(t.byte_offset),
                                 t.device_type * (int64_t(1) << 32) + t.device_id, t.code * (int64_t(1) << 32) + t.bits,
                                 t.ndim};
        const size_t axes = sizeof(int64_t) * static_cast<size_t>(t.ndim);
        if (!take(fixed, sizeof(fixed)) || !take(t.shape, axes) || !take(t.strides, axes)) return 0;
    }
    return 1;
}

// layouts(exchange, tensors) -> bytes
inline PyObject* layouts(PyObject*, PyObject* const* args, Py_ssize_t given) {
    if (given != 2) return PyErr_Format(PyExc_TypeError, "layouts takes 2 arguments, got %zd", given);
    std::string found;
    const int asked = each_layout(args[0], args[1], [&](const void* piece, size_t size) {
        found.append(static_cast<const char*>(piece), size);
        return true;
    });
    return asked < 0 ? nullptr : PyBytes_FromStringAndSize(found.data(), static_cast<Py_ssize_t>(found.size()));
}

// same_layouts(exchange, tensors, bytes) -> bool
inline PyObject* same_layouts(PyObject*, PyObject* const* args, Py_ssize_t given) {
    if (given != 3) return PyErr_Format(PyExc_TypeError, "same_layouts takes 3 arguments, got %zd", given);
    char* at = nullptr;
    Py_ssize_t left = 0;
    if (PyBytes_AsStringAndSize(args[2], &at, &left) != 0) return nullptr;
    const int same = each_layout(args[0], args[1], [&](const void* piece, size_t size) {
        if (size > static_cast<size_t>(left) || std::memcmp(at, piece, size) != 0) return false;
        at += size;
        left -= static_cast<Py_ssize_t>(size);
        return true;
    });
    return same < 0 ? nullptr : PyBool_FromLong(same && left == 0);
}

}  // namespace posekernels
