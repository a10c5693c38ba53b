"""Renders a posable avatar along a motion or an orbit, in one of several layouts."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.errors import InputError
from ap3d.framing import full_cameras
from ap3d.motion.schema import Motion
from ap3d.raster.mesh import interpolate, rasterize_mesh
from ap3d.raster.splats import Splats, rasterize_splats
from ap3d.rig.protocol import RigParams
from ap3d.splats.bundle import Bundle

SWING_DEGREES, LIFT_DEGREES = 49.0, 13.0  # of the moving camera in the four views; AnimPortrait3D's 0.85 and 0.45/2 rad
_MESH_COLOR, _LINE_COLOR = (0.55, 0.70, 0.95), (0.10, 0.16, 0.30)
_MESH_SHARE, _LINE_WIDTH = 0.55, 0.7  # of the overlay; pixels


@dataclass(frozen=True)
class View:
    """How an avatar is looked at.

    Attributes:
        bundle: the avatar.
        size: side of one panel in pixels.
        background: colour ``[3]``, or None for a fourth channel with straight alpha.
        azimuth, elevation: of the front camera, degrees.
    """

    bundle: Bundle
    size: int
    background: Tensor | None
    azimuth: float = 0.0
    elevation: float = 2.0

    @cached_property
    def neutral(self) -> Tensor:
        """Vertices ``[V, 3]`` of the neutral head, which cameras are placed round."""
        return self.bundle.rig.vertices(self.bundle.params)[0]

    def cameras(self, azimuths: list[float], elevations: list[float]) -> Cameras:
        """Full-frame cameras; azimuths count from the front camera's."""
        turned = [self.azimuth + a for a in azimuths]
        return full_cameras(self.bundle.rig, self.neutral, turned, [self.elevation + e for e in elevations], self.size)

    def pictures(self, splats: Splats, cameras: Cameras) -> Tensor:
        """``[B, 3, H, W]`` over the background, or ``[B, 4, H, W]`` with straight alpha."""
        images = rasterize_splats(splats, cameras, sh_degree=self.bundle.avatar.sh_degree)
        if self.background is not None:
            return images.over(self.background).clamp(0, 1)
        straight = images.color / images.alpha.clamp_min(1e-4)
        return torch.cat([straight, images.alpha], 1).clamp(0, 1)


@dataclass(frozen=True)
class Moment:
    """One frame: the posed avatar, and how much of the clip has passed (0 to 1)."""

    params: RigParams
    splats: Splats
    share: float


def front(view: View, moment: Moment) -> Tensor:
    """One fixed camera."""
    return view.pictures(moment.splats, view.cameras([0.0], [0.0]))[0]


def orbit(view: View, moment: Moment) -> Tensor:
    """One camera that goes once round the head over the clip."""
    return view.pictures(moment.splats, view.cameras([360 * moment.share], [3.0]))[0]


def four_views(view: View, moment: Moment) -> Tensor:
    """Front, a swinging camera, and both profiles (her right, her left), two by two."""
    turn = 2 * math.pi * moment.share
    azimuths = [0.0, SWING_DEGREES * math.sin(turn), -90.0, 90.0]
    panels = view.pictures(moment.splats, view.cameras(azimuths, [0.0, LIFT_DEGREES * math.cos(turn), 0.0, 0.0]))
    return torch.cat([torch.cat([panels[0], panels[1]], 2), torch.cat([panels[2], panels[3]], 2)], 1)


def mesh_overlay(view: View, moment: Moment) -> Tensor:
    """The picture, and beside it the same with the rig's mesh drawn over it."""
    camera = view.cameras([0.0], [0.0])
    picture = view.pictures(moment.splats, camera)[0]
    shade, cover = _shaded_mesh(view, moment, camera)
    drawn = picture[:3] + _MESH_SHARE * cover * (shade - picture[:3])
    if view.background is None:
        alpha = torch.maximum(picture[3:], _MESH_SHARE * cover)
        drawn = torch.cat([torch.where(picture[3:] > 0.02, drawn, shade), alpha])
    return torch.cat([picture, drawn], 2)


