// Tasks over threads: PyTorch's own OpenMP pool where PyTorch has loaded one, since two pools in turn stand in each
// other's way; but a region of OpenMP waits for all of its threads, so while other programs keep them from their cores,
// a pool of our own, where a job ends when its tasks are done.
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

// Adopts the OpenMP runtime at `path`, already loaded by somebody else. False when it is not GNU's, or not loaded.
bool adopt_openmp(const char* path);

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
