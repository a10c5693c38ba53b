"""Every candidate on every scene that suits it."""

import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ap3d.raster.splats import SplatRule
from benchmarks.rasterisers import tiled
from benchmarks.rasterisers.candidates import Candidate, candidates
from benchmarks.rasterisers.measure import gradient_error, gradients, median_ms, peak_memory_mb
from benchmarks.rasterisers.scenes import Scene, scenes

SLOW_SECONDS = 3.0
PASSES = ("forward", "forward+backward")
LARGEST_TRUTH = 60_000  # Gaussians; the float64 reference would take minutes for more


def rows(quick: bool, seconds: float, only: str = "") -> Iterator[dict[str, Any]]:
    """Two rows, forward and forward+backward, for each scene and candidate whose name fits ``only``."""
    found = [c for c in candidates() if re.search(only, c.name)]
    for scene in scenes(quick):
        base: dict[str, float] = {}
        for candidate in found:
            if not candidate.suits(scene):
                continue
            try:
                measured = _measure(candidate, scene, seconds)
            except Exception as error:  # someone else's code, on a machine that it may not expect
                print(f"{candidate.name} failed on {scene.name}: {str(error).splitlines()[0]}", file=sys.stderr)
                continue
            for row in measured:
                ms = base.setdefault(row["pass"], row["ms"])
                yield row | {"ratio": round(row["ms"] / ms, 2)}


def _measure(candidate: Candidate, scene: Scene, seconds: float) -> list[dict[str, Any]]:
    draw, splats = candidate.prepare(scene)
    weights = scene.weights.to(candidate.device)

    def train() -> None:
        if splats is not None:
            for tensor in splats.tensors().values():
                tensor.grad = None
        (draw() * weights).sum().backward()

    def forward() -> None:
        with torch.no_grad():
            draw()

    draw()  # compiles what is compiled at first use
    start = time.perf_counter()
    picture = draw().detach()
    times = [1e3 * (time.perf_counter() - start)]
    memory: list[int | None] = [None, None]
    if times[0] < 1e3 * SLOW_SECONDS:
        times = [median_ms(forward, seconds)]
        memory = [peak_memory_mb(forward), peak_memory_mb(train)]
    times.append(median_ms(train, seconds))
    errors = _errors(scene, candidate.rule, picture.cpu(), gradients(splats) if splats is not None else {})
    return [
        {
            "case": f"{scene.name} {name}", "scene": scene.name, "pass": name, "backend": candidate.name,
            "ms": round(ms, 3), "gaussians_per_s": round(1e3 * scene.count / ms), "memory_mb": mb, **error,
        }
        for name, ms, mb, error in zip(PASSES, times, memory, errors, strict=True)
    ]  # fmt: skip


def _errors(
    scene: Scene, rule: SplatRule, picture: Tensor, found: dict[str, Tensor]
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Of the picture (largest and mean difference), and of the gradients (relative)."""
    if scene.count > LARGEST_TRUTH:
        return {"error": None}, {"error": None}
    exact, exact_gradients = tiled.truth(scene, rule)
    difference = (picture.double() - exact).abs()
    image = {"error": float(difference.max()), "error_mean": float(difference.mean())}
    return image, {"error": gradient_error(found, exact_gradients) if found else None}
