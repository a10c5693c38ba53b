// Gaussians from the frames of their triangles to the world, forward and backward. One triangle: its similarity. More:
// the blend of the triangles' motions since the neutral pose as dual quaternions (Kavan et al. 2007, "Skinning with
// dual quaternions"), with blended scale. ap3d/splats/posing.py has the same in torch.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "parallel.h"

extern "C" {

struct ap3d_frames {  // of every triangle
    const float *rotation, *origin, *scale;  // [F,9] [F,3] [F]
    int count;
};

struct ap3d_bound {
    const float *xyz, *rotation, *sizes;          // [N,3] [N,4] [N,3] in triangle units
    const int64_t *binding, *extra_binding;       // [N] [N,E]
    const float *extra_weights;                   // [N,E]
    int count, extra, historic;                   // historic: local quaternion before the triangle's
};

struct ap3d_posed {
    float *means, *quaternions, *scales, *turns;  // [N,3] [N,4] [N,3] [N,9]; turns may be null
};
}

namespace {

constexpr int CHUNK = 1024;

struct Similarity {  // local to world
    float rotation[9], origin[3], scale, quaternion[4];
};

struct Motion {  // of a triangle since the neutral pose: p to matrix p + shift
    float matrix[9], shift[3], quaternion[4], ratio;
};

struct Mesh {
    std::vector<Similarity> posed, neutral;
    std::vector<Motion> motions;
};

void multiply(const float *a, const float *b, float *out) {
    const float w = a[0] * b[0] - a[1] * b[1] - a[2] * b[2] - a[3] * b[3];
    const float x = a[0] * b[1] + a[1] * b[0] + a[2] * b[3] - a[3] * b[2];
    const float y = a[0] * b[2] - a[1] * b[3] + a[2] * b[0] + a[3] * b[1];
    const float z = a[0] * b[3] + a[1] * b[2] - a[2] * b[1] + a[3] * b[0];
    out[0] = w, out[1] = x, out[2] = y, out[3] = z;
}

void conjugate(const float *q, float *out) { out[0] = q[0], out[1] = -q[1], out[2] = -q[2], out[3] = -q[3]; }

void transform(const float *m, const float *v, float *out) {
    for (int i = 0; i < 3; i++) out[i] = m[3 * i] * v[0] + m[3 * i + 1] * v[1] + m[3 * i + 2] * v[2];
}

void transform_transposed(const float *m, const float *v, float *out) {
    for (int i = 0; i < 3; i++) out[i] = m[i] * v[0] + m[3 + i] * v[1] + m[6 + i] * v[2];
}

void to_quaternion(const float *m, float *q) {
    const float trace = m[0] + m[4] + m[8];
    if (trace >= std::max({m[0], m[4], m[8]})) {
        const float values[4] = {1 + trace, m[7] - m[5], m[2] - m[6], m[3] - m[1]};
        std::memcpy(q, values, sizeof values);
    } else {
        const int i = m[0] >= m[4] && m[0] >= m[8] ? 0 : m[4] >= m[8] ? 1 : 2, j = (i + 1) % 3, k = (i + 2) % 3;
        q[0] = m[3 * k + j] - m[3 * j + k];
        q[1 + i] = 1 + 2 * m[4 * i] - trace;
        q[1 + j] = m[3 * i + j] + m[3 * j + i];
        q[1 + k] = m[3 * i + k] + m[3 * k + i];
    }
    const float length = std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]);
    for (int c = 0; c < 4; c++) q[c] /= length;
}

void to_matrix(const float *q, float *m) {
    const float w = q[0], x = q[1], y = q[2], z = q[3];
    const float values[9] = {1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
                             2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
                             2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)};
    std::memcpy(m, values, sizeof values);
}

Similarity read_frame(const ap3d_frames &frames, int f) {
    Similarity s;
    std::memcpy(s.rotation, frames.rotation + 9 * (size_t)f, sizeof s.rotation);
    std::memcpy(s.origin, frames.origin + 3 * (size_t)f, sizeof s.origin);
    s.scale = frames.scale[f];
    to_quaternion(s.rotation, s.quaternion);
    return s;
}

Motion motion_between(const Similarity &neutral, const Similarity &posed) {
    Motion m;
    float inverse[4];
    conjugate(neutral.quaternion, inverse);
    multiply(posed.quaternion, inverse, m.quaternion);
    to_matrix(m.quaternion, m.matrix);
    m.ratio = posed.scale / neutral.scale;
    for (float &value : m.matrix) value *= m.ratio;
    transform(m.matrix, neutral.origin, m.shift);
    for (int i = 0; i < 3; i++) m.shift[i] = posed.origin[i] - m.shift[i];
    return m;
}

