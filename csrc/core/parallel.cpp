// Threads, working memory and the list of kernels: what all instruction sets share.
#include "posekernels/parallel.h"

#include <algorithm>
#include <atomic>
#include <chrono>
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

inline void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// How long a thread looks for what it waits for before it sleeps. Long enough for the gap between two kernels of one
// network, and for the next call of a loop; short enough that whoever else wants the core hardly misses it.
constexpr std::chrono::microseconds patience(60);

// Whether `ready` came true within our patience.
template <class Ready>
bool soon(const Ready& ready) {
    const auto end = std::chrono::steady_clock::now() + patience;
    do {
        for (int i = 0; i < 16; ++i) {
            if (ready()) return true;
            pause();
        }
    } while (std::chrono::steady_clock::now() < end);
    return false;
}

// Threads that join a job where they can. The caller works too, and waits only for who has joined: a thread whose core
// is taken by another program is not missed. One job at a time; who finds the pool busy works alone.
class Pool {
  public:
    void run(Job& job, int threads) {
        std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
        if (!turn.owns_lock()) return job.work();
        for (; workers_ < threads - 1; ++workers_) std::thread([this] { serve(); }).detach();
        job_.store(&job);
        open_.store(threads - 1);  // places
        if (sleeping_.load() > 0) {
            {
                std::lock_guard<std::mutex> lock(mutex_);
            }
            wake_.notify_all();
        }
        job.work();
        // No place is left to take; then those who took one are waited for.
        const int untaken = open_.exchange(0);
        const int joined = threads - 1 - untaken;
        const auto gone = [&] { return left_.load() == joined; };
        if (!soon(gone)) {
            std::unique_lock<std::mutex> lock(mutex_);
            caller_waits_.store(true);
            done_.wait(lock, gone);
            caller_waits_.store(false);
        }
        left_.store(0);
    }

  private:
    // A place in the job that is open, if any.
    bool join() {
        int places = open_.load();
        while (places > 0)
            if (open_.compare_exchange_weak(places, places - 1)) return true;
        return false;
    }

    void serve() {
        for (;;) {
            bool joined = false;
            if (!soon([&] { return joined = join(); })) {
                std::unique_lock<std::mutex> lock(mutex_);
                ++sleeping_;
                if (!(joined = join())) wake_.wait(lock);
                --sleeping_;
            }
            if (!joined) continue;  // woken: too late for this job perhaps, but the next one is near
            job_.load()->work();
            left_.fetch_add(1);
            if (caller_waits_.load()) {
                {
                    std::lock_guard<std::mutex> lock(mutex_);
                }
                done_.notify_one();
            }
        }
    }

    std::mutex turn_, mutex_;
    std::condition_variable wake_, done_;
    int workers_ = 0;
    alignas(64) std::atomic<Job*> job_{nullptr};
    std::atomic<int> open_{0};              // places of the job that nobody has taken
    alignas(64) std::atomic<int> left_{0};  // who joined and is through
    alignas(64) std::atomic<int> sleeping_{0};
    std::atomic<bool> caller_waits_{false};
};

Pool* pool = nullptr;  // never destroyed: its threads may outlive main
std::once_flag pool_made;
std::atomic<bool> forked{false};  // OpenMP's threads are not in a child process, and it waits for them

using Clock = std::chrono::steady_clock;
void (*gomp_parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;

// Whether other programs take our cores, as far as OpenMP's regions tell: a caller that has done its share, and then
// waits much longer than that took, waits for a thread that is kept from its core.
class Crowd {
  public:
    bool here(Clock::time_point now) const { return now.time_since_epoch().count() < until_.load(); }

    // After a region: what the caller worked, and then waited.
    void saw(Clock::duration worked, Clock::duration waited, Clock::time_point now) {
        const bool late = waited > std::chrono::microseconds(200) + 2 * worked;
        const int before = late_.load();
        const int after = late ? before + 4 : before > 0 ? before - 1 : 0;  // not exact among several callers
        late_.store(after < 12 ? after : 0);
        if (after < 12) return;
        // Three in a row. The next look costs as many again, so it comes later each time, while the crowd stays.
        const auto last = Clock::time_point(Clock::duration(until_.load()));
        const Clock::duration least = std::chrono::milliseconds(500), most = std::chrono::seconds(8),
                              again(pause_.load());
        const auto pause = now - last < again ? std::min(2 * again, most) : least;
        pause_.store(pause.count());
        until_.store((now + pause).time_since_epoch().count());
        // OpenMP's idle threads spin for milliseconds, each on a core that somebody could use. They stop at once where
        // it has more threads than there are processors: it is given a team of two more for that long.
        std::thread([this] {
            gomp_parallel([](void*) {}, nullptr, 2, 0);
            while (here(Clock::now())) std::this_thread::sleep_for(std::chrono::milliseconds(100));
        }).detach();
    }

  private:
    std::atomic<Clock::rep> until_{0};
    std::atomic<int> late_{0};
    std::atomic<Clock::rep> pause_{0};
};

Crowd* crowd = new Crowd;  // never destroyed either

// A region of OpenMP: one core's caller, and the others that PyTorch uses too.
void run_in_openmp(Job& job, int threads) {
    struct Region {
        Job& job;
        std::thread::id caller;
        Clock::time_point start, done;
    } region{job, std::this_thread::get_id(), Clock::now(), {}};
    // Inside another parallel region OpenMP gives a team of one, which then takes every task.
    gomp_parallel(
        [](void* arg) {
            auto& region = *static_cast<Region*>(arg);
            region.job.work();
            if (std::this_thread::get_id() == region.caller) region.done = Clock::now();
        },
        &region, static_cast<unsigned>(threads), 0);
    const auto now = Clock::now();
    crowd->saw(region.done - region.start, now - region.done, now);
}

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
    if (threads <= 1) {
        job.work();
    } else if (gomp_parallel != nullptr && !forked.load() && !crowd->here(Clock::now())) {
        run_in_openmp(job, threads);
    } else {
        std::call_once(pool_made, [] { pool = new Pool; });
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

#ifndef _WIN32
namespace {
// A child process has none of the threads, neither the pool's nor OpenMP's.
const int minds_forks = pthread_atfork(nullptr, nullptr, [] {
    forked.store(true);
    if (pool != nullptr) pool = new Pool;
});
}  // namespace
#endif

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
