"""What a tri-grid that shows a known person should hold at the nodes of its box: raw density and colour."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ap3d.cameras import Cameras, orbit
from ap3d.portrait.trigrid.portrait import SURFACE
from ap3d.training.portraits.solid import BAND, EXTENT, RESOLUTION, signed_distance_grid
from ap3d.training.portraits.truth import TruthPortrait

STEEPNESS = 8000.0  # raw density a world unit beside the surface; less would let one see nodes deep into the skin
EMPTY, FULL = -15.0, 240.0  # beyond the band in which the distance is exact
COLOURED = 1.0  # nodes outside the surface down to which colour is taught; inside it is the whole band
_NEIGHBOURS = 5


@dataclass(frozen=True)
class FieldTargets:
    """Targets at the 256 nodes a side of the box, the first and last on its faces.

    Attributes:
        raw: ``[256, 256, 256]`` raw density, indexed x, y, z.
        near: ``[256, 256, 256]`` bool: within the band of the surface.
        slot: ``[256, 256, 256]`` int32 row of ``colours``, or -1 where colour does not matter.
        colours: ``[M, 3]`` from -1 to 1.
    """

    raw: Tensor
    near: Tensor
    slot: Tensor
    colours: Tensor


def person_targets(truth: TruthPortrait, view_size: int = 320) -> FieldTargets:
    """Density from the true outer surface, colour from pictures of ``view_size`` pixels all round."""
    distance, lower, spacing = signed_distance_grid(truth.surface)
    assert abs(lower + EXTENT / 2) < 1e-6 and len(distance) == RESOLUTION
    values = torch.from_numpy(distance)
    near = values.abs() < BAND * spacing * 0.999
    raw = torch.where(near, SURFACE - STEEPNESS * values, torch.where(values > 0, EMPTY, FULL)).clamp(EMPTY, FULL)
    index = (near & (values < COLOURED * spacing)).nonzero()
    points, shown, weight = coloured_points(truth, view_size)
    apart, _ = cKDTree(truth.surface.points.numpy()).query(points.numpy(), distance_upper_bound=2 * spacing)
    solid = torch.from_numpy(np.isfinite(apart))  # what is seen through the slit between lips is no surface here
    colours = nearest_colours(index.float() * spacing + lower, points[solid], shown[solid], weight[solid])
    slot = torch.full(values.shape, -1, dtype=torch.int32)
    slot[tuple(index.T)] = torch.arange(len(index), dtype=torch.int32)
    return FieldTargets(raw.float(), near, slot, colours * 2 - 1)


def colour_cameras(truth: TruthPortrait, size: int) -> list[Cameras]:
    """All round at several heights, from the top, and close to the face."""
    middle = truth.surface.centre
    far = [
        orbit(range(0, 360, step), [elevation], middle, 4.0, 24.0, size)
        for elevation, step in ((-30, 60), (-5, 40), (25, 40), (60, 90), (85, 180))
    ]
    face = truth.portraitist.rig.landmarks(truth.params)[0].mean(0)
    return [*far, orbit([0, 30, -30, 60, -60, 0], [0, 5, 5, 5, 5, 20], face, 3.0, 9.0, size)]


@torch.no_grad()
def coloured_points(truth: TruthPortrait, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Surface points that pictures show ``[N, 3]``, their colours ``[N, 3]`` and how squarely they are seen ``[N]``."""
    found = []
    for cameras in colour_cameras(truth, size):
        views = truth.render(cameras)
        assert views.depth is not None and views.normals is not None
        whole = -torch.nn.functional.max_pool2d(-(views.alpha >= 1).float(), 3, 1, 1)[:, 0] > 0.5
        for i in range(len(cameras)):
            row, column = (whole[i] & (views.depth[i, 0] > 0)).nonzero(as_tuple=True)
            fx, fy, cx, cy = cameras.intrinsics[i]
            ray = torch.stack([(column + 0.5 - cx) / fx, (row + 0.5 - cy) / fy, torch.ones(len(row))], 1)
            rotation = cameras.cam2world[i, :3, :3]
            points = ray * views.depth[i, 0, row, column, None] @ rotation.T + cameras.positions[i]
            direction = torch.nn.functional.normalize(ray, dim=1) @ rotation.T
            cosine = -(direction * views.normals[i, :, row, column].T).sum(1).clamp(max=0)
            # Closer pictures tell more.
            found.append((points, views.color[i, :, row, column].T, cosine.square() * fx / views.depth[i].max()))
    points, colours, weight = (torch.cat(part) for part in zip(*found, strict=True))
    return points, colours, weight


def nearest_colours(places: Tensor, points: Tensor, colours: Tensor, weight: Tensor) -> Tensor:
    """Colours ``[M, 3]`` at places ``[M, 3]``: of the nearest points, the squarely seen ones counting most."""
    distance, index = cKDTree(points.numpy()).query(places.numpy(), k=_NEIGHBOURS)
    share = weight[index] / (torch.from_numpy(np.asarray(distance)).float() + 2e-3).square()
    share = share / share.sum(1, keepdim=True).clamp(min=1e-9)
    return (colours[index] * share[..., None]).sum(1)
