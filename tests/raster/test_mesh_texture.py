"""Texture lookups against torch's grid_sample, explicit pyramids and finite differences."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ap3d.errors import NumericalError
from ap3d.raster.mesh import mip_levels, texture
from tests.raster.mesh_reference import numeric_gradient

GENERATOR_SEED = 7


def scene(channels: int = 3, spread: float = 0.5) -> tuple[Tensor, Tensor]:
    """A texture of 6 x 10 texels for two images of 9 x 11 pixels, whose places lie up to ``spread`` outside it."""
    generator = torch.Generator().manual_seed(GENERATOR_SEED)
    tex = torch.randn(2, 6, 10, channels, generator=generator)
    return tex, torch.rand(2, 9, 11, 2, generator=generator) * (1 + 2 * spread) - spread


def sampled(tex: Tensor, uv: Tensor, mode: str, boundary: str) -> Tensor:
    """torch's own lookup; it knows no repetition, so the texture is laid out several times."""
    if boundary == "wrap":
        tex, uv = tex.repeat(1, 5, 5, 1), (uv + 2) / 5
    padding = "zeros" if boundary == "zero" else "border"
    image = F.grid_sample(
        tex.permute(0, 3, 1, 2), 2 * uv - 1, mode="bilinear" if mode == "linear" else mode, padding_mode=padding,
        align_corners=False,
    )  # fmt: skip
    return image.permute(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("mode", "boundary"), list(itertools.product(("nearest", "linear"), ("wrap", "clamp", "zero")))
)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_values_and_gradients_equal_grid_sample(mode: str, boundary: str, channels: int) -> None:
    tex, uv = scene(channels)
    results = []
    for function in (
        lambda t, at: texture(t, at, filter_mode=mode, boundary_mode=boundary),
        lambda t, at: sampled(t, at, mode, boundary),
    ):
        leaves = tex.clone().requires_grad_(), uv.clone().requires_grad_()
        image = function(*leaves)
        (image * torch.sin(torch.arange(image.numel()).reshape(image.shape))).sum().backward()
        results.append((image, leaves[0].grad, leaves[1].grad))
    for ours, expected in zip(*results, strict=True):
        if expected is None:
            assert ours is None
        else:
            assert torch.allclose(ours, expected, atol=3e-5 * max(1.0, float(expected.detach().abs().max())))


def test_texel_centres_lie_at_half_integers_and_row_zero_at_v_zero() -> None:
    tex = torch.arange(6.0).reshape(1, 2, 3, 1)
    uv = torch.tensor([[[[0.5 / 3, 0.25], [2.5 / 3, 0.25], [0.5, 0.75], [0.5, 0.5]]]])
    assert torch.allclose(texture(tex, uv)[0, 0, :, 0], torch.tensor([0.0, 2.0, 4.0, 2.5]), atol=1e-5)


def test_mip_levels_are_means_and_trilinear_blends_them() -> None:
    generator = torch.Generator().manual_seed(1)
    tex, uv = torch.rand(1, 8, 4, 2, generator=generator), torch.rand(1, 5, 5, 2, generator=generator)
    levels = mip_levels(tex)
    assert [tuple(level.shape[1:3]) for level in levels] == [(8, 4), (4, 2), (2, 1), (1, 1)]
    assert torch.allclose(levels[-1][0, 0, 0], tex.mean((0, 1, 2)))
    single = [texture(level, uv) for level in levels]
    for depth in (-1.0, 0.0, 0.3, 1.0, 1.75, 2.5, 3.0, 9.0):
        low = min(max(int(depth), 0), 3)
        part = min(max(depth, 0), 3) - low
        expected = single[low] * (1 - part) + single[min(low + 1, 3)] * part
        level = torch.full((1, 5, 5), depth)
        assert torch.allclose(texture(tex, uv, level=level), expected, atol=1e-6)
        nearest = texture(tex, uv, level=level, filter_mode="linear-mipmap-nearest")
        assert torch.allclose(nearest, single[min(max(math.floor(depth + 0.5), 0), 3)], atol=1e-6)


