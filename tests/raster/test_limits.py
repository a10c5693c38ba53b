"""Calls at the edge of what the kernels can do: no memory, many callers at once, odd defaults, rules out of range."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ap3d.cameras import orbit
from ap3d.errors import InputError
from ap3d.raster.mesh import antialias, interpolate, mesh_topology, rasterize_mesh, texture
from ap3d.raster.splats import GSPLAT, Splats, rasterize_splats
from tests.raster.mesh_reference import clip_positions, sphere
from tests.raster.scenes import leaves, loss, random_splats, two_cameras

ROOT = Path(__file__).parents[2]

OUT_OF_MEMORY = """
import os, resource, sys
os.environ["AP3D_THREADS"] = sys.argv[1]
import torch
torch.set_num_threads(1)
from ap3d.cameras import orbit
from ap3d.raster.mesh import rasterize_mesh
from ap3d.raster.splats import Splats, rasterize_splats

def cloud(count):  # each covers the whole picture
    ones = torch.ones(count, 4)
    return Splats(torch.rand(count, 3), ones, ones[:, :3], ones[:, 0], torch.rand(count, 1, 3))

def triangles(count):
    one = torch.tensor([[-1.0, -1, 0, 1], [1, -1, 0, 1], [0, 1, 0, 1]])
    return one.repeat(1, count, 1), torch.arange(3 * count).view(-1, 3)

def draw(count, size):
    return rasterize_splats(cloud(count), orbit([0.0], [0.0], torch.zeros(3), 4.0, 30.0, size)).color

def refused(function, *arguments):
    try:
        function(*arguments)
    except MemoryError as error:
        assert "ran out of memory" in str(error), error
        return
    raise SystemExit("drawn without the memory for it")

before = draw(100, 64)
rasterize_mesh(*triangles(10), (64, 64))
refused(draw, 600_000, 1024)  # more pairs of Gaussian and tile than an int32 counts
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)
refused(draw, 40_000, 1024)
refused(rasterize_mesh, *triangles(150_000), (1024, 1024))
assert before.shape == draw(100, 64).shape and bool(draw(100, 64).isfinite().all())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the memory as Linux does")
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer takes terabytes of addresses")
@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_picture_that_does_not_fit_is_a_memory_error_and_the_next_one_is_drawn(threads: str) -> None:
    command = [sys.executable, "-c", OUT_OF_MEMORY, threads]
    done = subprocess.run(command, cwd=ROOT, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_many_python_threads_draw_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AP3D_THREADS", "3")

    vertices, faces = sphere(12, radius=1.2)
    positions = clip_positions(vertices, two_cameras())

    def gradients(seed: int) -> torch.Tensor:
        splats = leaves(random_splats(150, seed, 1), torch.float32)
        loss(rasterize_splats(splats, two_cameras())).backward()
        clip, colors = ((1 + 0.01 * seed) * t.detach().requires_grad_() for t in (positions, vertices[None]))
        rast = rasterize_mesh(clip, faces, (53, 70))
        shaded = texture(vertices[:100].view(1, 10, 10, 3), interpolate(colors, rast, faces)[..., :2])
        moved = torch.autograd.grad(antialias(shaded, rast, clip, faces).square().sum(), (clip, colors))
        assert splats.means.grad is not None
        return torch.cat([gradient.flatten() for gradient in (splats.means.grad, *moved)])

    alone = [gradients(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as callers:
        for _ in range(5):
            assert all(torch.equal(*pair) for pair in zip(alone, callers.map(gradients, range(4)), strict=True))


def test_two_threads_go_back_through_one_picture() -> None:
    splats = leaves(random_splats(300, 0), torch.float32)
    total = loss(rasterize_splats(splats, two_cameras()))
    wanted = torch.autograd.grad(total, splats.means, retain_graph=True)[0]

    def again(_: int) -> torch.Tensor:
        return torch.autograd.grad(total, splats.means, retain_graph=True)[0]

    with ThreadPoolExecutor(4) as callers:
        assert all(torch.equal(wanted, got) for got in callers.map(again, range(12)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_torch_defaults_do_not_matter(dtype: torch.dtype) -> None:
    splats, cameras = random_splats(50, 0), two_cameras()
    clip, faces = torch.tensor([[[-0.8, -0.7, 0, 1], [0.9, -0.4, 0, 1], [0, 0.8, 0, 1]]]), torch.tensor([[0, 1, 2]])

    def draw() -> list[torch.Tensor]:
        images, rast = rasterize_splats(splats, cameras), rasterize_mesh(clip, faces, (20, 30))
        shaded = interpolate(clip, rast, faces)
        return [images.color, images.means2d, rast, antialias(shaded, rast, clip, faces)]

    before, usual = draw(), torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        after = draw()
    finally:
        torch.set_default_dtype(usual)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_strided_half_and_double_tensors_are_drawn_alike() -> None:
    plain = random_splats(60, 1, 2, turned=True)
    halves = Splats(**{name: tensor.half() for name, tensor in plain.tensors().items()})
    exact = Splats(**{name: tensor.float() for name, tensor in halves.tensors().items()})
    strided = Splats(**{n: torch.stack([t, t + 1], -1)[..., 0] for n, t in exact.tensors().items()})
    wanted = rasterize_splats(exact, two_cameras()).color
    for same in (halves, strided, Splats(**{n: t.double() for n, t in exact.tensors().items()})):
        assert torch.equal(rasterize_splats(same, two_cameras()).color, wanted)


def test_no_cameras_and_no_gaussians_are_no_pictures_and_empty_ones() -> None:
    assert rasterize_splats(random_splats(5, 0), two_cameras()[[]]).color.shape == (0, 3, 53, 70)
    empty = leaves(random_splats(0, 0), torch.float32)
    images = rasterize_splats(empty, two_cameras())
    loss(images).backward()
    assert not images.color.any() and empty.means.grad is not None and empty.means.grad.shape == (0, 3)


def test_gradients_pass_anomaly_detection() -> None:
    """Nothing that a backward pass hands on is left as memory held it."""
    junk = torch.full((4096, 16), float("nan"))
    del junk
    splats = leaves(random_splats(200, 0), torch.float32)
    with torch.autograd.set_detect_anomaly(True):
        loss(rasterize_splats(splats, orbit([0.0], [0.0], torch.zeros(3), 3.0, 30.0, 64))).backward()


@pytest.mark.parametrize(
    "change", [{"alpha_clamp": 1.0}, {"cut": 0.0}, {"stop": 0.0}, {"blur": 0.0}, {"near": 0.0}, {"cut": float("nan")}]
)
def test_rules_that_float32_cannot_follow_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match="rule"):
        rasterize_splats(random_splats(5, 0), two_cameras(), rule=replace(GSPLAT, **change))


def test_topology_of_vertices_with_high_numbers() -> None:
    faces = torch.tensor([[0, 1, 2], [2, 1, 3]])
    far = torch.tensor([5, 1000, 7, 2**31 - 1])[faces]
    order = torch.tensor([0, 2, 1, 3])[faces]
    assert torch.equal(mesh_topology(far).table, mesh_topology(order).table)
    assert torch.equal(mesh_topology(far).table, torch.tensor([[5, -1, -1], [-1, -1, 0]], dtype=torch.int32))
