// The Python module posekernels._native_core: every registered kernel as a function, in the best build this CPU runs.
// Knows no PyTorch: pointers come as integers.
#include <cstdlib>

#include "bindings.h"
#include "layouts.h"

namespace py = pybind11;

namespace posekernels {

KernelEntry* registered_kernels();

namespace {

constexpr const char* isa_names[] = {"generic", "avx2", "avx512"};

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
            return true;
    }
#else
    return isa == Isa::generic;
#endif
}

// All kernels come from one build: packed matrices pass from one to another, and their layout is the build's own.
Isa choose_isa() {
    int limit = static_cast<int>(Isa::avx512);
    const char* forced = std::getenv("POSEKERNELS_ISA");
    if (forced != nullptr && *forced != 0) {
        limit = -1;
        for (int i = 0; i < 3; ++i)
            if (std::strcmp(forced, isa_names[i]) == 0) limit = i;
        if (limit < 0 || !cpu_runs(static_cast<Isa>(limit))) {
            throw py::import_error(
                std::string("POSEKERNELS_ISA must be generic, avx2 or avx512, and one this CPU runs; got ") + forced);
        }
    }
    Isa best = Isa::generic;
    for (const KernelEntry* e = registered_kernels(); e; e = e->next)
        if (static_cast<int>(e->isa) <= limit && e->isa > best && cpu_runs(e->isa)) best = e->isa;
    return best;
}

// Whether every module (an object with a dict) is of its type, in its mode and without a `forward` of its own, and the
// dicts hold, one after the other, the very objects `values`. A network asks this at every call.
bool same_modules(const py::tuple& modules, const py::tuple& types, const py::list& dicts, const py::tuple& values,
                  bool training) {
    PyObject* mode = training ? Py_True : Py_False;
    const py::str training_name("training"), forward_name("forward");
    for (size_t i = 0; i < modules.size(); ++i) {
        PyObject* module = PyTuple_GET_ITEM(modules.ptr(), i);
        if (reinterpret_cast<PyObject*>(Py_TYPE(module)) != PyTuple_GET_ITEM(types.ptr(), i)) return false;
        const auto own = py::reinterpret_steal<py::object>(PyObject_GenericGetDict(module, nullptr));
        if (!own) throw py::error_already_set();
        if (PyDict_GetItem(own.ptr(), training_name.ptr()) != mode) return false;
        if (PyDict_GetItem(own.ptr(), forward_name.ptr()) != nullptr) return false;
    }
    Py_ssize_t next = 0;
    const Py_ssize_t count = PyTuple_GET_SIZE(values.ptr());
    for (size_t i = 0; i < dicts.size(); ++i) {
        Py_ssize_t place = 0;
        PyObject* value = nullptr;
        while (PyDict_Next(PyList_GET_ITEM(dicts.ptr(), i), &place, nullptr, &value))
            if (next == count || value != PyTuple_GET_ITEM(values.ptr(), next++)) return false;
    }
    return next == count;
}

}  // namespace
}  // namespace posekernels

PYBIND11_MODULE(_native_core, m) {
    using namespace posekernels;
    m.doc() = "Kernels of posekernels for the CPU: pointers and sizes in, nothing checked. Use posekernels.ops.";
    const Isa isa = choose_isa();
    add_kernels(m, registered_kernels(), isa);
    m.attr("isa") = isa_names[static_cast<int>(isa)];
    m.def(
        "adopt_openmp", [](const std::string& path) { return adopt_openmp(path.c_str()); },
        "Run on the OpenMP runtime that is loaded from this path; False when there is none.");
    m.def("layouts", &layouts, "Memory, type, shape and strides of tensors, as bytes to compare.");
    m.def("same_layouts", &same_layouts, "Whether `layouts` would return these bytes.");
    m.def("same_modules", &same_modules, "Whether a network's modules and what hangs on them are as they were.");
}
