// The Python module posekernels._native_core: every registered kernel as a function, in the best build this CPU runs.
// Knows no PyTorch: pointers come as integers.
#include <cstdlib>

#include "bindings.h"

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
}
