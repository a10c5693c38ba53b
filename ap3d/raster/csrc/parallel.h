// Phases of independent items on a team of threads; which thread takes an item never changes a result.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace ap3d {

constexpr int PHASES = 64;  // of one job, at most

struct Phase {
    std::atomic<int> next{0}, done{0};
};

// One thread's part in a job. All members run the same body and so meet the same phases; one that comes late finds
// the first ones done, and nobody waits for one that never comes.
class Team {
  public:
    Team(int size, Phase *phases) : size_(size), phases_(phases) {}

    template <class Body>
    void each(int count, Body body) {
        Phase &phase = phases_[at_++];
        for (int i; (i = phase.next.fetch_add(1, std::memory_order_relaxed)) < count;) {
            body(i);
            phase.done.fetch_add(1, std::memory_order_release);
        }
        for (int spins = 0; phase.done.load(std::memory_order_acquire) < count; spins++)
            if (spins > 4000) std::this_thread::yield();
    }

    // How many may work; the same for every member.
    int size() const { return size_; }

  private:
    int size_, at_ = 0;
    Phase *phases_;
};

// Threads that wait for jobs. They look out for the next one for a moment before they sleep, since the kernels of one
// picture follow one another.
class Pool {
  public:
    using Body = std::function<void(Team &)>;

    void run(int threads, const Body &body) {
        std::unique_lock<std::mutex> turn(turn_);
        Phase phases[PHASES];
        Team team(threads, phases);
        if (threads > 1) {
            grow(threads - 1);
            body_ = &body, phases_ = phases, size_ = threads;
            {
                std::lock_guard<std::mutex> lock(mutex_);
                open_.store(job_.fetch_add(1) + 1);
            }
            wake_.notify_all();
        }
        body(team);
        if (threads > 1) {
            open_.store(0);
            while (inside_.load() > 0) std::this_thread::yield();
        }
    }

  private:
    static constexpr int LOOKOUT = 20000;

    std::mutex turn_, mutex_;
    std::condition_variable wake_;
    std::atomic<unsigned> job_{0}, open_{0};  // the latest job, and the same while it may be joined
    std::atomic<int> inside_{0};
    const Body *body_ = nullptr;
    Phase *phases_ = nullptr;
    int size_ = 0, workers_ = 0;

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
                Team team(size_, phases_);
                (*body_)(team);
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
// parent's threads are not there.
inline Pool &pool() {
    static std::mutex mutex;
    static Pool *current = nullptr;
    static long owner = 0;
    std::lock_guard<std::mutex> lock(mutex);
#if defined(__unix__) || defined(__APPLE__)
    const long process = getpid();
#else
    const long process = 1;
#endif
    if (owner != process) current = new Pool, owner = process;
    return *current;
}

// Runs body(team) on up to `threads` threads, the caller's among them.
template <class Body>
void on_team(int threads, Body body) {
    if (threads > 1) return pool().run(threads, body);
    Phase phases[PHASES];
    Team team(1, phases);
    body(team);
}

template <class Body>
void parallel_for(int count, int threads, Body body) {
    on_team(threads < count ? threads : count, [&](Team &team) { team.each(count, body); });
}

}  // namespace ap3d
