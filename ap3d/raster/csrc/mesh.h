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

// A phase of body(first, last) over pieces of [0, count), multiples of chunk; large ones, since what neighbours read and
// write lies together and moves slowly between cores.
template <class Body>
void each_chunk(Team &team, size_t count, size_t chunk, Body body) {
    chunk *= std::max<size_t>(1, count / (chunk * 8 * team.size()));
    team.each((int)((count + chunk - 1) / chunk),
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

// Destinations of a sum in bands, one bit each.
struct Bands {
    int destinations, size, count;
    float scale;

    Bands(int destinations, int threads) : destinations(destinations) {
        const int wanted = std::clamp(threads <= 1 ? 1 : threads > 4 ? 32 : 16, 1, std::max(1, destinations));
        size = std::max(1, (destinations + wanted - 1) / wanted);
        count = (destinations + size - 1) / size;
        scale = 1.0f / size;
    }
    uint32_t bit(int destination) const {  // an exact quotient without a division
        int band = (int)(destination * scale);
        band -= destination < band * size;
        return uint32_t(1) << (band + (destination >= (band + 1) * size));
    }
};

// Adds what items give to destinations, always in the order of the items, so that sums are bitwise the same for any
// number of threads: mask(item) says which bands it adds to, add(item, low, high) adds to destinations in [low, high).
// A thread takes a band and passes over blocks of items without its bit. seen holds (items + 63) / 64 masks.
template <class Mask, class Add>
void scatter_in_order(Team &team, const Bands &bands, int items, uint32_t *seen, Mask mask, Add add) {
    constexpr int BLOCK = 64;
    if (team.size() <= 1) {
        for (int i = 0; i < items; i++) add(i, 0, bands.destinations);
        return;
    }
    const int blocks = (items + BLOCK - 1) / BLOCK;
    each_chunk(team, items, 64 * BLOCK, [&](size_t first, size_t last) {
        for (size_t start = first; start < last; start += BLOCK) {
            uint32_t together = 0;
            for (size_t i = start; i < std::min(last, start + BLOCK); i++) together |= mask((int)i);
            seen[start / BLOCK] = together;
        }
    });
    team.each(bands.count, [&](int band) {
        const int low = band * bands.size, high = std::min(bands.destinations, low + bands.size);
        for (int block = 0; block < blocks; block++) {
            if (!(seen[block] >> band & 1)) continue;
            for (int i = block * BLOCK; i < std::min(items, (block + 1) * BLOCK); i++)
                if (mask(i) >> band & 1) add(i, low, high);
        }
    });
}

// The bands that the corners of each triangle lie in, and room for scatter_in_order.
struct CornerBands {
    Bands bands;
    std::unique_ptr<uint32_t[]> faces, seen;

    CornerBands(int vertices, int face_count, int pixels, int threads) : bands(vertices, threads) {
        if (threads <= 1) return;
        faces.reset(new uint32_t[face_count]), seen.reset(new uint32_t[pixels / 64 + 1]);
    }
    void prepare(Team &team, const int *corners, int face_count) {
        if (team.size() > 1)
            each_chunk(team, face_count, 4096, [&](size_t first, size_t last) {
                for (size_t f = first; f < last; f++)
                    faces[f] = bands.bit(corners[3 * f]) | bands.bit(corners[3 * f + 1]) | bands.bit(corners[3 * f + 2]);
            });
    }
    // Of the pixel of a raster [.., 4]; what cannot be an id counts as empty.
    uint32_t of(const float *raster, int pixel, int face_count) const {
        const float id = raster[4 * (size_t)pixel + 3];
        return id >= 1 && id <= (float)face_count ? faces[(int)id - 1] : 0;
    }
};

}  // namespace ap3d
