// Antialiasing of silhouettes by blending across them, which is what makes visibility differentiable: Laine et al.
// 2020, "Modular Primitives for High-Performance Differentiable Rendering", section 3.5. A pair of neighbouring pixels
// that show different triangles is blended by where a silhouette edge crosses between their centres. The paper looks
// at the edges of the nearer pixel's triangle; near an outline triangles are seen so obliquely that many never cover a
// centre, so here the search walks on from that triangle to its neighbours until it meets a silhouette edge.
#include <cstring>

#include "mesh.h"
#include "mesh_clip.h"

namespace {

using namespace ap3d;

constexpr int ROWS = 16;                // rows that one item of work looks through
constexpr int STEPS = 16;               // triangles that a walk goes through at most
constexpr double TOLERANCE = 1.0 / 64;  // pixels that a crossing may lie outside its pair, for rounded coverage

// Edges are named 3 * face + the corner opposite; beyond[edge] is the same edge in the next triangle, or -1.
struct Scene {
    const float *raster, *positions;  // of one image: [H, W, 4], [V, 4]
    const int *faces, *beyond;
    int face_count, height, width;
};

struct Crossing {  // an edge in homogeneous coordinates: along the pair from the front pixel's centre, across it, w
    double a0, b0, w0, a1, b1, w1;
    double line_a, line_b, line_c;
};

struct Blend {  // target += weight * (source - target)
    int target, source;
    float weight;
    int front, edge;  // the nearer pixel, and the silhouette edge
    int sign;
    bool vertical, fixed;  // fixed: moving the edge changes nothing
};

double determinant(const Point &a, const Point &b, const Point &c) {
    return a.x * (b.y * c.w - b.w * c.y) - a.y * (b.x * c.w - b.w * c.x) + a.w * (b.x * c.y - b.y * c.x);
}

// Bit k: edge k is a border, or the triangle beyond it lies on the same side of the plane through the eye and the edge.
uint8_t silhouette_edges(const Scene &s, int face) {
    const int *corner = s.faces + 3 * (size_t)face;
    Point p[3];
    for (int k = 0; k < 3; k++) p[k] = load_point(s.positions, corner[k]);
    double own = determinant(p[0], p[1], p[2]);
    uint8_t bits = 0;
    for (int k = 0; k < 3; k++) {
        int edge = s.beyond[3 * (size_t)face + k];
        if (edge < 0 ||
            determinant(load_point(s.positions, s.faces[edge]), p[(k + 1) % 3], p[(k + 2) % 3]) * own > 0)
            bits |= (uint8_t)(1 << k);
    }
    return bits;
}

struct Silhouette {
    std::vector<uint8_t> edges;     // by face
    std::vector<uint8_t> vertices;  // whether a silhouette edge ends there
};

void mark(uint8_t &flag) { __atomic_store_n(&flag, 1, __ATOMIC_RELAXED); }  // by several threads at once

void find_silhouette(Team &team, const Scene &s, Silhouette &out) {
    each_chunk(team, s.face_count, 1024, [&](size_t first, size_t last) {
        for (size_t f = first; f < last; f++) {
            out.edges[f] = silhouette_edges(s, (int)f);
            for (int k = 0; k < 3 && out.edges[f]; k++)
                if (out.edges[f] >> k & 1)
                    for (int end : {(k + 1) % 3, (k + 2) % 3}) mark(out.vertices[s.faces[3 * f + end]]);
        }
    });
}

// Whether two triangles lie side by side on a surface, away from any outline: the usual pair, told without a walk.
bool plainly_joined(const Scene &s, const Silhouette &silhouette, int a, int b) {
    const int *p = s.faces + 3 * (size_t)a, *q = s.faces + 3 * (size_t)b;
    if (silhouette.vertices[p[0]] | silhouette.vertices[p[1]] | silhouette.vertices[p[2]]) {
        for (int k = 0; k < 3; k++)  // at an outline the shared edge itself has to be plain
            if (int edge = s.beyond[3 * (size_t)a + k]; edge >= 0 && edge / 3 == b) return !(silhouette.edges[a] >> k & 1);
        return false;
    }
    for (int k = 0; k < 3; k++)
        if (p[k] == q[0] || p[k] == q[1] || p[k] == q[2]) return true;
    return false;
}

int end_of(const Scene &s, int edge, int which) { return s.faces[edge / 3 * 3 + (edge + which) % 3]; }

Crossing cross(const Scene &s, int front, int edge, int sign, bool vertical) {
    const double half_x = 0.5 * s.width, half_y = 0.5 * s.height;
    const double offset_x = half_x - (front % s.width + 0.5), offset_y = half_y - (front / s.width + 0.5);
    Crossing c;
    auto set = [&](int index, double &a, double &b, double &w) {
        Point p = load_point(s.positions, index);
        double x = p.x * half_x + p.w * offset_x, y = p.y * half_y + p.w * offset_y;
        a = sign * (vertical ? y : x), b = vertical ? x : y, w = p.w;
    };
    set(end_of(s, edge, 1), c.a0, c.b0, c.w0);
    set(end_of(s, edge, 2), c.a1, c.b1, c.w1);
    c.line_a = c.b0 * c.w1 - c.b1 * c.w0, c.line_b = c.w0 * c.a1 - c.a0 * c.w1, c.line_c = c.a0 * c.b1 - c.b0 * c.a1;
    return c;
}

// Whether the line through the two centres meets the edge before the eye, and how far from the front centre.
bool meets(const Crossing &c, double &distance) {
    if ((c.b0 >= 0) == (c.b1 >= 0)) return false;
    double t = c.b0 / (c.b0 - c.b1);
    if (!(c.w0 + t * (c.w1 - c.w0) > 0)) return false;
    distance = -c.line_c / c.line_a;
    return std::isfinite(distance);
}

// From the front triangle towards the other centre, edge by edge; the silhouette edge that ends the surface, or -1.
int walk(const Scene &s, const Silhouette &silhouette, int front, int face, int sign, bool vertical, double &distance) {
    int entry = -1;
    for (int step = 0; step < STEPS; step++) {
        int exit = -1;
        bool steep = false;
        for (int edge = 3 * face; edge < 3 * face + 3; edge++) {
            double d;
            if (edge == entry) continue;
            Crossing c = cross(s, front, edge, sign, vertical);
            if (!meets(c, d) || (exit >= 0 && d <= distance)) continue;
            exit = edge, distance = d;
            steep = vertical ? std::abs(c.line_a) > std::abs(c.line_b) : std::abs(c.line_a) >= std::abs(c.line_b);
        }
        if (exit < 0 || distance < -TOLERANCE || distance > 1 + TOLERANCE) return -1;
        if (silhouette.edges[face] >> (exit % 3) & 1) return steep ? exit : -1;  // an edge blends along one axis only
        entry = s.beyond[exit], face = entry / 3;
    }
    return -1;
}

void look(const Scene &s, const Silhouette &silhouette, int first, int second, bool vertical, int &status,
          std::vector<Blend> &out) {
    Hit a = read_hit(s.raster, first, s.face_count, status), b = read_hit(s.raster, second, s.face_count, status);
    if (a.face == b.face) return;
    bool ahead = b.face < 0 || (a.face >= 0 && a.depth <= b.depth);
    int front = ahead ? first : second, back = ahead ? second : first, sign = ahead ? 1 : -1;
    if (a.face >= 0 && b.face >= 0 && plainly_joined(s, silhouette, ahead ? a.face : b.face, ahead ? b.face : a.face))
        return;
    double d = 0;
    int edge = walk(s, silhouette, front, ahead ? a.face : b.face, sign, vertical, d);
    if (edge < 0) return;
    bool fixed = d < 0 || d > 1, inner = d < 0.5;
    float weight = (float)std::abs(std::clamp(d, 0.0, 1.0) - 0.5);
    out.push_back({inner ? front : back, inner ? back : front, weight, front, edge, sign, vertical, fixed});
}

using Bundles = std::vector<std::vector<Blend>>;  // by band of rows

Bundles find_blends(const Scene &s, int vertex_count, std::atomic<int> &status, int threads) {
    Silhouette silhouette{std::vector<uint8_t>(s.face_count), std::vector<uint8_t>(vertex_count, 0)};
    Bundles blends((s.height + ROWS - 1) / ROWS);
    auto face_at = [&](int pixel) { return s.raster[4 * (size_t)pixel + 3]; };
    auto search = [&](int band) {
        int found = MESH_OK;
        for (int y = band * ROWS; y < std::min(s.height, (band + 1) * ROWS); y++)
            for (int x = 0; x < s.width; x++) {
                const int i = y * s.width + x;
                const float id = face_at(i);
                if (x + 1 < s.width && id != face_at(i + 1)) look(s, silhouette, i, i + 1, false, found, blends[band]);
                if (y + 1 < s.height && id != face_at(i + s.width))
                    look(s, silhouette, i, i + s.width, true, found, blends[band]);
            }
        if (found) raise_status(status, found);
    };
    on_team(threads, [&](Team &team) {
        find_silhouette(team, s, silhouette);
        team.each((int)blends.size(), search);
    });
    return blends;
}

// Adds the gradient of a blend's weight to the two vertices of its edge.
void move_edge(const Scene &s, const Blend &blend, double gradient_weight, float *gradient) {
    Crossing c = cross(s, blend.front, blend.edge, blend.sign, blend.vertical);
    double gd = blend.target == blend.front ? -gradient_weight : gradient_weight;
    double ga = gd * c.line_c / (c.line_a * c.line_a), gc = -gd / c.line_a;
    auto give = [&](int end, double along, double across, double w) {
        double x = blend.vertical ? across : blend.sign * along, y = blend.vertical ? blend.sign * along : across;
        float *t = gradient + 4 * (size_t)end_of(s, blend.edge, end);
        const double half_x = 0.5 * s.width, half_y = 0.5 * s.height;
        t[0] += (float)(half_x * x), t[1] += (float)(half_y * y);
        t[3] += (float)(w + x * (half_x - (blend.front % s.width + 0.5)) + y * (half_y - (blend.front / s.width + 0.5)));
    };
    give(1, gc * c.b1, ga * c.w1 - gc * c.a1, -ga * c.b1);
    give(2, -gc * c.b0, gc * c.a0 - ga * c.w0, ga * c.b0);
}

void copy(const float *from, size_t count, float *to, int threads) {
    constexpr size_t CHUNK = 1 << 17;
    parallel_for((int)((count + CHUNK - 1) / CHUNK), threads, [&](int i) {
        std::memcpy(to + i * CHUNK, from + i * CHUNK, sizeof(float) * std::min(CHUNK, count - i * CHUNK));
    });
}

}  // namespace

