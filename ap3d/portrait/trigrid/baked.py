"""A tri-grid's field on a dense grid, and rays through it that skip empty space: seconds a view set on a CPU.

At the grid's nodes the values are exactly the field's: the pyramid's lookups are separable, so each level is resampled
once to the nodes' rows and columns. Between nodes raw density and colour are interpolated. Nothing outside the box
is kept, where features fade to zero.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ap3d.portrait.trigrid.field import BOX, CROP, PLANE_AXES, Decoder, TriGridField
from ap3d.portrait.trigrid.marching import CROPPED, Marched
from ap3d.portrait.trigrid.tensors import CHANNELS, PLANES, SLICES

CELL = 4  # nodes a side of a cell that is skipped as a whole
EMPTY = -6.0  # raw density below which nothing is seen: alpha below 0.002 through the whole box
OPAQUE = 1e-3  # what is left of a ray's light when it ends


@dataclass(frozen=True)
class BakedField:
    """Values at ``resolution ** 3`` nodes, the first and the last on the box's faces.

    Attributes:
        values: ``[R, R, R, 4]`` indexed z, y, x: raw density, then colour from -1 to 1.
        clear: ``[C, C, C]`` indexed z, y, x: distance in nodes that is surely empty around a point of each cell;
            0 where there is something.
    """

    values: Tensor
    clear: Tensor

    @property
    def resolution(self) -> int:
        """Nodes a side."""
        return len(self.values)

    @property
    def spacing(self) -> float:
        """Distance of neighbouring nodes, SMPL metres."""
        return BOX / (self.resolution - 1)


@torch.no_grad()
def bake(field: TriGridField, resolution: int = 256) -> BakedField:
    """Evaluate a field at ``resolution ** 3`` nodes."""
    nodes = torch.linspace(-1, 1, resolution)
    planes = _resampled_planes(field, nodes)
    depth = _slice_weights(nodes)
    values = torch.empty(resolution, resolution, resolution, 4)
    second = torch.einsum("yd,cdzx->zcyx", depth, planes[1])
    third = torch.einsum("xd,cdzy->zcyx", depth, planes[2])
    for z in range(resolution):
        features = torch.einsum("d,cdyx->cyx", depth[z], planes[0]) + second[z] + third[z]
        values[z] = _decode(field.decoder, features)
    return BakedField(values, _clear_distances(values[..., 0]))


def _decode(decoder: Decoder, features: Tensor) -> Tensor:
    """``[12, R, R]`` to ``[R, R, 4]``."""
    return decoder(features.reshape(CHANNELS, -1).T).reshape(*features.shape[1:], 4)


def _resampled_planes(field: TriGridField, nodes: Tensor) -> Tensor:
    """The mean of all levels at the nodes ``[3, 12, 3, R, R]``, a third of it for each plane."""
    rows, columns = torch.meshgrid(nodes, nodes, indexing="ij")
    places = torch.stack([columns, rows], -1)[None].expand(PLANES, -1, -1, -1)
    total = sum(
        torch.nn.functional.grid_sample(level.flatten(1, 2), places, align_corners=False) for level in field.levels
    )
    assert isinstance(total, Tensor)
    size = len(nodes)
    return total.reshape(PLANES, CHANNELS, SLICES, size, size) / (len(field.levels) * len(PLANE_AXES))


def _slice_weights(nodes: Tensor) -> Tensor:
    """How much each depth slice counts at each node ``[R, 3]``; zero padding makes the sum fall outside them."""
    place = ((nodes + 1) * SLICES - 1) / 2
    return (1 - (place[:, None] - torch.arange(SLICES)).abs()).clamp(min=0)


def _clear_distances(raw: Tensor) -> Tensor:
    full = torch.nn.functional.max_pool3d(raw[None, None], CELL + 1, CELL, padding=CELL // 2)[0, 0]
    near = torch.nn.functional.max_pool3d(full[None, None], 3, 1, padding=1)[0, 0] > EMPTY
    away = ndimage.distance_transform_edt(~near.numpy()).astype(np.float32)
    # From anywhere in a cell to anywhere in the other: less than the diagonal; a neighbour was counted as full.
    return torch.from_numpy(np.where(away > 0, away - 0.74, 0)).float() * CELL


@torch.no_grad()
def march_baked(baked: BakedField, origin: Tensor, directions: Tensor, scale: float) -> Marched:
    """Rays ``directions [R, 3]`` (unit) from ``origin [3]`` in world units, in steps of one node."""
    unit = baked.spacing * scale
    start, end = _box_interval(origin, directions, scale)
    count = len(directions)
    light, colour = torch.ones(count), torch.zeros(count, 3)
    depth, normals = torch.zeros(count), torch.zeros(count, 3)
    ray = (end > start).nonzero()[:, 0]
    t = start[ray]
    while len(ray):
        places = (origin + directions[ray] * (t + unit / 2)[:, None]) / unit + (baked.resolution - 1) / 2
        clear = baked.clear.flatten()[_cell_index(baked, places)]
        full = clear == 0
        hit, at = ray[full], places[full]
        values, falls = interpolate_nodes(baked.values, at)
        weight = light[hit] * (1 - torch.exp(-torch.nn.functional.softplus(values[:, 0] - 1) * unit))
        light[hit] -= weight
        colour[hit] += weight[:, None] * (values[:, 1:] / 2 + 0.5)
        depth[hit] += weight * (t[full] + unit / 2)
        normals[hit] += weight[:, None] * torch.nn.functional.normalize(falls, dim=1)
        t = t + torch.where(full, unit, clear * unit)
        going = (t < end[ray]) & (light[ray] > OPAQUE)
        ray, t = ray[going], t[going]
    alpha = 1 - light
    depth = torch.where(alpha > 1e-4, depth / alpha.clamp(min=1e-8), 0.0)
    return Marched(colour, alpha, depth, torch.nn.functional.normalize(normals, dim=1))


def _box_interval(origin: Tensor, directions: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave the cropped box."""
    half = torch.tensor([CROP, BOX / 2, CROP]) * scale
    inverse = 1 / torch.where(directions.abs() < 1e-9, torch.full_like(directions, 1e-9), directions)
    first, second = (-half - origin) * inverse, (half - origin) * inverse
    start = torch.minimum(first, second).amax(1).clamp(min=0)
    return start, torch.maximum(first, second).amin(1)


