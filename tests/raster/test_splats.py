"""The C++ splat kernel against the dense float64 reference, on random scenes with every awkward case in them."""

import math

import pytest
import torch
from torch import Tensor

from ap3d.cameras import Cameras, look_at
from ap3d.errors import InputError, MissingDependencyError, NumericalError
from ap3d.raster import reference
from ap3d.raster.splats import GSPLAT, INRIA, SplatRule, Splats, rasterize_splats
from tests.raster.scenes import awkward_splats, compare, leaves, loss, random_splats, two_cameras


@pytest.mark.parametrize("rule", [GSPLAT, INRIA], ids=["gsplat", "inria"])
@pytest.mark.parametrize("seed", range(4))
def test_random_scenes_equal_the_reference(seed: int, rule: SplatRule) -> None:
    splats = random_splats(60 + 90 * seed, seed, degree=seed, turned=seed > 1)
    images = compare(splats, two_cameras(), rule)
    assert float(images.alpha.detach().max()) > 0.9


@pytest.mark.parametrize("rule", [GSPLAT, INRIA], ids=["gsplat", "inria"])
def test_awkward_gaussians_equal_the_reference(rule: SplatRule) -> None:
    images = compare(awkward_splats(), two_cameras(), rule)
    assert (images.radii[:, 152:155] == 0).all()
    assert bool(torch.isfinite(images.color).all())


def test_every_instruction_set_equals_the_reference(instruction_set: str) -> None:
    compare(awkward_splats(), two_cameras(), GSPLAT)


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one(count: int) -> None:
    splats = random_splats(count, 9)
    images = compare(splats, two_cameras(), GSPLAT)
    assert images.color.shape == (2, 3, 53, 70) and images.means2d.shape == (2, count, 2)
    assert bool((images.alpha > 0).any()) == (count == 1)


def test_opaque_layers_stop_and_pass_no_gradient_behind() -> None:
    layers = random_splats(12, 1)
    means = torch.zeros(12, 3)
    means[:, 2] = torch.linspace(0.5, -0.5, 12)
    wall = Splats(means, layers.quaternions, torch.full((12, 3), 0.3), torch.full((12,), 0.95), layers.sh)
    camera = look_at(torch.tensor([[0.0, 0.0, 2.5]]), torch.zeros(3), 30.0, 48)
    images = compare(wall, camera, GSPLAT)
    assert float(images.alpha[0, 0, 24, 24].detach()) > 0.999


def test_a_lone_gaussian_follows_the_formula() -> None:
    sigma, distance, opacity = 0.05, 2.0, 0.7
    splats = Splats(
        torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.full((1, 3), sigma), torch.tensor([opacity]),
        torch.tensor([[[0.2, -0.1, 0.4]]]),
    )  # fmt: skip
    camera = look_at(torch.tensor([[0.0, 0.0, distance]]), torch.zeros(3), 40.0, 65)
    images = rasterize_splats(splats, camera)
    focal = float(camera.intrinsics[0, 0])
    variance = (sigma * focal / distance) ** 2 + 0.3
    for dx, dy in ((0, 0), (3, -2), (-4, 1)):
        alpha = opacity * math.exp(-0.5 * (dx * dx + dy * dy) / variance)
        assert float(images.alpha[0, 0, 32 + dy, 32 + dx]) == pytest.approx(alpha, abs=1e-6)
        assert float(images.depth[0, 0, 32 + dy, 32 + dx]) == pytest.approx(alpha * distance, abs=1e-5)
        red = 0.2 * 0.28209479177387814 + 0.5
        assert float(images.color[0, 0, 32 + dy, 32 + dx]) == pytest.approx(alpha * red, abs=1e-6)


def test_camera_batch_equals_loop_and_fewer_degrees_equal_truncation() -> None:
    splats, cameras = random_splats(200, 5, degree=3, turned=True), two_cameras()
    together = rasterize_splats(splats, cameras, sh_degree=1)
    tensors = splats.tensors()
    short = Splats(**(tensors | {"sh": tensors["sh"][:, :4]}))
    for i in range(2):
        alone = rasterize_splats(short, cameras[i])
        for name in ("color", "alpha", "depth", "radii", "means2d"):
            assert torch.equal(getattr(together, name)[i], getattr(alone, name)[0]), name


def test_threads_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for threads in ("1", "2", "7"):
        monkeypatch.setenv("AP3D_THREADS", threads)
        splats = leaves(random_splats(3000, 6, degree=2), torch.float32)
        images = rasterize_splats(splats, two_cameras(150, 130))
        loss(images).backward()
        gradients = [t.grad for name, t in splats.tensors().items() if name != "view_rotations"]
        results.append([images.color, images.alpha, images.depth, images.means2d.grad, *gradients])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))  # type: ignore[arg-type]


