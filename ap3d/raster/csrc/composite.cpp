// Projected splats to images and back: the loop over tiles, and the reduction of gradients in an order that no number
// of threads changes.
#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <vector>

#include "bins.h"
#include "buffer.h"
#include "parallel.h"
#include "splats.h"

namespace {

constexpr int CHUNK = 512;

struct Composite {  // what the backward pass needs
    ap3d_rule rule;
    Kernels kernels;
    int batch, count, width, height, columns, tiles;
    std::vector<Bins> bins;
    Buffer<float> transmittance;  // of each tile, in the order of its blocks
    Buffer<int32_t> last;
    Buffer<Moments> moments;
    std::mutex backward;  // two threads may go back through one picture

    size_t bytes() const {
        size_t sum = transmittance.bytes() + last.bytes() + moments.bytes();
        for (const Bins &b : bins) sum += b.bytes();
        return sum;
    }
};

// Buffers of finished calls, for the next one: memory fresh from the system costs more to touch than to compute.
struct Shelf {
    static constexpr size_t ROOM = 4, LARGEST = 256 << 20;
    std::mutex mutex;
    std::vector<std::unique_ptr<Composite>> free;

    Shelf() { free.reserve(ROOM); }
    std::unique_ptr<Composite> take() {
        std::lock_guard<std::mutex> lock(mutex);
        if (free.empty()) return std::make_unique<Composite>();
        auto c = std::move(free.back());
        free.pop_back();
        return c;
    }
    void give(std::unique_ptr<Composite> c) {
        std::lock_guard<std::mutex> lock(mutex);
        if (free.size() < ROOM && c->bytes() <= LARGEST) free.push_back(std::move(c));
    }
} SHELF;

// A tile's pixels row by row: visit(first pixel in block order, first pixel in the image, how many).
template <class Visit>
void each_run(const Composite &c, int tile, Visit visit) {
    const int left = tile % c.columns * AP3D_TILE, top = tile / c.columns * AP3D_TILE;
    const int rows = std::min(AP3D_TILE, c.height - top), width = std::min(AP3D_TILE, c.width - left);
    for (int y = 0; y < rows; y++)
        for (int x = 0; x < width; x += 4) {
            const int block = y / c.kernels.block_rows * 4 + x / 4;
            visit(block * 4 * c.kernels.block_rows + y % c.kernels.block_rows * 4, (size_t)(top + y) * c.width + left + x,
                  std::min(4, width - x));
        }
}

inline void copy(float *to, const float *from, int n) {
    if (n == 4) std::memcpy(to, from, 16);
    else for (int i = 0; i < n; i++) to[i] = from[i];
}

void draw_tile(Composite &c, const ap3d_splat *splats, int b, int tile, float *color, float *alpha, float *depth) {
    const size_t pixels = (size_t)c.width * c.height, kept = ((size_t)b * c.tiles + tile) * AP3D_TILE_PIXELS;
    const Bins &bins = c.bins[b];
    const int first = bins.offsets[tile], count = bins.offsets[tile + 1] - first;
    float *colors = color + 3 * b * pixels, *alphas = alpha + b * pixels, *depths = depth + b * pixels;
    if (!count) {
        each_run(c, tile, [&](int, size_t pixel, int n) {
            for (int k = 0; k < 3; k++) std::fill_n(colors + k * pixels + pixel, n, 0.f);
            std::fill_n(alphas + pixel, n, 0.f), std::fill_n(depths + pixel, n, 0.f);
        });
        return;
    }
    TileForward state;
    std::memset(&state, 0, sizeof state);
    for (int p = 0; p < AP3D_TILE_PIXELS; p++) state.transmittance[p] = state.live[p] = 1;
    c.kernels.draw(splats + (size_t)b * c.count, bins.items.data() + first, count, tile % c.columns * AP3D_TILE,
                        tile / c.columns * AP3D_TILE, &c.rule, &state);
    std::memcpy(c.transmittance.data() + kept, state.transmittance, sizeof state.transmittance);
    std::memcpy(c.last.data() + kept, state.last, sizeof state.last);
    for (float &t : state.transmittance) t = 1 - t;
    each_run(c, tile, [&](int p, size_t pixel, int n) {
        for (int k = 0; k < 3; k++) copy(colors + k * pixels + pixel, state.feature[k] + p, n);
        copy(depths + pixel, state.feature[3] + p, n), copy(alphas + pixel, state.transmittance + p, n);
    });
}

void draw_tile_backward(const Composite &c, const ap3d_splat *splats, int b, int tile, const float *color,
                        const float *alpha, const float *depth, Moments *moments) {
    const size_t pixels = (size_t)c.width * c.height, kept = ((size_t)b * c.tiles + tile) * AP3D_TILE_PIXELS;
    const Bins &bins = c.bins[b];
    const int first = bins.offsets[tile], count = bins.offsets[tile + 1] - first;
    if (!count) return;
    TileBackward state;
    std::memset(state.gradient, 0, sizeof state.gradient);
    std::memset(state.behind, 0, sizeof state.behind);
    std::memcpy(state.transmittance, c.transmittance.data() + kept, sizeof state.transmittance);
    std::memcpy(state.last, c.last.data() + kept, sizeof state.last);
    each_run(c, tile, [&](int p, size_t pixel, int n) {
        for (int k = 0; k < 3; k++) copy(state.gradient[k] + p, color + (3 * b + k) * pixels + pixel, n);
        copy(state.gradient[3] + p, depth + b * pixels + pixel, n);
        copy(state.behind + p, alpha + b * pixels + pixel, n);
    });
    for (int p = 0; p < AP3D_TILE_PIXELS; p++) state.behind[p] *= -state.transmittance[p];
    c.kernels.draw_backward(splats + (size_t)b * c.count, bins.items.data() + first, count,
                                 tile % c.columns * AP3D_TILE, tile / c.columns * AP3D_TILE, &c.rule, &state, moments);
}

// The moments of one Gaussian, over its tiles in order, as gradients of its inputs.
void reduce(const Composite &c, const ap3d_splat &s, const Moments *moments, int tiles, ap3d_splat &out,
            float *means2d) {
    Moments m = {};
    for (int j = 0; j < tiles; j++) {
        const float *from = &moments[j].g;
        for (int k = 0; k < 6 + AP3D_FEATURES; k++) (&m.g)[k] += from[k];
    }
    const float ux = s.l11 * m.gx + s.l21 * m.gy, uy = s.l22 * m.gy;  // sums of g u and g v
    means2d[0] = -s.l11 * ux, means2d[1] = -(s.l21 * ux + s.l22 * uy);
    out = {};  // the rest takes no gradient
    out.l11 = -(s.l11 * m.gxx + s.l21 * m.gxy);
    out.l21 = -(s.l11 * m.gxy + s.l21 * m.gyy);
    out.l22 = -s.l22 * m.gyy;
    out.opacity = m.g / s.opacity;
    for (int k = 0; k < AP3D_FEATURES; k++) out.feature[k] = m.feature[k];
}

}  // namespace

