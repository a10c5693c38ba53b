// Gaussians to screen: EWA projection (Zwicker 2001 in the form of 3D Gaussian Splatting and gsplat) and spherical
// harmonics colour, forward and backward, in double precision.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "harmonics.h"
#include "parallel.h"
#include "splats.h"

namespace {

constexpr int CHUNK = 128;

struct View {
    double rotation[9], translation[3], position[3];
    double fx, fy, cx, cy, low[2], high[2];  // low, high: bounds of x/z and y/z where the Jacobian is taken
    int width, height, columns, rows;
};

std::vector<View> read_views(const ap3d_views &views) {
    std::vector<View> out(views.count);
    for (int b = 0; b < views.count; b++) {
        View &v = out[b];
        const float *m = views.world2cam + 16 * b, *k = views.intrinsics + 4 * b;
        for (int i = 0; i < 3; i++) {
            for (int j = 0; j < 3; j++) v.rotation[3 * i + j] = m[4 * i + j];
            v.translation[i] = m[4 * i + 3];
        }
        for (int j = 0; j < 3; j++) {
            v.position[j] = 0;
            for (int i = 0; i < 3; i++) v.position[j] -= v.rotation[3 * i + j] * v.translation[i];
        }
        v.fx = k[0], v.fy = k[1], v.cx = k[2], v.cy = k[3], v.width = views.width, v.height = views.height;
        const double margin_x = 0.3 * 0.5 * v.width / v.fx, margin_y = 0.3 * 0.5 * v.height / v.fy;
        v.low[0] = -v.cx / v.fx - margin_x, v.high[0] = (v.width - v.cx) / v.fx + margin_x;
        v.low[1] = -v.cy / v.fy - margin_y, v.high[1] = (v.height - v.cy) / v.fy + margin_y;
        v.columns = (v.width + AP3D_TILE - 1) / AP3D_TILE, v.rows = (v.height + AP3D_TILE - 1) / AP3D_TILE;
    }
    return out;
}

struct Ellipsoid {  // axes: rotation times scales, columns are the principal axes
    double mean[3], quaternion[4], norm, rotation[9], scales[3], axes[9], opacity;
};

Ellipsoid read_ellipsoid(const ap3d_gaussians &g, int n) {
    Ellipsoid e;
    double squared = 0;
    for (int k = 0; k < 4; k++) squared += (double)g.quaternions[4 * n + k] * g.quaternions[4 * n + k];
    e.norm = std::max(std::sqrt(squared), 1e-12);
    for (int k = 0; k < 4; k++) e.quaternion[k] = g.quaternions[4 * n + k] / e.norm;
    const double w = e.quaternion[0], x = e.quaternion[1], y = e.quaternion[2], z = e.quaternion[3];
    const double r[9] = {1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
                         2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
                         2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)};
    std::memcpy(e.rotation, r, sizeof r);
    for (int k = 0; k < 3; k++) e.mean[k] = g.means[3 * n + k], e.scales[k] = g.scales[3 * n + k];
    for (int i = 0; i < 9; i++) e.axes[i] = r[i] * e.scales[i % 3];
    e.opacity = g.opacities[n];
    return e;
}

struct Footprint {
    double t[3];                // camera space mean
    double ratio[2], inside[2];  // clamped x/z and y/z; inside is 0 where the clamp acts
    double jacobian[6], axes[9];  // axes in camera space
    double flat[6];             // jacobian times axes, 2 x 3
    double a, b, c;             // covariance in square pixels, with the blur
    double given;               // variance along x at a given y: determinant / c
};

