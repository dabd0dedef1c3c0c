// The Python module posekernels._native_core: every registered kernel as a function, in the best build this CPU runs.
// Knows no PyTorch: pointers come as integers.
#include <cstdlib>
#include <stdexcept>

#include "bindings.h"
#include "layouts.h"

namespace posekernels {

KernelEntry* registered_kernels();

namespace {

constexpr const char* isa_names[] = {"generic", "avx2", "avx512", "neon"};

bool cpu_runs(Isa isa) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_cpu_init();
    switch (isa) {
        case Isa::avx512:
            return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                   __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
        case Isa::avx2:
            return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
        default:
            return isa == Isa::generic;
    }
#else
    return isa == Isa::generic || isa == Isa::neon;  // part of every 64-bit ARM, where this build is made
#endif
}

// Throws what is to be an ImportError. All kernels come from one build: packed matrices pass from one to another, and
// their layout is the build's own.
Isa choose_isa() {
    int limit = static_cast<int>(Isa::neon);
    const char* forced = std::getenv("POSEKERNELS_ISA");
    if (forced != nullptr && *forced != 0) {
        limit = -1;
        for (int i = 0; i <= static_cast<int>(Isa::neon); ++i)
            if (std::strcmp(forced, isa_names[i]) == 0) limit = i;
        if (limit < 0 || !cpu_runs(static_cast<Isa>(limit))) {
            throw std::runtime_error(
                std::string("POSEKERNELS_ISA must be generic, avx2, avx512 or neon, and one this CPU runs; got ") +
                forced);
        }
    }
    int best = -1;
    for (const KernelEntry* e = registered_kernels(); e; e = e->next) {
        const int isa = static_cast<int>(e->isa);
        if (isa <= limit && isa > best && cpu_runs(e->isa)) best = isa;
    }
    if (best < 0) throw std::runtime_error(std::string("this build has no kernels of POSEKERNELS_ISA=") + forced);
    return static_cast<Isa>(best);
}

// same_modules(modules, types, dicts, values, training) -> bool: whether every module (an object with a dict) is of its
// type, in its mode and without a `forward` of its own, and the dicts hold, one after the other, the very objects
// `values`. Tuples but for `dicts`, a list. A network asks this at every call.
PyObject* same_modules(PyObject*, PyObject* const* args, Py_ssize_t given) {
    if (given != 5) return PyErr_Format(PyExc_TypeError, "same_modules takes 5 arguments, got %zd", given);
    PyObject *modules = args[0], *types = args[1], *dicts = args[2], *values = args[3], *mode = args[4];
    static PyObject* training_name = PyUnicode_InternFromString("training");
    static PyObject* forward_name = PyUnicode_InternFromString("forward");
    const Py_ssize_t modules_count = PyTuple_Size(modules), dicts_count = PyList_Size(dicts);
    const Py_ssize_t count = PyTuple_Size(values);
    if (modules_count < 0 || dicts_count < 0 || count < 0) return nullptr;
    for (Py_ssize_t i = 0; i < modules_count; ++i) {
        PyObject* module = PyTuple_GetItem(modules, i);
        PyObject* type = PyTuple_GetItem(types, i);
        if (type == nullptr) return nullptr;
        if (reinterpret_cast<PyObject*>(Py_TYPE(module)) != type) Py_RETURN_FALSE;
        PyObject* own = PyObject_GenericGetDict(module, nullptr);
        if (own == nullptr) return nullptr;
        const bool same = PyDict_GetItemWithError(own, training_name) == mode &&
                          PyDict_GetItemWithError(own, forward_name) == nullptr;
        Py_DECREF(own);
        if (PyErr_Occurred()) return nullptr;
        if (!same) Py_RETURN_FALSE;
    }
    Py_ssize_t next = 0;
    for (Py_ssize_t i = 0; i < dicts_count; ++i) {
        Py_ssize_t place = 0;
        PyObject* value = nullptr;
        while (PyDict_Next(PyList_GetItem(dicts, i), &place, nullptr, &value))
            if (next == count || value != PyTuple_GetItem(values, next++)) Py_RETURN_FALSE;
    }
    return PyBool_FromLong(next == count);
}

// adopt_openmp(path) -> bool
PyObject* adopt(PyObject*, PyObject* path) {
    PyObject* bytes = PyUnicode_AsUTF8String(path);
    if (bytes == nullptr) return nullptr;
    const bool adopted = adopt_openmp(PyBytes_AsString(bytes));
    Py_DECREF(bytes);
    return PyBool_FromLong(adopted);
}

using Fast = PyObject* (*)(PyObject*, PyObject* const*, Py_ssize_t);
PyCFunction fast(Fast function) {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

}  // namespace
}  // namespace posekernels

PyMODINIT_FUNC PyInit__native_core() {
    using namespace posekernels;
    static PyMethodDef methods[] = {
        {"adopt_openmp", &adopt, METH_O,
         "Run on the OpenMP runtime that is loaded from this path; False when there is none."},
        {"layouts", fast(&layouts), METH_FASTCALL, "Memory, type, shape and strides of tensors, as bytes to compare."},
        {"same_layouts", fast(&same_layouts), METH_FASTCALL, "Whether `layouts` would return these bytes."},
        {"same_modules", fast(&same_modules), METH_FASTCALL,
         "Whether a network's modules and what hangs on them are as they were."},
        {nullptr, nullptr, 0, nullptr}};
    static PyModuleDef definition = {
        PyModuleDef_HEAD_INIT,
        "_native_core",
        "Kernels of posekernels for the CPU: pointers and sizes in, nothing checked. Use posekernels.ops.",
        -1,
        methods,
        nullptr,
        nullptr,
        nullptr,
        nullptr};
    Isa isa;
    try {
        isa = choose_isa();
    } catch (const std::runtime_error& error) {
        PyErr_SetString(PyExc_ImportError, error.what());
        return nullptr;
    }
    PyObject* module = PyModule_Create(&definition);
    if (module && add_kernels(module, registered_kernels(), isa) &&
        PyModule_AddStringConstant(module, "isa", isa_names[static_cast<int>(isa)]) == 0)
        return module;
    Py_XDECREF(module);
    return nullptr;
}
