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

PYBIND11_MODULE(_native_cuda, m) {
    m.doc() = "Kernels of posekernels for CUDA: device pointers, sizes and a stream in, nothing checked.";
    posekernels::add_kernels(m, posekernels::kernels, posekernels::Isa::cuda);
}
