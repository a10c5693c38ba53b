// Sorted splats to images and back: binning into tiles, the loop over tiles, and the reduction of gradients in an
// order that no number of threads changes.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "parallel.h"
#include "splats.h"

#define AP3D_DECLARE(isa)                                                                                        \
    extern "C" void ap3d_tile_forward_##isa(const Splat *, const int32_t *, int, int, int, const ap3d_rule *,    \
                                            TileForward *);                                                     \
    extern "C" void ap3d_tile_backward_##isa(const Splat *, const int32_t *, int, int, int, const ap3d_rule *,   \
                                             TileBackward *, Moments *);
AP3D_DECLARE(base)
#if defined(__x86_64__)
AP3D_DECLARE(avx2)
AP3D_DECLARE(avx512)
#endif

namespace {

struct Loops {
    TileForwardFunction forward;
    TileBackwardFunction backward;
};

enum InstructionSet { BASE, AVX2, AVX512 };

InstructionSet best_instruction_set() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        return AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return AVX2;
#endif
    return BASE;
}

Loops loops_for(InstructionSet set) {
#if defined(__x86_64__)
    if (set == AVX512) return {ap3d_tile_forward_avx512, ap3d_tile_backward_avx512};
    if (set == AVX2) return {ap3d_tile_forward_avx2, ap3d_tile_backward_avx2};
#endif
    (void)set;
    return {ap3d_tile_forward_base, ap3d_tile_backward_base};
}

Loops LOOPS = loops_for(best_instruction_set());

struct Bins {
    std::vector<int> offsets;     // a tile's part of items; one more than there are tiles
    std::vector<int32_t> items;   // Gaussian indices, nearest first
};

struct Composite {  // what the backward pass needs
    ap3d_rule rule;
    int batch, count, width, height, columns, tiles;
    std::vector<Splat> splats;
    std::vector<Bins> bins;
    std::vector<float> transmittance;
    std::vector<int32_t> last;
};

// Indices of the seen Gaussians by depth, ties by index: a stable radix sort of the float's bits, all positive.
std::vector<int32_t> by_depth(const float *radii, const float *depths, int count) {
    std::vector<uint64_t> keys, other;
    keys.reserve(count);
    for (int i = 0; i < count; i++) {
        if (radii[i] == 0) continue;
        uint32_t bits;
        std::memcpy(&bits, depths + i, 4);
        keys.push_back((uint64_t)bits << 32 | (uint32_t)i);
    }
    other.resize(keys.size());
    for (int shift = 32; shift < 64; shift += 11) {
        int start[2049] = {};
        for (uint64_t k : keys) start[(k >> shift & 2047) + 1]++;
        for (int i = 0; i < 2048; i++) start[i + 1] += start[i];
        for (uint64_t k : keys) other[start[k >> shift & 2047]++] = k;
        keys.swap(other);
    }
    return std::vector<int32_t>(keys.begin(), keys.end());
}

Bins bin(const ap3d_projection &p, size_t first, int count, int columns, int tiles) {
    const auto order = by_depth(p.radii + first, p.depths + first, count);
    Bins bins;
    bins.offsets.assign(tiles + 1, 0);
    auto each_tile = [&](int32_t i, auto visit) {
        const int *r = p.rectangles + 4 * (first + i);
        for (int y = r[2]; y < r[3]; y++)
            for (int x = r[0]; x < r[1]; x++) visit(y * columns + x);
    };
    for (int32_t i : order) each_tile(i, [&](int tile) { bins.offsets[tile + 1]++; });
    for (int t = 0; t < tiles; t++) bins.offsets[t + 1] += bins.offsets[t];
    bins.items.resize(bins.offsets[tiles]);
    std::vector<int> next(bins.offsets.begin(), bins.offsets.end() - 1);
    for (int32_t i : order) each_tile(i, [&](int tile) { bins.items[next[tile]++] = i; });
    return bins;
}

