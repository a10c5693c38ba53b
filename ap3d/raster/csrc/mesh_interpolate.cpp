// Vertex attributes at the pixels of a raster, with gradients to the attributes and to the barycentrics.
#include <cstring>

#include "mesh.h"

namespace {

using namespace ap3d;

constexpr size_t CHUNK = 4096;

struct Sizes {
    int attribute_batch, batch, vertices, face_count, pixels, channels;
    size_t table(int b) const { return attribute_batch > 1 ? (size_t)b * vertices * channels : 0; }
};

template <class Channels>
int blend(const float *table, const float *raster, const int *faces, int face_count, size_t first, size_t last,
          Channels channels, float *out) {
    int status = MESH_OK;
    for (size_t i = first; i < last; i++) {
        float *target = out + i * channels;
        Hit hit = read_hit(raster, i, face_count, status);
        if (hit.face < 0) {
            for (int c = 0; c < channels; c++) target[c] = 0;
            continue;
        }
        const int *face = faces + 3 * (size_t)hit.face;
        const float *p0 = table + (size_t)face[0] * channels, *p1 = table + (size_t)face[1] * channels,
                    *p2 = table + (size_t)face[2] * channels;
        float t = 1 - hit.u - hit.v;
        for (int c = 0; c < channels; c++) target[c] = hit.u * p0[c] + hit.v * p1[c] + t * p2[c];
    }
    return status;
}

template <class Channels>
INLINE void give_corners(const float *raster, int pixel, const int *faces, int face_count, Channels channels,
                         const float *gradient_out, int low, int high, float *table) {
    int ignored = 0;
    const Hit hit = read_hit(raster, pixel, face_count, ignored);
    if (hit.face < 0) return;
    const int *face = faces + 3 * (size_t)hit.face;
    const float weights[3] = {hit.u, hit.v, 1 - hit.u - hit.v};
    const float *source = gradient_out + (size_t)pixel * channels;
    for (int k = 0; k < 3; k++) {
        if (face[k] < low || face[k] >= high) continue;
        float *target = table + (size_t)face[k] * channels;
        for (int c = 0; c < channels; c++) target[c] += weights[k] * source[c];
    }
}

void gradient_of_raster(const float *table, const float *gradient_out, const float *raster, const int *faces,
                        int face_count, size_t first, size_t last, int channels, float *out) {
    int ignored = 0;
    for (size_t i = first; i < last; i++) {
        float *target = out + 4 * i;
        std::memset(target, 0, 4 * sizeof(float));
        Hit hit = read_hit(raster, i, face_count, ignored);
        if (hit.face < 0) continue;
        const int *face = faces + 3 * (size_t)hit.face;
        const float *p0 = table + (size_t)face[0] * channels, *p1 = table + (size_t)face[1] * channels,
                    *p2 = table + (size_t)face[2] * channels, *g = gradient_out + i * channels;
        for (int c = 0; c < channels; c++) target[0] += g[c] * (p0[c] - p2[c]), target[1] += g[c] * (p1[c] - p2[c]);
    }
}

}  // namespace

extern "C" {

// attributes [attribute_batch (1 or batch), vertices, channels]; raster and out [batch, pixels, 4 | channels].
int ap3d_mesh_interpolate(const float *attributes, const float *raster, const int *faces, int attribute_batch,
                          int batch, int vertices, int face_count, int pixels, int channels, float *out, int threads) {
    return answer([&] {
        const Sizes s{attribute_batch, batch, vertices, face_count, pixels, channels};
        std::atomic<int> status{MESH_OK};
        on_team(threads, [&](Team &team) {
            for (int b = 0; b < batch; b++)
                each_chunk(team, pixels, CHUNK, [&](size_t first, size_t last) {
                    with_channels(channels, [&](auto known) {
                        const size_t base = (size_t)b * pixels;
                        int found = blend(attributes + s.table(b), raster + 4 * base, faces, face_count, first, last,
                                          known, out + base * channels);
                        if (found) raise_status(status, found);
                    });
                });
        });
        return status.load();
    });
}

// Gradients to the attributes (zeroed by the caller) and, unless null, to the raster (written whole).
int ap3d_mesh_interpolate_backward(const float *gradient_out, const float *attributes, const float *raster,
                                   const int *faces, int attribute_batch, int batch, int vertices, int face_count,
                                   int pixels, int channels, float *gradient, float *gradient_raster, int threads) {
    return answer([&] {
        const Sizes s{attribute_batch, batch, vertices, face_count, pixels, channels};
        CornerBands corners(vertices, face_count, pixels, threads);
        on_team(threads, [&](Team &team) {
            corners.prepare(team, faces, face_count);
            for (int b = 0; b < batch; b++) {
                const size_t base = (size_t)b * pixels;
                const float *hits = raster + 4 * base, *incoming = gradient_out + base * channels;
                float *table = gradient + s.table(b);
                auto mask = [&](int i) { return corners.of(hits, i, face_count); };
                with_channels(channels, [&](auto known) {
                    scatter_in_order(team, corners.bands, pixels, corners.seen.get(), mask, [&](int i, int low, int high) {
                        give_corners(hits, i, faces, face_count, known, incoming, low, high, table);
                    });
                });
                if (gradient_raster)
                    each_chunk(team, pixels, CHUNK, [&](size_t first, size_t last) {
                        gradient_of_raster(attributes + s.table(b), incoming, hits, faces, face_count, first, last,
                                           channels, gradient_raster + 4 * base);
                    });
            }
        });
    });
}

}  // extern "C"
