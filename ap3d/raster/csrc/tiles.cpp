// The two inner loops, one tile of 16 x 16 pixels at a time, a vector of pixels of one row at a time.
// Compiled once for each instruction set (AP3D_ISA), so nothing here may instantiate a library template: the linker
// would keep one copy of it for all.
#include <cstring>

#include "splats.h"

#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX2__)
#define WIDTH 8
#else
#define WIDTH 4
#endif
#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)

namespace {

typedef float Float __attribute__((vector_size(4 * WIDTH), may_alias));
typedef int32_t Int __attribute__((vector_size(4 * WIDTH), may_alias));

alignas(64) const float COLUMN[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
const Float ZERO = {};
const Int NONE = {};

inline Float &at(float *p) { return *(Float *)p; }
inline Int &at(int32_t *p) { return *(Int *)p; }
inline int least(int a, int b) { return a < b ? a : b; }
inline int most(int a, int b) { return a > b ? a : b; }
inline int floor_int(float v) {
    v = v < -1e6f ? -1e6f : v > 1e6f ? 1e6f : v;
    int i = (int)v;
    return i - (i > v);
}

// exp(x) for x <= 0 by reduction to [-ln2/2, ln2/2] and a polynomial of degree 6; relative error 1e-7.
inline Float exponential(Float x) {
    x = x < -87.f ? ZERO - 87.f : x;
    Int n = __builtin_convertvector(x * 1.44269504f - 0.5f, Int);
    Float k = __builtin_convertvector(n, Float);
    Float f = (x - k * 0.693359375f) + k * 2.12194440e-4f;
    Float p = ZERO + 1.f / 720;
    p = p * f + 1.f / 120;
    p = p * f + 1.f / 24;
    p = p * f + 1.f / 6;
    p = p * f + 0.5f;
    p = p * f + 1.f;
    p = p * f + 1.f;
    return p * (Float)((n + 127) << 23);
}

inline float sum(const Float &v) {
    float s = 0;
    for (int i = 0; i < WIDTH; i++) s += v[i];
    return s;
}

inline bool any(const Int &v) {
    int s = 0;
    for (int i = 0; i < WIDTH; i++) s |= v[i];
    return s != 0;
}

struct Window {  // where in the tile a splat can exceed the cut: rows and vector columns, inclusive
    float x, y;
    int row0, row1, column0, column1;
};

inline Window window(const Splat &s, int left, int top) {
    Window w;
    w.x = (s.x - left - 0.5f) + s.x_low;  // in units where pixel (i, j) of the tile has its centre at (j, i)
    w.y = (s.y - top - 0.5f) + s.y_low;
    w.row0 = most(0, -floor_int(s.reach_y - w.y)), w.row1 = least(AP3D_TILE - 1, floor_int(w.y + s.reach_y));
    w.column0 = most(0, -floor_int(s.reach_x - w.x)) & ~(WIDTH - 1);
    w.column1 = least(AP3D_TILE - 1, floor_int(w.x + s.reach_x));
    return w;
}

}  // namespace

extern "C" void JOIN(ap3d_tile_forward_, AP3D_ISA)(const Splat *splats, const int32_t *list, int count, int left,
                                                   int top, const ap3d_rule *rule, TileForward *tile) {
    const float clamp = rule->alpha_clamp, cut = rule->cut, stop = rule->stop;
    for (int j = 0; j < count; j++) {
        const Splat &s = splats[list[j]];
        const Window w = window(s, left, top);
        for (int row = w.row0; row <= w.row1; row++) {
            const float dy = w.y - row, u0 = s.l21 * dy, v = s.l22 * dy, rest = -0.5f * v * v;
            for (int column = w.column0; column <= w.column1; column += WIDTH) {
                const int p = row * AP3D_TILE + column;
                Float u = s.l11 * (w.x - *(const Float *)(COLUMN + column)) + u0;
                Float alpha = s.opacity * exponential(rest - 0.5f * u * u);
                alpha = alpha < clamp ? alpha : ZERO + clamp;
                Float &transmittance = at(tile->transmittance + p);
                Int counted = (alpha >= cut) & (transmittance > 0.f);
                Float next = transmittance * (1.f - alpha);
                Int finished = counted & (next < stop);
                counted &= ~finished;
                Float weight = counted ? alpha * transmittance : ZERO;
                transmittance = finished ? -transmittance : (counted ? next : transmittance);
                Int &last = at(tile->last + p);
                last = counted ? NONE + (j + 1) : last;
                for (int c = 0; c < AP3D_FEATURES; c++) at(tile->feature[c] + p) += weight * s.feature[c];
            }
        }
        if (j % 16 == 15) {
            Int open = {};
            for (int p = 0; p < AP3D_TILE_PIXELS; p += WIDTH) open |= at(tile->transmittance + p) > 0.f;
            if (!any(open)) break;
        }
    }
}

extern "C" void JOIN(ap3d_tile_backward_, AP3D_ISA)(const Splat *splats, const int32_t *list, int count, int left,
                                                    int top, const ap3d_rule *rule, TileBackward *tile,
                                                    Moments *moments) {
    const float clamp = rule->alpha_clamp, cut = rule->cut;
    int used = 0;
    for (int p = 0; p < AP3D_TILE_PIXELS; p++) used = most(used, tile->last[p]);
    std::memset(moments + used, 0, sizeof(Moments) * (count - used));
    for (int j = used - 1; j >= 0; j--) {
        const Splat &s = splats[list[j]];
        const Window w = window(s, left, top);
        Float g = {}, gx = {}, gy = {}, gxx = {}, gxy = {}, gyy = {}, feature[AP3D_FEATURES] = {};
        for (int row = w.row0; row <= w.row1; row++) {
            const float dy = w.y - row, u0 = s.l21 * dy, v = s.l22 * dy, rest = -0.5f * v * v;
            for (int column = w.column0; column <= w.column1; column += WIDTH) {
                const int p = row * AP3D_TILE + column;
                Float dx = w.x - *(const Float *)(COLUMN + column), u = s.l11 * dx + u0;
                Float raw = s.opacity * exponential(rest - 0.5f * u * u);
                Float alpha = raw < clamp ? raw : ZERO + clamp;
                Int counted = (alpha >= cut) & (at(tile->last + p) > j);
                alpha = counted ? alpha : ZERO;
                Float inverse = 1.f / (1.f - alpha);
                Float before = at(tile->transmittance + p) * inverse, weight = alpha * before, along = ZERO;
                for (int c = 0; c < AP3D_FEATURES; c++) {
                    Float incoming = at(tile->gradient[c] + p);
                    along += incoming * s.feature[c];
                    feature[c] += weight * incoming;
                }
                Float &behind = at(tile->behind + p);
                Float power = (counted & (raw < clamp)) ? (before * along - behind * inverse) * raw : ZERO;
                behind += weight * along;
                at(tile->transmittance + p) = before;
                Float px = power * dx;
                g += power, gx += px, gxx += px * dx;
                gy += power * dy, gxy += px * dy, gyy += power * (dy * dy);
            }
        }
        moments[j] = {sum(g), sum(gx), sum(gy), sum(gxx), sum(gxy), sum(gyy), {}};
        for (int c = 0; c < AP3D_FEATURES; c++) moments[j].feature[c] = sum(feature[c]);
    }
}
