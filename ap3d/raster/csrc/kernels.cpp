// The best instruction set that the machine has, chosen when the library is loaded.
#include <algorithm>

#include "splats.h"

#define AP3D_DECLARE(isa)                                                                                            \
    extern "C" bool ap3d_project_##isa(const ap3d_gaussians *, const View *, int, const ap3d_rule *,                 \
                                       const Projected *, int, int);                                                \
    extern "C" void ap3d_project_backward_##isa(const ap3d_gaussians *, const View *, int, const ap3d_rule *,        \
                                                const ProjectedGradient *, int, int);                               \
    extern "C" void ap3d_draw_##isa(const ap3d_splat *, const TileItem *, int, int, int, const ap3d_rule *,          \
                                    TileForward *);                                                                 \
    extern "C" void ap3d_draw_backward_##isa(const ap3d_splat *, const TileItem *, int, int, int, const ap3d_rule *, \
                                             TileBackward *, Moments *);
#define AP3D_TABLE(isa, width) \
    Kernels{width / 4, ap3d_project_##isa, ap3d_project_backward_##isa, ap3d_draw_##isa, ap3d_draw_backward_##isa}

AP3D_DECLARE(base)
#if defined(__x86_64__)
AP3D_DECLARE(avx2)
AP3D_DECLARE(avx512)
#endif

namespace {

enum InstructionSet { BASE, AVX2, AVX512 };

InstructionSet best_instruction_set() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl"))
        return AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return AVX2;
#endif
    return BASE;
}

Kernels kernels_for(InstructionSet set) {
#if defined(__x86_64__)
    if (set == AVX512) return AP3D_TABLE(avx512, 16);
    if (set == AVX2) return AP3D_TABLE(avx2, 8);
#endif
    (void)set;
    return AP3D_TABLE(base, 4);
}

Kernels KERNELS = kernels_for(best_instruction_set());

}  // namespace

const Kernels &ap3d_kernels() { return KERNELS; }

// Use no more than an instruction set (0: base, 1: AVX2, 2: AVX-512) from now on; returns the one in use. Not for
// use while another thread renders.
extern "C" int ap3d_splats_limit(int set) {
    const int chosen = std::clamp(set, 0, (int)best_instruction_set());
    KERNELS = kernels_for((InstructionSet)chosen);
    return chosen;
}
