// Memory that is kept from call to call: pages fresh from the system cost more to touch than to compute on. Large ones
// ask for huge pages, since the kernels jump about in them.
#pragma once
#include <cstdlib>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

template <class T>
class Buffer {
  public:
    Buffer() = default;
    Buffer(const Buffer &) = delete;
    Buffer(Buffer &&other) noexcept { swap(other); }
    Buffer &operator=(Buffer &&other) noexcept { return swap(other), *this; }
    ~Buffer() { std::free(data_); }

    // Room for `count` elements, of which nothing is known.
    void resize(size_t count) {
        size_ = count;
        if (count <= room_) return;
        std::free(data_);
        data_ = nullptr, room_ = 0;
        const size_t page = count * sizeof(T) < HUGE_PAGE ? 64 : HUGE_PAGE;
        const size_t bytes = (count * sizeof(T) + count * sizeof(T) / 4 + page - 1) / page * page;
        data_ = static_cast<T *>(std::aligned_alloc(page, bytes));
        if (!data_) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
        if (page == HUGE_PAGE) madvise(data_, bytes, MADV_HUGEPAGE);
#endif
        room_ = bytes / sizeof(T);
    }
    void swap(Buffer &other) {
        std::swap(data_, other.data_), std::swap(size_, other.size_), std::swap(room_, other.room_);
    }
    T *data() { return data_; }
    const T *data() const { return data_; }
    size_t size() const { return size_; }
    size_t bytes() const { return room_ * sizeof(T); }
    T &operator[](size_t i) { return data_[i]; }
    const T &operator[](size_t i) const { return data_[i]; }

  private:
    static constexpr size_t HUGE_PAGE = 2 << 20;
    T *data_ = nullptr;
    size_t size_ = 0, room_ = 0;
};