extern "C" {

// color [B,3,H,W], alpha and depth [B,1,H,W] are written whole. Returns what the backward pass needs, to be released;
// null where memory is short.
void *ap3d_splats_composite(const ap3d_splat *splats, const ap3d_box *boxes, const ap3d_rule *rule, int batch, int count,
                            int width, int height, float *color, float *alpha, float *depth, int threads) try {
    auto c = SHELF.take();
    c->rule = *rule, c->batch = batch, c->count = count, c->width = width, c->height = height;
    c->columns = (width + AP3D_TILE - 1) / AP3D_TILE;
    c->tiles = c->columns * ((height + AP3D_TILE - 1) / AP3D_TILE);
    c->kernels = ap3d_kernels();
    c->bins.resize(batch);
    c->transmittance.resize((size_t)batch * c->tiles * AP3D_TILE_PIXELS);
    c->last.resize((size_t)batch * c->tiles * AP3D_TILE_PIXELS);
    ap3d::on_team(threads, [&](ap3d::Team &team) {
        Bins::fill(team, c->bins.data(), boxes, batch, count, c->columns, c->tiles);
        team.each(batch * c->tiles,
                  [&](int i) { draw_tile(*c, splats, i / c->tiles, i % c->tiles, color, alpha, depth); });
    });
    return c.release();
} catch (...) {
    return nullptr;
}

// Writes `out` [B,N], zeros but for factors, opacity and features of Gaussians that are seen, and means2d [B,N,2].
int ap3d_splats_composite_backward(void *composite, const ap3d_splat *splats, const float *color, const float *alpha,
                                    const float *depth, ap3d_splat *out, float *means2d, int threads) {
    return ap3d::answer([&] {
        auto &c = *static_cast<Composite *>(composite);
        std::lock_guard<std::mutex> lock(c.backward);
        std::vector<size_t> starts(c.batch + 1);
        for (int b = 0; b < c.batch; b++) starts[b + 1] = starts[b] + c.bins[b].items.size();
        c.moments.resize(starts[c.batch]);
        const int chunks = (c.count + CHUNK - 1) / CHUNK;
        ap3d::on_team(threads, [&](ap3d::Team &team) {
            team.each(c.batch * c.tiles, [&](int i) {
                const int b = i / c.tiles;
                draw_tile_backward(c, splats, b, i % c.tiles, color, alpha, depth, c.moments.data() + starts[b]);
            });
            team.each(c.batch * chunks, [&](int i) {
                const int b = i / chunks, first = i % chunks * CHUNK;
                const auto &slots = c.bins[b].first_slots;
                for (int n = first; n < std::min(c.count, first + CHUNK); n++) {
                    const size_t at = (size_t)b * c.count + n;
                    if (slots[n + 1] == slots[n]) {
                        std::memset(out + at, 0, sizeof *out), means2d[2 * at] = means2d[2 * at + 1] = 0;
                        continue;
                    }
                    reduce(c, splats[at], c.moments.data() + starts[b] + slots[n], slots[n + 1] - slots[n], out[at],
                           means2d + 2 * at);
                }
            });
        });
    });
}

void ap3d_splats_release(void *composite) {
    SHELF.give(std::unique_ptr<Composite>(static_cast<Composite *>(composite)));
}

}  // extern "C"
