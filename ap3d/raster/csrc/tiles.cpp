// The two inner loops, one tile of 16 x 16 pixels at a time, nearest splat first or last. A vector holds a block of
// 4 pixels by as many rows as fill it, so that small splats waste few lanes; a splat visits the blocks it can reach.
#include <cstring>

#include "simd.h"
#include "splats.h"

namespace {

constexpr int BLOCK_ROWS = WIDTH / 4, BLOCKS = AP3D_TILE_PIXELS / WIDTH, AHEAD = 8;
constexpr float HALF_LOG2E = 0.84932180028802f;  // sqrt(log2(e) / 2): exp(-d^2 / 2) = 2^-(HALF_LOG2E d)^2

struct Centres {
    alignas(64) float x[AP3D_TILE_PIXELS], y[AP3D_TILE_PIXELS];
    constexpr Centres() : x(), y() {
        for (int p = 0; p < AP3D_TILE_PIXELS; p++) {
            const int block = p / WIDTH, lane = p % WIDTH;
            x[p] = block % 4 * 4 + lane % 4 + 0.5f, y[p] = block / 4 * BLOCK_ROWS + lane / 4 + 0.5f;
        }
    }
};
constexpr Centres CENTRE;

inline int ceiling(float v) {
    const int i = (int)v;
    return i + (i < v);
}
inline float greater(float a, float b) { return a > b ? a : b; }
inline float lesser(float a, float b) { return a < b ? a : b; }

// Blocks with a pixel centre within the splat's reach, one bit each.
inline uint64_t blocks_of(const ap3d_splat &s, float x, float y) {
    const float left = greater(x - 0.5f - s.reach_x, 0), right = lesser(x - 0.5f + s.reach_x, 15);
    const float top = greater(y - 0.5f - s.reach_y, 0), bottom = lesser(y - 0.5f + s.reach_y, 15);
    if (!(left <= right && top <= bottom)) return 0;
    const int c0 = ceiling(left) / 4, c1 = (int)right / 4;
    const int r0 = ceiling(top) / BLOCK_ROWS, r1 = (int)bottom / BLOCK_ROWS;
    if (c0 > c1 || r0 > r1) return 0;
    const uint64_t columns = (2u << c1) - (1u << c0);
    const uint64_t rows = ~0ull >> (60 - 4 * r1) & ~0ull << 4 * r0;
    return 0x1111111111111111ull * columns & rows;
}

struct Shape {
    float x, y, l11, l21, l22;
    inline Shape(const ap3d_splat &s, int left, int top)
        : x((s.x - left) + s.x_low), y((s.y - top) + s.y_low), l11(HALF_LOG2E * s.l11), l21(HALF_LOG2E * s.l21),
          l22(HALF_LOG2E * s.l22) {}
};

}  // namespace

extern "C" void JOIN(ap3d_draw_, AP3D_ISA)(const ap3d_splat *splats, const TileItem *list, int count, int left, int top,
                                           const ap3d_rule *rule, TileForward *tile) {
    const Float clamp = splat(rule->alpha_clamp), stop = splat(rule->stop);
    const Float cut = splat(__builtin_log2f(rule->cut));
    uint64_t open = ~0ull >> (64 - BLOCKS);
    for (int j = 0; j < count; j++) {
        if (j + AHEAD < count) __builtin_prefetch(splats + list[j + AHEAD].gaussian);
        const ap3d_splat &s = splats[list[j].gaussian];
        const Shape f(s, left, top);
        for (uint64_t blocks = blocks_of(s, f.x, f.y) & open; blocks; blocks &= blocks - 1) {
            const int b = __builtin_ctzll(blocks), p = b * WIDTH;
            const Float dx = f.x - at(CENTRE.x + p), dy = f.y - at(CENTRE.y + p);
            const Float v = f.l22 * dy, u = f.l11 * dx + f.l21 * dy;
            const Float exponent = s.log2_opacity - (u * u + v * v);
            Float &transmittance = at(tile->transmittance + p);
            const Float alpha = least(exp2_of(exponent), clamp);
            const Mask counted = both(at_least(exponent, cut), below(Float{}, transmittance));
            const Float weight = keep(counted, alpha * transmittance), next = transmittance - weight;
            const Mask finished = both(counted, below(next, stop));
            if (__builtin_expect(any(finished), 0)) {
                const Mask drawn = but_not(counted, finished);
                const Float shown = keep(drawn, weight);
                for (int c = 0; c < AP3D_FEATURES; c++) at(tile->feature[c] + p) += shown * s.feature[c];
                Int &last = at(tile->last + p);
                last = select(drawn, Int{} + (j + 1), last);
                transmittance = select(finished, -transmittance, transmittance - shown);
                if (!any(below(Float{}, transmittance))) open &= ~(1ull << b);
                continue;
            }
            transmittance = next;
            Int &last = at(tile->last + p);
            last = select(counted, Int{} + (j + 1), last);
            for (int c = 0; c < AP3D_FEATURES; c++) at(tile->feature[c] + p) += weight * s.feature[c];
        }
        if (!open) break;
    }
}

