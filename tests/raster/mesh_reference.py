"""Slow float64 twin of the mesh rasteriser, and the scenes that its tests share."""

import math

import torch
from torch import Tensor

from ap3d.cameras import Cameras, look_at


def clip_positions(vertices: Tensor, cameras: Cameras) -> Tensor:
    homogeneous = torch.cat([vertices, torch.ones(len(vertices), 1)], 1)
    return homogeneous @ cameras.clip_matrices().transpose(1, 2)


def front_camera(size: int = 64, distance: float = 2.0, fov: float = 40.0) -> Cameras:
    return look_at(torch.tensor([[0.0, 0.0, distance]]), torch.zeros(3), fov, size)


def random_fan(generator: torch.Generator, count: int = 40) -> tuple[Tensor, Tensor]:
    """A star of triangles round one point: every inner edge is shared by two of them."""
    angle = torch.linspace(0, 2 * math.pi, count + 1)[:-1]
    radius = 0.4 + 0.2 * torch.rand(count, generator=generator)
    rim = torch.stack([radius * angle.cos(), radius * angle.sin(), torch.zeros(count)], 1)
    centre = 0.1 * torch.rand(1, 3, generator=generator) * torch.tensor([1.0, 1.0, 0.0])
    ring = torch.arange(count) + 1
    return torch.cat([centre, rim]), torch.stack([torch.zeros_like(ring), ring, ring.roll(-1)], 1)


def sphere(rings: int = 16, radius: float = 0.5) -> tuple[Tensor, Tensor]:
    """A closed sphere of shared vertices, wound outwards."""
    columns = 2 * rings
    v, u = torch.meshgrid(
        torch.linspace(0, math.pi, rings + 1)[1:-1], torch.arange(columns) * math.pi / rings, indexing="ij"
    )
    points = torch.stack([v.sin() * u.sin(), v.cos(), v.sin() * u.cos()], -1).reshape(-1, 3)
    points = torch.cat([points, torch.tensor([[0.0, 1, 0], [0.0, -1, 0]])])
    corner = torch.arange((rings - 2) * columns)
    right = corner // columns * columns + (corner + 1) % columns
    first = torch.arange(columns)
    last, top = (rings - 2) * columns + first, len(points) - 2
    faces = [
        torch.stack([corner, corner + columns, right], 1),
        torch.stack([right, corner + columns, right + columns], 1),
        torch.stack([torch.full_like(first, top), first, (first + 1) % columns], 1),
        torch.stack([torch.full_like(first, top + 1), (rings - 2) * columns + (first + 1) % columns, last], 1),
    ]
    return radius * points, torch.cat(faces)


def reference_layers(clip: Tensor, faces: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Barycentrics ``[P, F, 3]`` and z/w ``[P, F]`` (inf: not hit) of every face at points ``[P, 2]`` in clip x, y / w.

    A ray through the eye meets the plane of a triangle where the barycentrics are the 2D edge functions divided by
    their sum; that holds for vertices behind the eye too, so nothing needs clipping.
    """
    corners = clip.double()[faces]
    x, y = (corners[None, ..., k] - points[:, None, k, None] * corners[None, ..., 3] for k in (0, 1))
    edges = x.roll(-1, 2) * y.roll(-2, 2) - y.roll(-1, 2) * x.roll(-2, 2)
    barycentrics = edges / edges.sum(2, keepdim=True)
    z, w = ((barycentrics * corners[None, ..., k]).sum(2) for k in (2, 3))
    hit = (barycentrics >= 0).all(2) & (w > 0) & (z.abs() <= w)
    return barycentrics, torch.where(hit, z / w, torch.inf)


def pixel_centres(height: int, width: int, shift: tuple[float, float] = (0.0, 0.0)) -> Tensor:
    """Clip x, y / w of pixel centres ``[H * W, 2]``, moved by a shift in pixels."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x = 2 * (columns + 0.5 + shift[0]).double() / width - 1
    return torch.stack([x, 2 * (rows + 0.5 + shift[1]).double() / height - 1], -1).reshape(-1, 2)


def reference_raster(clip: Tensor, faces: Tensor, size: tuple[int, int], margin: float = 2e-3) -> tuple[Tensor, Tensor]:
    """``[H, W, 4]`` as the rasteriser gives it, and where it is certain: no edge or rival within the margin."""
    names, seen = [], None
    for shift in ((0.0, 0.0), (margin, 0.0), (-margin, 0.0), (0.0, margin), (0.0, -margin)):
        barycentrics, depth = reference_layers(clip, faces, pixel_centres(*size, shift))
        nearest, face = depth.min(1)
        names.append(torch.where(nearest.isfinite(), face + 1, 0))
        if seen is None:
            seen = torch.cat([barycentrics[torch.arange(len(face)), face][:, :2], nearest[:, None]], 1)
            two = torch.cat([depth, torch.full((len(depth), 1), torch.inf).double()], 1).topk(2, 1, largest=False)
            certain = ~(two.values[:, 1] - two.values[:, 0] < 1e-6)
    certain = certain & torch.stack([name == names[0] for name in names]).all(0)
    assert seen is not None
    raster = torch.cat([seen, names[0][:, None]], 1) * (names[0] > 0)[:, None]
    raster[names[0] == 0] = 0
    return raster.reshape(*size, 4), certain.reshape(size)


def numeric_gradient(function, values: Tensor, places: list[tuple[int, ...]], step: float) -> Tensor:  # type: ignore[no-untyped-def]
    """Central differences of a scalar function by some entries of a tensor."""
    slopes = []
    for place in places:
        ends = []
        for sign in (1, -1):
            moved = values.detach().clone()
            moved[place] += sign * step
            ends.append((float(function(moved)), float(moved[place])))
        slopes.append((ends[0][0] - ends[1][0]) / (ends[0][1] - ends[1][1]))
    return torch.tensor(slopes)