void pack(const ap3d_projection &p, const float *opacities, const ap3d_rule &rule, size_t first, int count,
          Splat *out) {
    for (int n = 0; n < count; n++) {
        const size_t i = first + n;
        if (p.radii[i] == 0) continue;
        const float *l = p.factors + 3 * i;
        const double reach = std::sqrt(2 * std::log((double)opacities[n] / rule.cut)) + 1e-3, slant = l[1] / l[2];
        Splat s = {p.means2d[2 * i], p.means2d[2 * i + 1], p.means2d_low[2 * i], p.means2d_low[2 * i + 1],
                   l[0], l[1], l[2], opacities[n],
                   {p.colors[3 * i], p.colors[3 * i + 1], p.colors[3 * i + 2], p.depths[i]},
                   (float)(reach * std::sqrt(1 + slant * slant) / l[0]), (float)(reach / l[2]), {}};
        out[n] = s;
    }
}

template <class Visit>
void each_pixel(const Composite &c, int tile, Visit visit) {
    const int left = tile % c.columns * AP3D_TILE, top = tile / c.columns * AP3D_TILE;
    for (int y = 0; y < AP3D_TILE && top + y < c.height; y++)
        for (int x = 0; x < AP3D_TILE && left + x < c.width; x++)
            visit(y * AP3D_TILE + x, (size_t)(top + y) * c.width + left + x);
}

void draw_tile(Composite &c, int b, int tile, float *color, float *alpha, float *depth) {
    const size_t pixels = (size_t)c.width * c.height;
    const Bins &bins = c.bins[b];
    const int first = bins.offsets[tile];
    TileForward state;
    std::memset(&state, 0, sizeof state);
    for (float &t : state.transmittance) t = 1;
    LOOPS.forward(c.splats.data() + (size_t)b * c.count, bins.items.data() + first, bins.offsets[tile + 1] - first,
                  tile % c.columns * AP3D_TILE, tile / c.columns * AP3D_TILE, &c.rule, &state);
    each_pixel(c, tile, [&](int p, size_t pixel) {
        const float t = std::fabs(state.transmittance[p]);
        for (int k = 0; k < 3; k++) color[(3 * (size_t)b + k) * pixels + pixel] = state.feature[k][p];
        depth[b * pixels + pixel] = state.feature[3][p];
        alpha[b * pixels + pixel] = 1 - t;
        c.transmittance[b * pixels + pixel] = t;
        c.last[b * pixels + pixel] = state.last[p];
    });
}

void draw_tile_backward(const Composite &c, int b, int tile, const float *color, const float *alpha,
                        const float *depth, Moments *moments) {
    const size_t pixels = (size_t)c.width * c.height;
    const Bins &bins = c.bins[b];
    const int first = bins.offsets[tile];
    TileBackward state;
    std::memset(&state, 0, sizeof state);
    each_pixel(c, tile, [&](int p, size_t pixel) {
        const float t = c.transmittance[b * pixels + pixel];
        state.transmittance[p] = t;
        state.last[p] = c.last[b * pixels + pixel];
        for (int k = 0; k < 3; k++) state.gradient[k][p] = color[(3 * (size_t)b + k) * pixels + pixel];
        state.gradient[3][p] = depth[b * pixels + pixel];
        state.behind[p] = -t * alpha[b * pixels + pixel];
    });
    LOOPS.backward(c.splats.data() + (size_t)b * c.count, bins.items.data() + first, bins.offsets[tile + 1] - first,
                   tile % c.columns * AP3D_TILE, tile / c.columns * AP3D_TILE, &c.rule, &state, moments + first);
}

