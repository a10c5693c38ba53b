// What the mesh operations share: which triangle a pixel shows, and sums over pixels that no thread count changes.
#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <vector>

#include "parallel.h"

#if defined(__GNUC__)
#define INLINE inline __attribute__((always_inline))
#else
#define INLINE inline
#endif

namespace ap3d {

// Answers of the operations; ap3d/raster/mesh_cpu.py turns them into errors.
enum MeshStatus { MESH_OK = 0, MESH_BAD_TRIANGLE = 1, MESH_NOT_FINITE = 2 };

inline void raise_status(std::atomic<int> &status, int value) {
    if (value > status.load(std::memory_order_relaxed)) status.store(value, std::memory_order_relaxed);
}

struct Hit {  // one pixel of a raster: barycentrics, depth, triangle or -1
    float u, v, depth;
    int face;
};

// Reads a pixel of [.., 4] (u, v, z/w, id + 1); an impossible one reads as empty and is reported.
inline Hit read_hit(const float *raster, size_t pixel, int face_count, int &status) {
    const float *p = raster + 4 * pixel;
    if (p[3] == 0) return {0, 0, 0, -1};
    if (!(p[3] >= 1 && p[3] <= (float)face_count)) {
        status = std::max<int>(status, MESH_BAD_TRIANGLE);
        return {0, 0, 0, -1};
    }
    if (!std::isfinite(p[0]) || !std::isfinite(p[1]) || !std::isfinite(p[2])) {
        status = std::max<int>(status, MESH_NOT_FINITE);
        return {0, 0, 0, -1};
    }
    return {p[0], p[1], p[2], (int)p[3] - 1};
}

// Runs body(first, last) over fixed pieces of [0, count).
template <class Body>
void parallel_chunks(size_t count, size_t chunk, int threads, Body body) {
    parallel_for((int)((count + chunk - 1) / chunk), threads,
                 [&](int i) { body(i * chunk, std::min(count, (i + 1) * chunk)); });
}

// body(channels) with the usual numbers of channels known to the compiler.
template <class Body>
inline void with_channels(int channels, Body body) {
    switch (channels) {
        case 1: return body(std::integral_constant<int, 1>());
        case 3: return body(std::integral_constant<int, 3>());
        case 4: return body(std::integral_constant<int, 4>());
        default: return body(channels);
    }
}

// Adds what items give to destinations, always in the order of the items, so that sums are bitwise the same for any
// number of threads. touch(item, visit) calls visit(destination) for each that the item adds to; add(item, low, high)
// adds to those in [low, high). With several threads, a first pass notes in a bit mask which bands of destinations
// each item touches, a second one gives each band to a thread, which passes over blocks of items without its bit.
template <class Touch, class Add>
void scatter_in_order(int items, int destinations, int threads, Touch touch, Add add) {
    if (threads <= 1 || destinations < 2) {
        for (int i = 0; i < items; i++) add(i, 0, destinations);
        return;
    }
    constexpr int BLOCK = 64, BLOCKS = 64;
    const int wanted = std::min(threads > 4 ? 32 : 16, destinations), per_band = (destinations + wanted - 1) / wanted;
    const int bands = (destinations + per_band - 1) / per_band, blocks = (items + BLOCK - 1) / BLOCK;
    std::unique_ptr<uint32_t[]> masks(new uint32_t[items]), any(new uint32_t[blocks]);
    const float scale = 1.0f / per_band;
    auto band_of = [&](int destination) {  // an exact quotient without a division
        int band = (int)(destination * scale);
        band -= destination < band * per_band;
        return band + (destination >= (band + 1) * per_band);
    };
    parallel_chunks(blocks, BLOCKS, threads, [&](size_t first, size_t last) {
        for (size_t block = first; block < last; block++) {
            uint32_t together = 0;
            for (int i = (int)block * BLOCK; i < std::min(items, (int)(block + 1) * BLOCK); i++) {
                uint32_t mask = 0;
                touch(i, [&](int destination) { mask |= uint32_t(1) << band_of(destination); });
                masks[i] = mask, together |= mask;
            }
            any[block] = together;
        }
    });
    parallel_for(bands, threads, [&](int band) {
        const int low = band * per_band, high = std::min(destinations, low + per_band);
        for (int block = 0; block < blocks; block++) {
            if (!(any[block] >> band & 1)) continue;
            for (int i = block * BLOCK; i < std::min(items, (block + 1) * BLOCK); i++)
                if (masks[i] >> band & 1) add(i, low, high);
        }
    });
}

}  // namespace ap3d
