"""The benchmark's yardsticks draw the same pictures as the reference, so that its comparison is one of equals."""

import pytest
import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.raster.splats import GSPLAT, Splats, rasterize_splats
from benchmarks.rasterisers import plain, table, tiled
from benchmarks.rasterisers.candidates import Render
from benchmarks.rasterisers.measure import gradient_error, gradients, leaves, median_ms
from benchmarks.rasterisers.scenes import Scene


def differentiated(scene: Scene, render: Render, dtype: torch.dtype) -> tuple[Tensor, dict[str, Tensor]]:
    splats = leaves(scene.splats, dtype)
    picture = render(splats, scene.camera)
    (picture * scene.weights).sum().backward()
    return picture.detach(), gradients(splats)


@pytest.mark.parametrize("heavy", [False, True])
def test_the_tiled_reference_and_the_plain_loop_equal_the_dense_reference(heavy: bool) -> None:
    def dense(splats: Splats, cameras: Cameras) -> Tensor:
        return rasterize_splats(splats, cameras, backend="reference").color[0]

    scene = Scene(300, 48, 2, heavy)
    exact, exact_gradients = differentiated(scene, dense, torch.float64)
    picture, found = differentiated(scene, lambda s, c: tiled.render(s, c, GSPLAT), torch.float64)
    assert float((picture - exact).abs().max()) < 1e-12 and gradient_error(found, exact_gradients) < 1e-10
    picture, found = tiled.differentiate(scene, GSPLAT)
    assert float((picture - exact).abs().max()) < 1e-12 and gradient_error(found, exact_gradients) < 1e-10
    picture, found = differentiated(scene, plain.render, torch.float32)
    assert float((picture - exact).abs().max()) < 1e-5 and gradient_error(found, exact_gradients) < 1e-4


def test_a_median_is_one_of_the_times() -> None:
    assert 0 <= median_ms(lambda: None, 0.01) < 10


def test_the_page_holds_every_scene_and_candidate() -> None:
    rows = [
        {"case": f"{scene} {name}", "scene": scene, "pass": name, "backend": backend, "ms": ms, "ratio": ms / 2,
         "gaussians_per_s": 1000, "memory_mb": None, "error": None}
        for scene in ("20k 256px SH3 sparse", "200k 800px SH0 sparse")
        for name in ("forward", "forward+backward")
        for backend, ms in (("ours", 2.0), ("theirs", 300.0))
    ]  # fmt: skip
    page = table.markdown(rows, "a machine")
    assert page.count("| 200k 800px SH0 sparse | 2.0 (1) | 300 (150) |") == 2 and "a machine" in page