// Sums over tiles in list order, then turns the moments of one view into gradients of its inputs.
void reduce(const Composite &c, int b, const Moments *moments, const ap3d_projection &out,
            float *opacities) {
    std::vector<Moments> sums(c.count);
    for (size_t j = 0; j < c.bins[b].items.size(); j++) {
        const float *from = &moments[j].g;
        float *to = &sums[c.bins[b].items[j]].g;
        for (size_t k = 0; k < sizeof(Moments) / sizeof(float); k++) to[k] += from[k];
    }
    for (int n = 0; n < c.count; n++) {
        const size_t i = (size_t)b * c.count + n;
        const Splat &s = c.splats[i];
        const Moments &m = sums[n];
        const bool seen = s.opacity > 0;
        const float ux = s.l11 * m.gx + s.l21 * m.gy, uy = s.l22 * m.gy;  // sums of g u and g v
        out.means2d[2 * i] = -s.l11 * ux, out.means2d[2 * i + 1] = -(s.l21 * ux + s.l22 * uy);
        out.factors[3 * i] = -(s.l11 * m.gxx + s.l21 * m.gxy);
        out.factors[3 * i + 1] = -(s.l11 * m.gxy + s.l21 * m.gyy);
        out.factors[3 * i + 2] = -s.l22 * m.gyy;
        for (int k = 0; k < 3; k++) out.colors[3 * i + k] = m.feature[k];
        out.depths[i] = m.feature[3];
        opacities[i] = seen ? m.g / s.opacity : 0;
    }
}

}  // namespace

extern "C" {

// color [B,3,H,W], alpha and depth [B,1,H,W] are written whole. Returns what the backward pass needs, to be released.
void *ap3d_splats_composite(const ap3d_projection *p, const float *opacities, const ap3d_rule *rule, int batch,
                            int count, int width, int height, float *color, float *alpha, float *depth, int threads) {
    auto *c = new Composite;
    c->rule = *rule, c->batch = batch, c->count = count, c->width = width, c->height = height;
    c->columns = (width + AP3D_TILE - 1) / AP3D_TILE;
    c->tiles = c->columns * ((height + AP3D_TILE - 1) / AP3D_TILE);
    c->splats.resize((size_t)batch * count);
    c->bins.resize(batch);
    c->transmittance.resize((size_t)batch * width * height);
    c->last.resize((size_t)batch * width * height);
    ap3d::parallel_for(batch, threads, [&](int b) {
        const size_t first = (size_t)b * count;
        c->bins[b] = bin(*p, first, count, c->columns, c->tiles);
        pack(*p, opacities, *rule, first, count, c->splats.data() + first);
    });
    ap3d::parallel_for(batch * c->tiles, threads,
                       [&](int i) { draw_tile(*c, i / c->tiles, i % c->tiles, color, alpha, depth); });
    return c;
}

// Writes means2d, factors, colors and depths of `out`, and opacities [B,N].
void ap3d_splats_composite_backward(const void *composite, const float *color, const float *alpha, const float *depth,
                                    const ap3d_projection *out, float *opacities, int threads) {
    const auto &c = *static_cast<const Composite *>(composite);
    std::vector<std::unique_ptr<Moments[]>> moments(c.batch);  // every element is written by its tile
    for (int b = 0; b < c.batch; b++) moments[b].reset(new Moments[c.bins[b].items.size()]);
    ap3d::parallel_for(c.batch * c.tiles, threads, [&](int i) {
        const int b = i / c.tiles;
        draw_tile_backward(c, b, i % c.tiles, color, alpha, depth, moments[b].get());
    });
    ap3d::parallel_for(c.batch, threads, [&](int b) { reduce(c, b, moments[b].get(), *out, opacities); });
}

// Use no more than an instruction set (0: base, 1: AVX2, 2: AVX-512) from now on; returns the one in use. Not for
// use while another thread renders.
int ap3d_splats_limit(int set) {
    const int chosen = std::clamp(set, 0, (int)best_instruction_set());
    LOOPS = loops_for((InstructionSet)chosen);
    return chosen;
}

void ap3d_splats_release(void *composite) { delete static_cast<Composite *>(composite); }

}  // extern "C"
