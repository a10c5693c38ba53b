// Gaussians to screen, forward and backward, in chunks over threads.
#include <algorithm>
#include <atomic>
#include <vector>

#include "parallel.h"
#include "splats.h"

namespace {

constexpr int CHUNK = 256;

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

template <class Body>
void each_chunk(int count, int threads, Body body) {
    ap3d::parallel_for((count + CHUNK - 1) / CHUNK, threads,
                       [&](int i) { body(i * CHUNK, std::min(count, (i + 1) * CHUNK)); });
}

}  // namespace

extern "C" {

// Writes splats, boxes and means2d whole. Returns 1 when a value of the Gaussians is not finite, else 0.
int ap3d_splats_project(const ap3d_gaussians *g, const ap3d_views *cameras, const ap3d_rule *rule,
                        const Projected *out, int threads) {
    return ap3d::answer([&] {
        const auto views = read_views(*cameras);
        std::atomic<bool> finite{true};
        each_chunk(g->count, threads, [&](int first, int end) {
            if (!ap3d_kernels().project(g, views.data(), cameras->count, rule, out, first, end)) finite = false;
        });
        return finite ? 0 : 1;
    });
}

int ap3d_splats_project_backward(const ap3d_gaussians *g, const ap3d_views *cameras, const ap3d_rule *rule,
                                 const ProjectedGradient *io, int threads) {
    return ap3d::answer([&] {
        const auto views = read_views(*cameras);
        each_chunk(g->count, threads, [&](int first, int end) {
            ap3d_kernels().project_backward(g, views.data(), cameras->count, rule, io, first, end);
        });
    });
}

}  // extern "C"
