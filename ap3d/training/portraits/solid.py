"""The outer surface of a mesh of open, nested sheets, as a signed distance on a grid: what a density field holds."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor

from ap3d.portrait.protocol import Mesh
from ap3d.raster.mesh import interpolate, rasterize_mesh
from ap3d.training.portraits.occlusion import sphere_directions

RESOLUTION, EXTENT = 256, 2.1  # samples a side and world units, as Portrait3D's density is sampled
DIRECTIONS, MAP_SIZE = 72, 384
LOWEST = -0.4  # of a viewing direction's height: from below one would look into the cut torso
LEAST_VIEWS = 5  # that show a point inside the mouth; fewer looked through the slit between closed lips
BAND = 3  # samples round the surface whose distance is exact


@dataclass(frozen=True)
class DepthMap:
    """One orthographic view: ``frame [3, 3]`` (columns right, down, forward), ``depth [S, S]`` (inf: empty)."""

    frame: Tensor
    depth: Tensor


@dataclass(frozen=True)
class OuterSurface:
    """What can be seen of a mesh from outside.

    Attributes:
        points: ``[P, 3]`` world units.
        normals: ``[P, 3]`` unit, outward: towards the one who sees them.
        classes: ``[P]`` of the triangles they lie on.
        backs: ``[P]`` whether the triangle shows its back there (inner sides of open sheets).
        maps: the views that show them.
        centre, radius: of a ball that holds the mesh.
        floor: lowest y of the mesh, where the body is cut.
    """

    points: Tensor
    normals: Tensor
    classes: Tensor
    backs: Tensor
    maps: tuple[DepthMap, ...]
    centre: Tensor
    radius: float
    floor: float


@torch.no_grad()
def outer_surface(mesh: Mesh, classes: Tensor, sheet_class: int, mouth_class: int) -> OuterSurface:
    """Look at a mesh from all sides but below; triangles of ``sheet_class`` may show their backs, and the inside of
    the mouth (``mouth_class``) counts only where it is open."""
    centre = (mesh.vertices.amin(0) + mesh.vertices.amax(0)) / 2
    local = mesh.vertices - centre
    radius = float(local.norm(dim=1).max()) * 1.02
    corners = local[mesh.faces]
    face_normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    face_normals = torch.nn.functional.normalize(face_normals, dim=1)
    maps, found = [], []
    for direction in sphere_directions(DIRECTIONS):
        if direction[1] < LOWEST:
            continue
        frame = _frame(direction)
        clip = torch.cat([local @ frame / radius, torch.ones(len(local), 1)], 1)[None]
        rast = rasterize_mesh(clip, mesh.faces, (MAP_SIZE, MAP_SIZE))
        hit, face = rast[0, ..., 3] > 0, rast[0, ..., 3].long() - 1
        maps.append(DepthMap(frame, torch.where(hit, rast[0, ..., 2] * radius, torch.tensor(torch.inf))))
        points = interpolate(local[None], rast, mesh.faces)[0][hit]
        normals, label = face_normals[face[hit]], classes[face[hit]]
        facing = (normals * direction).sum(1)
        keep = (facing > 0.3) | ((facing < -0.3) & (label == sheet_class))
        found.append((points[keep], (normals * facing.sign()[:, None])[keep], label[keep], (facing < 0)[keep]))
    points, normals, labels, backs = (torch.cat(part) for part in zip(*found, strict=True))
    index = torch.nonzero(labels == mouth_class)[:, 0]
    seen = torch.ones(len(points), dtype=torch.bool)
    seen[index] = _view_counts(points[index], maps, radius) >= LEAST_VIEWS
    floor = float(mesh.vertices[:, 1].min())
    return OuterSurface(
        points[seen] + centre, normals[seen], labels[seen], backs[seen], tuple(maps), centre, radius, floor
    )


def _view_counts(points: Tensor, maps: list[DepthMap], radius: float) -> Tensor:
    """How many views show each of the points ``[P, 3]`` round the centre."""
    counts = torch.zeros(len(points))
    for view in maps:
        placed = points @ view.frame
        pixel = ((placed[:, :2] / radius + 1) * (MAP_SIZE / 2)).long().clamp(0, MAP_SIZE - 1)
        counts += placed[:, 2] < view.depth[pixel[:, 1], pixel[:, 0]] + 0.25 * EXTENT / RESOLUTION
    return counts


def _frame(direction: Tensor) -> Tensor:
    """Columns right, down, forward of somebody who looks from ``direction`` at the origin."""
    helper = torch.tensor([0.0, 0.0, 1.0]) if abs(float(direction[2])) < 0.9 else torch.tensor([1.0, 0.0, 0.0])
    side = torch.nn.functional.normalize(torch.linalg.cross(helper, direction), dim=0)
    return torch.stack([side, torch.linalg.cross(direction, side), -direction], 1)


def signed_distance_grid(surface: OuterSurface, resolution: int = RESOLUTION) -> tuple[np.ndarray, float, float]:
    """Signed distance (negative inside), exact near the surface and clamped beyond.

    Open sheets are made one sample thick: nothing thinner shows on a grid. Hollows that no view sees are solid.

    Returns:
        ``[R, R, R]`` in world units, indexed x, y, z (an even ``resolution``); the position of sample 0 on every axis;
        the spacing.
    """
    spacing = EXTENT / (resolution - 1)
    points = surface.points + surface.normals * (surface.backs * spacing)[:, None]
    coarse = _hidden(surface, resolution // 2, 2 * spacing)
    inside = coarse.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    values = np.where(inside, np.float32(-BAND * spacing), np.float32(BAND * spacing))
    chosen = _thinned(points.numpy(), 0.4 * spacing)
    cloud, normals = points.numpy()[chosen], surface.normals.numpy()[chosen]
    near = np.zeros(values.shape, bool)
    near[tuple(((cloud + EXTENT / 2) / spacing).round().astype(int).clip(0, resolution - 1).T)] = True
    band = np.argwhere(ndimage.binary_dilation(near, iterations=BAND))
    where = band * spacing - EXTENT / 2
    distance, nearest = cKDTree(cloud).query(where, k=3, distance_upper_bound=6 * spacing)
    found = np.isfinite(distance[:, -1])
    offset = where[found, None] - cloud[nearest[found]]
    height = np.median((offset * normals[nearest[found]]).sum(2), 1)
    values[tuple(band[found].T)] = height.clip(-BAND * spacing, BAND * spacing)
    below = (surface.floor - (np.arange(resolution) * spacing - EXTENT / 2)).astype(np.float32)
    return np.maximum(values, below[None, :, None]), -EXTENT / 2, spacing


def _thinned(points: np.ndarray, cell: float) -> np.ndarray:
    """Indices of one point a cell."""
    keys = np.floor(points / cell).astype(np.int64) + 4096
    return np.unique((keys[:, 0] << 40) | (keys[:, 1] << 20) | keys[:, 2], return_index=True)[1]


def _hidden(surface: OuterSurface, resolution: int, spacing: float) -> np.ndarray:
    """Samples that no view sees in front of the surface (bool ``[R, R, R]``)."""
    axis = torch.arange(resolution) * spacing - EXTENT / 2 + spacing / 4
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3) - surface.centre
    hidden = (points.abs() < surface.radius).all(1) & (points[:, 1] + surface.centre[1] > surface.floor)
    for view in surface.maps:
        index = torch.nonzero(hidden)[:, 0]
        placed = points[index] @ view.frame
        pixel = ((placed[:, :2] / surface.radius + 1) * (MAP_SIZE / 2)).long().clamp(0, MAP_SIZE - 1)
        nearest = -torch.nn.functional.max_pool2d(-view.depth[None], 3, 1, 1)[0]
        hidden[index] = placed[:, 2] >= nearest[pixel[:, 1], pixel[:, 0]]
    return hidden.reshape((resolution,) * 3).numpy()


def surface_mesh(values: np.ndarray, lower: float, spacing: float) -> Mesh:
    """The zero level by marching cubes (scikit-image), wound outward."""
    from skimage.measure import marching_cubes

    vertices, faces, _, _ = marching_cubes(values, 0.0, spacing=(spacing,) * 3, gradient_direction="descent")
    return Mesh(torch.from_numpy(vertices + lower).float(), torch.from_numpy(faces.astype(np.int64)))