Mesh read_mesh(const ap3d_frames &posed, const ap3d_frames *neutral) {
    Mesh mesh;
    for (int f = 0; f < posed.count; f++) {
        mesh.posed.push_back(read_frame(posed, f));
        if (!neutral) continue;
        mesh.neutral.push_back(read_frame(*neutral, f));
        mesh.motions.push_back(motion_between(mesh.neutral[f], mesh.posed[f]));
    }
    return mesh;
}

// The triangles of one Gaussian and the sum of their rotations since neutral, all in the first one's hemisphere.
struct Blend {
    const Motion *motions[4];
    float weights[4];  // negative where the quaternion counts with the other sign
    float sum[4] = {}, ratio = 0, squared = 0;
    int count = 1;

    Blend(const ap3d_bound &g, const Mesh &mesh, size_t n) {
        motions[0] = &mesh.motions[g.binding[n]], weights[0] = 1;
        for (int e = 0; e < g.extra; e++) {
            const float weight = g.extra_weights[n * g.extra + e];
            if (weight == 0) continue;
            motions[count] = &mesh.motions[g.extra_binding[n * g.extra + e]];
            weights[count++] = weight, weights[0] -= weight;
        }
        const float *first = motions[0]->quaternion;
        for (int k = 0; k < count; k++) {
            const float *q = motions[k]->quaternion;
            ratio += weights[k] * motions[k]->ratio;
            if (q[0] * first[0] + q[1] * first[1] + q[2] * first[2] + q[3] * first[3] < 0) weights[k] = -weights[k];
            for (int c = 0; c < 4; c++) sum[c] += weights[k] * q[c];
        }
        for (float value : sum) squared += value * value;
    }

    // Moves a neutral world point by vec(d b*) / |b|^2: b is the sum, d that of (0, displacement) q, each triangle's
    // dual quaternion being expressed at the point.
    void move(const float *p, float *out) const {
        float dual[4] = {}, inverse[4], q[4];
        for (int k = 0; k < count; k++) {
            float moved[3];
            transform(motions[k]->matrix, p, moved);
            const float u[4] = {0, moved[0] + motions[k]->shift[0] - p[0], moved[1] + motions[k]->shift[1] - p[1],
                                moved[2] + motions[k]->shift[2] - p[2]};
            multiply(u, motions[k]->quaternion, q);
            for (int c = 0; c < 4; c++) dual[c] += weights[k] * q[c];
        }
        conjugate(sum, inverse);
        multiply(dual, inverse, q);
        for (int i = 0; i < 3; i++) out[i] = p[i] + q[1 + i] / squared;
    }

    // The transposed derivative of `move`, which is linear in the point.
    void move_backward(const float *v, float *out) const {
        float inverse[4], g[4], back[3];
        conjugate(sum, inverse);
        for (int i = 0; i < 3; i++) out[i] = v[i];
        for (int k = 0; k < count; k++) {
            multiply(motions[k]->quaternion, inverse, g);
            const float by = weights[k] / squared;
            const float turned[3] = {by * (g[0] * v[0] + g[2] * v[2] - g[3] * v[1]),
                                     by * (g[0] * v[1] + g[3] * v[0] - g[1] * v[2]),
                                     by * (g[0] * v[2] + g[1] * v[1] - g[2] * v[0])};
            transform_transposed(motions[k]->matrix, turned, back);
            for (int i = 0; i < 3; i++) out[i] += back[i] - turned[i];
        }
    }

    void rotation(float *q) const {
        for (int c = 0; c < 4; c++) q[c] = sum[c] / std::sqrt(squared);
    }
};

bool has_several(const ap3d_bound &g, size_t n) {
    for (int e = 0; e < g.extra; e++)
        if (g.extra_weights[n * g.extra + e] != 0) return true;
    return false;
}

template <class Body>
void for_each(const ap3d_bound &g, int threads, Body body) {
    ap3d::parallel_for((g.count + CHUNK - 1) / CHUNK, threads, [&](int chunk) {
        for (int n = chunk * CHUNK; n < std::min(g.count, (chunk + 1) * CHUNK); n++) body((size_t)n);
    });
}

void cross(const float *a, const float *b, float *out) {
    out[0] = a[1] * b[2] - a[2] * b[1], out[1] = a[2] * b[0] - a[0] * b[2], out[2] = a[0] * b[1] - a[1] * b[0];
}

float dot(const float *a, const float *b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

// To length 1 in place; what has no length becomes a unit axis.
void normalise(float *v, int axis) {
    const float length = std::sqrt(dot(v, v));
    for (int i = 0; i < 3; i++) v[i] = length > 1e-12f ? v[i] / length : (float)(i == axis);
}

float unit(const float *q, float *out) {
    const float length = std::max(std::sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2] + q[3] * q[3]), 1e-12f);
    for (int c = 0; c < 4; c++) out[c] = q[c] / length;
    return length;
}

}  // namespace

