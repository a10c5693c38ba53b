// Gaussians to screen and back, one Gaussian a lane, in double precision: EWA projection (Zwicker et al. 2001, in the
// form of 3D Gaussian Splatting and gsplat) and the colour of its spherical harmonics.
#include "columns.h"
#include "harmonics.h"
#include "splats.h"

namespace {

constexpr int COEFFICIENTS = 48, FETCH = 2 * LANES;

inline Double root(Double v) {
    for (int i = 0; i < LANES; i++) v[i] = __builtin_sqrt(v[i]);
    return v;
}
inline Double floor_of(Double v) {
    for (int i = 0; i < LANES; i++) v[i] = __builtin_floor(v[i]);
    return v;
}
inline Double ceil_of(Double v) { return -floor_of(-v); }
inline Double smaller(Double a, Double b) { return a < b ? a : b; }
inline Double larger(Double a, Double b) { return a > b ? a : b; }
inline Double clamped(Double v, double low, double high) { return larger(smaller(v, Double{} + high), Double{} + low); }

// log2 of positive normal numbers to 1e-11: the exponent, and atanh's series of the mantissa in [sqrt(1/2), sqrt(2)).
inline Double log2_of(Double v) {
    const Long bits = (Long)v - 0x3fe6a09e667f3bcdll, exponent = bits >> 52;
    const Double m = (Double)((Long)v - (exponent << 52)), s = (m - 1) / (m + 1), t = s * s;
    Double p = t * (1. / 15) + 1. / 13;
    p = p * t + 1. / 11, p = p * t + 1. / 9, p = p * t + 1. / 7, p = p * t + 1. / 5, p = p * t + 1. / 3;
    return (p * t + 1) * s * 2.8853900817779268 + (Double)__builtin_convertvector(exponent, Double);
}

struct Ellipsoid {  // axes: rotation times scales, columns are the principal axes
    Double mean[3], quaternion[4], norm, rotation[9], scales[3], axes[9], opacity;
};

inline Ellipsoid read_ellipsoid(const ap3d_gaussians &g, const Rows &rows) {
    Ellipsoid e;
    Double squared = {};
    load_columns(g.quaternions, rows, 4, 4, e.quaternion);
    for (int k = 0; k < 4; k++) squared += e.quaternion[k] * e.quaternion[k];
    e.norm = larger(root(squared), Double{} + 1e-12);
    const Double inverse = 1 / e.norm;
    for (int k = 0; k < 4; k++) e.quaternion[k] *= inverse;
    const Double w = e.quaternion[0], x = e.quaternion[1], y = e.quaternion[2], z = e.quaternion[3];
    const Double r[9] = {1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
                         2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
                         2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)};
    load_columns(g.means, rows, 3, 3, e.mean), load_columns(g.scales, rows, 3, 3, e.scales);
    for (int i = 0; i < 9; i++) e.rotation[i] = r[i], e.axes[i] = r[i] * e.scales[i % 3];
    e.opacity = load(g.opacities, rows, 1);
    return e;
}

struct Footprint {
    Double t[3];                  // camera space mean
    Double inverse_z;
    Double ratio[2], inside[2];   // clamped x/z and y/z; inside is 0 where the clamp acts
    Double jacobian[6], axes[9];  // axes in camera space
    Double flat[6];               // jacobian times axes, 2 x 3
    Double a, b, c;               // covariance in square pixels, with the blur
    Double inverse_c;
    Double root_a, root_c;        // standard deviations, set where they are needed
    Double given;                 // variance along x at a given y: determinant / c
};

