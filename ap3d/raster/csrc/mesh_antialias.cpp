// Antialiasing of silhouettes by blending across them, which is what makes visibility differentiable: Laine et al.
// 2020, "Modular Primitives for High-Performance Differentiable Rendering", section 3.5. A pair of neighbouring pixels
// that show different triangles is blended by where a silhouette edge of the nearer one crosses between their centres.
#include <cstring>

#include "mesh.h"
#include "mesh_clip.h"

namespace {

using namespace ap3d;

constexpr int ROWS = 16;                // rows that one item of work looks through
constexpr double TOLERANCE = 1.0 / 64;  // pixels that a crossing may lie outside its pair, for rounded coverage

struct Scene {
    const float *raster, *positions;  // of one image: [H, W, 4], [V, 4]
    const int *faces, *opposite;
    int face_count, height, width;
};

struct Crossing {  // an edge in homogeneous coordinates: along the pair from the front pixel's centre, across it, w
    double a0, b0, w0, a1, b1, w1;
    double line_a, line_b, line_c;
};

struct Blend {  // target += weight * (source - target)
    int target, source;
    float weight;
    int front, face;  // the nearer pixel, and its triangle
    int8_t edge, sign;
    bool vertical, fixed;  // fixed: moving the edge changes nothing
};

double determinant(const Point &a, const Point &b, const Point &c) {
    return a.x * (b.y * c.w - b.w * c.y) - a.y * (b.x * c.w - b.w * c.x) + a.w * (b.x * c.y - b.y * c.x);
}

// Bit k: edge k (opposite corner k) is a border, or the triangle beyond it lies on the same side of the plane through
// the eye and the edge.
uint8_t silhouette_edges(const Scene &s, int face) {
    const int *corner = s.faces + 3 * (size_t)face;
    Point p[3];
    for (int k = 0; k < 3; k++) p[k] = load_point(s.positions, corner[k]);
    double own = determinant(p[0], p[1], p[2]);
    uint8_t bits = 0;
    for (int k = 0; k < 3; k++) {
        int beyond = s.opposite[3 * (size_t)face + k];
        if (beyond < 0 || determinant(load_point(s.positions, beyond), p[(k + 1) % 3], p[(k + 2) % 3]) * own > 0)
            bits |= (uint8_t)(1 << k);
    }
    return bits;
}

Crossing cross(const Scene &s, int front, int face, int edge, int sign, bool vertical) {
    const double half_x = 0.5 * s.width, half_y = 0.5 * s.height;
    const double offset_x = half_x - (front % s.width + 0.5), offset_y = half_y - (front / s.width + 0.5);
    Crossing c;
    auto set = [&](int index, double &a, double &b, double &w) {
        Point p = load_point(s.positions, index);
        double x = p.x * half_x + p.w * offset_x, y = p.y * half_y + p.w * offset_y;
        a = sign * (vertical ? y : x), b = vertical ? x : y, w = p.w;
    };
    set(s.faces[3 * (size_t)face + (edge + 1) % 3], c.a0, c.b0, c.w0);
    set(s.faces[3 * (size_t)face + (edge + 2) % 3], c.a1, c.b1, c.w1);
    c.line_a = c.b0 * c.w1 - c.b1 * c.w0, c.line_b = c.w0 * c.a1 - c.a0 * c.w1, c.line_c = c.a0 * c.b1 - c.b0 * c.a1;
    return c;
}

// Whether the edge passes between the two centres, and how far from the front one.
bool crosses(const Crossing &c, bool vertical, double &distance) {
    if ((c.b0 >= 0) == (c.b1 >= 0)) return false;
    double t = c.b0 / (c.b0 - c.b1);
    if (!(c.w0 + t * (c.w1 - c.w0) > 0)) return false;
    double steep = std::abs(c.line_a), flat = std::abs(c.line_b);
    if (vertical ? steep <= flat : steep < flat) return false;  // each edge blends along one axis only
    distance = -c.line_c / c.line_a;
    return distance >= -TOLERANCE && distance <= 1 + TOLERANCE;
}

void look(const Scene &s, const uint8_t *silhouette, int first, int second, bool vertical, int &status,
          std::vector<Blend> &out) {
    Hit a = read_hit(s.raster, first, s.face_count, status), b = read_hit(s.raster, second, s.face_count, status);
    if (a.face == b.face) return;
    bool ahead = b.face < 0 || (a.face >= 0 && a.depth <= b.depth);
    int front = ahead ? first : second, back = ahead ? second : first, face = ahead ? a.face : b.face;
    for (int edge = 0; edge < 3; edge++) {
        if (!(silhouette[face] >> edge & 1)) continue;
        int8_t sign = ahead ? 1 : -1;
        double d;
        if (!crosses(cross(s, front, face, edge, sign, vertical), vertical, d)) continue;
        bool fixed = d < 0 || d > 1;
        d = std::clamp(d, 0.0, 1.0);
        bool inner = d < 0.5;
        out.push_back({inner ? front : back, inner ? back : front, (float)std::abs(d - 0.5), front, face, (int8_t)edge,
                       sign, vertical, fixed});
        return;
    }
}

std::vector<std::vector<Blend>> find_blends(const Scene &s, std::atomic<int> &status, int threads) {
    std::vector<uint8_t> silhouette(s.face_count);
    parallel_chunks(s.face_count, 4096, threads, [&](size_t first, size_t last) {
        for (size_t f = first; f < last; f++) silhouette[f] = silhouette_edges(s, (int)f);
    });
    std::vector<std::vector<Blend>> blends((s.height + ROWS - 1) / ROWS);
    parallel_for((int)blends.size(), threads, [&](int band) {
        int found = MESH_OK;
        auto face_at = [&](int pixel) { return s.raster[4 * (size_t)pixel + 3]; };
        for (int y = band * ROWS; y < std::min(s.height, (band + 1) * ROWS); y++)
            for (int x = 0; x < s.width; x++) {
                int i = y * s.width + x;
                float id = face_at(i);
                if (x + 1 < s.width && id != face_at(i + 1)) look(s, silhouette.data(), i, i + 1, false, found, blends[band]);
                if (y + 1 < s.height && id != face_at(i + s.width))
                    look(s, silhouette.data(), i, i + s.width, true, found, blends[band]);
            }
        if (found) raise_status(status, found);
    });
    return blends;
}

// Adds the gradient of a blend's weight to the two vertices of its edge.
void move_edge(const Scene &s, const Blend &blend, double gradient_weight, float *gradient) {
    Crossing c = cross(s, blend.front, blend.face, blend.edge, blend.sign, blend.vertical);
    double gd = blend.target == blend.front ? -gradient_weight : gradient_weight;
    double ga = gd * c.line_c / (c.line_a * c.line_a), gc = -gd / c.line_a;
    auto give = [&](int corner, double along, double across, double w) {
        double x = blend.vertical ? across : blend.sign * along, y = blend.vertical ? blend.sign * along : across;
        float *t = gradient + 4 * (size_t)s.faces[3 * (size_t)blend.face + (blend.edge + corner) % 3];
        const double half_x = 0.5 * s.width, half_y = 0.5 * s.height;
        t[0] += (float)(half_x * x), t[1] += (float)(half_y * y);
        t[3] += (float)(w + x * (half_x - (blend.front % s.width + 0.5)) + y * (half_y - (blend.front / s.width + 0.5)));
    };
    give(1, gc * c.b1, ga * c.w1 - gc * c.a1, -ga * c.b1);
    give(2, -gc * c.b0, gc * c.a0 - ga * c.w0, ga * c.b0);
}

void copy(const float *from, size_t count, float *to, int threads) {
    parallel_chunks(count, 1 << 18, threads, [&](size_t first, size_t last) {
        std::memcpy(to + first, from + first, sizeof(float) * (last - first));
    });
}

}  // namespace

