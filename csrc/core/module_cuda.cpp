// The Python module posekernels._native_cuda: every kernel registered by a csrc/<op>/<op>_cuda.cu. Imports on a
// machine without a driver; a kernel called there raises.
#include "bindings.h"

namespace posekernels {
namespace {
KernelEntry* kernels = nullptr;
}

bool register_kernel(KernelEntry* entry) {
    entry->next = kernels;
    kernels = entry;
    return true;
}

void set_num_threads(int) {}  // the first argument of every call; a GPU has no use for it

}  // namespace posekernels

PyMODINIT_FUNC PyInit__native_cuda() {
    static PyModuleDef definition = {
        PyModuleDef_HEAD_INIT,
        "_native_cuda",
        "Kernels of posekernels for CUDA: device pointers, sizes and a stream in, nothing checked.",
        -1,
        nullptr,
        nullptr,
        nullptr,
        nullptr,
        nullptr};
    PyObject* module = PyModule_Create(&definition);
    if (module && posekernels::add_kernels(module, posekernels::kernels, posekernels::Isa::cuda)) return module;
    Py_XDECREF(module);
    return nullptr;
}