bool project(const View &v, const Ellipsoid &e, const ap3d_rule &rule, Footprint &f) {
    for (int i = 0; i < 3; i++) {
        const double *r = v.rotation + 3 * i;
        f.t[i] = r[0] * e.mean[0] + r[1] * e.mean[1] + r[2] * e.mean[2] + v.translation[i];
    }
    const double z = f.t[2];
    if (!(z >= rule.near_plane)) return false;
    for (int i = 0; i < 9; i++) {
        const double *r = v.rotation + i / 3 * 3;
        f.axes[i] = r[0] * e.axes[i % 3] + r[1] * e.axes[3 + i % 3] + r[2] * e.axes[6 + i % 3];
    }
    for (int k = 0; k < 2; k++) {
        const double ratio = f.t[k] / z;
        f.ratio[k] = std::clamp(ratio, v.low[k], v.high[k]);
        f.inside[k] = ratio >= v.low[k] && ratio <= v.high[k];
    }
    const double j[6] = {v.fx / z, 0, -v.fx * f.ratio[0] / z, 0, v.fy / z, -v.fy * f.ratio[1] / z};
    std::memcpy(f.jacobian, j, sizeof j);
    f.a = f.c = rule.blur, f.b = 0;
    for (int k = 0; k < 3; k++) {
        f.flat[k] = j[0] * f.axes[k] + j[2] * f.axes[6 + k];
        f.flat[3 + k] = j[4] * f.axes[3 + k] + j[5] * f.axes[6 + k];
        f.a += f.flat[k] * f.flat[k], f.b += f.flat[k] * f.flat[3 + k], f.c += f.flat[3 + k] * f.flat[3 + k];
    }
    // a - b^2/c by way of the minors of `flat`: no cancellation, however long the needle, and never below the blur.
    const double *p = f.flat, *q = f.flat + 3;
    const double m0 = p[1] * q[2] - p[2] * q[1], m1 = p[2] * q[0] - p[0] * q[2], m2 = p[0] * q[1] - p[1] * q[0];
    f.given = (m0 * m0 + m1 * m1 + m2 * m2 + rule.blur * (f.a + f.c - rule.blur)) / f.c;
    return true;
}

int tile_bound(double tile, int count) { return (int)std::clamp(tile, 0.0, (double)count); }

// The tiles a footprint may touch: gsplat's opacity-aware box, or the square and the rounding of
// diff-gaussian-rasterization. Returns the larger half side in pixels, 0 when nothing is touched.
double rectangle(const View &v, const ap3d_rule &rule, const Footprint &f, double opacity, double x, double y, int *r) {
    if (!(opacity >= rule.cut)) return 0;
    double rx, ry;
    if (rule.opacity_aware) {
        const double extent = std::min((double)rule.extent, std::sqrt(2 * std::log(opacity / rule.cut)));
        rx = std::ceil(extent * std::sqrt(f.a)), ry = std::ceil(extent * std::sqrt(f.c));
    } else {
        const double mid = 0.5 * (f.a + f.c), det = f.given * f.c;
        rx = ry = std::ceil(rule.extent * std::sqrt(mid + std::sqrt(std::max(0.1, mid * mid - det))));
    }
    const double shift = rule.opacity_aware ? 0 : 0.5;  // the latter's pixel centres are whole numbers
    const double left = x - shift - rx, right = x - shift + rx, top = y - shift - ry, bottom = y - shift + ry;
    auto upper = [&](double pixel) {  // and its upper bound is truncated
        return rule.opacity_aware ? std::ceil(pixel / AP3D_TILE) : std::floor((pixel + AP3D_TILE - 1) / AP3D_TILE);
    };
    r[0] = tile_bound(std::floor(left / AP3D_TILE), v.columns), r[1] = tile_bound(upper(right), v.columns);
    r[2] = tile_bound(std::floor(top / AP3D_TILE), v.rows), r[3] = tile_bound(upper(bottom), v.rows);
    return r[1] > r[0] && r[3] > r[2] ? std::max({rx, ry, 1.0}) : 0;
}

struct Sight {  // the direction in which a view sees a Gaussian, turned back to the neutral pose
    double direction[3], distance;
};

Sight sight(const View &v, const Ellipsoid &e, const float *turn) {
    double d[3], t[3];
    for (int k = 0; k < 3; k++) t[k] = d[k] = e.mean[k] - v.position[k];
    if (turn)
        for (int k = 0; k < 3; k++) t[k] = turn[k] * d[0] + turn[3 + k] * d[1] + turn[6 + k] * d[2];
    Sight s;
    s.distance = std::sqrt(t[0] * t[0] + t[1] * t[1] + t[2] * t[2]);
    for (int k = 0; k < 3; k++) s.direction[k] = t[k] / s.distance;
    return s;
}

void colour(const ap3d_gaussians &g, int n, const double *basis, double *out) {
    const float *sh = g.sh + 3 * (size_t)n * g.sh_count;
    const int used = (g.sh_degree + 1) * (g.sh_degree + 1);
    for (int c = 0; c < 3; c++) out[c] = 0.5;
    for (int k = 0; k < used; k++)
        for (int c = 0; c < 3; c++) out[c] += basis[k] * sh[3 * k + c];
}

struct Gradient {
    double mean[3], axes[9];
};

// dL/d(factor) to dL/d(covariance): l11 = m^-1/2, l21 = -(b/c) l11, l22 = c^-1/2 with m = a - b^2/c.
void covariance_gradient(const Footprint &f, const float *factor, double *out) {
    const double slope = f.b / f.c, m = f.given, l11 = 1 / std::sqrt(m);
    const double vm = -0.5 * l11 / m * (factor[0] - slope * factor[1]);
    out[0] = vm;
    out[1] = -2 * slope * vm - l11 / f.c * factor[1];
    out[2] = slope * slope * vm + slope * l11 / f.c * factor[1] - 0.5 / (f.c * std::sqrt(f.c)) * factor[2];
}

