"""How near the CPU splat kernel comes to what the machine can do: python -m benchmarks.rasterisers.roofline

For each of the four kernel calls of a training step: operations and bytes counted from the scene, the shortest time in
which this machine can do or move them on one core, and the time measured.
"""

import ctypes
import os
import statistics
import time
from dataclasses import dataclass
from typing import Any

os.environ["AP3D_THREADS"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from numpy.typing import NDArray

from ap3d.raster import splats_cpu
from ap3d.raster.library import library
from ap3d.raster.splats import GSPLAT, Splats, rasterize_splats
from benchmarks.rasterisers.measure import leaves
from benchmarks.rasterisers.plain import compiled
from benchmarks.rasterisers.scenes import Scene

TILE, BLOCK = 16, 4
CALLS = ("project", "composite", "composite_backward", "project_backward")
BUFFER = 48 << 20  # bytes; what a training step of 60k Gaussians touches


@dataclass(frozen=True)
class Counts:
    """Of one picture: Gaussians, (Gaussian, tile) items, pairs of an item and a block of 16 pixels, pixels."""

    gaussians: int
    items: int
    forward_pairs: int
    backward_pairs: int
    pixels: int


@dataclass(frozen=True)
class Work:
    """Floating point operations and bytes of one call; a fused multiply-add is two operations."""

    flops: float
    read: float
    written: float


def work(counts: Counts, coefficients: int) -> dict[str, Work]:
    """Counted from the source: harmonics take 6 operations a coefficient, the rest of a Gaussian about 400."""
    n, sh = counts.gaussians, 3 * coefficients
    given, line, box = 4 * (11 + sh), 64, 16
    sort = 3 * 2 * 8 + 2 * box  # three passes over keys, two over boxes
    return {
        "project": Work(n * (400 + 2 * sh), n * given, n * (line + box + 8)),
        "composite": Work(
            counts.forward_pairs * 16 * 38, n * sort + counts.items * (line + 8), counts.items * 8 + counts.pixels * 28
        ),
        "composite_backward": Work(
            counts.backward_pairs * 16 * 60 + counts.items * 160,
            counts.items * (line + 8 + 64) + counts.pixels * 28 + n * line,
            counts.items * 64 + n * (line + 8),
        ),
        "project_backward": Work(n * (900 + 6 * sh), n * (given + line + box + 8), n * given),
    }


def count(scene: Scene) -> Counts:
    """Draws the picture in numpy, tile by tile, to see which pairs there are before the pixels are finished."""
    kept: list[Any] = []
    original = splats_cpu._Composite.apply
    try:
        splats_cpu._Composite.apply = lambda *a: kept.extend(a) or original(*a)  # type: ignore[method-assign]
        rasterize_splats(scene.splats, scene.camera, backend="cpu")
    finally:
        splats_cpu._Composite.apply = original  # type: ignore[method-assign]
    lines, boxes = (kept[i].detach()[0].double().numpy() for i in (0, 2))
    columns = -(-scene.size // TILE)
    spans = [(boxes[:, k].astype(int) % 4096, boxes[:, k].astype(int) // 4096) for k in (0, 1)]
    lists: dict[int, list[int]] = {}
    for i in np.lexsort((np.arange(len(boxes)), boxes[:, 2])):
        for y in range(spans[1][0][i], spans[1][1][i]):
            for x in range(spans[0][0][i], spans[0][1][i]):
                lists.setdefault(y * columns + x, []).append(i)
    pairs = np.sum([_tile_pairs(lines[items], t % columns, t // columns) for t, items in lists.items()], axis=0)
    return Counts(len(boxes), sum(map(len, lists.values())), int(pairs[0]), int(pairs[1]), scene.size**2)


def _tile_pairs(lines: NDArray[Any], column: int, row: int) -> tuple[int, int]:
    """Forward pairs end when all pixels of a block are finished, backward ones with the last splat that counted."""
    centres = np.arange(TILE) + 0.5
    dx = (lines[:, 0] - TILE * column)[:, None, None] - centres[None, None, :]
    dy = (lines[:, 1] - TILE * row)[:, None, None] - centres[None, :, None]
    power = (lines[:, 4, None, None] * dx + lines[:, 5, None, None] * dy) ** 2 + (lines[:, 6, None, None] * dy) ** 2
    alpha = np.minimum(lines[:, 7, None, None] * np.exp(-0.5 * power), GSPLAT.alpha_clamp)
    alpha = np.where(alpha >= GSPLAT.cut, alpha, 0)
    finished = np.cumprod(1 - alpha, axis=0) < GSPLAT.stop

    def blocks(v: NDArray[Any]) -> NDArray[Any]:
        return v.reshape(len(v), TILE // BLOCK, BLOCK, TILE // BLOCK, BLOCK).transpose(0, 1, 3, 2, 4)

    reached = blocks(alpha > 0).any((3, 4))
    open_before = np.concatenate([np.ones_like(reached[:1]), ~blocks(finished).all((3, 4))[:-1]])
    drawn = blocks((alpha > 0) & ~finished).any((3, 4))
    until_last = np.flip(np.maximum.accumulate(np.flip(drawn, 0), 0), 0)
    return int((reached & open_before).sum()), int((reached & until_last).sum())


def times(scene: Scene, repeats: int = 15) -> dict[str, float]:
    """Median seconds of each kernel call inside whole training steps."""
    taken: dict[str, list[float]] = {name: [] for name in CALLS}

    class Watched:
        def __getattr__(self, name: str) -> Any:
            function = getattr(library(), name)
            call = name.removeprefix("ap3d_splats_")
            if call not in taken:
                return function

            def timed(*arguments: Any) -> Any:
                start = time.perf_counter()
                result = function(*arguments)
                taken[call].append(time.perf_counter() - start)
                return result

            return timed

    original = splats_cpu.library
    try:
        splats_cpu.library = lambda: Watched()  # type: ignore[assignment,return-value]
        parameters = leaves(scene.splats)
        for _ in range(repeats + 3):
            _step(parameters, scene)
    finally:
        splats_cpu.library = original
    return {name: statistics.median(found[3:]) for name, found in taken.items()}


def _step(parameters: Splats, scene: Scene) -> None:
    images = rasterize_splats(parameters, scene.camera, backend="cpu")
    (images.color[0] * scene.weights).sum().backward()
    for tensor in parameters.tensors().values():
        tensor.grad = None


def main() -> None:
    """Print the machine's peaks and one table."""
    torch.set_num_threads(1)
    machine = compiled("machine_peaks.cpp")
    machine.peak_flops.restype = machine.peak_stream.restype = ctypes.c_double
    flops = machine.peak_flops()
    read, written = (machine.peak_stream(ctypes.c_long(BUFFER), way) for way in (0, 1))
    print(f"one core: {flops / 1e9:.0f} GFLOP/s, reads {read / 1e9:.1f} GB/s, writes {written / 1e9:.1f} GB/s\n")
    print("| scene | call | MFLOP | MB read | MB written | bound by | bound ms | measured ms | reached |")
    print("|---|---|---|---|---|---|---|---|---|")
    for scene in (Scene(20_000, 256, 3), Scene(60_000, 512, 3), Scene(60_000, 512, 3, heavy=True)):
        counts, measured = count(scene), times(scene)
        for call, w in work(counts, 16).items():
            arithmetic, memory = w.flops / flops, w.read / read + w.written / written
            bound, name = max((arithmetic, "arithmetic"), (memory, "memory"))
            print(
                f"| {scene.name} | {call} | {w.flops / 1e6:.0f} | {w.read / 1e6:.1f} | {w.written / 1e6:.1f} | {name} "
                f"| {1e3 * bound:.2f} | {1e3 * measured[call]:.2f} | {bound / measured[call]:.0%} |",
                flush=True,
            )
        print(f"<!-- {scene.name}: {counts} -->", flush=True)


if __name__ == "__main__":
    main()