extern "C" {

// opposite [face_count, 3]: for each corner of a triangle, the third vertex of the triangle that shares the edge
// opposite that corner, or -1. Where more than two share an edge, each names the next one.
void ap3d_mesh_topology(const int *faces, int face_count, int vertices, int *opposite) {
    std::vector<int> start(vertices + 1, 0), edges(3 * (size_t)face_count);
    auto ends = [&](int e, int &low, int &high) {
        const int *face = faces + e / 3 * 3;
        low = face[(e + 1) % 3], high = face[(e + 2) % 3];
        if (low > high) std::swap(low, high);
    };
    int low, high, other_low, other_high;
    for (int e = 0; e < 3 * face_count; e++) ends(e, low, high), start[low]++;
    for (int v = 0, sum = 0; v <= vertices; v++) sum += start[v], start[v] = sum;
    for (int e = 3 * face_count - 1; e >= 0; e--) ends(e, low, high), edges[--start[low]] = e;
    for (int v = 0; v < vertices; v++) {
        auto first = edges.begin() + start[v], last = edges.begin() + start[v + 1];
        std::stable_sort(first, last, [&](int a, int b) {
            ends(a, low, high), ends(b, other_low, other_high);
            return high < other_high;
        });
        for (auto group = first; group != last;) {
            ends(*group, low, high);
            auto end = group;
            for (; end != last; ++end)
                if (ends(*end, other_low, other_high), other_high != high) break;
            bool alone = end - group == 1 || low == high;
            for (auto e = group; e != end; ++e) opposite[*e] = alone ? -1 : faces[e + 1 == end ? *group : e[1]];
            group = end;
        }
    }
}

// color and out [batch, height, width, channels]; positions [batch, vertices, 4] clip space.
int ap3d_mesh_antialias(const float *color, const float *raster, const float *positions, const int *faces,
                        const int *opposite, int batch, int vertices, int face_count, int height, int width,
                        int channels, float *out, int threads) {
    const size_t pixels = (size_t)height * width;
    std::atomic<int> status{MESH_OK};
    copy(color, batch * pixels * channels, out, threads);
    for (int b = 0; b < batch; b++) {
        Scene s{raster + 4 * b * pixels, positions + 4 * (size_t)b * vertices, faces, opposite, face_count, height, width};
        const float *own = color + b * pixels * channels;
        float *image = out + b * pixels * channels;
        for (const auto &band : find_blends(s, status, threads))
            for (const Blend &blend : band) {
                const float *from = own + (size_t)blend.source * channels, *at = own + (size_t)blend.target * channels;
                float *target = image + (size_t)blend.target * channels;
                for (int c = 0; c < channels; c++) target[c] += blend.weight * (from[c] - at[c]);
            }
    }
    return status;
}

// Gradients to the colours (written whole) and to the positions (zeroed by the caller).
void ap3d_mesh_antialias_backward(const float *gradient_out, const float *color, const float *raster,
                                  const float *positions, const int *faces, const int *opposite, int batch,
                                  int vertices, int face_count, int height, int width, int channels, float boost,
                                  float *gradient_color, float *gradient_positions, int threads) {
    const size_t pixels = (size_t)height * width;
    std::atomic<int> ignored{MESH_OK};
    copy(gradient_out, batch * pixels * channels, gradient_color, threads);
    for (int b = 0; b < batch; b++) {
        Scene s{raster + 4 * b * pixels, positions + 4 * (size_t)b * vertices, faces, opposite, face_count, height, width};
        const size_t base = b * pixels;
        for (const auto &band : find_blends(s, ignored, threads))
            for (const Blend &blend : band) {
                const size_t target = (base + blend.target) * channels, source = (base + blend.source) * channels;
                double to_weight = 0;
                for (int c = 0; c < channels; c++) {
                    float g = gradient_out[target + c];
                    gradient_color[source + c] += blend.weight * g;
                    gradient_color[target + c] -= blend.weight * g;
                    to_weight += (double)g * (color[source + c] - color[target + c]);
                }
                if (!blend.fixed && to_weight != 0)
                    move_edge(s, blend, boost * to_weight, gradient_positions + 4 * (size_t)b * vertices);
            }
    }
}

}  // extern "C"
