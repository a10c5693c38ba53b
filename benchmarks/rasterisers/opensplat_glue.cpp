// Makes OpenSplat's CPU rasteriser callable from Python for the benchmark. Built beside its own sources, never shipped.
#include <numeric>
#include <torch/extension.h>

#include "rasterizer/gsplat-cpu/bindings.h"

using torch::Tensor;
typedef std::vector<int32_t> Contributors;

static std::tuple<Tensor, Tensor, int64_t> forward(int width, int height, Tensor centres, Tensor conics, Tensor colors,
                                                   Tensor opacities, Tensor background, Tensor covariances,
                                                   Tensor depths) {
    auto out = rasterize_forward_tensor_cpu(width, height, centres, conics, colors, opacities, background, covariances,
                                            depths);
    return {std::get<0>(out), std::get<1>(out), reinterpret_cast<int64_t>(std::get<2>(out))};
}

static std::tuple<Tensor, Tensor, Tensor, Tensor> backward(int height, int width, Tensor centres, Tensor conics,
                                                           Tensor colors, Tensor opacities, Tensor background,
                                                           Tensor covariances, Tensor depths, Tensor transmittances,
                                                           int64_t kept, Tensor incoming, Tensor incoming_alpha) {
    return rasterize_backward_tensor_cpu(height, width, centres, conics, colors, opacities, background, covariances,
                                         depths, transmittances, reinterpret_cast<Contributors *>(kept), incoming,
                                         incoming_alpha);
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
    m.def("project", &project_gaussians_forward_tensor_cpu);
    m.def("harmonics", &compute_sh_forward_tensor_cpu);
    m.def("forward", &forward);
    m.def("backward", &backward);
    m.def("release", [](int64_t kept) { delete[] reinterpret_cast<Contributors *>(kept); });
}