extern "C" void JOIN(ap3d_draw_backward_, AP3D_ISA)(const ap3d_splat *splats, const TileItem *list, int count, int left,
                                                    int top, const ap3d_rule *rule, TileBackward *tile,
                                                    Moments *moments) {
    const Float clamp = splat(rule->alpha_clamp), cut = splat(__builtin_log2f(rule->cut));
    int ends[BLOCKS], order[BLOCKS];  // blocks by where their last splat stands, the latest first
    for (int b = 0; b < BLOCKS; b++) {
        ends[b] = 0;
        for (int p = b * WIDTH; p < (b + 1) * WIDTH; p++)
            if (tile->last[p] > ends[b]) ends[b] = tile->last[p];
        int k = b;
        for (; k > 0 && ends[order[k - 1]] < ends[b]; k--) order[k] = order[k - 1];
        order[k] = b;
    }
    int entered = 0;
    uint64_t open = 0;
    for (int j = count - 1; j >= 0; j--) {
        if (j >= AHEAD) __builtin_prefetch(splats + list[j - AHEAD].gaussian);
        while (entered < BLOCKS && ends[order[entered]] > j) open |= 1ull << order[entered++];
        Float g = {}, gx = {}, gy = {}, gxx = {}, gxy = {}, gyy = {}, feature[AP3D_FEATURES] = {};
        const ap3d_splat &s = splats[list[j].gaussian];
        const Shape f(s, left, top);
        Moments &out = moments[list[j].slot];
        uint64_t blocks = blocks_of(s, f.x, f.y) & open;
        if (!blocks) {
            std::memset(&out, 0, sizeof out);
            continue;
        }
        for (; blocks; blocks &= blocks - 1) {
            const int p = __builtin_ctzll(blocks) * WIDTH;
            const Float dx = f.x - at(CENTRE.x + p), dy = f.y - at(CENTRE.y + p);
            const Float v = f.l22 * dy, u = f.l11 * dx + f.l21 * dy;
            const Float exponent = s.log2_opacity - (u * u + v * v);
            const Mask counted = both(at_least(exponent, cut), above(at(tile->last + p), Int{} + j));
            const Float raw = keep(counted, exp2_of(exponent)), alpha = least(raw, clamp);
            const Float inverse = reciprocal(1.f - alpha);
            const Float before = at(tile->transmittance + p) * inverse, weight = alpha * before;
            Float along = {};
            for (int c = 0; c < AP3D_FEATURES; c++) {
                const Float incoming = at(tile->gradient[c] + p);
                along += incoming * s.feature[c];
                feature[c] += weight * incoming;
            }
            Float &behind = at(tile->behind + p);
            const Float power = keep(below(raw, clamp), (before * along - behind * inverse) * raw);
            behind += weight * along;
            at(tile->transmittance + p) = before;
            const Float px = power * dx, py = power * dy;
            g += power, gx += px, gy += py;
            gxx += px * dx, gxy += px * dy, gyy += py * dy;
        }
        float *sum = &out.g;
        *(Four *)sum = sums(g, gx, gy, gxx);
        *(Four *)(sum + 4) = sums(gxy, gyy, feature[0], feature[1]);
        *(Four *)(sum + 8) = sums(feature[2], feature[3], Float{}, Float{});
    }
}