extern "C" {

// Frames of triangles: columns of the rotation are the first edge, the normal and minus their cross product.
void ap3d_triangle_frames(const float *vertices, const int64_t *faces, int count, float *rotation, float *origin,
                          float *scale) {
    for (size_t f = 0; f < (size_t)count; f++) {
        const float *v[3];
        float first[3], second[3], edge[3], normal[3], across[3];
        for (int k = 0; k < 3; k++) v[k] = vertices + 3 * faces[3 * f + k];
        for (int i = 0; i < 3; i++) {
            edge[i] = first[i] = v[1][i] - v[0][i], second[i] = v[2][i] - v[0][i];
            origin[3 * f + i] = (v[0][i] + v[1][i] + v[2][i]) / 3;
        }
        normalise(edge, 0);
        cross(edge, second, normal);
        normalise(normal, 1);
        const float along = dot(normal, edge);
        for (int i = 0; i < 3; i++) normal[i] -= along * edge[i];
        normalise(normal, 1);
        cross(edge, normal, across);
        for (int i = 0; i < 3; i++)
            rotation[9 * f + 3 * i] = edge[i], rotation[9 * f + 3 * i + 1] = normal[i],
                              rotation[9 * f + 3 * i + 2] = across[i];
        scale[f] = std::max(0.5f * (std::sqrt(dot(first, first)) + std::fabs(dot(across, second))), 1e-6f);
    }
}

// Extra weights leave the rest to the first binding; `neutral` is needed where there are extra bindings or turns.
int ap3d_splats_pose(const ap3d_bound *g, const ap3d_frames *posed, const ap3d_frames *neutral, const ap3d_posed *out,
                     int threads) {
    return ap3d::answer([&] {
        const Mesh mesh = read_mesh(*posed, neutral);
        for_each(*g, threads, [&](size_t n) {
            const bool several = has_several(*g, n);
            const Similarity &frame = (several ? mesh.neutral : mesh.posed)[g->binding[n]];
            float local[4], triangle[4], turn[4], scale = frame.scale, mean[3];
            transform(frame.rotation, g->xyz + 3 * n, mean);
            for (int i = 0; i < 3; i++) mean[i] = frame.scale * mean[i] + frame.origin[i];
            std::memcpy(triangle, frame.quaternion, sizeof triangle);
            if (several) {
                const Blend blend(*g, mesh, n);
                blend.move(mean, out->means + 3 * n);
                blend.rotation(turn);
                multiply(turn, frame.quaternion, triangle);
                scale *= blend.ratio;
            } else {
                std::memcpy(out->means + 3 * n, mean, sizeof mean);
                if (neutral) std::memcpy(turn, mesh.motions[g->binding[n]].quaternion, sizeof turn);
            }
            unit(g->rotation + 4 * n, local);
            if (g->historic)
                multiply(local, triangle, out->quaternions + 4 * n);
            else
                multiply(triangle, local, out->quaternions + 4 * n);
            for (int i = 0; i < 3; i++) out->scales[3 * n + i] = scale * g->sizes[3 * n + i];
            if (out->turns) to_matrix(turn, out->turns + 9 * n);
        });
    });
}

// `in` holds the gradients by means, quaternions and scales; what is written are those by xyz, rotation and sizes.
int ap3d_splats_pose_backward(const ap3d_bound *g, const ap3d_frames *posed, const ap3d_frames *neutral,
                              const ap3d_posed *in, float *xyz, float *rotation, float *sizes, int threads) {
    return ap3d::answer([&] {
        const Mesh mesh = read_mesh(*posed, neutral);
        for_each(*g, threads, [&](size_t n) {
            const bool several = has_several(*g, n);
            const Similarity &frame = (several ? mesh.neutral : mesh.posed)[g->binding[n]];
            float triangle[4], mean[3], scale = frame.scale;
            std::memcpy(triangle, frame.quaternion, sizeof triangle);
            std::memcpy(mean, in->means + 3 * n, sizeof mean);
            if (several) {
                const Blend blend(*g, mesh, n);
                blend.move_backward(in->means + 3 * n, mean);
                float turn[4];
                blend.rotation(turn);
                multiply(turn, frame.quaternion, triangle);
                scale *= blend.ratio;
            }
            transform_transposed(frame.rotation, mean, xyz + 3 * n);
            for (int i = 0; i < 3; i++) xyz[3 * n + i] *= frame.scale, sizes[3 * n + i] = scale * in->scales[3 * n + i];
            float local[4], inverse[4], v[4], dot = 0;
            const float length = unit(g->rotation + 4 * n, local);
            conjugate(triangle, inverse);
            if (g->historic)
                multiply(in->quaternions + 4 * n, inverse, v);
            else
                multiply(inverse, in->quaternions + 4 * n, v);
            for (int c = 0; c < 4; c++) dot += v[c] * local[c];
            for (int c = 0; c < 4; c++) rotation[4 * n + c] = (v[c] - dot * local[c]) / length;
        });
    });
}

}  // extern "C"