void project_backward(const View &v, const Footprint &f, const float *mean2d, const float *factor, double depth,
                      Gradient &out) {
    double cov[3], flat[6], j[6] = {}, t[3] = {0, 0, depth};
    covariance_gradient(f, factor, cov);
    for (int k = 0; k < 3; k++) {
        flat[k] = 2 * cov[0] * f.flat[k] + cov[1] * f.flat[3 + k];
        flat[3 + k] = cov[1] * f.flat[k] + 2 * cov[2] * f.flat[3 + k];
        j[0] += flat[k] * f.axes[k], j[2] += flat[k] * f.axes[6 + k];
        j[4] += flat[3 + k] * f.axes[3 + k], j[5] += flat[3 + k] * f.axes[6 + k];
    }
    const double z = f.t[2], focal[2] = {v.fx, v.fy};
    for (int k = 0; k < 2; k++) {
        const double scale = focal[k] / z, diagonal = j[4 * k], skew = j[3 * k + 2];
        t[2] += (-diagonal + skew * f.ratio[k]) * scale / z;
        const double ratio = -scale * skew * f.inside[k] + focal[k] * mean2d[k];
        t[k] += ratio / z, t[2] -= ratio * f.t[k] / (z * z);
    }
    for (int i = 0; i < 3; i++)
        for (int r = 0; r < 3; r++) out.mean[i] += v.rotation[3 * r + i] * t[r];
    for (int k = 0; k < 3; k++) {
        double camera[3];
        for (int r = 0; r < 3; r++) camera[r] = f.jacobian[r] * flat[k] + f.jacobian[3 + r] * flat[3 + k];
        for (int i = 0; i < 3; i++)
            for (int r = 0; r < 3; r++) out.axes[3 * i + k] += v.rotation[3 * r + i] * camera[r];
    }
}

void colour_backward(const ap3d_gaussians &g, int n, const Sight &s, const double *basis, const double (*slope)[3],
                     const float *incoming, Gradient &out, float *sh_out) {
    double value[3], v[3], direction[3] = {};
    colour(g, n, basis, value);
    for (int c = 0; c < 3; c++) v[c] = value[c] > 0 ? incoming[c] : 0;
    const float *sh = g.sh + 3 * (size_t)n * g.sh_count;
    const int used = (g.sh_degree + 1) * (g.sh_degree + 1);
    for (int k = 0; k < used; k++) {
        double along = 0;
        for (int c = 0; c < 3; c++) sh_out[3 * k + c] += (float)(basis[k] * v[c]), along += sh[3 * k + c] * v[c];
        for (int i = 0; i < 3; i++) direction[i] += slope[k][i] * along;
    }
    if (g.sh_degree == 0) return;
    double dot = 0;
    for (int i = 0; i < 3; i++) dot += direction[i] * s.direction[i];
    for (int i = 0; i < 3; i++) direction[i] = (direction[i] - dot * s.direction[i]) / s.distance;
    const float *turn = g.view_rotations ? g.view_rotations + 9 * (size_t)n : nullptr;
    for (int i = 0; i < 3; i++)
        out.mean[i] += turn ? turn[3 * i] * direction[0] + turn[3 * i + 1] * direction[1] + turn[3 * i + 2] * direction[2]
                            : direction[i];
}

void ellipsoid_backward(const Ellipsoid &e, const Gradient &v, float *mean, float *quaternion, float *scales) {
    double r[9];
    for (int k = 0; k < 3; k++) {
        double s = 0;
        for (int i = 0; i < 3; i++) s += e.rotation[3 * i + k] * v.axes[3 * i + k];
        scales[k] = (float)s, mean[k] = (float)v.mean[k];
    }
    for (int i = 0; i < 9; i++) r[i] = v.axes[i] * e.scales[i % 3];
    const double w = e.quaternion[0], x = e.quaternion[1], y = e.quaternion[2], z = e.quaternion[3];
    const double q[4] = {
        2 * (x * (r[7] - r[5]) + y * (r[2] - r[6]) + z * (r[3] - r[1])),
        2 * (-2 * x * (r[4] + r[8]) + y * (r[1] + r[3]) + z * (r[2] + r[6]) + w * (r[7] - r[5])),
        2 * (x * (r[1] + r[3]) - 2 * y * (r[0] + r[8]) + z * (r[5] + r[7]) + w * (r[2] - r[6])),
        2 * (x * (r[2] + r[6]) + y * (r[5] + r[7]) - 2 * z * (r[0] + r[4]) + w * (r[3] - r[1]))};
    const double dot = q[0] * w + q[1] * x + q[2] * y + q[3] * z;
    for (int k = 0; k < 4; k++) quaternion[k] = e.norm > 1e-12 ? (float)((q[k] - dot * e.quaternion[k]) / e.norm) : 0;
}

}  // namespace

