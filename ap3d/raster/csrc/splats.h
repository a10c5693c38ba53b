// What the parts of the splat rasteriser share. Every array is dense, row-major, float32 unless said otherwise.
#pragma once
#include <cstdint>

constexpr int AP3D_TILE = 16;
constexpr int AP3D_TILE_PIXELS = AP3D_TILE * AP3D_TILE;
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

struct ap3d_projection {         // of every Gaussian in every view
    float *means2d, *means2d_low;  // [B,N,2] pixels, and what float32 rounded away
    float *factors;                // [B,N,3] l11, l21, l22: squared distance is (l11 dx + l21 dy)^2 + (l22 dy)^2
    float *colors, *depths;        // [B,N,3] [B,N]
    float *radii;                  // [B,N] pixels, 0: not seen
    int *rectangles;               // [B,N,4] tiles x0, x1, y0, y1, half-open
};
}

struct alignas(64) Splat {
    float x, y, x_low, y_low;
    float l11, l21, l22, opacity;
    float feature[AP3D_FEATURES];
    float reach_x, reach_y;  // beyond these alpha is below the cut
    float unused[2];
};

struct alignas(64) TileForward {
    float transmittance[AP3D_TILE_PIXELS];  // negative: the pixel is finished
    float feature[AP3D_FEATURES][AP3D_TILE_PIXELS];
    int32_t last[AP3D_TILE_PIXELS];  // 1 + index in the tile's list of the last splat that counted
};

struct alignas(64) TileBackward {
    float transmittance[AP3D_TILE_PIXELS];
    float gradient[AP3D_FEATURES][AP3D_TILE_PIXELS];
    float behind[AP3D_TILE_PIXELS];  // gradient of the loss along everything behind the current splat
    int32_t last[AP3D_TILE_PIXELS];
};

// Gradient moments of one splat in one tile: g = dL/d(power), dx = x - pixel, and dL/d(feature).
struct Moments {
    float g, gx, gy, gxx, gxy, gyy;
    float feature[AP3D_FEATURES];
};

typedef void (*TileForwardFunction)(const Splat *, const int32_t *, int, int, int, const ap3d_rule *, TileForward *);
typedef void (*TileBackwardFunction)(const Splat *, const int32_t *, int, int, int, const ap3d_rule *, TileBackward *,
                                     Moments *);
