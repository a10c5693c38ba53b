// Clip-space triangles to fixed-point screen triangles.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace ap3d {

constexpr int SUBPIXEL_BITS = 12;  // a vertex is rounded to 1/4096 pixel
constexpr int SUBPIXEL = 1 << SUBPIXEL_BITS;
constexpr double GUARD = 16;    // clip x and y at this many half-images, so that coordinates fit 30 bits
constexpr double MIN_W = 1e-7;  // nearer than any near plane, so that divisions stay finite
constexpr int PLANES = 7;

struct Point {
    double x, y, z, w;
};

inline Point load_point(const float *positions, int index) {
    const float *p = positions + 4 * (size_t)index;
    return {p[0], p[1], p[2], p[3]};
}

struct ScreenVertex {
    int32_t x, y;  // fixed point
    float depth;   // z/w - 1: near 0, where most of a scene lies, floats are finest
    uint32_t outside;  // a bit for each plane
};

struct ScreenTriangle {  // the corners run so that the inside is where edge functions are positive, y down
    int32_t x[3], y[3];
    float depth, depth_x, depth_y;  // at corner 0, and slopes by pixel
    float nearest, farthest;        // of the corners
    int face;
    int16_t x0, x1, y0, y1;  // pixel bounds, inclusive
};

inline double plane_distance(const Point &p, int plane) {
    switch (plane) {
        case 0: return p.w - MIN_W;
        case 1: return p.w + p.z;  // near
        case 2: return p.w - p.z;  // far
        case 3: return GUARD * p.w + p.x;
        case 4: return GUARD * p.w - p.x;
        case 5: return GUARD * p.w + p.y;
        default: return GUARD * p.w - p.y;
    }
}

inline ScreenVertex project(const Point &p, int height, int width) {
    ScreenVertex v{};
    for (int plane = 0; plane < PLANES; plane++) v.outside |= (uint32_t)(plane_distance(p, plane) < 0) << plane;
    if (v.outside) return v;
    double inverse = 1 / p.w;
    v.x = (int32_t)std::floor((p.x * inverse + 1) * (0.5 * width * SUBPIXEL) + 0.5);
    v.y = (int32_t)std::floor((p.y * inverse + 1) * (0.5 * height * SUBPIXEL) + 0.5);
    v.depth = (float)((p.z - p.w) * inverse);
    return v;
}

// From the inside point to the outside point always, so both triangles of an edge get the same new vertex.
inline Point cut(const Point &in, const Point &out, double d_in, double d_out) {
    double t = d_in / (d_in - d_out);
    return {in.x + t * (out.x - in.x), in.y + t * (out.y - in.y), in.z + t * (out.z - in.z),
            in.w + t * (out.w - in.w)};
}

// Sutherland and Hodgman (1974) in homogeneous coordinates; polygon holds room for 3 + PLANES points.
inline int clip_polygon(Point *polygon, int count) {
    Point buffer[3 + PLANES];
    for (int plane = 0; plane < PLANES && count; plane++) {
        int kept = 0;
        for (int i = 0; i < count; i++) {
            const Point &a = polygon[i], &b = polygon[(i + 1) % count];
            double da = plane_distance(a, plane), db = plane_distance(b, plane);
            if (da >= 0) buffer[kept++] = a;
            if (da >= 0 && db < 0) buffer[kept++] = cut(a, b, da, db);
            if (da < 0 && db >= 0) buffer[kept++] = cut(b, a, db, da);
        }
        std::copy(buffer, buffer + kept, polygon);
        count = kept;
    }
    return count;
}

// First pixel centre at or right of a fixed-point coordinate, and last at or left of it; the shift rounds down.
inline int first_pixel(int32_t v) { return (v + SUBPIXEL / 2 - 1) >> SUBPIXEL_BITS; }
inline int last_pixel(int32_t v) { return (v - SUBPIXEL / 2) >> SUBPIXEL_BITS; }

inline void set_depth_plane(ScreenTriangle &t, const ScreenVertex *const *v, double area) {
    double x1 = t.x[1] - t.x[0], x2 = t.x[2] - t.x[0], y1 = t.y[1] - t.y[0], y2 = t.y[2] - t.y[0];
    double d1 = (double)v[1]->depth - v[0]->depth, d2 = (double)v[2]->depth - v[0]->depth;
    double scale = SUBPIXEL / area;
    t.depth = v[0]->depth;
    t.depth_x = (float)((d1 * y2 - d2 * y1) * scale);
    t.depth_y = (float)((d2 * x1 - d1 * x2) * scale);
    t.nearest = std::min({v[0]->depth, v[1]->depth, v[2]->depth});
    t.farthest = std::max({v[0]->depth, v[1]->depth, v[2]->depth});
}

inline void emit(const ScreenVertex &a, const ScreenVertex &b, const ScreenVertex &c, int face, int height, int width,
                 std::vector<ScreenTriangle> &out) {
    const int x0 = std::max(0, first_pixel(std::min({a.x, b.x, c.x})));
    const int x1 = std::min(width - 1, last_pixel(std::max({a.x, b.x, c.x})));
    const int y0 = std::max(0, first_pixel(std::min({a.y, b.y, c.y})));
    const int y1 = std::min(height - 1, last_pixel(std::max({a.y, b.y, c.y})));
    if (x0 > x1 || y0 > y1) return;
    int64_t area = int64_t(b.x - a.x) * (c.y - a.y) - int64_t(c.x - a.x) * (b.y - a.y);
    if (area == 0) return;
    ScreenTriangle t;
    const ScreenVertex *v[3] = {&a, area > 0 ? &b : &c, area > 0 ? &c : &b};
    for (int k = 0; k < 3; k++) t.x[k] = v[k]->x, t.y[k] = v[k]->y;
    t.face = face;
    t.x0 = (int16_t)x0, t.x1 = (int16_t)x1, t.y0 = (int16_t)y0, t.y1 = (int16_t)y1;
    set_depth_plane(t, v, (double)std::abs(area));
    out.push_back(t);
}

inline void emit_clipped(Point *polygon, int face, int height, int width, std::vector<ScreenTriangle> &out) {
    int count = clip_polygon(polygon, 3);
    ScreenVertex corners[3 + PLANES];
    for (int k = 0; k < count; k++) {
        Point p = polygon[k];
        p.w = std::max(p.w, MIN_W);  // rounding may leave a new vertex a hair outside
        p.x = std::clamp(p.x, -GUARD * p.w, GUARD * p.w), p.y = std::clamp(p.y, -GUARD * p.w, GUARD * p.w);
        p.z = std::clamp(p.z, -p.w, p.w);
        corners[k] = project(p, height, width);
        if (corners[k].outside) return;
    }
    for (int k = 2; k < count; k++) emit(corners[0], corners[k - 1], corners[k], face, height, width, out);
}

}  // namespace ap3d
