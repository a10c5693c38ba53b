"""Renders a posable avatar along a motion or an orbit."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.framing import full_cameras
from ap3d.motion.schema import Motion
from ap3d.raster.splats import Splats, rasterize_splats
from ap3d.splats.bundle import Bundle


def bundle_camera(bundle: Bundle, azimuth: float, elevation: float, size: int) -> Cameras:
    """One full-frame camera round the neutral head; degrees."""
    vertices = bundle.rig.vertices(bundle.params)[0]
    return full_cameras(bundle.rig, vertices, [azimuth], [elevation], size)


@torch.no_grad()
def render(splats: Splats, cameras: Cameras, background: Tensor, sh_degree: int) -> Tensor:
    """Pictures ``[B, 3, H, W]`` over a colour ``[3]``."""
    return rasterize_splats(splats, cameras, sh_degree=sh_degree).over(background).clamp(0, 1)


@torch.no_grad()
def motion_frames(
    bundle: Bundle, motion: Motion, size: int, azimuth: float = 0.0, elevation: float = 2.0
) -> Iterator[Tensor]:
    """Pictures ``[3, size, size]`` of a motion seen by one fixed camera."""
    camera = bundle_camera(bundle, azimuth, elevation, size)
    driven = motion.to(bundle.rig)
    for frame in range(len(driven)):
        splats = bundle.pose(driven.params(bundle.params, frame))
        yield render(splats, camera, bundle.background, bundle.avatar.sh_degree)[0]


@torch.no_grad()
def turntable_frames(bundle: Bundle, count: int, size: int) -> Iterator[Tensor]:
    """Pictures ``[3, size, size]`` of the neutral pose on one full turn."""
    splats = bundle.pose(bundle.params)
    for index in range(count):
        camera = bundle_camera(bundle, 360.0 * index / count, 5.0, size)
        yield render(splats, camera, bundle.background, bundle.avatar.sh_degree)[0]
