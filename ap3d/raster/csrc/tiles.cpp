// The two inner loops, one tile of 16 x 16 pixels at a time. A vector holds a block of 4 pixels by as many rows as fill
// it, so that small splats waste few lanes, and a splat meets only the blocks that its ellipse reaches.
#include <cstring>

#include "simd.h"
#include "splats.h"

namespace {

constexpr int COLUMNS = 4, BLOCK_ROWS = WIDTH / 4, ROWS = AP3D_TILE / BLOCK_ROWS, BLOCKS = COLUMNS * ROWS;
constexpr int BATCH = 128, AHEAD = 8;           // splats prepared at a time; how early their lines are fetched
constexpr float HALF_LOG2E = 0.84932180028802f;  // sqrt(log2(e) / 2): exp(-d^2 / 2) = 2^-(HALF_LOG2E d)^2

struct Centres {  // of the pixels of each block, from the tile's corner
    alignas(64) float x[AP3D_TILE_PIXELS], y[AP3D_TILE_PIXELS];
    constexpr Centres() : x(), y() {
        for (int p = 0; p < AP3D_TILE_PIXELS; p++) {
            const int block = p / WIDTH, lane = p % WIDTH;
            x[p] = block % 4 * 4 + lane % 4 + 0.5f, y[p] = block / 4 * BLOCK_ROWS + lane / 4 + 0.5f;
        }
    }
};
constexpr Centres CENTRE;

struct Prepared {  // a splat from the tile's corner; 2^(log2_opacity - u^2 - v^2) is its alpha
    float x, y, l11, l21, l22, log2_opacity;
    float feature[AP3D_FEATURES];
};

struct Batch {
    Prepared splats[BATCH];
    // The ellipse where alpha falls to the cut: x = tilt y +- aspect sqrt(height^2 - y^2), widest at y = +- shoulder.
    alignas(64) float x[BATCH], y[BATCH], tilt[BATCH], aspect[BATCH], height[BATCH], shoulder[BATCH];
};

void prepare(const ap3d_splat *splats, const TileItem *list, int count, int left, int top, Batch &batch) {
    for (int i = 0; i < count; i++) {
        if (i + AHEAD < count) __builtin_prefetch(splats + list[i + AHEAD].gaussian);
        const ap3d_splat &s = splats[list[i].gaussian];
        Prepared &p = batch.splats[i];
        p.x = batch.x[i] = (s.x - left) + s.x_low, p.y = batch.y[i] = (s.y - top) + s.y_low;
        p.l11 = HALF_LOG2E * s.l11, p.l21 = HALF_LOG2E * s.l21, p.l22 = HALF_LOG2E * s.l22;
        p.log2_opacity = s.log2_opacity;
        std::memcpy(p.feature, s.feature, sizeof p.feature);
        const float inverse = 1 / s.l11, tilt = -s.l21 * inverse;
        batch.tilt[i] = tilt, batch.aspect[i] = s.l22 * inverse, batch.height[i] = s.reach_y;
        batch.shoulder[i] = tilt * s.reach_y * s.reach_y / s.reach_x;
    }
}

// visit(block, which of the splats first .. first + WIDTH - 1 may reach a pixel centre of it). A comparison with a value
// that is not a number keeps the block.
template <class Visit>
inline void each_block(const Batch &batch, int first, Visit visit) {
    const Float x = at(batch.x + first), y = at(batch.y + first), tilt = at(batch.tilt + first);
    const Float aspect = at(batch.aspect + first), height = at(batch.height + first);
    const Float shoulder = at(batch.shoulder + first);
    for (int row = 0; row < ROWS; row++) {
        const Float above = splat(row * BLOCK_ROWS + 0.5f) - y, under = above + splat(BLOCK_ROWS - 1);
        const Mask off = either(below(height, above), below(under, -height));
        const Float yr = least(greatest(shoulder, above), under), yl = least(greatest(-shoulder, above), under);
        const Float right = x + (tilt * yr + aspect * root(greatest(height * height - yr * yr, Float{})));
        const Float left = x + (tilt * yl - aspect * root(greatest(height * height - yl * yl, Float{})));
        for (int column = 0; column < COLUMNS; column++) {
            const Mask beside = either(below(right, splat(4 * column + 0.5f)), below(splat(4 * column + 3.5f), left));
            visit(COLUMNS * row + column, neither(off, beside));
        }
    }
}

}  // namespace

