// Phases of independent items on a team of threads; which thread takes an item never changes a result.
#pragma once
#include <atomic>
#include <thread>
#include <vector>

namespace ap3d {

class Team {
  public:
    explicit Team(int members) : members_(members) {}

    // Every member calls this with equal arguments, in the same order; it returns when all items are done.
    template <class Body>
    void each(int count, Body body) {
        const unsigned round = round_.load(std::memory_order_acquire);
        for (int i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < count;) body(i);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == members_) {
            arrived_.store(0, std::memory_order_relaxed), next_.store(0, std::memory_order_relaxed);
            round_.fetch_add(1, std::memory_order_release);
            return;
        }
        for (int spins = 0; round_.load(std::memory_order_acquire) == round; spins++)
            if (spins > 2000) std::this_thread::yield();
    }

    int members() const { return members_; }
    void shrink(int members) { members_ = members; }

  private:
    int members_;
    std::atomic<int> next_{0}, arrived_{0};
    std::atomic<unsigned> round_{0};
};

// Runs body(team) on up to `threads` threads, the caller's among them; on fewer where no more are to be had.
template <class Body>
void on_team(int threads, Body body) {
    Team team(threads > 1 ? threads : 1);
    if (threads <= 1) return body(team);
    std::atomic<int> ready{0};
    std::vector<std::thread> helpers;
    helpers.reserve(threads - 1);
    for (int t = 1; t < threads; t++) {
        try {
            helpers.emplace_back([&] {
                while (!ready.load(std::memory_order_acquire)) std::this_thread::yield();
                body(team);
            });
        } catch (...) {
            break;
        }
    }
    team.shrink(1 + (int)helpers.size());
    ready.store(1, std::memory_order_release);
    body(team);
    for (auto &helper : helpers) helper.join();
}

template <class Body>
void parallel_for(int count, int threads, Body body) {
    on_team(threads < count ? threads : count, [&](Team &team) { team.each(count, body); });
}

}  // namespace ap3d
