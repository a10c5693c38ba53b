// Triangle rasterisation with nvdiffrast's conventions (Laine et al. 2020, "Modular Primitives for High-Performance
// Differentiable Rendering"). Coverage is decided in fixed point with a half-open rule, so triangles that share an
// edge never leave a gap and never both own a pixel. Tiles keep depth and triangle; barycentrics are worked out
// afterwards, once for each visible pixel, from the unclipped triangle in homogeneous coordinates.
#include <cstring>
#include <limits>
#include <mutex>

#include "mesh.h"
#include "mesh_clip.h"

namespace {

using namespace ap3d;

constexpr int TILE = 32, LANES = 8, STRIDE = TILE + LANES;  // blocks of lanes may run over a tile's right side

struct Batch {  // faces of one image in fixed chunks; each keeps its triangles and their list by tile
    static constexpr int MOST_CHUNKS = 64;
    struct Chunk {
        std::vector<ScreenTriangle> triangles;
        std::vector<int> offsets, items;
    };
    std::vector<ScreenVertex> vertices;
    std::vector<Chunk> chunks;
};

struct Frame {
    int height, width, columns, rows;
    Frame(int h, int w) : height(h), width(w), columns((w + TILE - 1) / TILE), rows((h + TILE - 1) / TILE) {}
    int tiles() const { return columns * rows; }
};

void set_up(const float *positions, const std::vector<ScreenVertex> &vertices, const int *faces, int first, int last,
            const Frame &frame, std::vector<ScreenTriangle> &out) {
    for (int f = first; f < last; f++) {
        const int *face = faces + 3 * (size_t)f;
        const ScreenVertex &a = vertices[face[0]], &b = vertices[face[1]], &c = vertices[face[2]];
        if (a.outside & b.outside & c.outside) continue;
        if (!(a.outside | b.outside | c.outside)) {
            emit(a, b, c, f, frame.height, frame.width, out);
            continue;
        }
        Point polygon[3 + PLANES];
        for (int k = 0; k < 3; k++) polygon[k] = load_point(positions, face[k]);
        emit_clipped(polygon, f, frame.height, frame.width, out);
    }
}

void bin(Batch::Chunk &chunk, const Frame &frame) {
    chunk.offsets.assign(frame.tiles() + 1, 0);
    auto each_tile = [&](const ScreenTriangle &t, auto visit) {
        for (int y = t.y0 / TILE; y <= t.y1 / TILE; y++)
            for (int x = t.x0 / TILE; x <= t.x1 / TILE; x++) visit(y * frame.columns + x);
    };
    for (const auto &t : chunk.triangles) each_tile(t, [&](int tile) { chunk.offsets[tile]++; });
    int sum = 0;
    for (int &offset : chunk.offsets) sum += offset, offset = sum;  // ends; filling from behind makes them starts
    chunk.items.resize(sum);
    for (int i = (int)chunk.triangles.size() - 1; i >= 0; i--)
        each_tile(chunk.triangles[i], [&](int tile) { chunk.items[--chunk.offsets[tile]] = i; });
}

struct alignas(64) TileBuffer {
    float depth[TILE * STRIDE];
    int32_t face[TILE * STRIDE];
};

template <class Int>
struct Lanes {
    typedef Int Vector __attribute__((vector_size(LANES * sizeof(Int)), aligned(4), may_alias));
};
typedef float Floats __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

struct Edges {  // edge functions over the pixel step: floor(e / SUBPIXEL) keeps the sign, and pixel steps stay exact
    int64_t start[3];
    int32_t step_x[3], step_y[3];
    bool small;  // 32 bits hold every value in a tile
};

INLINE bool set_edges(const ScreenTriangle &t, int x0, int y0, int columns, int rows, Edges &e) {
    constexpr int32_t LIMIT = 1 << 23;
    e.small = true;
    for (int k = 0; k < 3; k++) {
        int n = k == 2 ? 0 : k + 1;
        int32_t dx = t.x[n] - t.x[k], dy = t.y[n] - t.y[k];
        bool owned = dy < 0 || (dy == 0 && dx > 0);  // left edges and top edges belong to the triangle
        int64_t cx = int64_t(x0) * SUBPIXEL + SUBPIXEL / 2, cy = int64_t(y0) * SUBPIXEL + SUBPIXEL / 2;
        e.start[k] = (dx * (cy - t.y[k]) - dy * (cx - t.x[k]) - (owned ? 0 : 1)) >> SUBPIXEL_BITS;
        e.step_x[k] = -dy, e.step_y[k] = dx;
        if (e.start[k] + int64_t(columns) * std::max(-dy, 0) + int64_t(rows) * std::max(dx, 0) < 0) return false;
        e.small &= dx > -LIMIT && dx < LIMIT && dy > -LIMIT && dy < LIMIT;
    }
    return true;
}

template <class Int>
INLINE void fill(const ScreenTriangle &t, const Edges &e, int x0, int x1, int y0, int y1, int left, int top,
                 TileBuffer &tile) {
    typedef typename Lanes<Int>::Vector Vector;
    const Vector iota = {0, 1, 2, 3, 4, 5, 6, 7};
    const Floats ramp = {0, 1, 2, 3, 4, 5, 6, 7};
    constexpr int64_t BOUND = 1 << 30;  // more than an edge function changes within a tile when 32 bits are enough
    Vector rows[3], step_x[3];
    for (int k = 0; k < 3; k++) {
        Int start = sizeof(Int) == 4 ? (Int)std::clamp(e.start[k], -BOUND, BOUND) : (Int)e.start[k];
        rows[k] = start + iota * e.step_x[k], step_x[k] = (Vector{} + e.step_x[k]) * LANES;
    }
    const float from_x = (float)(x0 + 0.5 - t.x[0] * (1.0 / SUBPIXEL));
    const float from_y = (float)(y0 + 0.5 - t.y[0] * (1.0 / SUBPIXEL));
    const Floats nearest = Floats{} + t.nearest, farthest = Floats{} + t.farthest;
    const Ints face = Ints{} + t.face;
    for (int y = y0; y <= y1; y++) {
        Vector e0 = rows[0], e1 = rows[1], e2 = rows[2];
        Floats depth = t.depth + t.depth_y * (from_y + (y - y0)) + t.depth_x * (from_x + ramp);
        int at = (y - top) * STRIDE + x0 - left;
        for (int x = x0; x <= x1; x += LANES, at += LANES) {
            Floats *depths = (Floats *)(tile.depth + at);
            Ints *ids = (Ints *)(tile.face + at);
            Floats bounded = depth < nearest ? nearest : depth;
            bounded = bounded > farthest ? farthest : bounded;
            Ints wins = __builtin_convertvector((e0 | e1 | e2) >= 0, Ints) & (Ints)(bounded < *depths);
            *depths = wins ? bounded : *depths;
            *ids = wins ? face : *ids;
            e0 += step_x[0], e1 += step_x[1], e2 += step_x[2];
            depth += t.depth_x * LANES;
        }
        for (int k = 0; k < 3; k++) rows[k] += e.step_y[k];
    }
}

// Planes over a triangle in normalised device coordinates, each c[0] + x c[1] + y c[2]: edge functions, whose sum
// divides them to barycentrics, and z/w, which is linear on the screen.
struct Shader {
    double edge[3][3], depth[3];
    float id;

