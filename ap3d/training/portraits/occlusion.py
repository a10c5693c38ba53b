"""Ambient occlusion of a mesh at its vertices, by depth maps from directions spread over the sphere."""

import numpy as np
import torch
from torch import Tensor

from ap3d.raster.mesh import rasterize_mesh

DIRECTIONS, MAP_SIZE, BIAS = 26, 176, 0.012  # bias in units of the mesh's radius


def vertex_openness(vertices: Tensor, faces: Tensor, normals: Tensor, smoothing: int = 1) -> Tensor:
    """Cosine-weighted share of directions from which light reaches each vertex, ``[V]`` in 0..1.

    Args:
        vertices: ``[V, 3]``.
        faces: ``[F, 3]``.
        normals: ``[V, 3]`` unit vertex normals.
        smoothing: rounds of averaging over the triangles, which hide the small number of directions.
    """
    centre = (vertices.amin(0) + vertices.amax(0)) / 2
    local = vertices - centre
    local = local / local.norm(dim=1).max() * 0.98
    open_, total = torch.zeros(len(vertices)), torch.full((len(vertices),), 1e-4)
    for direction in sphere_directions(DIRECTIONS):
        weight = (normals @ direction).clamp(0, 1)
        visible = _visible_from(direction, local, faces)
        open_, total = open_ + weight * visible, total + weight
    return _smooth(open_ / total, faces, smoothing)


def sphere_directions(count: int) -> Tensor:
    """Unit vectors ``[count, 3]`` of a Fibonacci lattice."""
    k = np.arange(count) + 0.5
    z, azimuth = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    flat = np.sqrt(1 - z * z)
    return torch.from_numpy(np.stack([flat * np.cos(azimuth), z, flat * np.sin(azimuth)], 1)).float()


def _visible_from(direction: Tensor, local: Tensor, faces: Tensor) -> Tensor:
    """1 where a vertex ``[V, 3]`` inside the unit ball sees out along ``direction``, softly, else 0."""
    helper = torch.tensor([0.0, 0.0, 1.0]) if abs(float(direction[2])) < 0.9 else torch.tensor([1.0, 0.0, 0.0])
    side = torch.nn.functional.normalize(torch.linalg.cross(helper, direction), dim=0)
    frame = torch.stack([side, torch.linalg.cross(direction, side), -direction], 1)  # depth grows away from the light
    placed = local @ frame
    clip = torch.cat([placed, torch.ones(len(placed), 1)], 1)[None]
    depth = rasterize_mesh(clip, faces, (MAP_SIZE, MAP_SIZE))[0]
    nearest = torch.where(depth[..., 3] > 0, depth[..., 2], torch.ones(()))
    gap = (
        placed[:, 2]
        - torch.nn.functional.grid_sample(
            nearest[None, None], placed[None, None, :, :2], align_corners=False, padding_mode="border"
        )[0, 0, 0]
    )
    return 1 - ((gap - BIAS) / BIAS).clamp(0, 1)


def _smooth(values: Tensor, faces: Tensor, rounds: int) -> Tensor:
    for _ in range(rounds):
        mean = values[faces].mean(1)
        total, count = torch.zeros_like(values), torch.full_like(values, 1e-6)
        for k in range(3):
            total.index_add_(0, faces[:, k], mean)
            count.index_add_(0, faces[:, k], torch.ones_like(mean))
        values = torch.where(count > 0.5, total / count, values)
    return values
