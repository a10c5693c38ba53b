// Texture lookups: nearest, bilinear, and both between mip levels, with gradients to the texels, the coordinates and
// the level. A pyramid is one buffer of its levels, largest first; without mipmaps it has one level.
#include <array>

#include "mesh.h"

namespace {

using namespace ap3d;

enum Boundary { WRAP = 0, CLAMP = 1, ZERO = 2 };
constexpr int MAX_LEVELS = 16;
constexpr size_t CHUNK = 4096;

struct Level {
    int height, width;
    size_t offset;  // texels before it
};

struct Pyramid {
    std::array<Level, MAX_LEVELS> levels;
    int count, channels, boundary;
    size_t texels;
};

Pyramid describe(int height, int width, int levels, int channels, int boundary) {
    Pyramid p{{}, levels, channels, boundary, 0};
    for (int l = 0; l < levels; l++) {
        p.levels[l] = {std::max(1, height >> l), std::max(1, width >> l), p.texels};
        p.texels += (size_t)p.levels[l].height * p.levels[l].width;
    }
    return p;
}

INLINE int whole(double x) {  // floor of what fits an int
    int i = (int)x;
    return i - (x < i);
}

// A coordinate in texels, brought to where whole numbers fit an int.
INLINE double place(float coordinate, int size, int boundary) {
    if (boundary == WRAP) {
        if (!(std::abs(coordinate) < (float)(1 << 24))) return 0;  // floats are whole numbers from here on
        return (coordinate - (double)whole(coordinate)) * size;
    }
    double at = (double)coordinate * size;
    return boundary == CLAMP ? std::clamp(at, 0.0, (double)size) : std::clamp(at, -2.0, size + 2.0);
}

INLINE int resolve(int i, int size, int boundary) {  // -1: outside
    if (i >= 0 && i < size) return i;
    if (boundary == WRAP) return i < 0 ? i + size : i - size;
    return boundary == CLAMP ? std::clamp(i, 0, size - 1) : -1;
}

// Four texels of one level round a place, and how they are blended: share [(1 - y)((1 - x) t0 + x t1) + y (...)].
struct Footprint {
    int64_t texel[4];  // in the pyramid; -1: zero
    float x, y;        // between the texels
    float scale_u, scale_v;  // derivative of x by u and of y by v
    float share, slope;      // the level's part of the result, and its derivative by the level

    INLINE float weight(int corner) const { return share * (corner & 1 ? x : 1 - x) * (corner >> 1 ? y : 1 - y); }
};

INLINE Footprint nearest(const Pyramid &p, const Level &l, float u, float v) {
    int x = whole(place(u, l.width, p.boundary)), y = whole(place(v, l.height, p.boundary));
    if (p.boundary != ZERO) x = std::min(x, l.width - 1), y = std::min(y, l.height - 1);
    x = resolve(x, l.width, p.boundary), y = resolve(y, l.height, p.boundary);
    int64_t texel = x < 0 || y < 0 ? -1 : (int64_t)(l.offset + (size_t)y * l.width + x);
    return {{texel, -1, -1, -1}, 0, 0, 0, 0, 1, 0};
}

INLINE Footprint bilinear(const Pyramid &p, const Level &l, float u, float v, float share, float slope) {
    double px = place(u, l.width, p.boundary) - 0.5, py = place(v, l.height, p.boundary) - 0.5;
    const int x = whole(px), y = whole(py);
    Footprint f{{}, (float)(px - x), (float)(py - y), (float)l.width, (float)l.height, share, slope};
    if (p.boundary == CLAMP && !(u > 0 && u < 1)) f.scale_u = 0;
    if (p.boundary == CLAMP && !(v > 0 && v < 1)) f.scale_v = 0;
    const int columns[2] = {resolve(x, l.width, p.boundary), resolve(x + 1, l.width, p.boundary)};
    const int rows[2] = {resolve(y, l.height, p.boundary), resolve(y + 1, l.height, p.boundary)};
    for (int k = 0; k < 4; k++) {
        int column = columns[k & 1], row = rows[k >> 1];
        f.texel[k] = column < 0 || row < 0 ? -1 : (int64_t)l.offset + (int64_t)row * l.width + column;
    }
    return f;
}

struct Lookup {
    Footprint part[2];
    int count = 1;