def test_a_rotated_head_keeps_its_colours() -> None:
    """Turning Gaussians and camera together, with the turn given as view rotation, changes nothing."""
    splats = random_splats(80, 7, degree=3)
    cameras = two_cameras()
    turn = reference.rotation_matrices(torch.tensor([[0.8, 0.3, -0.4, 0.2]]))[0]
    pose = cameras.cam2world.clone()
    pose[:, :3] = turn @ pose[:, :3]
    q, p = torch.tensor([0.8, 0.3, -0.4, 0.2]), splats.quaternions
    turned_q = torch.cat(
        [(q[0] * p[:, :1] - p[:, 1:] @ q[1:, None]), q[0] * p[:, 1:] + p[:, :1] * q[1:]
         + torch.linalg.cross(q[1:].expand(len(p), 3), p[:, 1:])], 1
    )  # fmt: skip
    turned = Splats(
        splats.means @ turn.T, turned_q, splats.scales, splats.opacities, splats.sh, turn.expand(len(p), 3, 3)
    )
    before = rasterize_splats(splats, cameras)
    after = rasterize_splats(turned, Cameras(pose, cameras.intrinsics, cameras.width, cameras.height))
    assert torch.allclose(before.color, after.color, atol=2e-4)


def test_over_is_the_only_composition() -> None:
    images = rasterize_splats(random_splats(100, 8), two_cameras())
    white = images.over(torch.ones(3))
    assert torch.allclose(white, images.color + 1 - images.alpha)
    picture = torch.rand(3, 53, 70, generator=torch.Generator().manual_seed(0))
    assert torch.equal(images.over(picture), images.over(picture.expand(2, 3, 53, 70)))


def test_backward_twice_through_a_retained_graph() -> None:
    splats = leaves(random_splats(50, 2), torch.float32)
    images = rasterize_splats(splats, two_cameras())
    loss(images).backward(retain_graph=True)
    assert splats.means.grad is not None
    first = splats.means.grad.clone()
    loss(images).backward()
    assert torch.allclose(splats.means.grad, 2 * first)


def test_values_over_twelve_decades_stay_finite() -> None:
    g = torch.Generator().manual_seed(0)

    def spread(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g) * 10 ** (12 * torch.rand(*shape, generator=g) - 6)

    for i in range(200):
        values = (spread(50, 3), spread(50, 4), spread(50, 3), 1.5 * torch.rand(50, generator=g), spread(50, 4, 3))
        splats = leaves(Splats(*values), torch.float32)
        images = rasterize_splats(splats, two_cameras(), rule=(GSPLAT, INRIA)[i % 2])
        loss(images).backward()
        results = [images.color, images.alpha, images.depth, *(t.grad for t in splats.tensors().values())]
        assert all(t is not None and bool(torch.isfinite(t).all()) for t in results)
        assert bool(((images.alpha >= 0) & (images.alpha <= 1)).all())


@pytest.mark.parametrize("name", ["means", "quaternions", "scales", "opacities", "sh"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused_by_name(name: str, value: float) -> None:
    tensors = random_splats(5, 0).tensors()
    tensors[name] = tensors[name].clone()
    tensors[name].view(-1)[3] = value
    with pytest.raises(NumericalError, match=name):
        rasterize_splats(Splats(**tensors), two_cameras())


def test_wrong_shapes_degrees_and_backends_are_refused() -> None:
    good = random_splats(5, 0)
    with pytest.raises(ValueError, match=r"scales must be \[5, 3\]"):
        Splats(**(good.tensors() | {"scales": torch.ones(5)}))
    with pytest.raises(ValueError, match="sh must be"):
        Splats(**(good.tensors() | {"sh": torch.ones(5, 2, 3)}))
    with pytest.raises(ValueError, match="sh_degree 1"):
        rasterize_splats(good, two_cameras(), sh_degree=1)
    with pytest.raises(InputError, match="unknown rasteriser 'opengl'"):
        rasterize_splats(good, two_cameras(), backend="opengl")
    with pytest.raises((InputError, MissingDependencyError), match="gsplat"):
        rasterize_splats(good, two_cameras(), backend="gsplat")


def test_reference_gradients_pass_a_finite_difference_check() -> None:
    """The twin is trusted only because numbers, not its own formulas, confirm it."""
    splats = random_splats(6, 11, degree=1)
    camera = Cameras(two_cameras(24, 20).cam2world[:1].double(), torch.tensor([[40.0, 35, 12, 10]]).double(), 24, 20)
    tensors = [t.double().requires_grad_() for t in splats.tensors().values()]

    def render(*values: Tensor) -> Tensor:
        return rasterize_splats(Splats(*values), camera, backend="reference", rule=SOFT).color

    SOFT = SplatRule(alpha_clamp=2.0, extent=100.0, opacity_aware=True, cut=1e-30, stop=0.0)
    assert torch.autograd.gradcheck(render, tensors, eps=1e-6, atol=1e-5, fast_mode=True)


def test_an_image_beyond_the_kernels_boxes_is_refused() -> None:
    camera = two_cameras()[0]
    wide = Cameras(camera.cam2world, camera.intrinsics, 70_000, 4)
    with pytest.raises(InputError, match="too large"):
        rasterize_splats(random_splats(3, 0), wide)
