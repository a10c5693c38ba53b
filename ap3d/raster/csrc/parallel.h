// Phases of independent items on a team of threads; which thread takes an item never changes a result.
#pragma once
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <type_traits>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace ap3d {

constexpr int MOST_THREADS = 256;

// Where a job stands: the phase in the upper half of `at`, the next item of it in the lower.
struct Progress {
    std::atomic<uint64_t> at{0};
    std::atomic<int> done{0};
    std::atomic<bool> failed{false};  // something threw: what is left of the job is passed over
};

// One thread's part in a job. All members run the same body and so meet the same phases; one that comes late finds
// the first ones done, and nobody waits for one that never comes.
class Team {
  public:
    Team(int size, Progress &progress) : size_(size), progress_(progress) {}

    template <class Body>
    void each(int count, Body body) {
        const uint64_t phase = (uint64_t)phase_++ << 32, after = phase + (1ull << 32);
        std::atomic<uint64_t> &at = progress_.at;
        uint64_t seen = at.load(std::memory_order_acquire);
        if (count <= 0 && seen == phase) at.compare_exchange_strong(seen, after);
        for (int spins = 0; seen < after;) {
            if (seen >= phase + (uint64_t)count) {  // the others have the last items in hand
                if (++spins > 4000) std::this_thread::yield();
                seen = at.load(std::memory_order_acquire);
            } else if (at.compare_exchange_weak(seen, seen + 1, std::memory_order_acq_rel)) {
                attempt([&] { body((int)(seen - phase)); });
                if (progress_.done.fetch_add(1, std::memory_order_acq_rel) + 1 == count) {
                    progress_.done.store(0, std::memory_order_relaxed);
                    at.store(after, std::memory_order_release);
                }
                seen = at.load(std::memory_order_acquire);
            }
        }
    }

    // How many may work; the same for every member.
    int size() const { return size_; }

    // The whole part of one member: its body must not start another job. Nothing is thrown; see Progress::failed.
    template <class Body>
    static void take_part(int size, Progress &progress, const Body &body) {
        Team team(size, progress);
        team.attempt([&] { body(team); });
    }

  private:
    int size_;
    uint32_t phase_ = 0;
    Progress &progress_;

    template <class Work>
    void attempt(Work work) {
        if (progress_.failed.load(std::memory_order_relaxed)) return;
        try {
            work();
        } catch (...) {
            progress_.failed.store(true, std::memory_order_relaxed);
        }
    }
};

// Threads that wait for jobs. They look out for the next one for a moment before they sleep, since the kernels of one
// picture follow one another.
class Pool {
  public:
    using Body = std::function<void(Team &)>;

    // One job after another; `threads` is at least 2.
    void run(int threads, const Body &body, Progress &progress) {
        std::lock_guard<std::mutex> turn(turn_);
        grow(threads - 1);
        body_ = &body, progress_ = &progress, size_ = threads;
        {
            std::lock_guard<std::mutex> lock(mutex_);
            const unsigned next = job_.load() + 1;
            open_.store(next);  // before it is seen: who looks out for it must find it open
            job_.store(next);
        }
        wake_.notify_all();
        Team::take_part(threads, progress, body);
        open_.store(0);
        while (inside_.load() > 0) std::this_thread::yield();
    }

    long process() const { return process_; }

    static long this_process() {
#if defined(__unix__) || defined(__APPLE__)
        return getpid();
#else
        return 1;
#endif
    }

  private:
    static constexpr int LOOKOUT = 20000;

    std::mutex turn_, mutex_;
    std::condition_variable wake_;
    std::atomic<unsigned> job_{0}, open_{0};  // the latest job, and the same while it may be joined
    std::atomic<int> inside_{0};
    const Body *body_ = nullptr;
    Progress *progress_ = nullptr;
    int size_ = 0, workers_ = 0;
    const long process_ = this_process();

    void grow(int wanted) {
        for (; workers_ < wanted; workers_++) {
            try {
                std::thread([this, rank = workers_ + 1] { serve(rank); }).detach();
            } catch (...) {  // no more threads to be had: those that started do the work
                break;
            }
        }
    }

    void serve(int rank) {
        for (unsigned seen = 0;;) {
            for (int i = 0; i < LOOKOUT && job_.load(std::memory_order_acquire) == seen; i++) pause();
            if (job_.load(std::memory_order_acquire) == seen) {
                std::unique_lock<std::mutex> lock(mutex_);
                wake_.wait(lock, [&] { return job_.load() != seen; });
            }
            seen = job_.load();
            inside_.fetch_add(1);
            if (open_.load() == seen && rank < size_) {  // while it is open nobody changes what it consists of
                Team::take_part(size_, *progress_, *body_);
            }
            inside_.fetch_sub(1);
        }
    }

    static void pause() {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
};

// The process's pool, never destroyed: its threads wait in it to the end. A forked child starts its own, since its
// parent's threads are not there; no lock stands before it, since the parent may have held one.
inline Pool &thread_pool() {
    static std::atomic<Pool *> current{nullptr};
    Pool *pool = current.load();
    while (!pool || pool->process() != Pool::this_process()) {
        auto fresh = std::make_unique<Pool>();
        if (current.compare_exchange_strong(pool, fresh.get())) return *fresh.release();
    }
    return *pool;
}

// Runs body(team) on up to `threads` threads, the caller's among them. Throws where a member could not allocate.
template <class Body>
void on_team(int threads, Body body) {
    Progress progress;
    threads = std::min(threads, MOST_THREADS);
    if (threads > 1)
        thread_pool().run(threads, body, progress);
    else
        Team::take_part(1, progress, body);
    if (progress.failed) throw std::bad_alloc();
}

template <class Body>
void parallel_for(int count, int threads, Body body) {
    on_team(threads < count ? threads : count, [&](Team &team) { team.each(count, body); });
}

// Runs what allocates, for callers in C: its answer (0 where it has none), or OUT_OF_MEMORY.
constexpr int OUT_OF_MEMORY = -1;

template <class Work>
int answer(Work work) noexcept {
    try {
        if constexpr (std::is_void_v<decltype(work())>)
            return work(), 0;
        else
            return work();
    } catch (...) {  // nothing else is thrown: what is left are sizes that no vector can have
        return OUT_OF_MEMORY;
    }
}

}  // namespace ap3d