// Of no meaning in lanes that are not `ahead` of the near plane, which hold a point on the axis instead.
inline Long project(const View &v, const Ellipsoid &e, const ap3d_rule &rule, Footprint &f) {
    for (int i = 0; i < 3; i++) {
        const double *r = v.rotation + 3 * i;
        f.t[i] = r[0] * e.mean[0] + r[1] * e.mean[1] + r[2] * e.mean[2] + v.translation[i];
    }
    const Long ahead = f.t[2] >= (double)rule.near_plane;
    for (int i = 0; i < 3; i++) f.t[i] = ahead ? f.t[i] : Double{} + (i == 2);
    const Double z = f.t[2], inverse = f.inverse_z = 1 / z;
    for (int i = 0; i < 9; i++) {
        const double *r = v.rotation + i / 3 * 3;
        f.axes[i] = r[0] * e.axes[i % 3] + r[1] * e.axes[3 + i % 3] + r[2] * e.axes[6 + i % 3];
    }
    for (int k = 0; k < 2; k++) {
        const Double ratio = f.t[k] * inverse;
        f.ratio[k] = clamped(ratio, v.low[k], v.high[k]);
        f.inside[k] = f.ratio[k] == ratio ? Double{} + 1 : Double{};
    }
    const Double j[6] = {v.fx * inverse, Double{}, -v.fx * f.ratio[0] * inverse,
                         Double{}, v.fy * inverse, -v.fy * f.ratio[1] * inverse};
    for (int i = 0; i < 6; i++) f.jacobian[i] = j[i];
    f.a = f.c = Double{} + (double)rule.blur, f.b = Double{};
    for (int k = 0; k < 3; k++) {
        f.flat[k] = j[0] * f.axes[k] + j[2] * f.axes[6 + k];
        f.flat[3 + k] = j[4] * f.axes[3 + k] + j[5] * f.axes[6 + k];
        f.a += f.flat[k] * f.flat[k], f.b += f.flat[k] * f.flat[3 + k], f.c += f.flat[3 + k] * f.flat[3 + k];
    }
    f.inverse_c = 1 / f.c;
    // a - b^2/c by way of the minors of `flat`: no cancellation, however long the needle, and never below the blur.
    const Double *p = f.flat, *q = f.flat + 3;
    const Double m0 = p[1] * q[2] - p[2] * q[1], m1 = p[2] * q[0] - p[0] * q[2], m2 = p[0] * q[1] - p[1] * q[0];
    f.given = (m0 * m0 + m1 * m1 + m2 * m2 + (double)rule.blur * (f.a + f.c - (double)rule.blur)) * f.inverse_c;
    return ahead;
}

struct Extent {
    Double x0, x1, y0, y1;  // tiles, half-open
    Double radius;          // larger half side in pixels
};

// The tiles a footprint may touch: gsplat's opacity-aware box, or the square and the rounding of
// diff-gaussian-rasterization. `reach` is the distance in standard deviations at which alpha falls to the cut.
inline Extent extent(const View &v, const ap3d_rule &rule, const Footprint &f, Double reach, Double x, Double y) {
    Double rx, ry;
    double shift = 0, upward = AP3D_TILE - 1;  // the latter's pixel centres are whole numbers, its upper bound truncated
    if (rule.opacity_aware) {
        const Double side = smaller(reach, Double{} + (double)rule.extent);
        rx = ceil_of(side * f.root_a), ry = ceil_of(side * f.root_c);
    } else {
        const Double mid = 0.5 * (f.a + f.c), det = f.given * f.c;
        rx = ry = ceil_of((double)rule.extent * root(mid + root(larger(mid * mid - det, Double{} + 0.1))));
        shift = 0.5;
    }
    auto tile = [](Double t, int count) { return clamped(t, 0, count); };
    auto upper = [&](Double p) {
        return rule.opacity_aware ? ceil_of(p / AP3D_TILE) : floor_of((p + upward) / AP3D_TILE);
    };
    x -= shift, y -= shift;
    return {tile(floor_of((x - rx) / AP3D_TILE), v.columns), tile(upper(x + rx), v.columns),
            tile(floor_of((y - ry) / AP3D_TILE), v.rows), tile(upper(y + ry), v.rows),
            larger(larger(rx, ry), Double{} + 1)};
}

struct Sight {  // the direction in which a view sees a Gaussian, turned back to the neutral pose
    Double direction[3], inverse_distance;
};

inline Sight sight(const View &v, const Ellipsoid &e, const Double *turn) {
    Double d[3], t[3];
    for (int k = 0; k < 3; k++) t[k] = d[k] = e.mean[k] - v.position[k];
    if (turn)
        for (int k = 0; k < 3; k++) t[k] = turn[k] * d[0] + turn[3 + k] * d[1] + turn[6 + k] * d[2];
    Sight s;
    s.inverse_distance = root(1 / larger(t[0] * t[0] + t[1] * t[1] + t[2] * t[2], Double{} + 1e-60));
    for (int k = 0; k < 3; k++) s.direction[k] = t[k] * s.inverse_distance;
    return s;
}

inline void colour(const Half *sh, int used, const Half *basis, Half *out) {
    for (int c = 0; c < 3; c++) out[c] = Half{} + 0.5f;
    for (int k = 0; k < used; k++)
        for (int c = 0; c < 3; c++) out[c] += basis[k] * sh[3 * k + c];
}