    void set(const float *positions, const int *face, int index) {
        Point p[3];
        for (int k = 0; k < 3; k++) p[k] = load_point(positions, face[k]);
        for (int k = 0; k < 3; k++) {
            const Point &a = p[k == 2 ? 0 : k + 1], &b = p[k == 0 ? 2 : k - 1];
            edge[k][0] = a.x * b.y - a.y * b.x, edge[k][1] = a.y * b.w - a.w * b.y, edge[k][2] = a.w * b.x - a.x * b.w;
        }
        double inverse = 1 / (edge[0][0] * p[0].w + edge[1][0] * p[1].w + edge[2][0] * p[2].w);
        for (int k = 0; k < 3; k++)
            depth[k] = (edge[0][k] * p[0].z + edge[1][k] * p[1].z + edge[2][k] * p[2].z) * inverse;
        id = (float)(index + 1);
    }

    INLINE void shade(double x, double y, float *out) const {
        double a[3];
        for (int k = 0; k < 3; k++) a[k] = edge[k][0] + x * edge[k][1] + y * edge[k][2];
        double inverse = 1 / (a[0] + a[1] + a[2]), z = depth[0] + x * depth[1] + y * depth[2];
        double u = a[0] * inverse, v = a[1] * inverse;
        if (!std::isfinite(inverse + z)) u = v = 1.0 / 3, z = 0;  // seen exactly edge on
        u = u > 0 ? u : 0, u = u < 1 ? u : 1;
        v = v > 0 ? v : 0, v = v < 1 - u ? v : 1 - u;
        z = z > -1 ? z : -1, z = z < 1 ? z : 1;
        out[0] = (float)u, out[1] = (float)v, out[2] = (float)z, out[3] = id;
    }
};

struct Image {
    const float *positions;  // [V, 4]
    const int *faces;
    const Batch &batch;
    Frame frame;
    float *out;  // [H, W, 4]
};

INLINE void shade_tile(const Image &image, const TileBuffer &tile, int left, int top, int right, int bottom) {
    Shader shader{};
    int current = -1;
    const double scale_x = 1.0 / image.frame.width;
    for (int y = top; y < bottom; y++) {
        const double ndc_y = (2 * y + 1.0) / image.frame.height - 1;
        float *pixel = image.out + 4 * ((size_t)y * image.frame.width + left);
        const int32_t *ids = tile.face + (y - top) * STRIDE;
        for (int x = left; x < right; x++, pixel += 4) {
            int face = *ids++;
            if (face < 0) {
                std::memset(pixel, 0, 4 * sizeof(float));
                continue;
            }
            if (face != current) shader.set(image.positions, image.faces + 3 * (size_t)face, current = face);
            shader.shade((2 * x + 1) * scale_x - 1, ndc_y, pixel);
        }
    }
}

INLINE void draw_tile(const Image &image, int index) {
    const Frame &frame = image.frame;
    const int left = index % frame.columns * TILE, top = index / frame.columns * TILE;
    const int right = std::min(left + TILE, frame.width), bottom = std::min(top + TILE, frame.height);
    TileBuffer tile;
    for (float &d : tile.depth) d = std::numeric_limits<float>::infinity();
    for (int32_t &f : tile.face) f = -1;
    for (const auto &chunk : image.batch.chunks)
        for (int i = chunk.offsets[index]; i < chunk.offsets[index + 1]; i++) {
            const ScreenTriangle &t = chunk.triangles[chunk.items[i]];
            int x0 = std::max<int>(t.x0, left), x1 = std::min<int>(t.x1, right - 1);
            int y0 = std::max<int>(t.y0, top), y1 = std::min<int>(t.y1, bottom - 1);
            Edges edges;
            if (!set_edges(t, x0, y0, x1 - x0, y1 - y0, edges)) continue;
            if (edges.small)
                fill<int32_t>(t, edges, x0, x1, y0, y1, left, top, tile);
            else
                fill<int64_t>(t, edges, x0, x1, y0, y1, left, top, tile);
        }
    shade_tile(image, tile, left, top, right, bottom);
}

// The same source for two instruction sets; without fused multiply-add, so that their results are bitwise equal.
std::atomic<bool> vectors_allowed{true};
void draw_tile_base(const Image &image, int index) { draw_tile(image, index); }
#if defined(__x86_64__) && defined(__GNUC__)
__attribute__((target("avx2"))) void draw_tile_avx2(const Image &image, int index) { draw_tile(image, index); }
bool has_vectors() { return vectors_allowed && __builtin_cpu_supports("avx2"); }
auto best_draw_tile() { return has_vectors() ? draw_tile_avx2 : draw_tile_base; }
#else
bool has_vectors() { return false; }
auto best_draw_tile() { return draw_tile_base; }
#endif

int chunk_size(int face_count) {
    return std::max(2048, (face_count + Batch::MOST_CHUNKS - 1) / Batch::MOST_CHUNKS);
}

void prepare(Team &team, Batch &batch, const float *positions, const int *faces, int face_count, const Frame &frame) {
    each_chunk(team, batch.vertices.size(), 2048, [&](size_t first, size_t last) {
        for (size_t i = first; i < last; i++)
            batch.vertices[i] = project(load_point(positions, (int)i), frame.height, frame.width);
    });
    team.each((int)batch.chunks.size(), [&](int c) {
        auto &own = batch.chunks[c];
        int first = c * chunk_size(face_count), last = std::min(face_count, first + chunk_size(face_count));
        own.triangles.clear();
        own.triangles.reserve(last - first);
        set_up(positions, batch.vertices, faces, first, last, frame, own.triangles);
        bin(own, frame);
    });
}

// Working memory that stays for the next call: fresh pages would cost as much as the work itself.
class Spare {
  public:
    std::unique_ptr<Batch> take() {
        std::lock_guard<std::mutex> lock(mutex_);
        auto batch = std::move(kept_);
        return batch ? std::move(batch) : std::make_unique<Batch>();
    }
    void give(std::unique_ptr<Batch> batch, int faces) {
        if (faces > LARGEST) return;
        std::lock_guard<std::mutex> lock(mutex_);
        kept_ = std::move(batch);
    }

