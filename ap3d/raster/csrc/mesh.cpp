// Triangle rasterisation and attribute interpolation with nvdiffrast's conventions.
// Coverage is decided in fixed point with a half-open rule, so triangles that share an edge never leave a gap and
// never both own a pixel; barycentrics come from the unclipped triangle in homogeneous coordinates.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "parallel.h"

namespace {

constexpr int TILE = 32;
constexpr int SUBPIXEL_BITS = 12;   // a vertex is rounded to 1/4096 pixel
constexpr int SUBPIXEL = 1 << SUBPIXEL_BITS;
constexpr double GUARD = 16;      // clip x and y at this many half-images, so that products fit 64 bits
constexpr double MIN_W = 1e-7;
constexpr int PLANES = 6;

struct Point {
    double x, y, z, w;
};

struct Triangle {  // counter-clockwise in fixed point (y down), after clipping
    int64_t x[3], y[3];
    int face;
    int x0, x1, y0, y1;  // pixel bounds, inclusive
};

double side(const Point &p, int plane) {
    switch (plane) {
        case 0: return p.w - MIN_W;
        case 1: return p.w + p.z;  // near
        case 2: return GUARD * p.w + p.x;
        case 3: return GUARD * p.w - p.x;
        case 4: return GUARD * p.w + p.y;
        default: return GUARD * p.w - p.y;
    }
}

// From the inside point to the outside point always, so both triangles of an edge get the same new vertex.
Point cut(const Point &in, const Point &out, double d_in, double d_out) {
    double t = d_in / (d_in - d_out);
    return {in.x + t * (out.x - in.x), in.y + t * (out.y - in.y), in.z + t * (out.z - in.z),
            in.w + t * (out.w - in.w)};
}

int clip(Point *polygon, int count) {
    Point buffer[3 + PLANES];
    for (int plane = 0; plane < PLANES && count; plane++) {
        int kept = 0;
        for (int i = 0; i < count; i++) {
            const Point &a = polygon[i], &b = polygon[(i + 1) % count];
            double da = side(a, plane), db = side(b, plane);
            if (da >= 0) buffer[kept++] = a;
            if (da >= 0 && db < 0) buffer[kept++] = cut(a, b, da, db);
            if (da < 0 && db >= 0) buffer[kept++] = cut(b, a, db, da);
        }
        std::copy(buffer, buffer + kept, polygon);
        count = kept;
    }
    return count;
}

bool needs_clipping(const Point *p) {
    for (int k = 0; k < 3; k++)
        for (int plane = 0; plane < PLANES; plane++)
            if (side(p[k], plane) < 0) return true;
    return false;
}

// First pixel centre at or right of a fixed-point coordinate, and last at or left of it; the shift rounds down.
int first_pixel(int64_t v) { return (int)((v + SUBPIXEL / 2 - 1) >> SUBPIXEL_BITS); }
int last_pixel(int64_t v) { return (int)((v - SUBPIXEL / 2) >> SUBPIXEL_BITS); }

void emit(const Point &a, const Point &b, const Point &c, int face, int height, int width, std::vector<Triangle> &out) {
    const Point *p[3] = {&a, &b, &c};
    Triangle t;
    t.face = face;
    for (int k = 0; k < 3; k++) {
        t.x[k] = std::llround((p[k]->x / p[k]->w + 1) * 0.5 * width * SUBPIXEL);
        t.y[k] = std::llround((p[k]->y / p[k]->w + 1) * 0.5 * height * SUBPIXEL);
    }
    int64_t area = (t.x[1] - t.x[0]) * (t.y[2] - t.y[0]) - (t.x[2] - t.x[0]) * (t.y[1] - t.y[0]);
    if (area == 0) return;
    if (area < 0) std::swap(t.x[1], t.x[2]), std::swap(t.y[1], t.y[2]);
    t.x0 = std::max(0, first_pixel(std::min({t.x[0], t.x[1], t.x[2]})));
    t.x1 = std::min(width - 1, last_pixel(std::max({t.x[0], t.x[1], t.x[2]})));
    t.y0 = std::max(0, first_pixel(std::min({t.y[0], t.y[1], t.y[2]})));
    t.y1 = std::min(height - 1, last_pixel(std::max({t.y[0], t.y[1], t.y[2]})));
    if (t.x0 <= t.x1 && t.y0 <= t.y1) out.push_back(t);
}

Point vertex(const float *clip_positions, int index) {
    const float *p = clip_positions + 4 * (size_t)index;
    return {p[0], p[1], p[2], p[3]};
}

std::vector<Triangle> set_up(const float *positions, const int *faces, int face_count, int height, int width) {
    std::vector<Triangle> triangles;
    triangles.reserve(face_count);
    for (int f = 0; f < face_count; f++) {
        Point polygon[3 + PLANES];
        for (int k = 0; k < 3; k++) polygon[k] = vertex(positions, faces[3 * f + k]);
        int count = needs_clipping(polygon) ? clip(polygon, 3) : 3;
        for (int k = 2; k < count; k++) emit(polygon[0], polygon[k - 1], polygon[k], f, height, width, triangles);
    }
    return triangles;
}

struct Bins {
    std::vector<int> offsets, items;
    int columns, rows;
};

Bins bin(const std::vector<Triangle> &triangles, int height, int width) {
    Bins bins;
    bins.columns = (width + TILE - 1) / TILE, bins.rows = (height + TILE - 1) / TILE;
    bins.offsets.assign(bins.columns * bins.rows + 1, 0);
    auto each_tile = [&](const Triangle &t, auto visit) {
        for (int y = t.y0 / TILE; y <= t.y1 / TILE; y++)
            for (int x = t.x0 / TILE; x <= t.x1 / TILE; x++) visit(y * bins.columns + x);
    };
    for (const auto &t : triangles) each_tile(t, [&](int tile) { bins.offsets[tile + 1]++; });
    for (size_t i = 1; i < bins.offsets.size(); i++) bins.offsets[i] += bins.offsets[i - 1];
    bins.items.resize(bins.offsets.back());
    std::vector<int> fill(bins.offsets.begin(), bins.offsets.end() - 1);
    for (size_t i = 0; i < triangles.size(); i++)
        each_tile(triangles[i], [&](int tile) { bins.items[fill[tile]++] = (int)i; });
    return bins;
}

// Barycentrics of vertices 0 and 1 and z/w at a pixel centre in normalised device coordinates.
void shade(const Point *p, double x, double y, float *out) {
    double px[3], py[3];
    for (int k = 0; k < 3; k++) px[k] = p[k].x - x * p[k].w, py[k] = p[k].y - y * p[k].w;
    double a0 = px[1] * py[2] - py[1] * px[2], a1 = px[2] * py[0] - py[2] * px[0], a2 = px[0] * py[1] - py[0] * px[1];
    double inverse = 1 / (a0 + a1 + a2);
    double u = std::clamp(a0 * inverse, 0.0, 1.0), v = std::clamp(a1 * inverse, 0.0, 1.0 - u), t = 1 - u - v;
    out[0] = (float)u, out[1] = (float)v;
    out[2] = (float)((u * p[0].z + v * p[1].z + t * p[2].z) / (u * p[0].w + v * p[1].w + t * p[2].w));
}

void draw(const Triangle &t, const Point *corners, int bx, int by, int height, int width, float *image) {
    int x0 = std::max(t.x0, bx), x1 = std::min(t.x1, bx + TILE - 1);
    int y0 = std::max(t.y0, by), y1 = std::min(t.y1, by + TILE - 1);
    int64_t step_x[3], step_y[3], start[3];
    for (int k = 0; k < 3; k++) {
        int n = (k + 1) % 3;
        int64_t dx = t.x[n] - t.x[k], dy = t.y[n] - t.y[k];
        bool owned = dy < 0 || (dy == 0 && dx > 0);  // left edges and top edges belong to the triangle
        int64_t cx = int64_t(x0) * SUBPIXEL + SUBPIXEL / 2, cy = int64_t(y0) * SUBPIXEL + SUBPIXEL / 2;
        start[k] = dx * (cy - t.y[k]) - dy * (cx - t.x[k]) - (owned ? 0 : 1);
        step_x[k] = -dy * SUBPIXEL, step_y[k] = dx * SUBPIXEL;
    }
    for (int y = y0; y <= y1; y++) {
        int64_t e0 = start[0], e1 = start[1], e2 = start[2];
        for (int x = x0; x <= x1; x++, e0 += step_x[0], e1 += step_x[1], e2 += step_x[2]) {
            if ((e0 | e1 | e2) < 0) continue;
            float hit[4];
            shade(corners, (2 * x + 1.0) / width - 1, (2 * y + 1.0) / height - 1, hit);
            float *pixel = image + 4 * ((size_t)y * width + x);
            if (hit[2] > 1 || (pixel[3] != 0 && !(hit[2] < pixel[2]))) continue;
            hit[3] = (float)(t.face + 1);
            std::memcpy(pixel, hit, sizeof hit);
        }
        for (int k = 0; k < 3; k++) start[k] += step_y[k];
    }
}

}  // namespace

