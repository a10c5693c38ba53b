"""The GPU wrappers, as far as a CPU can say: against stand-ins with the packages' own arguments and conventions."""

import importlib
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.errors import InputError, MissingDependencyError
from ap3d.raster import splats_diff_gaussian, splats_gsplat
from ap3d.raster.backends import splat_backend_name
from ap3d.raster.splats import GSPLAT, INRIA, SplatImages, Splats, rasterize_splats
from tests.raster.gpu_stand_ins import diff_gaussian_package, gsplat_rasterization
from tests.raster.scenes import leaves, loss, random_splats, relative, two_cameras

MODULES = {"gsplat": splats_gsplat, "diff_gaussian_rasterization": splats_diff_gaussian}
RULES = {"gsplat": GSPLAT, "diff_gaussian_rasterization": INRIA}


@pytest.fixture(params=["gsplat", "diff_gaussian_rasterization", "diff_gaussian_rasterization later"])
def stand_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let a wrapper find its stand-in; returns the backend's name."""
    name, _, later = request.param.partition(" ")
    if name == "gsplat":
        monkeypatch.setattr(splats_gsplat, "_rasterization", lambda device: gsplat_rasterization)
    else:
        monkeypatch.setattr(splats_diff_gaussian, "_package", lambda device: diff_gaussian_package(bool(later)))
    return name


def cropped_cameras() -> Cameras:
    """Two crops far off the principal point, the second beyond the image's edge."""
    boxes = torch.tensor([[30.0, 5.0, 24.0], [-20.0, 20.0, 40.0]])
    cameras = two_cameras(70, 70)
    centred = Cameras(cameras.cam2world, torch.tensor([[110.0, 95, 35, 35], [80.0, 120, 35, 35]]), 70, 70)
    return centred.crop(boxes, 48)


def near_the_axis(splats: Splats) -> Splats:
    """Gaussians whose direction no implementation bounds, and none opaque enough to be clamped."""
    return Splats(**(splats.tensors() | {"means": 0.5 * splats.means, "opacities": 0.9 * splats.opacities}))


def check_equal(name: str, splats: Splats, cameras: Cameras) -> SplatImages:
    ours, exact = leaves(splats, torch.float64), leaves(splats, torch.float64)
    cameras = Cameras(cameras.cam2world.double(), cameras.intrinsics.double(), cameras.width, cameras.height)
    images = rasterize_splats(ours, cameras, backend=name)
    wanted = rasterize_splats(exact, cameras, backend="reference", rule=RULES[name])
    for part in ("color", "alpha", "depth"):
        assert getattr(images, part).shape == getattr(wanted, part).shape
        assert float((getattr(images, part) - getattr(wanted, part)).detach().abs().max()) < 2e-5, part
    assert torch.equal(images.radii > 0, wanted.radii > 0)
    loss(images).backward()
    loss(wanted).backward()
    assert relative(images.means2d.grad, wanted.means2d.grad) < 1e-4
    for part in ("means", "quaternions", "scales", "opacities", "sh"):
        assert relative(getattr(ours, part).grad, getattr(exact, part).grad) < 1e-4, part
    return images


def test_images_and_gradients_equal_the_reference_under_the_backends_rule(stand_in: str) -> None:
    splats = near_the_axis(random_splats(60, 2, degree=2, turned=True))
    check_equal(stand_in, splats, two_cameras(64, 48))


def test_crops_equal_the_reference(stand_in: str) -> None:
    """Without a wider frame diff-gaussian-rasterization would bound directions inside these crops."""
    cloud = random_splats(300, 3, degree=1)
    cloud = Splats(**(cloud.tensors() | {"opacities": 0.9 * cloud.opacities}))
    for i in range(2):
        camera = cropped_cameras()[i]
        pixels = camera.project(cloud.means)[0][0]
        on_crop = ((pixels > 0) & (pixels < 48)).all(1)
        splats = Splats(**{name: tensor[on_crop] for name, tensor in cloud.tensors().items()})
        images = check_equal(stand_in, splats, camera)
        assert float(images.alpha.detach().max()) > 0.5


def test_pictures_are_differentiable_only_when_asked(stand_in: str) -> None:
    with torch.no_grad():
        images = rasterize_splats(leaves(random_splats(10, 0), torch.float32), two_cameras(), backend=stand_in)
    assert not images.color.requires_grad and not images.means2d.requires_grad


def test_means2d_are_the_pixels_of_the_centres(stand_in: str) -> None:
    splats, cameras = random_splats(30, 1), two_cameras()
    images = rasterize_splats(splats, cameras, backend=stand_in)
    assert torch.allclose(images.means2d, cameras.project(splats.means)[0], atol=1e-3)


@pytest.mark.parametrize("name", MODULES)
def test_another_rule_is_refused(name: str) -> None:
    other = {"gsplat": INRIA, "diff_gaussian_rasterization": GSPLAT}[name]
    with pytest.raises(InputError, match="under the rule"):
        rasterize_splats(random_splats(3, 0), two_cameras(), backend=name, rule=other)


@pytest.mark.parametrize("name", MODULES)
def test_an_absent_package_is_named_with_its_installation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=f"'{name}' is not installed: pip install"):
        rasterize_splats(random_splats(3, 0), two_cameras(), backend=name)


@pytest.mark.parametrize("name", MODULES)
def test_tensors_on_a_cpu_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package: Any = diff_gaussian_package()
    package.rasterization = gsplat_rasterization
    monkeypatch.setitem(sys.modules, name, package)
    with pytest.raises(InputError, match=f"'{name}' needs tensors on a CUDA device"):
        rasterize_splats(random_splats(3, 0), two_cameras(), backend=name)


@pytest.mark.parametrize(
    ("installed", "wanted"),
    [
        (("gsplat", "diff_gaussian_rasterization"), "gsplat"),
        (("diff_gaussian_rasterization",), "diff_gaussian_rasterization"),
        ((), "gsplat"),  # which then says what to install
    ],
)
def test_a_gpu_takes_what_is_installed(
    installed: tuple[str, ...], wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {name: SimpleNamespace() if name in installed else None for name in MODULES}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found[name])
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert splat_backend_name(None, cuda) == wanted
    assert splat_backend_name(None, cpu) == "cpu" and splat_backend_name("gsplat", cpu) == "gsplat"


def test_stand_in_notices_a_transposed_matrix() -> None:
    """The check above is worth something only if a wrong convention fails it."""
    splats, camera = random_splats(20, 4), two_cameras()[0]
    view, clip = camera.world2cam[0], camera.clip_matrices()[0]
    package = diff_gaussian_package()

    def draw(view: Tensor, clip: Tensor) -> Tensor:
        fx, fy = camera.intrinsics[0, :2].tolist()
        settings = package.GaussianRasterizationSettings(
            camera.height, camera.width, camera.width / 2 / fx, camera.height / 2 / fy, torch.zeros(3), 1.0, view, clip,
            0, camera.positions[0], False, False,
        )  # fmt: skip
        unit = torch.nn.functional.normalize(splats.quaternions, dim=1)
        out: Tensor = package.GaussianRasterizer(settings)(
            splats.means, torch.zeros(20, 3), splats.opacities[:, None], colors_precomp=torch.ones(20, 3),
            scales=splats.scales, rotations=unit,
        )[0]  # fmt: skip
        return out

    assert float((draw(view.T, clip.T) - draw(view, clip)).abs().max()) > 0.1