def _cell_index(baked: BakedField, places: Tensor) -> Tensor:
    size = len(baked.clear)
    cell = ((places + CELL / 2) / CELL).long().clamp(0, size - 1)
    return (cell[:, 2] * size + cell[:, 1]) * size + cell[:, 0]


def interpolate_nodes(values: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Trilinear values ``[N, 4]`` at places ``[N, 3]`` (x, y, z in nodes), and how the first falls along the axes."""
    size = len(values)
    low = places.floor().clamp(0, size - 2)
    f = (places - low).clamp(0, 1)
    index = ((low[:, 2] * size + low[:, 1]) * size + low[:, 0]).long()
    offsets = torch.tensor([z * size * size + y * size + x for z in (0, 1) for y in (0, 1) for x in (0, 1)])
    corners = values.reshape(-1, 4)[index[:, None] + offsets].reshape(-1, 2, 2, 2, 4)
    x, y, z = (f[:, i, None, None, None] for i in range(3))
    in_x = torch.lerp(corners[:, :, :, 0], corners[:, :, :, 1], x)
    in_y = torch.lerp(in_x[:, :, 0], in_x[:, :, 1], y[..., 0])
    raw = corners[..., 0]
    across = lambda a, u, v: torch.lerp(torch.lerp(a[:, 0, 0], a[:, 0, 1], v), torch.lerp(a[:, 1, 0], a[:, 1, 1], v), u)  # noqa: E731
    gradient = torch.stack([
        across(raw[:, :, :, 1] - raw[:, :, :, 0], f[:, 2], f[:, 1]),
        across(raw[:, :, 1] - raw[:, :, 0], f[:, 2], f[:, 0]),
        across(raw[:, 1] - raw[:, 0], f[:, 1], f[:, 0]),
    ], 1)  # fmt: skip
    return torch.lerp(in_y[:, 0], in_y[:, 1], z[..., 0, 0]), -gradient


def cropped_values(values: Tensor, margin: int) -> Tensor:
    """Raw density ``[R, R, R]`` with the outer ``margin`` nodes of each side emptied."""
    raw = torch.full(values.shape[:3], CROPPED)
    inner = (slice(margin, -margin),) * 3
    raw[inner] = values[..., 0][inner]
    return raw
