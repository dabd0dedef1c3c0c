// How a registered kernel becomes a Python function; shared by the CPU and the CUDA module.
#pragma once

#include <pybind11/pybind11.h>

#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "posekernels/parallel.h"
#include "posekernels/registry.h"

namespace posekernels {

constexpr int max_arguments = 64;

// One kernel call, by METH_FASTCALL: about 0.2 microseconds, where pybind11's own dispatch of twenty arguments takes
// more than one.
inline PyObject* call_kernel(PyObject* self, PyObject* const* args, Py_ssize_t count) {
    const auto* entry = static_cast<const KernelEntry*>(PyCapsule_GetPointer(self, nullptr));
    const Py_ssize_t wanted = static_cast<Py_ssize_t>(std::strlen(entry->kinds));
    if (count != wanted + 1 || wanted > max_arguments) {
        return PyErr_Format(PyExc_TypeError, "%s takes the number of threads and %zd arguments, got %zd in all",
                            entry->name, wanted, count);
    }
    Slot slots[max_arguments];
    const long threads = PyLong_AsLong(args[0]);
    if (threads == -1 && PyErr_Occurred()) return nullptr;
    for (Py_ssize_t i = 0; i < wanted; ++i) {
        PyObject* arg = args[i + 1];
        const char kind = entry->kinds[i];
        if (kind == 'f') {
            slots[i].real = PyFloat_AsDouble(arg);
            if (slots[i].real == -1.0 && PyErr_Occurred()) return nullptr;
        } else if (kind == 'p' && arg == Py_None) {
            slots[i].integer = 0;
        } else if (!PyLong_Check(arg)) {  // True and False are integers too
            return PyErr_Format(PyExc_TypeError, "%s: argument %zd must be an integer%s, got %s", entry->name, i + 1,
                                kind == 'p' ? " (an address) or None" : "", Py_TYPE(arg)->tp_name);
        } else {
            slots[i].integer = static_cast<int64_t>(PyLong_AsUnsignedLongLongMask(arg));
            if (slots[i].integer == -1 && PyErr_Occurred()) return nullptr;
        }
    }
    int64_t result = 0;
    std::string error;
    PyThreadState* state = PyEval_SaveThread();
    try {
        set_num_threads(static_cast<int>(threads));
        result = entry->call(slots);
    } catch (const std::exception& e) {
        error = e.what();
    }
    PyEval_RestoreThread(state);
    if (!error.empty()) return PyErr_Format(PyExc_RuntimeError, "%s: %s", entry->name, error.c_str());
    return PyLong_FromLongLong(result);
}

// Adds every kernel of one build to the module, and their names as `kernels`.
inline void add_kernels(pybind11::module_& m, KernelEntry* first, Isa isa) {
    size_t total = 0;
    for (const KernelEntry* e = first; e; e = e->next) total += e->isa == isa;
    auto* methods = new std::vector<PyMethodDef>;  // Python keeps pointers into it for ever
    methods->reserve(total);
    pybind11::list names;
    for (KernelEntry* e = first; e; e = e->next) {
        if (e->isa != isa) continue;
        methods->push_back({e->name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&call_kernel)),
                            METH_FASTCALL, nullptr});
        auto self = pybind11::reinterpret_steal<pybind11::object>(PyCapsule_New(e, nullptr, nullptr));
        m.add_object(e->name,
                     pybind11::reinterpret_steal<pybind11::object>(PyCFunction_New(&methods->back(), self.ptr())));
        names.append(e->name);
    }
    m.attr("kernels") = names;
}

}  // namespace posekernels
