// How a registered kernel becomes a Python function; shared by the CPU and the CUDA module. Python's limited interface
// only (CMake sets Py_LIMITED_API), so that one file serves every Python from 3.11 on.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "posekernels/parallel.h"
#include "posekernels/registry.h"

namespace posekernels {

constexpr int max_arguments = 64;

// One kernel call, by METH_FASTCALL: about 0.2 microseconds.
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
            PyObject* type = PyType_GetName(Py_TYPE(arg));
            if (type != nullptr)
                PyErr_Format(PyExc_TypeError, "%s: argument %zd must be an integer%s, got %U", entry->name, i + 1,
                             kind == 'p' ? " (an address) or None" : "", type);
            Py_XDECREF(type);
            return nullptr;
        } else {
            slots[i].integer = static_cast<int64_t>(PyLong_AsUnsignedLongLongMask(arg));
            if (slots[i].integer == -1 && PyErr_Occurred()) return nullptr;
        }
    }
    int64_t result = 0;
    std::string error;
    bool out_of_memory = false;
    PyThreadState* state = PyEval_SaveThread();
    try {
        set_num_threads(static_cast<int>(threads));
        result = entry->call(slots);
    } catch (const std::bad_alloc&) {
        out_of_memory = true;
    } catch (const std::exception& e) {
        error = e.what();
    }
    PyEval_RestoreThread(state);
    if (out_of_memory) return PyErr_Format(PyExc_MemoryError, "%s: out of memory", entry->name);
    if (!error.empty()) return PyErr_Format(PyExc_RuntimeError, "%s: %s", entry->name, error.c_str());
    return PyLong_FromLongLong(result);
}

// Adds every kernel of one build to the module, and their names as `kernels`. False, and a Python error, where it
// cannot.
inline bool add_kernels(PyObject* module, KernelEntry* first, Isa isa) {
    size_t total = 0;
    for (const KernelEntry* e = first; e; e = e->next) total += e->isa == isa;
    auto* methods = new std::vector<PyMethodDef>;  // Python keeps pointers into it for ever
    methods->reserve(total);
    PyObject* names = PyList_New(0);
    bool done = names != nullptr;
    for (KernelEntry* e = first; e && done; e = e->next) {
        if (e->isa != isa) continue;
        methods->push_back({e->name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&call_kernel)),
                            METH_FASTCALL, nullptr});
        PyObject* self = PyCapsule_New(e, nullptr, nullptr);
        PyObject* function = self ? PyCFunction_NewEx(&methods->back(), self, nullptr) : nullptr;
        PyObject* name = PyUnicode_FromString(e->name);
        done = function && name && PyModule_AddObjectRef(module, e->name, function) == 0 &&
               PyList_Append(names, name) == 0;
        Py_XDECREF(self);
        Py_XDECREF(function);
        Py_XDECREF(name);
    }
    done = done && PyModule_AddObjectRef(module, "kernels", names) == 0;
    Py_XDECREF(names);
    return done;
}

}  // namespace posekernels
