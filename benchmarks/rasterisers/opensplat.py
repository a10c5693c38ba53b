"""OpenSplat's CPU rasteriser, called as its own training loop calls it."""

import functools
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.raster.splats import Splats
from benchmarks.rasterisers.places import CACHE

FLAGS = ["-O3", "-march=native", "-include", "numeric"]


@functools.cache
def extension(source: Path) -> Any:
    """Compiled once (over a minute) against the installed torch; needs ninja."""
    from torch.utils.cpp_extension import load

    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # ninja lies beside python
    build = CACHE / f"opensplat-{torch.__version__}"
    build.mkdir(parents=True, exist_ok=True)
    files = [Path(__file__).with_name("opensplat_glue.cpp"), source / "rasterizer/gsplat-cpu/gsplat_cpu.cpp"]
    return load(
        "opensplat_cpu", [str(f) for f in files], extra_cflags=FLAGS, extra_include_paths=[str(source)],
        build_directory=str(build),
    )  # fmt: skip


def render(source: Path, splats: Splats, cameras: Cameras) -> Tensor:
    """Colour ``[3, H, W]``."""
    module = extension(source)
    view, clip = cameras.world2cam[0], cameras.clip_matrices()[0]
    fx, fy, cx, cy = cameras.intrinsics[0].tolist()
    unit = torch.nn.functional.normalize(splats.quaternions, dim=1)
    centres, _, conics, covariances, depths = module.project(
        len(splats), splats.means, splats.scales, 1.0, unit, view, clip, fx, fy, cx, cy,
        cameras.height, cameras.width, 0.01,
    )  # fmt: skip
    directions = torch.nn.functional.normalize(splats.means.detach() - cameras.positions[0], dim=1)
    degree = splats.sh_degree
    colors = (module.harmonics(len(splats), degree, degree, directions, splats.sh) + 0.5).clamp(min=0)
    out: Tensor = _Composite.apply(
        module, centres, conics, colors, splats.opacities[:, None], covariances, depths, cameras.height, cameras.width
    )
    return out.permute(2, 0, 1)


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        module, height, width = arguments[0], *arguments[7:]
        centres, conics, colors, opacities, covariances, depths = (t.detach().contiguous() for t in arguments[1:7])
        inputs = (centres, conics, colors, opacities, torch.zeros(3), covariances, depths)
        image, left, kept = module.forward(width, height, *inputs)
        ctx.kept, ctx.module, ctx.size = _Kept(kept, module.release), module, (height, width)
        ctx.save_for_backward(*inputs, left)
        return image  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        *inputs, left = ctx.saved_tensors
        incoming = gradients[0].contiguous()
        alpha = torch.zeros(ctx.size)
        found = ctx.module.backward(*ctx.size, *inputs, left, ctx.kept.address, incoming, alpha)
        return None, *found, None, None, None, None


class _Kept:
    def __init__(self, address: int, release: Any) -> None:
        self.address, self._release = address, release

    def __del__(self) -> None:
        self._release(self.address)
