// Threads, working memory and the list of kernels: what all instruction sets share.
#include "posekernels/parallel.h"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#ifndef _WIN32
#include <dlfcn.h>
#include <pthread.h>
#endif

#include "posekernels/registry.h"
#include "posekernels/scratch.h"

namespace posekernels {
namespace {

thread_local int threads_of_call = 1;

struct Job {
    int64_t tasks;
    void (*body)(void*, int64_t);
    void* data;
    std::atomic<int64_t> next{0};
    std::mutex mutex;
    std::exception_ptr error;

    // Every thread of the team: take tasks until none is left.
    void work() {
        const int before = threads_of_call;
        threads_of_call = 1;
        try {
            for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) body(data, task);
        } catch (...) {
            std::lock_guard<std::mutex> lock(mutex);
            error = std::current_exception();
            next.store(tasks);
        }
        threads_of_call = before;
    }
};

void (*gomp_parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;

// A pool of our own, for where no OpenMP runtime is at hand. One job at a time; who finds it busy works alone.
class Pool {
  public:
    void run(Job& job, int threads) {
        std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
        if (!turn.owns_lock()) return job.work();
        while (static_cast<int>(workers_) < threads - 1) {
            std::thread([this, id = workers_] { serve(id); }).detach();
            ++workers_;
        }
        {
            std::lock_guard<std::mutex> lock(mutex_);
            job_ = &job;
            wanted_ = threads - 1;
            running_ = threads - 1;
            ++generation_;
        }
        wake_.notify_all();
        job.work();
        std::unique_lock<std::mutex> lock(mutex_);
        done_.wait(lock, [this] { return running_ == 0; });
        job_ = nullptr;
    }

  private:
    void serve(int id) {
        uint64_t seen = 0;
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            wake_.wait(lock, [&] { return generation_ != seen && job_ != nullptr; });
            seen = generation_;
            if (id >= wanted_) continue;
            Job* job = job_;
            lock.unlock();
            job->work();
            lock.lock();
            if (--running_ == 0) done_.notify_all();
        }
    }

    std::mutex turn_, mutex_;
    std::condition_variable wake_, done_;
    Job* job_ = nullptr;
    int workers_ = 0, wanted_ = 0, running_ = 0;
    uint64_t generation_ = 0;
};

Pool* pool = nullptr;  // never destroyed: its threads may outlive main
std::once_flag pool_made;
std::atomic<bool> forked{false};  // a child process has none of the pool's threads

}  // namespace

int num_threads() {
    return threads_of_call;
}
void set_num_threads(int threads) {
    threads_of_call = threads < 1 ? 1 : threads;
}

void run_tasks(int64_t tasks, void (*body)(void*, int64_t), void* data) {
    Job job{tasks, body, data};
    int threads = threads_of_call;
    if (threads > tasks) threads = static_cast<int>(tasks);
    if (threads <= 1 || (gomp_parallel == nullptr && forked.load())) {
        job.work();
    } else if (gomp_parallel != nullptr) {
        // Inside another parallel region OpenMP gives a team of one, which then takes every task.
        gomp_parallel([](void* arg) { static_cast<Job*>(arg)->work(); }, &job, static_cast<unsigned>(threads), 0);
    } else {
        std::call_once(pool_made, [] {
            pool = new Pool;
#ifndef _WIN32
            pthread_atfork(nullptr, nullptr, [] { forked.store(true); });
#endif
        });
        pool->run(job, threads);
    }
    if (job.error) std::rethrow_exception(job.error);
}

bool adopt_openmp(const char* path) {
#ifdef _WIN32
    (void)path;
    return false;
#else
    void* library = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    if (library == nullptr) return false;
    void* symbol = dlsym(library, "GOMP_parallel");
    if (symbol == nullptr) return false;
    gomp_parallel = reinterpret_cast<decltype(gomp_parallel)>(symbol);
    return true;
#endif
}

namespace {

struct Block {
    char* memory;
    size_t size;
};

// A thread's working memory. Where a piece does not fit, another block is added; when the outermost Scratch goes, all
// blocks make room for one as large as was needed, and after some calls that needed less than half of it, for one of
// their size. So what a thread keeps is the most that one of its last calls took, not the sum of all sizes ever seen.
struct Stack {
    static constexpr int some_calls = 64;
    std::vector<Block> blocks;
    size_t block = 0, used = 0;
    size_t taken = 0, most = 0;  // handed out now; at most, in the last calls
    int calls = 0;               // since `most` began anew
    ~Stack() { clear(); }
    void clear() {
        for (Block& b : blocks) ::operator delete(b.memory, std::align_val_t(64));
        blocks.clear();
    }
    void add(size_t least) {
        const size_t smallest = size_t(1) << 20;
        size_t size = least > smallest ? least : smallest;
        if (blocks.empty() && most > size) size = most;
        blocks.push_back({static_cast<char*>(::operator new(size, std::align_val_t(64))), size});
    }
    // The outermost Scratch is gone.
    void rest() {
        if (blocks.size() > 1) return clear();  // the next call takes one block of `most`
        if (++calls < some_calls) return;
        if (!blocks.empty() && most < blocks[0].size / 2) clear();
        calls = 0;
        if (!blocks.empty()) most = 0;
    }
};

thread_local Stack stack;

}  // namespace

Scratch::Scratch() : block_(stack.block), used_(stack.used), taken_(stack.taken) {}

Scratch::~Scratch() {
    stack.block = block_;
    stack.used = used_;
    stack.taken = taken_;
    if (taken_ == 0) stack.rest();
}

size_t scratch_kept() {
    size_t sum = 0;
    for (const Block& b : stack.blocks) sum += b.size;
    return sum;
}

void* Scratch::bytes(size_t count) {
    count = (count + 63) / 64 * 64;
    while (stack.block < stack.blocks.size() && stack.used + count > stack.blocks[stack.block].size) {
        ++stack.block;
        stack.used = 0;
    }
    if (stack.block == stack.blocks.size()) {
        stack.add(count);
        stack.used = 0;
    }
    stack.taken += count;
    if (stack.taken > stack.most) stack.most = stack.taken;
    void* result = stack.blocks[stack.block].memory + stack.used;
    stack.used += count;
    return result;
}

namespace {
KernelEntry* kernels = nullptr;
}

bool register_kernel(KernelEntry* entry) {
    entry->next = kernels;
    kernels = entry;
    return true;
}

KernelEntry* registered_kernels() {
    return kernels;
}

}  // namespace posekernels