extern "C" {

// positions [batch, vertices, 4] clip space; faces [face_count, 3]; out [batch, height, width, 4], written whole.
void ap3d_mesh_rasterize(const float *positions, const int *faces, int batch, int vertices, int face_count, int height,
                         int width, float *out, int threads) {
    std::vector<std::vector<Triangle>> triangles(batch);
    std::vector<Bins> bins(batch);
    ap3d::parallel_for(batch, threads, [&](int b) {
        triangles[b] = set_up(positions + 4 * (size_t)b * vertices, faces, face_count, height, width);
        bins[b] = bin(triangles[b], height, width);
    });
    std::memset(out, 0, sizeof(float) * 4 * (size_t)batch * height * width);
    int tiles = ((width + TILE - 1) / TILE) * ((height + TILE - 1) / TILE);
    ap3d::parallel_for(batch * tiles, threads, [&](int item) {
        int b = item / tiles, tile = item % tiles;
        const float *base = positions + 4 * (size_t)b * vertices;
        for (int i = bins[b].offsets[tile]; i < bins[b].offsets[tile + 1]; i++) {
            const Triangle &t = triangles[b][bins[b].items[i]];
            Point corners[3];
            for (int k = 0; k < 3; k++) corners[k] = vertex(base, faces[3 * t.face + k]);
            draw(t, corners, tile % bins[b].columns * TILE, tile / bins[b].columns * TILE, height, width,
                 out + 4 * (size_t)b * height * width);
        }
    });
}

// attributes [attribute_batch (1 or batch), vertices, channels]; raster and out [batch, pixels, 4 | channels].
void ap3d_mesh_interpolate(const float *attributes, const float *raster, const int *faces, int attribute_batch,
                           int batch, int vertices, int pixels, int channels, float *out, int threads) {
    constexpr int CHUNK = 4096;
    int chunks = (pixels + CHUNK - 1) / CHUNK;
    ap3d::parallel_for(batch * chunks, threads, [&](int item) {
        int b = item / chunks, first = item % chunks * CHUNK;
        const float *table = attributes + (attribute_batch > 1 ? (size_t)b * vertices * channels : 0);
        for (int i = first; i < std::min(pixels, first + CHUNK); i++) {
            const float *hit = raster + 4 * ((size_t)b * pixels + i);
            float *target = out + ((size_t)b * pixels + i) * channels;
            if (hit[3] == 0) {
                std::memset(target, 0, sizeof(float) * channels);
                continue;
            }
            const int *face = faces + 3 * ((size_t)hit[3] - 1);
            const float *p0 = table + (size_t)face[0] * channels, *p1 = table + (size_t)face[1] * channels,
                        *p2 = table + (size_t)face[2] * channels;
            float u = hit[0], v = hit[1], w = 1 - u - v;
            for (int c = 0; c < channels; c++) target[c] = u * p0[c] + v * p1[c] + w * p2[c];
        }
    });
}

// gradient_out [batch, pixels, channels] is scattered into gradient [attribute_batch, vertices, channels] (zeroed by
// the caller), pixels in order, so that the sum is the same for any number of threads.
void ap3d_mesh_interpolate_backward(const float *gradient_out, const float *raster, const int *faces,
                                    int attribute_batch, int batch, int vertices, int pixels, int channels,
                                    float *gradient, int threads) {
    auto scatter = [&](int b, float *table) {
        for (int i = 0; i < pixels; i++) {
            const float *hit = raster + 4 * ((size_t)b * pixels + i);
            if (hit[3] == 0) continue;
            const int *face = faces + 3 * ((size_t)hit[3] - 1);
            const float weights[3] = {hit[0], hit[1], 1 - hit[0] - hit[1]};
            const float *source = gradient_out + ((size_t)b * pixels + i) * channels;
            for (int k = 0; k < 3; k++) {
                float *target = table + (size_t)face[k] * channels;
                for (int c = 0; c < channels; c++) target[c] += weights[k] * source[c];
            }
        }
    };
    if (attribute_batch > 1)
        ap3d::parallel_for(batch, threads, [&](int b) { scatter(b, gradient + (size_t)b * vertices * channels); });
    else
        for (int b = 0; b < batch; b++) scatter(b, gradient);
}

}  // extern "C"