  private:
    static constexpr int LARGEST = 1 << 18;  // faces whose memory, about 25 MB, may stay
    std::mutex mutex_;
    std::unique_ptr<Batch> kept_;
};

Spare &spare() {
    static Spare *one = new Spare;  // never destroyed: threads may outlive the end of main
    return *one;
}

struct PositionGradient {
    const float *gradient_out, *raster, *positions;  // of one image
    const int *faces;
    int face_count, height, width;
    float *out;

    // What a pixel's u and v give to the corners of its triangle that lie in [low, high).
    void add(int i, int low, int high) const {
        const float *g = gradient_out + 4 * (size_t)i;
        if (g[0] == 0 && g[1] == 0) return;
        int ignored = 0;
        const Hit hit = read_hit(raster, i, face_count, ignored);
        if (hit.face < 0) return;
        const double X = (2 * (i % width) + 1.0) / width - 1, Y = (2 * (i / width) + 1.0) / height - 1;
        const int *face = faces + 3 * (size_t)hit.face;
        double px[3], py[3];
        for (int k = 0; k < 3; k++) {
            const Point p = load_point(positions, face[k]);
            px[k] = p.x - X * p.w, py[k] = p.y - Y * p.w;
        }
        const double a0 = px[1] * py[2] - py[1] * px[2], a1 = px[2] * py[0] - py[2] * px[0];
        const double sum = a0 + a1 + (px[0] * py[1] - py[0] * px[1]);
        if (sum == 0) return;
        const double common = g[0] * hit.u + g[1] * hit.v;
        const double ga[3] = {(g[0] - common) / sum, (g[1] - common) / sum, -common / sum};
        for (int k = 0; k < 3; k++) {
            if (face[k] < low || face[k] >= high) continue;
            const int n = k == 2 ? 0 : k + 1, m = k == 0 ? 2 : k - 1;  // p_k stands in a_m = p_k x p_n, a_n = p_m x p_k
            const double gx = ga[m] * py[n] - ga[n] * py[m], gy = ga[n] * px[m] - ga[m] * px[n];
            float *t = out + 4 * (size_t)face[k];
            t[0] += (float)gx, t[1] += (float)gy, t[3] -= (float)(X * gx + Y * gy);
        }
    }
};

}  // namespace

