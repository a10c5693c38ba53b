// A loop over independent items on a given number of threads; which thread takes an item never changes a result.
#pragma once
#include <atomic>
#include <thread>
#include <vector>

namespace ap3d {

template <class Body>
void parallel_for(int count, int threads, Body body) {
    if (threads > count) threads = count;
    if (threads <= 1) {
        for (int i = 0; i < count; i++) body(i);
        return;
    }
    std::atomic<int> next{0};
    auto work = [&] {
        for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) body(i);
    };
    std::vector<std::thread> helpers;
    helpers.reserve(threads - 1);
    for (int t = 1; t < threads; t++) {
        try {
            helpers.emplace_back(work);
        } catch (...) {  // no more threads to be had: those that started do the work
            break;
        }
    }
    work();
    for (auto &helper : helpers) helper.join();
}

}  // namespace ap3d
