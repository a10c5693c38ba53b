"""The mesh kernel's operations on a sphere of head size, 20,000 triangles at 512 px."""

import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ap3d.raster.mesh import antialias, interpolate, mesh_topology, rasterize_mesh, texture
from benchmarks.rasterisers.measure import median_ms, peak_memory_mb
from benchmarks.rasterisers.scenes import RADIUS, Scene

SIZE = 512


def sphere(rings: int) -> tuple[Tensor, Tensor, Tensor]:
    """Vertices, faces and texture coordinates of about ``4 rings^2`` triangles."""
    v, u = torch.meshgrid(torch.linspace(0, 1, rings), torch.linspace(0, 1, 2 * rings), indexing="ij")
    polar, azimuth = math.pi * v, 2 * math.pi * u
    points = torch.stack([polar.sin() * azimuth.cos(), polar.cos(), polar.sin() * azimuth.sin()], -1)
    corner = (torch.arange(rings - 1)[:, None] * 2 * rings + torch.arange(2 * rings - 1)).reshape(-1)
    quads = torch.stack([corner, corner + 1, corner + 2 * rings + 1, corner + 2 * rings], 1)
    faces = torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return RADIUS * points.reshape(-1, 3), faces, torch.stack([u, v], -1).reshape(-1, 2)


def rows(seconds: float) -> Iterator[dict[str, Any]]:
    """One and two threads."""
    cases = _cases()
    for name, function in cases.items():
        base = 0.0
        for threads in (1, 2):
            os.environ["AP3D_THREADS"] = str(threads)
            ms = median_ms(function, seconds)
            base = base or ms
            yield {
                "case": name, "backend": f"ap3d, {threads} thread{'s' * (threads > 1)}", "ms": round(ms, 3),
                "ratio": round(ms / base, 2), "error": None, "memory_mb": peak_memory_mb(function),
            }  # fmt: skip


def _cases() -> dict[str, Callable[[], object]]:
    vertices, faces, uv = sphere(71)
    homogeneous = torch.cat([vertices, torch.ones(len(vertices), 1)], 1)
    clip = homogeneous @ Scene(1, SIZE, 0).camera.clip_matrices().transpose(1, 2)
    rast = rasterize_mesh(clip, faces, (SIZE, SIZE))
    normals_and_labels = torch.cat([vertices / RADIUS, torch.rand(len(vertices), 4)], 1)[None]
    coordinates, picture = interpolate(uv[None], rast, faces).detach(), torch.rand(1, 1024, 1024, 3)
    topology = mesh_topology(faces)
    attributes, texels, positions = (t.clone().requires_grad_() for t in (normals_and_labels, picture, clip))
    color = interpolate(normals_and_labels, rast, faces)

    def rasterise_and_interpolate() -> object:
        return interpolate(normals_and_labels, rasterize_mesh(clip, faces, (SIZE, SIZE)), faces)

    head = f"mesh {len(faces) // 1000}k {SIZE}px"
    return {
        f"{head} rasterize": lambda: rasterize_mesh(clip, faces, (SIZE, SIZE)),
        f"{head} rasterize + interpolate normals and labels": rasterise_and_interpolate,
        f"{head} interpolate forward+backward": lambda: interpolate(attributes, rast, faces).sum().backward(),
        f"{head} texture forward": lambda: texture(picture, coordinates),
        f"{head} texture forward+backward": lambda: texture(texels, coordinates).sum().backward(),
        f"{head} antialias forward": lambda: antialias(color, rast, clip, faces, topology=topology),
        f"{head} antialias forward+backward": lambda: (
            antialias(color, rast, positions, faces, topology=topology).square().sum().backward()
        ),
    }
