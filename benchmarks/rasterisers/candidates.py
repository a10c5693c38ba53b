"""What is compared: ours in each form, the yardsticks, and the alternatives that are found."""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.raster.library import library
from ap3d.raster.splats import GSPLAT, INRIA, SplatRule, Splats, rasterize_splats
from benchmarks.rasterisers import opensplat, others, plain, tiled
from benchmarks.rasterisers.measure import leaves
from benchmarks.rasterisers.places import ALTERNATIVES
from benchmarks.rasterisers.scenes import Scene

Render = Callable[[Splats, Cameras], Tensor]
INSTRUCTION_SETS = ("base", "avx2", "avx512")


@dataclass(frozen=True)
class Candidate:
    """A rasteriser to measure.

    Attributes:
        name: as in the table.
        render: splats and one camera to a colour picture ``[3, H, W]``, differentiable.
        rule: whose float64 truth it is compared with.
        suits: whether a scene is worth its time.
        threads: of our kernel; the others use one.
        instruction_set: limit of our kernel.
        device: where its tensors lie.
        screen_only: gets projected Gaussians for nothing; its gradients end at the screen and are not compared.
    """

    name: str
    render: Render
    rule: SplatRule = GSPLAT
    suits: Callable[[Scene], bool] = lambda scene: True
    threads: int = 1
    instruction_set: int = len(INSTRUCTION_SETS) - 1
    device: str = "cpu"
    screen_only: bool = False

    def prepare(self, scene: Scene) -> tuple[Callable[[], Tensor], Splats | None]:
        """A function that draws the scene, and the leaves that collect the gradients."""
        os.environ["AP3D_THREADS"] = str(self.threads)
        library().ap3d_splats_limit(self.instruction_set)
        if self.screen_only:
            return _on_screen(scene), None
        splats, camera = leaves(scene.splats, device=self.device), scene.camera.to(self.device)
        return lambda: self.render(splats, camera), splats


def _on_screen(scene: Scene) -> Callable[[], Tensor]:
    with torch.no_grad():
        means2d, covariances, colors, depths, boxes = tiled.project(scene.splats, scene.camera, GSPLAT)
    inputs = [means2d, plain.conics(covariances), colors, depths, scene.splats.opacities]
    inputs = [tensor.clone().requires_grad_(i != 3) for i, tensor in enumerate(inputs)]
    return lambda: plain.composite(*inputs, boxes, scene.camera)


def ours(splats: Splats, cameras: Cameras) -> Tensor:
    """The CPU kernel; alpha and depth are computed too, though nobody looks."""
    return rasterize_splats(splats, cameras, backend="cpu").color[0]


def candidates() -> list[Candidate]:
    """Ours first: ratios are against it."""
    return [*_ours(), *_yardsticks(), *_alternatives(), *_on_gpu()]


def _ours() -> list[Candidate]:
    best = library().ap3d_splats_limit(len(INSTRUCTION_SETS) - 1)
    found = [Candidate(f"ap3d {INSTRUCTION_SETS[best]}", ours, instruction_set=best)]
    found += [Candidate(f"ap3d {INSTRUCTION_SETS[best]}, 2 threads", ours, threads=2, instruction_set=best)]
    return found + [Candidate(f"ap3d {INSTRUCTION_SETS[i]}", ours, instruction_set=i) for i in range(best - 1, -1, -1)]


def _yardsticks() -> list[Candidate]:
    return [
        Candidate("plain C++ loop, torch projection", plain.render),
        Candidate("plain C++ loop alone", plain.render, screen_only=True),
        Candidate(
            "our torch reference, tiled", lambda s, c: tiled.render(s, c, GSPLAT),
            suits=lambda s: s.count <= 20_000 and not s.heavy and s.degree == 3,
        ),
    ]  # fmt: skip


def _alternatives() -> list[Candidate]:
    def small(scene: Scene) -> bool:
        return (scene.count, scene.size, scene.heavy) == (20_000, 256, False)

    def modest(scene: Scene) -> bool:
        return scene.count <= 60_000 and scene.degree == 3

    table = [
        ("OpenSplat", "OpenSplat CPU", opensplat.render, GSPLAT, modest),
        ("gsplat", "gsplat torch projection, plain C++ loop", others.gsplat_torch, GSPLAT, modest),
        ("torch-splatting", "torch-splatting", others.torch_splatting, INRIA, lambda s: small(s) and s.degree == 0),
        ("gswarp", "gswarp on its CPU device", others.gswarp, INRIA, lambda s: small(s) and s.degree == 3),
    ]
    found = []
    for folder, name, render, rule, suits in table:
        source = ALTERNATIVES / folder
        if source.exists():
            found.append(Candidate(name, lambda s, c, r=render, f=source: r(f, s, c), rule, suits))
    return found


def _on_gpu() -> list[Candidate]:
    rules = {"gsplat": GSPLAT, "diff_gaussian_rasterization": INRIA}
    if not torch.cuda.is_available():
        return []
    return [
        Candidate(
            f"{name} on {torch.cuda.get_device_name()}",
            lambda s, c, n=name: rasterize_splats(s, c, backend=n).color[0], rule, device="cuda",
        )
        for name, rule in rules.items() if importlib.util.find_spec(name) is not None
    ]  # fmt: skip
