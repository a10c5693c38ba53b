"""Times of the rasterisers: python benchmarks/raster.py [--quick] [--json FILE]

One synthetic head of overlapping Gaussians seen under 20 degrees, all degrees of harmonics; minima over repeats.
The error is the largest difference of a small image from the float64 reference.
"""

import argparse
import json
import math
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from ap3d.cameras import Cameras, orbit
from ap3d.raster.mesh import interpolate, rasterize_mesh
from ap3d.raster.splats import Splats, rasterize_splats

RADIUS = 0.3


def head(count: int, degree: int) -> Splats:
    """Gaussians scattered over an ellipsoid, their size matched to their number."""
    g = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1)
    means = directions * torch.tensor([0.8, 1.1, 0.9]) * RADIUS * (1 + 0.02 * torch.randn(count, 1, generator=g))
    scales = 0.6 * math.sqrt(4 * math.pi * RADIUS**2 / count) * torch.exp(0.4 * torch.randn(count, 3, generator=g))
    opacities = torch.sigmoid(2 * torch.randn(count, generator=g) + 0.5)
    sh = 0.3 * torch.randn(count, (degree + 1) ** 2, 3, generator=g)
    return Splats(means, torch.randn(count, 4, generator=g), scales, opacities, sh)


def view(size: int) -> Cameras:
    """The front view."""
    return orbit([0.0], [0.0], torch.zeros(3), 2.7, 20.0, size)


def sphere(rings: int) -> tuple[Tensor, Tensor]:
    """A sphere of about ``4 rings^2`` triangles."""
    v, u = torch.meshgrid(torch.linspace(0, math.pi, rings), torch.linspace(0, 2 * math.pi, 2 * rings), indexing="ij")
    points = RADIUS * torch.stack([v.sin() * u.cos(), v.cos(), v.sin() * u.sin()], -1).reshape(-1, 3)
    corner = (torch.arange(rings - 1)[:, None] * 2 * rings + torch.arange(2 * rings - 1)).reshape(-1)
    quads = torch.stack([corner, corner + 1, corner + 2 * rings + 1, corner + 2 * rings], 1)
    return points, torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def best(function: Callable[[], object], repeats: int) -> float:
    """Shortest time in milliseconds."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def splat_cases(quick: bool) -> list[tuple[str, Callable[[], object]]]:
    """Forward, and forward with backward, for counts and sizes."""
    cases: list[tuple[str, Callable[[], object]]] = []
    for count, size, degree in ((20_000, 256, 0), (20_000, 256, 3), (60_000, 512, 3))[: 1 if quick else 3]:
        splats, cameras = head(count, degree), view(size)
        leaves = Splats(**{name: tensor.clone().requires_grad_() for name, tensor in splats.tensors().items()})

        def train(leaves: Splats = leaves, cameras: Cameras = cameras) -> None:
            images = rasterize_splats(leaves, cameras, backend="cpu")
            (images.color.sum() + images.alpha.sum()).backward()

        name = f"splats {count // 1000}k {size} px SH{degree}"
        cases.append((f"{name} forward", lambda s=splats, c=cameras: rasterize_splats(s, c, backend="cpu")))  # type: ignore[misc]
        cases.append((f"{name} forward+backward", train))
    return cases


def mesh_cases() -> list[tuple[str, Callable[[], object]]]:
    """Rasterise and interpolate a mesh of head size."""
    vertices, faces = sphere(71)
    clip = torch.cat([vertices, torch.ones(len(vertices), 1)], 1) @ view(512).clip_matrices().transpose(1, 2)
    raster = rasterize_mesh(clip, faces, (512, 512))
    attributes = vertices[None].clone().requires_grad_()
    return [
        (f"mesh {len(faces) // 1000}k 512 px rasterize", lambda: rasterize_mesh(clip, faces, (512, 512))),
        ("mesh interpolate forward+backward", lambda: interpolate(attributes, raster, faces).sum().backward()),
    ]


def reference_error() -> float:
    """Largest difference of a small picture from the float64 reference."""
    splats, cameras = head(500, 3), view(96)
    exact = Splats(**{name: tensor.double() for name, tensor in splats.tensors().items()})
    ours, reference = rasterize_splats(splats, cameras), rasterize_splats(exact, cameras, backend="reference")
    return float((ours.color - reference.color).abs().max())


def main() -> None:
    """Print the table; write it as JSON when asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the first case, few repeats")
    parser.add_argument("--json", type=Path, help="write the rows here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    versions = {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()}
    rows, error = [], reference_error()
    for name, function in splat_cases(options.quick) + mesh_cases():
        base = 0.0
        for threads in (1, 2):
            os.environ["AP3D_THREADS"] = str(threads)
            ms = best(function, 3 if options.quick else 10)
            base = base or ms
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            rows.append(
                {"case": name, "backend": f"cpu, {threads} threads", "ms": round(ms, 2), "ratio": round(base / ms, 2),
                 "error": error if name.startswith("splats") else None, "memory_mb": memory, "versions": versions}
            )  # fmt: skip
            print(f"{name:40s} {threads} threads {ms:9.2f} ms  x{base / ms:4.2f}", flush=True)
    print(f"largest difference from the float64 reference: {error:.1e}")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