@pytest.mark.parametrize("boundary", ["wrap", "clamp", "zero"])
def test_trilinear_gradients_equal_finite_differences(boundary: str) -> None:
    generator = torch.Generator().manual_seed(2)
    tex, cells = torch.randn(1, 8, 8, 2, generator=generator), torch.randint(0, 16, (1, 3, 4, 2), generator=generator)
    uv = (cells + 0.2 + 0.6 * torch.rand(1, 3, 4, 2, generator=generator)) / 16  # slopes jump at sixteenths
    level, weight = 2.8 * torch.rand(1, 3, 4, generator=generator), torch.randn(1, 3, 4, 2, generator=generator)

    def loss(t: Tensor, at: Tensor, depth: Tensor) -> Tensor:
        return (texture(t, at, level=depth, boundary_mode=boundary) * weight).double().sum()

    leaves = [t.clone().requires_grad_() for t in (tex, uv, level)]
    loss(*leaves).backward()
    for index, leaf in enumerate(leaves):
        places = list(itertools.product(*(range(side) for side in leaf.shape)))[:: max(1, leaf.numel() // 24)]

        def moved(values: Tensor, index: int = index) -> Tensor:
            return loss(*(values if i == index else t.detach() for i, t in enumerate(leaves)))

        expected = numeric_gradient(moved, leaf.detach(), places, 1e-3)
        assert leaf.grad is not None
        ours = torch.tensor([float(leaf.grad[place]) for place in places])
        assert torch.allclose(ours, expected, rtol=2e-2, atol=2e-2 * float(expected.abs().max()))


def test_footprints_choose_the_level() -> None:
    """A footprint of 4 texels along its longer axis is level 2, however it is turned."""
    tex = torch.rand(1, 16, 32, 1, generator=torch.Generator().manual_seed(3))
    uv = torch.rand(1, 4, 4, 2, generator=torch.Generator().manual_seed(4))
    expected = texture(tex, uv, level=torch.full((1, 4, 4), 2.0))
    for angle in (0.0, 0.4, 2.0):
        c, s = math.cos(angle), math.sin(angle)
        jacobian = torch.tensor([[4 * c, -1 * s], [4 * s, 1 * c]]) / torch.tensor([[32.0], [16.0]])
        turned = jacobian @ torch.tensor([[c, s], [-s, c]])
        assert torch.allclose(texture(tex, uv, turned.flatten().expand(1, 4, 4, 4)), expected, atol=1e-5)
    biased = texture(tex, uv, turned.flatten().expand(1, 4, 4, 4), level=torch.full((1, 4, 4), -2.0))
    assert torch.allclose(biased, texture(tex, uv), atol=1e-5)


def test_one_texture_serves_a_batch_and_sums_its_gradient() -> None:
    tex, uv = scene()
    shared = tex[:1].clone().requires_grad_()
    both = tex[:1].expand(2, -1, -1, -1).clone().requires_grad_()
    assert torch.equal(texture(shared, uv), texture(both, uv))
    texture(shared, uv).square().sum().backward()
    texture(both, uv).square().sum().backward()
    assert shared.grad is not None and both.grad is not None
    assert torch.allclose(shared.grad, both.grad.sum(0, keepdim=True), atol=1e-4)


def test_threads_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(5)
    tex, uv = torch.randn(1, 64, 32, 3, generator=generator), torch.randn(2, 90, 100, 2, generator=generator)
    level = 4 * torch.rand(2, 90, 100, generator=generator)
    results = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("AP3D_THREADS", threads)
        leaves = [t.clone().requires_grad_() for t in (tex, uv, level)]
        image = texture(leaves[0], leaves[1], level=leaves[2])
        image.square().sum().backward()
        results.append([image, *(leaf.grad for leaf in leaves)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))  # type: ignore[arg-type]


def test_bad_input_is_refused() -> None:
    tex, uv = scene()
    for bad, match in (
        (lambda: texture(tex[0], uv), r"tex must be"),
        (lambda: texture(tex, uv[..., :1]), r"uv must be \[B, H, W, 2\]"),
        (lambda: texture(tex[:, :0], uv), "sides"),
        (lambda: texture(tex, uv, boundary_mode="cube"), "wrap, clamp, zero"),
        (lambda: texture(tex, uv, filter_mode="cubic"), "filter_mode must be one of"),
        (lambda: texture(tex, uv, filter_mode="linear-mipmap-linear"), "uv_da or level"),
        (lambda: texture(tex, uv, level=torch.zeros(2, 9, 11)), "cannot be halved"),
        (lambda: texture(tex, uv, level=torch.zeros(2, 9)), "level must be"),
    ):
        with pytest.raises(ValueError, match=match):
            bad()
    assert texture(tex, uv, level=torch.zeros(2, 9, 11), max_level=1).shape == (2, 9, 11, 3)
    with pytest.raises(NumericalError, match="uv"):
        texture(tex, uv * math.nan)
