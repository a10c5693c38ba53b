"""gsplat behind the splat protocol: CUDA only, its own rule (``GSPLAT``), colours evaluated in torch."""

from typing import TYPE_CHECKING, Any

import torch

from ap3d.cameras import Cameras
from ap3d.errors import InputError, MissingDependencyError
from ap3d.raster.reference import sh_colors

if TYPE_CHECKING:
    from ap3d.raster.splats import SplatImages, SplatRule, Splats


def render(splats: "Splats", cameras: Cameras, sh_degree: int, rule: "SplatRule") -> "SplatImages":
    """See :func:`ap3d.raster.splats.rasterize_splats`."""
    from ap3d.raster.splats import GSPLAT, SplatImages

    if rule != GSPLAT:
        raise InputError("the splat rasteriser 'gsplat' renders under the rule GSPLAT only")
    rasterization = _rasterization(splats.means.device)
    view, intrinsics = cameras.world2cam.to(splats.means), cameras.intrinsics.to(splats.means)
    matrices = torch.zeros(len(cameras), 3, 3).to(intrinsics)
    matrices[:, 0, 0], matrices[:, 1, 1] = intrinsics[:, 0], intrinsics[:, 1]
    matrices[:, :2, 2], matrices[:, 2, 2] = intrinsics[:, 2:], 1
    # The colours are a function of direction and view rotation, which gsplat's own harmonics do not know.
    colors = sh_colors(splats, cameras.positions.to(splats.means), sh_degree)
    images, alpha, meta = rasterization(
        splats.means, splats.quaternions, splats.scales, splats.opacities, colors, view, matrices,
        cameras.width, cameras.height, near_plane=rule.near, eps2d=rule.blur, packed=False, render_mode="RGB+D",
    )  # fmt: skip
    means2d = meta["means2d"]
    if means2d.requires_grad:
        means2d.retain_grad()
    images = images.permute(0, 3, 1, 2)
    radii = meta["radii"].amax(-1) if meta["radii"].ndim == 3 else meta["radii"]
    return SplatImages(images[:, :3], alpha.permute(0, 3, 1, 2), images[:, 3:], radii.float(), means2d)


def _rasterization(device: torch.device) -> Any:
    try:
        from gsplat import rasterization  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise MissingDependencyError(
            "the splat rasteriser 'gsplat' is not installed: pip install 'ap3d[gpu]', or move the tensors to the CPU"
        ) from None
    if device.type != "cuda":
        raise InputError("the splat rasteriser 'gsplat' needs tensors on a CUDA device; use the backend 'cpu'")
    return rasterization