extern "C" {

void ap3d_splats_project(const ap3d_gaussians *g, const ap3d_views *cameras, const ap3d_rule *rule,
                         const ap3d_projection *out, int threads) {
    const auto views = read_views(*cameras);
    ap3d::parallel_for((g->count + CHUNK - 1) / CHUNK, threads, [&](int chunk) {
        double basis[16], slope[16][3], value[3];
        for (int n = chunk * CHUNK; n < std::min(g->count, (chunk + 1) * CHUNK); n++) {
            const Ellipsoid e = read_ellipsoid(*g, n);
            for (int b = 0; b < cameras->count; b++) {
                const View &v = views[b];
                const size_t i = (size_t)b * g->count + n;
                Footprint f;
                int *tiles = out->rectangles + 4 * i;
                out->radii[i] = 0;
                std::memset(tiles, 0, 4 * sizeof(int));
                const bool ahead = project(v, e, *rule, f);
                if (!ahead) {
                    out->means2d[2 * i] = out->means2d[2 * i + 1] = out->depths[i] = 0;
                    continue;
                }
                const double xy[2] = {v.fx * f.t[0] / f.t[2] + v.cx, v.fy * f.t[1] / f.t[2] + v.cy};
                for (int k = 0; k < 2; k++) {
                    out->means2d[2 * i + k] = (float)xy[k];
                    out->means2d_low[2 * i + k] = (float)(xy[k] - (float)xy[k]);
                }
                out->depths[i] = (float)f.t[2];
                out->radii[i] = (float)rectangle(v, *rule, f, e.opacity, xy[0], xy[1], tiles);
                if (out->radii[i] == 0) continue;
                const double slant = f.b / f.c, l11 = 1 / std::sqrt(f.given);
                out->factors[3 * i] = (float)l11, out->factors[3 * i + 1] = (float)(-slant * l11);
                out->factors[3 * i + 2] = (float)(1 / std::sqrt(f.c));
                const Sight s = sight(v, e, g->view_rotations ? g->view_rotations + 9 * (size_t)n : nullptr);
                ap3d::harmonics(g->sh_degree, s.direction, basis, slope);
                colour(*g, n, basis, value);
                for (int c = 0; c < 3; c++) out->colors[3 * i + c] = (float)std::max(0.0, value[c]);
            }
        }
    });
}

// The incoming gradients are an ap3d_projection of which means2d, factors, colors and depths are read, and the radii
// of the forward pass; the outgoing ones are written whole.
void ap3d_splats_project_backward(const ap3d_gaussians *g, const ap3d_views *cameras, const ap3d_rule *rule,
                                  const ap3d_projection *in, float *means, float *quaternions, float *scales,
                                  float *sh, int threads) {
    const auto views = read_views(*cameras);
    ap3d::parallel_for((g->count + CHUNK - 1) / CHUNK, threads, [&](int chunk) {
        double basis[16], slope[16][3];
        for (int n = chunk * CHUNK; n < std::min(g->count, (chunk + 1) * CHUNK); n++) {
            const Ellipsoid e = read_ellipsoid(*g, n);
            float *sh_out = sh + 3 * (size_t)n * g->sh_count;
            std::memset(sh_out, 0, sizeof(float) * 3 * g->sh_count);
            Gradient v = {};
            for (int b = 0; b < cameras->count; b++) {
                const size_t i = (size_t)b * g->count + n;
                Footprint f;
                if (in->radii[i] == 0 || !project(views[b], e, *rule, f)) continue;
                project_backward(views[b], f, in->means2d + 2 * i, in->factors + 3 * i, in->depths[i], v);
                const Sight s = sight(views[b], e, g->view_rotations ? g->view_rotations + 9 * (size_t)n : nullptr);
                ap3d::harmonics(g->sh_degree, s.direction, basis, slope);
                colour_backward(*g, n, s, basis, slope, in->colors + 3 * i, v, sh_out);
            }
            ellipsoid_backward(e, v, means + 3 * n, quaternions + 4 * n, scales + 3 * n);
        }
    });
}

}  // extern "C"
