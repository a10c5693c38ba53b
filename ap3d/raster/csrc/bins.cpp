// A stable radix sort by depth, then a counting sort by tile, both in chunks: chunk after chunk, digit by digit, each
// chunk knows where it writes, so the result is that of one thread.
#include "bins.h"

#include <cstring>
#include <new>

namespace {

constexpr int BITS = 11, DIGITS = 1 << BITS, AHEAD = 16;

int part(int chunk, int chunks, int count) { return (int)((int64_t)count * chunk / chunks); }

struct Range {
    int first, end;
    explicit Range(float packed) : first((int)packed % AP3D_BOX_BASE), end((int)packed / AP3D_BOX_BASE) {}
};

template <class Visit>
void each_tile(const ap3d_box &box, int columns, Visit visit) {
    const Range y(box.rows), x(box.columns);
    for (int j = y.first; j < y.end; j++)
        for (int i = x.first; i < x.end; i++) visit(j * columns + i);
}

}  // namespace

// The seen Gaussians in order of their index, and the slots of all.
void Bins::choose(const ap3d_box *boxes, int count) {
    keys_.resize(count), sorted_.resize(count), first_slots.resize(count + 1);
    int seen = 0;
    int64_t slot = 0;
    for (int i = 0; i < count; i++) {
        const ap3d_box &box = boxes[i];
        const Range x(box.columns), y(box.rows);
        const int tiles = (x.end - x.first) * (y.end - y.first);
        first_slots[i] = (int32_t)slot, slot += tiles;
        if (slot > INT32_MAX) throw std::bad_alloc();  // the moments of as many would fill 137 GB
        std::memcpy(&keys_[seen].depth, &box.depth, 4);  // positive floats order like their bits
        keys_[seen].gaussian = i;
        seen += tiles > 0;
    }
    first_slots[count] = (int32_t)slot, seen_ = seen;
}

void Bins::count_digits(int chunk, int chunks, int shift) {
    int32_t *counts = starts_.data() + chunk * DIGITS;
    std::memset(counts, 0, DIGITS * sizeof *counts);
    const int end = part(chunk + 1, chunks, seen_);
    for (int i = part(chunk, chunks, seen_); i < end; i++) counts[keys_[i].depth >> shift & (DIGITS - 1)]++;
}

void Bins::scatter_digits(int chunk, int chunks, int shift) {
    int32_t next[DIGITS], total = 0;
    for (int d = 0; d < DIGITS; d++) {
        next[d] = total;
        for (int c = 0; c < chunks; c++) {
            const int32_t n = starts_[c * DIGITS + d];
            if (c < chunk) next[d] += n;
            total += n;
        }
    }
    const int end = part(chunk + 1, chunks, seen_);
    for (int i = part(chunk, chunks, seen_); i < end; i++)
        sorted_[next[keys_[i].depth >> shift & (DIGITS - 1)]++] = keys_[i];
}

void Bins::count_tiles(const ap3d_box *boxes, int chunk, int chunks, int columns, int tiles) {
    int32_t *counts = starts_.data() + (size_t)chunk * tiles;
    std::memset(counts, 0, tiles * sizeof *counts);
    const int end = part(chunk + 1, chunks, seen_);
    for (int i = part(chunk, chunks, seen_); i < end; i++) {
        if (i + AHEAD < end) __builtin_prefetch(boxes + keys_[i + AHEAD].gaussian);
        each_tile(boxes[keys_[i].gaussian], columns, [&](int tile) { counts[tile]++; });
    }
}

void Bins::place_tiles(int chunks, int tiles) {
    offsets.resize(tiles + 1);
    int32_t total = 0;
    for (int t = 0; t < tiles; t++) {
        offsets[t] = total;
        for (int c = 0; c < chunks; c++) {
            int32_t &entry = starts_[(size_t)c * tiles + t];
            const int32_t n = entry;
            entry = total, total += n;
        }
    }
    offsets[tiles] = total;
    items.resize(total);
}

void Bins::scatter_tiles(const ap3d_box *boxes, int chunk, int chunks, int columns, int tiles) {
    int32_t *next = starts_.data() + (size_t)chunk * tiles;
    const int end = part(chunk + 1, chunks, seen_);
    for (int i = part(chunk, chunks, seen_); i < end; i++) {
        if (i + AHEAD < end) {
            __builtin_prefetch(boxes + keys_[i + AHEAD].gaussian);
            __builtin_prefetch(first_slots.data() + keys_[i + AHEAD].gaussian);
        }
        const int32_t g = keys_[i].gaussian;
        int32_t slot = first_slots[g];
        each_tile(boxes[g], columns, [&](int tile) { items[next[tile]++] = {g, slot++}; });
    }
}

void Bins::fill(ap3d::Team &team, Bins *bins, const ap3d_box *boxes, int views, int count, int columns, int tiles) {
    const int chunks = team.size();
    auto boxes_of = [&](int view) { return boxes + (size_t)view * count; };
    team.each(views, [&](int view) {
        bins[view].choose(boxes_of(view), count);
        bins[view].starts_.resize((size_t)chunks * (tiles > DIGITS ? tiles : DIGITS));
    });
    auto chunked = [&](auto body) {
        team.each(views * chunks, [&](int i) { body(bins[i / chunks], i / chunks, i % chunks); });
    };
    for (int shift = 0; shift < 32; shift += BITS) {
        chunked([&](Bins &b, int, int chunk) { b.count_digits(chunk, chunks, shift); });
        chunked([&](Bins &b, int, int chunk) { b.scatter_digits(chunk, chunks, shift); });
        team.each(views, [&](int view) { bins[view].keys_.swap(bins[view].sorted_); });
    }
    chunked([&](Bins &b, int view, int chunk) { b.count_tiles(boxes_of(view), chunk, chunks, columns, tiles); });
    team.each(views, [&](int view) { bins[view].place_tiles(chunks, tiles); });
    chunked([&](Bins &b, int view, int chunk) { b.scatter_tiles(boxes_of(view), chunk, chunks, columns, tiles); });
}