LAYOUTS: Mapping[str, Callable[[View, Moment], Tensor]] = {
    "front": front, "orbit": orbit, "four-view": four_views, "mesh-overlay": mesh_overlay,
}  # fmt: skip
PANELS: Mapping[str, tuple[int, int]] = {
    "front": (1, 1), "orbit": (1, 1), "four-view": (2, 2), "mesh-overlay": (2, 1),
}  # columns and rows  # fmt: skip


@torch.no_grad()
def layout_frames(view: View, motion: Motion, layout: str = "front") -> Iterator[Tensor]:
    """Pictures of a motion, ``[3 or 4, rows x size, columns x size]``.

    Raises:
        InputError: an unknown layout, or a motion that cannot drive the avatar's rig.
    """
    if layout not in LAYOUTS:
        raise InputError(f"unknown layout {layout!r}; there are: {', '.join(LAYOUTS)}")
    draw, driven = LAYOUTS[layout], motion.to(view.bundle.rig)
    for frame in range(len(driven)):
        params = driven.params(view.bundle.params, frame)
        yield draw(view, Moment(params, view.bundle.pose(params), frame / len(driven)))


def motion_frames(bundle: Bundle, motion: Motion, size: int) -> Iterator[Tensor]:
    """Pictures ``[3, size, size]`` of a motion from the front, over the bundle's background."""
    return layout_frames(View(bundle, size, bundle.background), motion)


@torch.no_grad()
def turntable_frames(bundle: Bundle, count: int, size: int) -> Iterator[Tensor]:
    """Pictures ``[3, size, size]`` of the neutral pose on one full turn."""
    view, splats = View(bundle, size, bundle.background), bundle.pose(bundle.params)
    for index in range(count):
        yield orbit(view, Moment(bundle.params, splats, index / count))


@torch.no_grad()
def render(splats: Splats, cameras: Cameras, background: Tensor, sh_degree: int) -> Tensor:
    """Pictures ``[B, 3, H, W]`` over a colour ``[3]``."""
    return rasterize_splats(splats, cameras, sh_degree=sh_degree).over(background).clamp(0, 1)


def bundle_camera(bundle: Bundle, azimuth: float, elevation: float, size: int) -> Cameras:
    """One full-frame camera round the neutral head; degrees."""
    return full_cameras(bundle.rig, bundle.rig.vertices(bundle.params)[0], [azimuth], [elevation], size)


def _shaded_mesh(view: View, moment: Moment, camera: Cameras) -> tuple[Tensor, Tensor]:
    """The mesh lit from the camera, with its edges drawn: colour ``[3, H, W]``, cover ``[1, H, W]``."""
    rig = view.bundle.rig
    vertices = rig.vertices(moment.params)[0]
    homogeneous = torch.cat([vertices, torch.ones(len(vertices), 1)], 1)
    rast = rasterize_mesh(homogeneous @ camera.clip_matrices().transpose(1, 2), rig.faces, (view.size, view.size))
    corners = vertices[rig.faces]
    face_normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = torch.zeros_like(vertices).index_add(0, rig.faces.flatten(), face_normals.repeat_interleave(3, 0))
    normals = torch.nn.functional.normalize(normals, dim=1)
    towards = torch.nn.functional.normalize(camera.positions - vertices, dim=1)
    light = (0.35 + 0.65 * (normals * towards).sum(1).abs())[None, :, None]
    lit = interpolate(light, rast, rig.faces)[0, ..., 0]
    cover = (rast[0, ..., 3] > 0).float()
    line = _edges(rast[0]) * cover
    color = lit * torch.tensor(_MESH_COLOR)[:, None, None]
    return color + 0.6 * line * (torch.tensor(_LINE_COLOR)[:, None, None] - color), cover[None]


def _edges(rast: Tensor) -> Tensor:
    """How near a triangle's edge each pixel lies, 0 to 1 ``[H, W]``, from its barycentrics and their slopes."""
    weights = torch.cat([rast[..., :2], 1 - rast[..., :2].sum(-1, keepdim=True)], -1)
    same = rast[:, 1:, 3] == rast[:, :-1, 3]
    slope = torch.full_like(weights, 0.2)  # where the neighbour is another triangle
    slope[:, 1:] = torch.where(same[..., None], (weights[:, 1:] - weights[:, :-1]).abs(), slope[:, 1:])
    return (1 - (weights / slope.clamp_min(0.02)).amin(-1) / _LINE_WIDTH).clamp(0, 1)