extern "C" {

// Holds the kernel to portable code (0) or lets it use AVX2 (1); returns what it takes from now on.
int ap3d_mesh_limit(int level) {
    vectors_allowed = level > 0;
    return has_vectors();
}

// positions [batch, vertices, 4] clip space; faces [face_count, 3]; out [batch, height, width, 4], written whole.
int ap3d_mesh_rasterize(const float *positions, const int *faces, int batch, int vertices, int face_count, int height,
                        int width, float *out, int threads) {
    return answer([&] {
        const Frame frame(height, width);
        const auto draw = best_draw_tile();
        auto prepared = spare().take();
        prepared->vertices.resize(vertices);
        prepared->chunks.resize((face_count + chunk_size(face_count) - 1) / chunk_size(face_count));
        on_team(threads, [&](Team &team) {
            for (int b = 0; b < batch; b++) {
                const float *base = positions + 4 * (size_t)b * vertices;
                prepare(team, *prepared, base, faces, face_count, frame);
                Image image{base, faces, *prepared, frame, out + 4 * (size_t)b * height * width};
                each_chunk(team, frame.tiles(), 1, [&](size_t first, size_t last) {
                    for (size_t tile = first; tile < last; tile++) draw(image, (int)tile);
                });
            }
        });
        spare().give(std::move(prepared), std::max(face_count, vertices));
    });
}

// Gradient of u and v (the first two of gradient_out's four channels) to positions [batch, vertices, 4], which the
// caller has zeroed. z/w passes none, as in nvdiffrast.
int ap3d_mesh_rasterize_backward(const float *gradient_out, const float *raster, const float *positions,
                                const int *faces, int batch, int vertices, int face_count, int height, int width,
                                float *gradient, int threads) {
    return answer([&] {
        CornerBands corners(vertices, face_count, height * width, threads);
        on_team(threads, [&](Team &team) {
            corners.prepare(team, faces, face_count);
            for (int b = 0; b < batch; b++) {
                const size_t first = 4 * (size_t)b * height * width;
                PositionGradient give{gradient_out + first, raster + first, positions + 4 * (size_t)b * vertices,
                                      faces, face_count, height, width, gradient + 4 * (size_t)b * vertices};
                scatter_in_order(
                    team, corners.bands, height * width, corners.seen.get(),
                    [&](int i) { return corners.of(raster + first, i, face_count); },
                    [&](int i, int low, int high) { give.add(i, low, high); });
            }
        });
    });
}

}  // extern "C"