extern "C" void JOIN(ap3d_draw_, AP3D_ISA)(const ap3d_splat *splats, const TileItem *list, int count, int left, int top,
                                           const ap3d_rule *rule, TileForward *tile) {
    const Float clamp = splat(rule->alpha_clamp), stop = splat(rule->stop);
    const Float cut = splat(__builtin_log2f(rule->cut));
    Batch batch;
    int32_t lists[BLOCKS][BATCH + WIDTH];
    for (int &last : tile->last) last = count;
    uint64_t open = ~0ull >> (64 - BLOCKS);
    for (int start = 0; start < count && open; start += BATCH) {
        const int size = count - start < BATCH ? count - start : BATCH;
        prepare(splats, list + start, size, left, top, batch);
        int lengths[BLOCKS] = {};
        for (int first = 0; first < size; first += WIDTH) {
            const Mask valid = above(Int{} + (size - first), lanes());
            each_block(batch, first, [&](int b, Mask reached) {
                lengths[b] += append(both(valid, reached), first, lists[b] + lengths[b]);
            });
        }
        for (int b = 0; b < BLOCKS; b++) {
            if (!(open >> b & 1) || !lengths[b]) continue;
            const int p = b * WIDTH;
            const Float px = at(CENTRE.x + p), py = at(CENTRE.y + p);
            Float transmittance = at(tile->transmittance + p), feature[AP3D_FEATURES];
            for (int c = 0; c < AP3D_FEATURES; c++) feature[c] = at(tile->feature[c] + p);
            Mask live = at_least(at(tile->live + p), splat(1));
            Int last = at(tile->last + p);
            for (int k = 0; k < lengths[b]; k++) {
                const int j = lists[b][k];
                const Prepared &s = batch.splats[j];
                const Float dx = px - s.x, dy = py - s.y, v = s.l22 * dy, u = s.l11 * dx + s.l21 * dy;
                const Float exponent = (s.log2_opacity - v * v) - u * u;
                const Mask counted = both(live, at_least(exponent, cut));
                const Float offered = least(exp2_of(exponent), clamp) * transmittance;
                // No branch here: a pixel finishes once, which no machine foresees.
                const Mask finished = both(counted, below(transmittance - offered, stop));
                const Float weight = keep(but_not(counted, finished), offered);
                last = select(finished, Int{} + (start + j), last);
                live = but_not(live, finished);
                transmittance -= weight;
                for (int c = 0; c < AP3D_FEATURES; c++) feature[c] += weight * s.feature[c];
                if (k % 16 == 15 && !any(live)) break;
            }
            if (!any(live)) open &= ~(1ull << b);
            at(tile->last + p) = last;
            at(tile->transmittance + p) = transmittance, at(tile->live + p) = keep(live, splat(1));
            for (int c = 0; c < AP3D_FEATURES; c++) at(tile->feature[c] + p) = feature[c];
        }
    }
}

extern "C" void JOIN(ap3d_draw_backward_, AP3D_ISA)(const ap3d_splat *splats, const TileItem *list, int count, int left,
                                                    int top, const ap3d_rule *rule, TileBackward *tile,
                                                    Moments *moments) {
    const Float clamp = splat(rule->alpha_clamp), cut = splat(__builtin_log2f(rule->cut));
    Batch batch;
    Int used = {};
    for (int p = 0; p < AP3D_TILE_PIXELS; p += WIDTH) used = at(tile->last + p) > used ? at(tile->last + p) : used;
    int end = 0;
    for (int i = 0; i < WIDTH; i++) end = used[i] > end ? used[i] : end;
    for (int j = end; j < count; j++) std::memset(moments + list[j].slot, 0, sizeof(Moments));
    for (int start = (end - 1) / BATCH * BATCH; end > 0; end = start, start -= BATCH) {
        const int size = end - start;
        prepare(splats, list + start, size, left, top, batch);
        alignas(64) int32_t reach[2][BATCH] = {};  // a splat's blocks, one bit each, 32 to a word
        for (int first = 0; first < size; first += WIDTH)
            each_block(batch, first, [&](int b, Mask reached) {
                Int &word = at(reach[b / 32] + first);
                word = select(reached, word | (int32_t)(1u << b % 32), word);
            });
        for (int j = size - 1; j >= 0; j--) {
            const Prepared &s = batch.splats[j];
            Float g = {}, gx = {}, gy = {}, gxx = {}, gxy = {}, gyy = {}, feature[AP3D_FEATURES] = {};
            uint64_t blocks = (uint32_t)reach[0][j];
            if (BLOCKS > 32) blocks |= (uint64_t)(uint32_t)reach[1][j] << 32;
            for (; blocks; blocks &= blocks - 1) {
                const int p = __builtin_ctzll(blocks) * WIDTH;
                const Float dx = s.x - at(CENTRE.x + p), dy = s.y - at(CENTRE.y + p);
                const Float v = s.l22 * dy, u = s.l11 * dx + s.l21 * dy;
                const Float exponent = (s.log2_opacity - v * v) - u * u;
                const Mask counted = both(at_least(exponent, cut), above(at(tile->last + p), Int{} + (start + j)));
                const Float raw = keep(counted, exp2_of(exponent)), alpha = least(raw, clamp);
                const Float inverse = reciprocal(1 - alpha);
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
            float *sum = &moments[list[start + j].slot].g;
            *(Four *)sum = sums(g, gx, gy, gxx);
            *(Four *)(sum + 4) = sums(gxy, gyy, feature[0], feature[1]);
            *(Four *)(sum + 8) = sums(feature[2], feature[3], Float{}, Float{});
        }
    }
}