    // level null: the largest level alone; blend false: the level nearest to it.
    Lookup(const Pyramid &p, const float *uv, const float *level, bool linear, bool blend) {
        if (!linear) {
            part[0] = nearest(p, p.levels[0], uv[0], uv[1]);
            return;
        }
        const float coarsest = (float)(p.count - 1), at = level ? std::clamp(*level, 0.0f, coarsest) : 0;
        const int low = blend ? (int)at : (int)(at + 0.5f);
        const float rest = blend ? at - low : 0;
        const float slope = blend && level && *level > 0 && *level < coarsest ? 1.0f : 0.0f;
        part[0] = bilinear(p, p.levels[low], uv[0], uv[1], 1 - rest, -slope);
        if (blend && low + 1 < p.count) part[count++] = bilinear(p, p.levels[low + 1], uv[0], uv[1], rest, slope);
    }
};

struct Request {
    const float *texture, *uv, *level;
    int texture_batch, pixels, linear, blend;
    Pyramid pyramid;

    Lookup at(int b, size_t i) const {
        size_t pixel = (size_t)b * pixels + i;
        return Lookup(pyramid, uv + 2 * pixel, level ? level + pixel : nullptr, linear, blend);
    }
    size_t table(int b) const { return texture_batch > 1 ? b * pyramid.texels * pyramid.channels : 0; }
};

template <class Channels>
void look_up(const Request &r, int b, size_t first, size_t last, Channels channels, float *out) {
    const float *table = r.texture + r.table(b);
    for (size_t i = first; i < last; i++) {
        const Lookup lookup = r.at(b, i);
        float *target = out + ((size_t)b * r.pixels + i) * channels;
        for (int part = 0; part < lookup.count; part++) {
            const Footprint &f = lookup.part[part];
            const float *t[4];
            float w[4];
            for (int k = 0; k < 4; k++) {
                bool there = f.texel[k] >= 0;
                t[k] = table + (there ? f.texel[k] : 0) * channels, w[k] = there ? f.weight(k) : 0;
            }
            for (int c = 0; c < channels; c++) {
                float value = w[0] * t[0][c] + w[1] * t[1][c] + w[2] * t[2][c] + w[3] * t[3][c];
                target[c] = part ? target[c] + value : value;
            }
        }
    }
}

uint32_t touched(const Lookup &lookup, const Bands &bands) {
    uint32_t mask = 0;
    for (int part = 0; part < lookup.count; part++)
        for (int64_t texel : lookup.part[part].texel)
            if (texel >= 0) mask |= bands.bit((int)texel);
    return mask;
}

template <class Channels>
void gradient_of_places(const Request &r, int b, size_t first, size_t last, Channels channels,
                        const float *gradient_out, const Bands &bands, float *uv, float *level, uint32_t *masks) {
    const float *table = r.texture + r.table(b);
    for (size_t i = first; i < last; i++) {
        const Lookup lookup = r.at(b, i);
        const size_t pixel = (size_t)b * r.pixels + i;
        const float *g = gradient_out + pixel * channels;
        float gu = 0, gv = 0, gl = 0;
        for (int part = 0; part < lookup.count; part++) {
            const Footprint &f = lookup.part[part];
            float dot[4] = {};
            for (int k = 0; k < 4; k++)
                for (int c = 0; c < channels && f.texel[k] >= 0; c++) dot[k] += g[c] * table[f.texel[k] * channels + c];
            const float upper = dot[0] + f.x * (dot[1] - dot[0]), lower = dot[2] + f.x * (dot[3] - dot[2]);
            gu += f.share * f.scale_u * ((1 - f.y) * (dot[1] - dot[0]) + f.y * (dot[3] - dot[2]));
            gv += f.share * f.scale_v * (lower - upper);
            gl += f.slope * ((1 - f.y) * upper + f.y * lower);
        }
        uv[2 * pixel] = gu, uv[2 * pixel + 1] = gv;
        if (level) level[pixel] = gl;
        if (masks) masks[i] = touched(lookup, bands);
    }
}

// What a pixel gives to the texels in [low, high).
template <class Channels>
void give_texels(const Request &r, int b, int i, Channels channels, const float *gradient_out, int low, int high,
                 float *table) {
    const float *g = gradient_out + ((size_t)b * r.pixels + i) * channels;
    bool any = false;
    for (int c = 0; c < channels; c++) any |= g[c] != 0;
    if (!any) return;
    const Lookup lookup = r.at(b, i);
    for (int part = 0; part < lookup.count; part++)
        for (int k = 0; k < 4; k++) {
            const Footprint &f = lookup.part[part];
            if (f.texel[k] < low || f.texel[k] >= high) continue;  // low is at least 0: -1 stays out
            const float weight = f.weight(k);
            float *texel = table + f.texel[k] * channels;
            for (int c = 0; c < channels; c++) texel[c] += weight * g[c];
        }
}

}  // namespace

