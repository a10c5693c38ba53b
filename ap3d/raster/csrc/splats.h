// What the parts of the splat rasteriser share. Every array is dense, row-major, float32 unless said otherwise.
#pragma once
#include <cstdint>

constexpr int AP3D_TILE = 16;
constexpr int AP3D_TILE_PIXELS = AP3D_TILE * AP3D_TILE;
constexpr int AP3D_BOX_BASE = 4096;  // tiles a side, at most
constexpr int AP3D_FEATURES = 4;  // red, green, blue, depth

extern "C" {

struct ap3d_rule {
    float alpha_clamp, extent, blur, cut, stop, near_plane;
    int opacity_aware;
};

struct ap3d_gaussians {
    const float *means, *quaternions, *scales, *opacities, *sh, *view_rotations;  // [N,3] [N,4] [N,3] [N] [N,K,3] [N,9]
    int count, sh_count, sh_degree;
};

struct ap3d_views {
    const float *world2cam, *intrinsics;  // [B,16] [B,4]
    int count, width, height;
};

// One Gaussian in one view; a cache line. Its squared distance is (l11 dx + l21 dy)^2 + (l22 dy)^2.
struct alignas(64) ap3d_splat {
    float x, y, x_low, y_low;  // pixels, and what float32 rounded away
    float l11, l21, l22, opacity;
    float feature[AP3D_FEATURES];
    float log2_opacity;
    float reach_x, reach_y;  // beyond these alpha is below the cut
    float unused;
};

// Where it is drawn: half-open ranges of tiles, first + AP3D_BOX_BASE * end, both exact in a float; all zero where it
// is not seen.
struct ap3d_box {
    float columns, rows;
    float depth, radius;
};
}

struct View {
    double rotation[9], translation[3], position[3];
    double fx, fy, cx, cy, low[2], high[2];  // low, high: bounds of x/z and y/z where the Jacobian is taken
    int width, height, columns, rows;
};

struct Projected {
    ap3d_splat *splats;        // [B,N]
    ap3d_box *boxes;           // [B,N]
    float *means2d;            // [B,N,2]
};

struct ProjectedGradient {
    const ap3d_splat *splats;  // [B,N] gradients at factors, opacity and features
    const float *means2d;      // [B,N,2]
    const ap3d_box *boxes;     // [B,N] of the forward pass
    float *means, *quaternions, *scales, *opacities, *sh;  // written
};

// A Gaussian in a tile's list, and where its moments of that tile belong.
struct TileItem {
    int32_t gaussian, slot;
};

// A tile's pixels as blocks of one vector each (4 pixels wide, as many rows as fill it), in the order of rows.
struct alignas(64) TileForward {
    float transmittance[AP3D_TILE_PIXELS];
    float live[AP3D_TILE_PIXELS];  // 1, or 0 where the pixel is finished
    float feature[AP3D_FEATURES][AP3D_TILE_PIXELS];
    int32_t last[AP3D_TILE_PIXELS];  // how many splats of the tile's list came before the pixel was finished
};

struct alignas(64) TileBackward {
    float transmittance[AP3D_TILE_PIXELS];
    float gradient[AP3D_FEATURES][AP3D_TILE_PIXELS];
    float behind[AP3D_TILE_PIXELS];  // gradient of the loss along everything behind the current splat
    int32_t last[AP3D_TILE_PIXELS];
};

// Gradient moments of one splat in one tile: g = dL/d(log alpha), dx = x - pixel, and dL/d(feature).
struct alignas(64) Moments {
    float g, gx, gy, gxx, gxy, gyy;
    float feature[AP3D_FEATURES];
    float unused[6];
};

// What exists once for each instruction set.
struct Kernels {
    int block_rows;  // of the blocks of a tile
    // Gaussians first <= n < end in every view; false when a value is not finite.
    bool (*project)(const ap3d_gaussians *, const View *, int views, const ap3d_rule *, const Projected *, int first,
                    int end);
    void (*project_backward)(const ap3d_gaussians *, const View *, int views, const ap3d_rule *,
                             const ProjectedGradient *, int first, int end);
    void (*draw)(const ap3d_splat *, const TileItem *, int count, int left, int top, const ap3d_rule *, TileForward *);
    void (*draw_backward)(const ap3d_splat *, const TileItem *, int count, int left, int top, const ap3d_rule *,
                          TileBackward *, Moments *);
};

const Kernels &ap3d_kernels();  // of the instruction set in use