inline void read_harmonics(const ap3d_gaussians &g, const Rows &rows, Half *sh) {
    load_columns(g.sh, rows, 3 * g.sh_count, 3 * g.sh_count, sh);
}

inline const Double *read_turn(const ap3d_gaussians &g, const Rows &rows, Double *turn) {
    if (!g.view_rotations) return nullptr;
    load_columns(g.view_rotations, rows, 9, 9, turn);
    return turn;
}

// Adds every value times zero: not a number where one is not finite.
inline void gather_poison(const ap3d_gaussians &g, const Ellipsoid &e, const Half *sh, const Double *turn, Double &poison) {
    for (int k = 0; k < 4; k++) poison += 0 * e.quaternion[k];
    for (int k = 0; k < 3; k++) poison += 0 * (e.mean[k] + e.scales[k] + e.opacity);
    for (int k = 0; turn && k < 9; k++) poison += 0 * turn[k];
    Half sums[3] = {};
    for (int k = 0; k < g.sh_count; k++)
        for (int c = 0; c < 3; c++) sums[c] += 0 * sh[3 * k + c];
    poison += wide(sums[0] + sums[1] + sums[2]);
}

struct Gradient {
    Double mean[3], axes[9];
};

// dL/d(factor) to dL/d(covariance): l11 = m^-1/2, l21 = -(b/c) l11, l22 = c^-1/2 with m = a - b^2/c.
inline void covariance_gradient(const Footprint &f, const Double *factor, Double *out) {
    const Double inverse_c = 1 / f.c, slope = f.b * inverse_c, l11 = root(1 / f.given);
    const Double vm = -0.5 * l11 / f.given * (factor[0] - slope * factor[1]), skew = l11 * inverse_c * factor[1];
    out[0] = vm;
    out[1] = -2 * slope * vm - skew;
    out[2] = slope * slope * vm + slope * skew - 0.5 * inverse_c * root(inverse_c) * factor[2];
}

inline void project_backward(const View &v, const Footprint &f, const Double *mean2d, const Double *factor, Double depth,
                             Gradient &out) {
    Double cov[3], flat[6], j[6] = {}, t[3] = {Double{}, Double{}, depth};
    covariance_gradient(f, factor, cov);
    for (int k = 0; k < 3; k++) {
        flat[k] = 2 * cov[0] * f.flat[k] + cov[1] * f.flat[3 + k];
        flat[3 + k] = cov[1] * f.flat[k] + 2 * cov[2] * f.flat[3 + k];
        j[0] += flat[k] * f.axes[k], j[2] += flat[k] * f.axes[6 + k];
        j[4] += flat[3 + k] * f.axes[3 + k], j[5] += flat[3 + k] * f.axes[6 + k];
    }
    const double focal[2] = {v.fx, v.fy};
    for (int k = 0; k < 2; k++) {
        const Double scale = focal[k] * f.inverse_z, diagonal = j[4 * k], skew = j[3 * k + 2];
        t[2] += (-diagonal + skew * f.ratio[k]) * scale * f.inverse_z;
        const Double ratio = -scale * skew * f.inside[k] + focal[k] * mean2d[k];
        t[k] += ratio * f.inverse_z, t[2] -= ratio * f.t[k] * f.inverse_z * f.inverse_z;
    }
    for (int i = 0; i < 3; i++)
        for (int r = 0; r < 3; r++) out.mean[i] += v.rotation[3 * r + i] * t[r];
    for (int k = 0; k < 3; k++) {
        Double camera[3];
        for (int r = 0; r < 3; r++) camera[r] = f.jacobian[r] * flat[k] + f.jacobian[3 + r] * flat[3 + k];
        for (int i = 0; i < 3; i++)
            for (int r = 0; r < 3; r++) out.axes[3 * i + k] += v.rotation[3 * r + i] * camera[r];
    }
}