extern "C" {

// texture [texture_batch (1 or batch), texels of all levels, channels]; uv [batch, pixels, 2]; level [batch, pixels]
// or null; out [batch, pixels, channels], written whole.
int ap3d_mesh_texture(const float *texture, const float *uv, const float *level, int texture_batch, int batch,
                      int height, int width, int levels, int channels, int pixels, int boundary, int linear,
                      int blend, float *out, int threads) {
    return answer([&] {
        const Request r{texture, uv,     level, texture_batch,
                        pixels,  linear, blend, describe(height, width, levels, channels, boundary)};
        on_team(threads, [&](Team &team) {
            for (int b = 0; b < batch; b++)
                each_chunk(team, pixels, CHUNK, [&](size_t first, size_t last) {
                    with_channels(channels, [&](auto known) { look_up(r, b, first, last, known, out); });
                });
        });
    });
}

// Gradients to the texture (zeroed by the caller), to uv and, unless null, to the level (written whole).
int ap3d_mesh_texture_backward(const float *gradient_out, const float *texture, const float *uv, const float *level,
                               int texture_batch, int batch, int height, int width, int levels, int channels,
                               int pixels, int boundary, int linear, int blend, float *gradient_texture,
                               float *gradient_uv, float *gradient_level, int threads) {
    return answer([&] {
        const Request r{texture, uv,     level, texture_batch,
                        pixels,  linear, blend, describe(height, width, levels, channels, boundary)};
        const Bands bands((int)r.pyramid.texels, threads);
        std::unique_ptr<uint32_t[]> masks(new uint32_t[threads > 1 ? pixels : 1]), seen(new uint32_t[pixels / 64 + 1]);
        on_team(threads, [&](Team &team) {
            for (int b = 0; b < batch; b++)
                with_channels(channels, [&](auto known) {
                    uint32_t *noted = team.size() > 1 ? masks.get() : nullptr;
                    each_chunk(team, pixels, CHUNK, [&](size_t first, size_t last) {
                        gradient_of_places(r, b, first, last, known, gradient_out, bands, gradient_uv, gradient_level, noted);
                    });
                    scatter_in_order(
                        team, bands, pixels, seen.get(), [&](int i) { return noted[i]; },
                        [&](int i, int low, int high) {
                            give_texels(r, b, i, known, gradient_out, low, high, gradient_texture + r.table(b));
                        });
                });
        });
    });
}

}  // extern "C"
