"""Colours of a surface as cameras all round see the avatar there."""

import math

import torch
from torch import Tensor

from ap3d.cameras import Cameras, orbit
from ap3d.raster.mesh import interpolate, rasterize_mesh
from ap3d.raster.splats import Splats, rasterize_splats

VIEWS = [(azimuth, 5.0) for azimuth in range(0, 360, 45)] + [(a, e) for a in (0, 90, 180, 270) for e in (-35.0, 50.0)]
FOV_DEGREES = 15.0
SLACK = 0.01  # of the distance to the camera's target, how far behind the nearest surface a point is still seen
GRAZING = 0.2  # cosine below which a view counts for nothing
SHARPNESS = 4  # exponent of the cosine: the most frontal view prevails


def seen_colors(
    points: Tensor, normals: Tensor, vertices: Tensor, faces: Tensor, splats: Splats, size: int
) -> tuple[Tensor, Tensor]:
    """Colours and their weights from views all round.

    Args:
        points: ``[P, 3]`` on the surface.
        normals: ``[P, 3]`` unit normals there.
        vertices: ``[V, 3]`` of the mesh that hides points.
        faces: ``[F, 3]``.
        splats: the avatar at the same pose.
        size: side of the views in pixels.

    Returns:
        Colours ``[P, 3]`` and weights ``[P]``, 0 where no camera sees the point.
    """
    low, high = vertices.amin(0), vertices.amax(0)
    radius = float((high - low).norm()) / 2 / math.sin(math.radians(FOV_DEGREES) / 2)
    azimuths, elevations = zip(*VIEWS, strict=True)
    cameras = orbit(azimuths, elevations, (low + high) / 2, radius, FOV_DEGREES, size)
    total, weight = torch.zeros_like(points), torch.zeros(len(points))
    for index in range(len(cameras)):
        camera = cameras[index]
        pixels, depth = camera.project(points)
        grid = (pixels[0] / size * 2 - 1)[None, None]
        surface = _depth_image(camera, vertices, faces)
        images = rasterize_splats(splats, camera)
        seen = torch.cat([images.color, images.alpha, surface], 1)
        sampled = torch.nn.functional.grid_sample(seen[:, :4], grid, align_corners=False)[0, :, 0]
        nearest = torch.nn.functional.grid_sample(seen[:, 4:], grid, mode="nearest", align_corners=False)[0, 0, 0]
        towards = torch.nn.functional.normalize(camera.positions - points, dim=1)
        cosine = (normals * towards).sum(1)
        visible = (depth[0] < nearest + SLACK * radius) & (cosine > GRAZING) & (sampled[3] > 0.5)
        share = visible * cosine.clamp(min=0) ** SHARPNESS
        total += share[:, None] * (sampled[:3] / sampled[3].clamp(min=0.5)).T
        weight += share
    return (total / weight.clamp(min=1e-9)[:, None]).clamp(0, 1), weight


def _depth_image(camera: Cameras, vertices: Tensor, faces: Tensor) -> Tensor:
    """Depth of the nearest surface ``[1, 1, H, W]``, 0 where there is none."""
    clip = torch.nn.functional.pad(vertices, (0, 1), value=1.0) @ camera.clip_matrices()[0].T
    rast = rasterize_mesh(clip[None], faces, (camera.height, camera.width))
    depth = camera.project(vertices)[1]
    return interpolate(depth[..., None], rast, faces).permute(0, 3, 1, 2)
