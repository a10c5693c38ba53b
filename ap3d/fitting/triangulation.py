"""Landmarks of many views as points in space: consensus of view pairs, then reweighted least squares.

Hartley and Zisserman, Multiple View Geometry, 12.2 (linear triangulation); Fischler and Bolles 1981 (consensus).
"""

from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.errors import NoFaceError
from ap3d.perception.protocol import FaceLandmarks

LEAST_SCORE = 0.5
TOLERANCE = 0.08  # median reprojection error over the face's size up to which a view agrees with two others
LEAST_ANGLE = 8.0  # degrees between the directions of two views that may found a consensus
ROUNDS = 8
SOFTNESS = 0.02  # reprojection error over the face's size at which a detection counts half


@dataclass(frozen=True)
class SpatialLandmarks:
    """Points in space and how well the views agree on them.

    Attributes:
        points: ``[K, 3]`` world units.
        error: ``[K]`` root mean square reprojection error as a distance at the point, world units.
        views: indices of the views that agree.
        pixels: median reprojection error over views and points, pixels.
    """

    points: Tensor
    error: Tensor
    views: list[int]
    pixels: float


def triangulate(found: FaceLandmarks, cameras: Cameras, use: Tensor) -> SpatialLandmarks:
    """Where the detector's mesh points lie in space.

    Args:
        found: detections in ``B`` views.
        cameras: the ``B`` cameras.
        use: ``[B]`` bool, views that may take part.

    Raises:
        NoFaceError: fewer than two views show a face, or no two of them agree.
    """
    seen = [int(i) for i in torch.nonzero(use & (found.score >= LEAST_SCORE))[:, 0]]
    if len(seen) < 2:
        raise NoFaceError(
            f"a face was found in {len(seen)} of {len(cameras)} views, two are needed; is the portrait a head that"
            " faces +z?"
        )
    matrices = projections(cameras)[seen]
    pixels = found.mesh[seen, :, :2].to(matrices)
    score = found.score[seen].to(matrices)
    size = _face_size(pixels)
    agree = _consensus(matrices, pixels, size, cameras.cam2world[seen, :3, 2].to(matrices))
    if int(agree.sum()) < 2:
        raise NoFaceError(f"{len(seen)} views show faces, but no two the same one; is the portrait whole?")
    matrices, pixels, size, score = matrices[agree], pixels[agree], size[agree], score[agree]
    weights = score[:, None].expand(pixels.shape[:2])
    for _ in range(ROUNDS):
        points = linear_triangulation(matrices, pixels, weights)
        error, depth = _reprojection(matrices, pixels, points)
        scaled = error / (SOFTNESS * size[:, None])
        weights = score[:, None] / (1 + scaled.square()).square()
    focal = cameras.intrinsics[0, 0].to(depth)
    distance = error * depth / focal
    spread = ((weights * distance.square()).sum(0) / weights.sum(0).clamp_min(1e-9)).sqrt()
    views = [seen[int(i)] for i in torch.nonzero(agree)[:, 0]]
    return SpatialLandmarks(points.float(), spread.float(), views, float(error.median()))


def projections(cameras: Cameras) -> Tensor:
    """World to homogeneous pixels, ``[B, 3, 4]`` in float64."""
    fx, fy, cx, cy = cameras.intrinsics.double().unbind(1)
    inner = torch.zeros(len(cameras), 3, 3, dtype=torch.float64)
    inner[:, 0, 0], inner[:, 1, 1], inner[:, 0, 2], inner[:, 1, 2], inner[:, 2, 2] = fx, fy, cx, cy, 1.0
    return inner @ cameras.world2cam.double()[:, :3]


def linear_triangulation(matrices: Tensor, pixels: Tensor, weights: Tensor) -> Tensor:
    """Weighted linear triangulation.

    Args:
        matrices: ``[B, 3, 4]`` projections.
        pixels: ``[B, K, 2]``.
        weights: ``[B, K]``.

    Returns:
        ``[K, 3]`` world points.
    """
    rows = pixels[..., None] * matrices[:, None, 2:] - matrices[:, None, :2]  # [B, K, 2, 4]
    # Rows in units of the image, so that near and far cameras count alike.
    rows = rows / rows[..., :3].norm(dim=-1, keepdim=True) * weights[..., None, None].sqrt()
    stacked = rows.permute(1, 0, 2, 3).flatten(1, 2)
    left, right = stacked[..., :3], -stacked[..., 3:]
    normal = left.transpose(1, 2) @ left + 1e-12 * torch.eye(3, dtype=left.dtype)
    return torch.linalg.solve(normal, left.transpose(1, 2) @ right)[..., 0]


def _reprojection(matrices: Tensor, pixels: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Distances ``[B, K]`` in pixels, and depths ``[B, K]``; points behind a camera are infinitely wrong."""
    homogeneous = torch.nn.functional.pad(points, (0, 1), value=1.0)
    placed = homogeneous @ matrices.transpose(1, 2)
    depth = placed[..., 2]
    error = (placed[..., :2] / depth[..., None] - pixels).norm(dim=-1)
    return torch.where(depth > 0, error, torch.full_like(error, torch.inf)), depth


def _face_size(pixels: Tensor) -> Tensor:
    """Longer side ``[B]`` of each face's box, pixels."""
    return (pixels.amax(1) - pixels.amin(1)).amax(1)


def _consensus(matrices: Tensor, pixels: Tensor, size: Tensor, forward: Tensor) -> Tensor:
    """The views ``[B]`` (bool) that agree with the pair that most others agree with."""
    best, best_key = torch.zeros(len(matrices), dtype=torch.bool), (0, 0.0)
    ones = torch.ones(2, pixels.shape[1], dtype=pixels.dtype)
    cosine = torch.cos(torch.deg2rad(torch.tensor(LEAST_ANGLE)))
    for pair in combinations(range(len(matrices)), 2):
        index = list(pair)
        if float(forward[index[0]] @ forward[index[1]]) > float(cosine):
            continue
        points = linear_triangulation(matrices[index], pixels[index], ones)
        errors = _reprojection(matrices, pixels, points)[0].median(1).values / size
        agree = errors < TOLERANCE
        key = (int(agree.sum()), -float(errors[agree].mean()) if agree.any() else 0.0)
        if key[0] >= 2 and key > best_key:
            best, best_key = agree, key
    return best
