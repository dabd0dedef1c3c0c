// Tasks over threads of our own. A job ends when its tasks are done, and waits for no thread that another program keeps
// from its core; a region of OpenMP waits for all of its threads, at its start and at its end.
#pragma once

#include <cstdint>

#include "posekernels/isa.h"

namespace posekernels {

// How many threads the running call may use: the first argument Python passed. 1 inside a parallel task.
int num_threads();
void set_num_threads(int threads);

// Runs body(data, task) once for every task in [0, tasks); blocks. Which thread runs which task is not fixed, so a
// task must not depend on another, and a sum over tasks goes through one partial result per task. Nested calls, and
// calls while the pool is busy with another Python thread, run on the calling thread.
void run_tasks(int64_t tasks, void (*body)(void* data, int64_t task), void* data);

// Makes the threads of the OpenMP runtime at `path` (PyTorch's; already loaded) sleep while they have nothing to do.
// By default GNU's spins for milliseconds: in the way of our threads, of other programs, and of itself. It stops at
// once where it has more threads than there are processors, so it is given another team of two, which sleeps. False
// when it is not GNU's, or not loaded. OMP_WAIT_POLICY and GOMP_SPINCOUNT are minded as ever.
bool calm_openmp(const char* path);

}  // namespace posekernels

#ifdef POSEKERNELS_ISA
POSEKERNELS_BEGIN

// parallel_for(tasks, [&](int64_t task) { ... })
template <class Body>
inline void parallel_for(int64_t tasks, const Body& body) {
    if (tasks <= 1 || num_threads() <= 1) {
        for (int64_t task = 0; task < tasks; ++task) body(task);
        return;
    }
    run_tasks(
        tasks, [](void* data, int64_t task) { (*static_cast<const Body*>(data))(task); }, const_cast<Body*>(&body));
}

POSEKERNELS_END
#endif