extern "C" {

// beyond [face_count, 3]: for each edge, named 3 * face + the corner opposite, the name of the same edge in another
// triangle, or -1. Where more than two share an edge, each names the next one.
int ap3d_mesh_topology(const int *faces, int face_count, int vertices, int *beyond) {
    return answer([&] {
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
                for (auto e = group; e != end; ++e) beyond[*e] = alone ? -1 : e + 1 == end ? *group : e[1];
                group = end;
            }
        }
    });
}

// color and out [batch, height, width, channels]; positions [batch, vertices, 4] clip space.
int ap3d_mesh_antialias(const float *color, const float *raster, const float *positions, const int *faces,
                        const int *beyond, int batch, int vertices, int face_count, int height, int width,
                        int channels, float *out, int threads) {
    return answer([&] {
        const size_t pixels = (size_t)height * width;
        std::atomic<int> status{MESH_OK};
        copy(color, batch * pixels * channels, out, threads);
        for (int b = 0; b < batch; b++) {
            Scene s{raster + 4 * b * pixels, positions + 4 * (size_t)b * vertices, faces, beyond, face_count, height, width};
            const float *own = color + b * pixels * channels;
            float *image = out + b * pixels * channels;
            for (const auto &band : find_blends(s, vertices, status, threads))
                for (const Blend &blend : band) {
                    const float *from = own + (size_t)blend.source * channels, *at = own + (size_t)blend.target * channels;
                    float *target = image + (size_t)blend.target * channels;
                    for (int c = 0; c < channels; c++) target[c] += blend.weight * (from[c] - at[c]);
                }
        }
        return status.load();
    });
}

// Gradients to the colours (written whole) and to the positions (zeroed by the caller).
int ap3d_mesh_antialias_backward(const float *gradient_out, const float *color, const float *raster,
                                 const float *positions, const int *faces, const int *beyond, int batch,
                                 int vertices, int face_count, int height, int width, int channels, float boost,
                                 float *gradient_color, float *gradient_positions, int threads) {
    return answer([&] {
        const size_t pixels = (size_t)height * width;
        std::atomic<int> ignored{MESH_OK};
        copy(gradient_out, batch * pixels * channels, gradient_color, threads);
        for (int b = 0; b < batch; b++) {
            Scene s{raster + 4 * b * pixels, positions + 4 * (size_t)b * vertices, faces, beyond, face_count, height, width};
            const size_t base = b * pixels;
            for (const auto &band : find_blends(s, vertices, ignored, threads))
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
    });
}

}  // extern "C"