inline void colour_backward(const ap3d_gaussians &g, const Sight &s, const Double *turn, const Half *sh,
                            const Double *incoming, Gradient &out, Half *sh_out) {
    const int used = (g.sh_degree + 1) * (g.sh_degree + 1);
    Half basis[16], slope[16][3], looking[3], value[3], v[3], towards[3] = {};
    for (int i = 0; i < 3; i++) looking[i] = narrow(s.direction[i]);
    harmonics<true>(g.sh_degree, looking, basis, slope);
    colour(sh, used, basis, value);
    for (int c = 0; c < 3; c++) v[c] = value[c] > 0.f ? narrow(incoming[c]) : Half{};
    for (int k = 0; k < used; k++) {
        Half along = {};
        for (int c = 0; c < 3; c++) sh_out[3 * k + c] += basis[k] * v[c], along += sh[3 * k + c] * v[c];
        for (int i = 0; i < 3; i++) towards[i] += slope[k][i] * along;
    }
    if (g.sh_degree == 0) return;
    Double dot = {}, direction[3] = {wide(towards[0]), wide(towards[1]), wide(towards[2])};
    for (int i = 0; i < 3; i++) dot += direction[i] * s.direction[i];
    for (int i = 0; i < 3; i++) direction[i] = (direction[i] - dot * s.direction[i]) * s.inverse_distance;
    for (int i = 0; i < 3; i++)
        out.mean[i] += turn ? turn[3 * i] * direction[0] + turn[3 * i + 1] * direction[1] + turn[3 * i + 2] * direction[2]
                            : direction[i];
}

inline void write_ellipsoid_gradient(const Ellipsoid &e, const Gradient &v, const Rows &rows, const ProjectedGradient &out) {
    Double r[9], scales[3] = {}, quaternion[4];
    for (int i = 0; i < 9; i++) scales[i % 3] += e.rotation[i] * v.axes[i];
    store_columns(out.scales, rows, 3, 3, scales), store_columns(out.means, rows, 3, 3, v.mean);
    for (int i = 0; i < 9; i++) r[i] = v.axes[i] * e.scales[i % 3];
    const Double w = e.quaternion[0], x = e.quaternion[1], y = e.quaternion[2], z = e.quaternion[3];
    const Double q[4] = {
        2 * (x * (r[7] - r[5]) + y * (r[2] - r[6]) + z * (r[3] - r[1])),
        2 * (-2 * x * (r[4] + r[8]) + y * (r[1] + r[3]) + z * (r[2] + r[6]) + w * (r[7] - r[5])),
        2 * (x * (r[1] + r[3]) - 2 * y * (r[0] + r[8]) + z * (r[5] + r[7]) + w * (r[2] - r[6])),
        2 * (x * (r[2] + r[6]) + y * (r[5] + r[7]) - 2 * z * (r[0] + r[4]) + w * (r[3] - r[1]))};
    const Double dot = q[0] * w + q[1] * x + q[2] * y + q[3] * z;
    for (int k = 0; k < 4; k++)
        quaternion[k] = e.norm > 1e-12 ? (q[k] - dot * e.quaternion[k]) / e.norm : Double{};
    store_columns(out.quaternions, rows, 4, 4, quaternion);
}

constexpr int LINE = sizeof(ap3d_splat) / sizeof(float);

// What float32 keeps of a value, and what it rounds away.
inline void split(Double v, Double *high, Double *low) {
    *high = wide(narrow(v));
    *low = v - *high;
}

}  // namespace

