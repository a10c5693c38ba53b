"""An avatar that talks: skinning, binding and drawing of 60,000 Gaussians at 512 px, frame by frame."""

import os
from collections.abc import Iterator
from typing import Any

import torch

from ap3d.framing import full_cameras
from ap3d.motion.procedural import talking
from ap3d.raster.splats import rasterize_splats
from ap3d.rig import load_rig
from ap3d.rig.protocol import RigParams
from ap3d.splats.frames import triangle_frames
from ap3d.splats.initial import surface_avatar
from benchmarks.rasterisers.measure import median_ms, peak_memory_mb

COUNT, SIZE, DEGREE = 60_000, 512, 3


@torch.no_grad()
def rows(seconds: float) -> Iterator[dict[str, Any]]:
    """One and two threads."""
    rig = load_rig("builtin")
    base = RigParams.neutral(rig)
    vertices = rig.vertices(base)[0]
    generator = torch.Generator().manual_seed(0)
    avatar = surface_avatar(rig, vertices, COUNT, generator).with_sh_degree(DEGREE)
    motion = talking(2.0, 25.0, generator).to(rig)
    neutral, camera = triangle_frames(vertices, rig.faces), full_cameras(rig, vertices, [0.0], [2.0], SIZE)
    frame = -1

    def draw() -> None:
        nonlocal frame
        frame = (frame + 1) % len(motion)
        posed = triangle_frames(rig.vertices(motion.params(base, frame))[0], rig.faces)
        rasterize_splats(avatar.pose(posed, neutral), camera).over(torch.ones(3))

    first = 0.0
    for threads in (1, 2):
        os.environ["AP3D_THREADS"] = str(threads)
        torch.set_num_threads(threads)
        ms = median_ms(draw, 2 * seconds, most=50)
        first = first or ms
        yield {
            "case": f"animate {len(avatar) // 1000}k {SIZE}px SH{DEGREE} with skinning",
            "backend": f"ap3d, {threads} thread{'s' * (threads > 1)}", "ms": round(ms, 3),
            "frames_per_s": round(1e3 / ms, 1), "ratio": round(ms / first, 2), "error": None,
            "memory_mb": peak_memory_mb(draw),
        }  # fmt: skip
    torch.set_num_threads(1)
