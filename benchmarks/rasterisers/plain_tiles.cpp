// The comparison's yardstick: what one writes first. Sorted lists of Gaussians per 16 x 16 tile, a scalar loop over
// the pixels of a tile and the list, expf from the C library where it counts, and the backward pass in the order of 3D
// Gaussian Splatting. No vectors by hand, no fused projection, one thread.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

static const int TILE = 16;

struct Tiles {
    std::vector<std::vector<int>> lists;
    std::vector<float> left;   // transmittance of each pixel
    std::vector<int> last;     // number of list entries that a pixel has looked at
    std::vector<float> lowest;  // exponent of each Gaussian below which its alpha is under the cut
};

// A tile after the other, so that its list stays in the cache.
template <class Visit>
static void each_pixel(int width, int height, Visit visit) {
    const int columns = (width + TILE - 1) / TILE, rows = (height + TILE - 1) / TILE;
    for (int tile = 0; tile < rows * columns; tile++) {
        const int left = tile % columns * TILE, top = tile / columns * TILE;
        for (int y = top; y < std::min(top + TILE, height); y++)
            for (int x = left; x < std::min(left + TILE, width); x++) visit(x, y, tile);
    }
}

extern "C" {

// means [N,2], conics [N,3], colors [N,3], depths [N], opacities [N], boxes [N,4] tiles x0, y0, x1, y1; image [3,H,W].
void *plain_forward(const float *means, const float *conics, const float *colors, const float *depths,
                    const float *opacities, const int *boxes, int n, int width, int height, float clamp, float cut,
                    float stop, float *image) {
    const int columns = (width + TILE - 1) / TILE, rows = (height + TILE - 1) / TILE;
    Tiles *tiles = new Tiles;
    tiles->lists.resize(columns * rows);
    tiles->left.resize(width * height);
    tiles->last.resize(width * height);
    tiles->lowest.resize(n);
    std::vector<int> order(n);
    for (int i = 0; i < n; i++) order[i] = i, tiles->lowest[i] = std::log(cut / opacities[i]) - 1e-4f;
    std::sort(order.begin(), order.end(), [&](int a, int b) { return depths[a] < depths[b]; });
    for (int i : order)
        for (int y = boxes[4 * i + 1]; y < boxes[4 * i + 3]; y++)
            for (int x = boxes[4 * i]; x < boxes[4 * i + 2]; x++) tiles->lists[y * columns + x].push_back(i);
    each_pixel(width, height, [&](int x, int y, int tile) {
        const std::vector<int> &list = tiles->lists[tile];
        float t = 1, r = 0, g = 0, b = 0;
        int last = 0;
        for (size_t k = 0; k < list.size(); k++) {
            const int i = list[k];
            const float dx = means[2 * i] - (x + 0.5f), dy = means[2 * i + 1] - (y + 0.5f);
            const float *q = conics + 3 * i;
            const float power = -0.5f * (q[0] * dx * dx + q[2] * dy * dy) - q[1] * dx * dy;
            if (power > 0 || power < tiles->lowest[i]) continue;  // most pairs end here, before expf
            const float alpha = std::min(clamp, opacities[i] * std::exp(power));
            if (alpha < cut) continue;
            const float next = t * (1 - alpha);
            if (next < stop) break;
            r += colors[3 * i] * alpha * t, g += colors[3 * i + 1] * alpha * t, b += colors[3 * i + 2] * alpha * t;
            t = next;
            last = (int)k + 1;
        }
        const int p = y * width + x;
        image[p] = r, image[width * height + p] = g, image[2 * width * height + p] = b;
        tiles->left[p] = t, tiles->last[p] = last;
    });
    return tiles;
}

// Adds to gradients of means, conics, colors and opacities.
void plain_backward(const void *kept, const float *means, const float *conics, const float *colors,
                    const float *opacities, int width, int height, float clamp, float cut, const float *incoming,
                    float *means_out, float *conics_out, float *colors_out, float *opacities_out) {
    const Tiles *tiles = (const Tiles *)kept;
    const int pixels = width * height;
    each_pixel(width, height, [&](int x, int y, int tile) {
        const std::vector<int> &list = tiles->lists[tile];
        const int p = y * width + x;
        float t = tiles->left[p], behind[3] = {0, 0, 0};
        for (int k = tiles->last[p] - 1; k >= 0; k--) {
            const int i = list[k];
            const float dx = means[2 * i] - (x + 0.5f), dy = means[2 * i + 1] - (y + 0.5f);
            const float *q = conics + 3 * i;
            const float power = -0.5f * (q[0] * dx * dx + q[2] * dy * dy) - q[1] * dx * dy;
            if (power > 0 || power < tiles->lowest[i]) continue;  // most pairs end here, before expf
            const float falloff = std::exp(power), raw = opacities[i] * falloff, alpha = std::min(clamp, raw);
            if (alpha < cut) continue;
            t = t / (1 - alpha);
            float along = 0;
            for (int c = 0; c < 3; c++) {
                const float v = incoming[c * pixels + p];
                colors_out[3 * i + c] += alpha * t * v;
                along += (colors[3 * i + c] - behind[c]) * v;
                behind[c] = alpha * colors[3 * i + c] + (1 - alpha) * behind[c];
            }
            if (raw > clamp) continue;
            const float d_alpha = t * along, d_power = raw * d_alpha;
            opacities_out[i] += falloff * d_alpha;
            means_out[2 * i] -= d_power * (q[0] * dx + q[1] * dy);
            means_out[2 * i + 1] -= d_power * (q[2] * dy + q[1] * dx);
            conics_out[3 * i] -= 0.5f * d_power * dx * dx;
            conics_out[3 * i + 1] -= d_power * dx * dy;
            conics_out[3 * i + 2] -= 0.5f * d_power * dy * dy;
        }
    });
}

void plain_release(void *kept) { delete (Tiles *)kept; }

}  // extern "C"