extern "C" bool JOIN(ap3d_project_, AP3D_ISA)(const ap3d_gaussians *g, const View *views, int view_count,
                                              const ap3d_rule *rule, const Projected *out, int first, int end) {
    const double log2_cut = __builtin_log2((double)rule->cut);
    const int used = (g->sh_degree + 1) * (g->sh_degree + 1);
    Double poison = {};
    for (int n = first; n < end; n += LANES) {
        const Rows rows(n, end);
        fetch<0>(g->sh, n + FETCH, end, 3 * g->sh_count);
        const Ellipsoid e = read_ellipsoid(*g, rows);
        Half sh[COEFFICIENTS], basis[16], looking[3], value[3];
        Double turned[9];
        read_harmonics(*g, rows, sh);
        const Double *turn = read_turn(*g, rows, turned);
        gather_poison(*g, e, sh, turn, poison);
        const Long visible = e.opacity >= (double)rule->cut;
        const Double log2_opacity = log2_of(visible ? e.opacity : Double{} + 1);
        const Double reach = root(1.3862943611198906 * larger(log2_opacity - log2_cut, Double{}));
        for (int b = 0; b < view_count; b++) {
            const View &v = views[b];
            const size_t at = (size_t)b * g->count;
            Footprint f;
            const Long ahead = project(v, e, *rule, f);
            const Double x = v.fx * f.t[0] * f.inverse_z + v.cx, y = v.fy * f.t[1] * f.inverse_z + v.cy;
            f.root_a = root(f.a), f.root_c = root(f.c);
            const Extent box = extent(v, *rule, f, reach, x, y);
            const Long seen = ahead & visible & (box.x1 > box.x0) & (box.y1 > box.y0);
            const Double l11 = root(1 / f.given), slant = f.b * f.inverse_c;
            const Sight s = sight(v, e, turn);
            for (int i = 0; i < 3; i++) looking[i] = narrow(s.direction[i]);
            harmonics<false>(g->sh_degree, looking, basis, (Half(*)[3]) nullptr);
            colour(sh, used, basis, value);
            const Double slack = reach + 1e-3, reach_x = slack * f.root_a, reach_y = slack * f.root_c;
            Double line[LINE] = {}, tiles[4], mean2d[2] = {ahead ? x : Double{}, ahead ? y : Double{}};
            split(x, line, line + 2), split(y, line + 1, line + 3);
            line[4] = l11, line[5] = -slant * l11, line[6] = f.inverse_c * f.root_c, line[7] = e.opacity;
            for (int c = 0; c < 3; c++) line[8 + c] = larger(wide(value[c]), Double{});
            line[11] = f.t[2], line[12] = log2_opacity, line[13] = reach_x, line[14] = reach_y;
            // No tile beyond the reach: its pixels would not count anyway.
            const Double x0 = smaller(larger(box.x0, floor_of((x - reach_x - 0.5) / AP3D_TILE)), box.x1);
            const Double x1 = larger(smaller(box.x1, floor_of((x + reach_x - 0.5) / AP3D_TILE) + 1), x0);
            const Double y0 = smaller(larger(box.y0, floor_of((y - reach_y - 0.5) / AP3D_TILE)), box.y1);
            const Double y1 = larger(smaller(box.y1, floor_of((y + reach_y - 0.5) / AP3D_TILE) + 1), y0);
            tiles[0] = x0 + AP3D_BOX_BASE * x1, tiles[1] = y0 + AP3D_BOX_BASE * y1, tiles[2] = f.t[2], tiles[3] = box.radius;
            for (Double &v : tiles) v = seen ? v : Double{};
            store_columns((float *)(out->splats + at), rows, LINE, LINE, line);
            store_columns((float *)(out->boxes + at), rows, 4, 4, tiles);
            store_columns(out->means2d + 2 * at, rows, 2, 2, mean2d);
        }
    }
    bool finite = true;
    for (int i = 0; i < LANES; i++) finite &= poison[i] == 0;
    return finite;
}

extern "C" void JOIN(ap3d_project_backward_, AP3D_ISA)(const ap3d_gaussians *g, const View *views, int view_count,
                                                       const ap3d_rule *rule, const ProjectedGradient *io, int first,
                                                       int end) {
    for (int n = first; n < end; n += LANES) {
        const Rows rows(n, end);
        fetch<0>(g->sh, n + FETCH, end, 3 * g->sh_count), fetch<1>(io->sh, n + FETCH, end, 3 * g->sh_count);
        fetch<0>((const float *)io->splats, n + FETCH, end, LINE);
        const Ellipsoid e = read_ellipsoid(*g, rows);
        Half sh[COEFFICIENTS], sh_out[COEFFICIENTS] = {};
        Double turned[9], opacity = {};
        read_harmonics(*g, rows, sh);
        const Double *turn = read_turn(*g, rows, turned);
        Gradient v = {};
        for (int b = 0; b < view_count; b++) {
            const size_t at = (size_t)b * g->count;
            Double radius, line[8], mean2d[2];
            radius = load(&io->boxes[at].radius, rows, 4);
            const Long seen = radius > 0.;
            auto in = [&](Double value) { return seen ? value : Double{}; };
            load_columns((const float *)(io->splats + at) + 4, rows, LINE, 8, line);
            load_columns(io->means2d + 2 * at, rows, 2, 2, mean2d);
            for (Double &v : line) v = in(v);
            for (Double &v : mean2d) v = in(v);
            Footprint f;
            project(views[b], e, *rule, f);
            opacity += line[3];
            Gradient view = {};
            project_backward(views[b], f, mean2d, line, line[7], view);
            const Sight s = sight(views[b], e, turn);
            colour_backward(*g, s, turn, sh, line + 4, view, sh_out);
            // Lanes that are not seen may have overflowed on the way.
            for (int k = 0; k < 3; k++) v.mean[k] += in(view.mean[k]);
            for (int k = 0; k < 9; k++) v.axes[k] += in(view.axes[k]);
        }
        write_ellipsoid_gradient(e, v, rows, *io);
        store_columns(io->opacities, rows, 1, 1, &opacity);
        store_columns(io->sh, rows, 3 * g->sh_count, 3 * g->sh_count, sh_out);
    }
}
