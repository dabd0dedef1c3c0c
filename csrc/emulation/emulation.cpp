// Runs CUDA kernels on the CPU for tests: each thread of a block is a fiber, resumed in turn and stopped at every
// barrier; blocks run one after the other. A thread that misses a barrier the others reach is an error, as it would be
// a hang. Between two barriers threads run one after the other in an order that is drawn anew each time (from a fixed
// seed): where a barrier is missing, some of them find numbers of the wrong age. Slow: a block takes milliseconds.
#include <ucontext.h>

#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "posekernels/gpu.h"
#include "posekernels/registry.h"

Index3 threadIdx, blockIdx, gridDim;

namespace posekernels {
namespace emulation {

Runner runner = nullptr;

namespace {

enum Wait { running, block_barrier, warp_barrier, finished };

struct Fiber {
    ucontext_t context;
    Wait wait = running;
    bool vote = false;
};

std::vector<Fiber> fibers;
std::vector<std::vector<char>> stacks;
std::vector<Fragments> warps;
struct alignas(16) Line {
    char bytes[16];
};
std::vector<Line> block_memory;
ucontext_t scheduler;
const std::function<void()>* body;
size_t current;
bool verdict;
std::vector<int> order;
uint32_t state = 1;

// The threads of a block in the order of the next turn.
void shuffle(int threads) {
    order.resize(threads);
    for (int i = 0; i < threads; ++i) {
        state = state * 1664525u + 1013904223u;
        const int j = (state >> 8) % (i + 1);
        order[i] = order[j];
        order[j] = i;
    }
}

void enter() {
    (*body)();
    fibers[current].wait = finished;
    swapcontext(&fibers[current].context, &scheduler);
}

void stop(Wait wait) {
    fibers[current].wait = wait;
    swapcontext(&fibers[current].context, &scheduler);
}

// Lets every fiber of [first, last) that waits at `wait` go on, if all of them do.
bool release(size_t first, size_t last, Wait wait) {
    for (size_t i = first; i < last; ++i)
        if (fibers[i].wait != wait) return false;
    for (size_t i = first; i < last; ++i) fibers[i].wait = running;
    return true;
}

void run_block(int threads) {
    for (int i = 0; i < threads; ++i) {
        Fiber& f = fibers[i];
        f.wait = running;
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = stacks[i].data();
        f.context.uc_stack.ss_size = stacks[i].size();
        f.context.uc_link = &scheduler;
        makecontext(&f.context, enter, 0);
    }
    for (;;) {
        bool moved = false, over = true;
        shuffle(threads);
        for (const int i : order) {
            if (fibers[i].wait != running) continue;
            current = i;
            threadIdx = {unsigned(i), 0, 0};
            swapcontext(&scheduler, &fibers[i].context);
            moved = true;
        }
        for (int w = 0; w < threads; w += 32) moved |= release(w, w + 32, warp_barrier);
        bool votes = false;
        for (int i = 0; i < threads; ++i) votes |= fibers[i].vote;
        if (release(0, threads, block_barrier)) {
            verdict = votes;
            for (int i = 0; i < threads; ++i) fibers[i].vote = false;
            moved = true;
        }
        for (int i = 0; i < threads; ++i) over &= fibers[i].wait == finished;
        if (over) return;
        if (!moved) throw std::runtime_error("threads of a block wait at different barriers");
    }
}

}  // namespace

void sync() {
    stop(block_barrier);
}
bool any(bool v) {
    fibers[current].vote = v;
    stop(block_barrier);
    return verdict;
}
void warp_sync() {
    stop(warp_barrier);
}
const Fragments& exchange(const uint32_t (&words)[6]) {
    Fragments& mine = warps[current / 32];
    stop(warp_barrier);  // everybody has read the last exchange
    std::memcpy(mine.words[threadIdx.x % 32], words, sizeof words);
    stop(warp_barrier);
    return mine;
}

void* shared_memory() {
    return block_memory.data();
}

void run_grid(int64_t x, int y, int z, int threads, int shared, const std::function<void()>& work) {
    if (threads % 32) throw std::runtime_error("whole warps only");
    fibers.resize(threads);
    warps.resize(threads / 32);
    while (stacks.size() < size_t(threads)) stacks.emplace_back(64 * 1024);
    body = &work;
    gridDim = {unsigned(x), unsigned(y), unsigned(z)};
    for (unsigned bz = 0; bz < gridDim.z; ++bz)
        for (unsigned by = 0; by < gridDim.y; ++by)
            for (unsigned bx = 0; bx < gridDim.x; ++bx) {
                blockIdx = {bx, by, bz};
                block_memory.resize((shared + 15) / 16);
                if (shared) std::memset(block_memory.data(), 0xff, block_memory.size() * sizeof(Line));  // NaN
                run_block(threads);
            }
}

}  // namespace emulation

namespace {
KernelEntry* kernels = nullptr;
std::string last_error;
}  // namespace

bool register_kernel(KernelEntry* entry) {
    entry->next = kernels;
    kernels = entry;
    return true;
}

}  // namespace posekernels

// For ctypes: the argument kinds of a kernel ("pif..."), null where there is none; a call; what the last error was.
extern "C" __attribute__((visibility("default"))) const char* emulation_kinds(const char* name) {
    for (auto* e = posekernels::kernels; e; e = e->next)
        if (!std::strcmp(e->name, name)) return e->kinds;
    return nullptr;
}
extern "C" __attribute__((visibility("default"))) int emulation_call(const char* name, const posekernels::Slot* slots) {
    for (auto* e = posekernels::kernels; e; e = e->next)
        if (!std::strcmp(e->name, name)) {
            try {
                e->call(slots);
                return 0;
            } catch (const std::exception& error) {
                posekernels::last_error = error.what();
                return 1;
            }
        }
    posekernels::last_error = "no such kernel";
    return 1;
}
extern "C" __attribute__((visibility("default"))) void emulation_runner(posekernels::emulation::Runner runner) {
    posekernels::emulation::runner = runner;
}
extern "C" __attribute__((visibility("default"))) const char* emulation_error() {
    return posekernels::last_error.c_str();
}
