"""Facts of the format, one at a time: planes, slices, packing, the mean, the colour layer, the crop, opacity."""

import math

import pytest
import torch
from torch import Tensor

from ap3d.portrait.trigrid.field import Decoder, pyramid_features, split_slices
from ap3d.portrait.trigrid.marching import march_exact
from ap3d.portrait.trigrid.tensors import RenderNetworks

HALF = 0.35


def features(levels: list[Tensor], points: list[list[float]]) -> Tensor:
    return pyramid_features([split_slices(level) for level in levels], torch.tensor(points) * HALF)


@pytest.mark.parametrize(("plane", "width", "height", "depth"), [(0, 0, 1, 2), (1, 0, 2, 1), (2, 1, 2, 0)])
def test_planes_lie_along_these_axes(plane: int, width: int, height: int, depth: int) -> None:
    size = 8
    ramp = torch.linspace(-1 + 1 / size, 1 - 1 / size, size)  # a texel holds its centre's coordinate
    level = torch.zeros(3, 36, size, size)
    level[plane, 0:3], level[plane, 3:6] = ramp[None, None, :], ramp[None, :, None]
    level[plane, 6:9] = torch.tensor([-2 / 3, 0.0, 2 / 3])[:, None, None]
    point = [0.3, -0.45, 0.2]
    got = features([level], [point])[0] * 3  # the mean over three planes
    assert got[:3].tolist() == pytest.approx([point[width], point[height], point[depth]], abs=1e-5)


def test_slices_are_packed_inside_channels_and_centred_at_two_thirds() -> None:
    level = torch.zeros(3, 36, 4, 4)
    for slice_ in range(3):
        level[0, 5 * 3 + slice_] = slice_ + 1.0  # channel 5
    at = features([level], [[0.0, 0.0, z] for z in (-2 / 3, 0.0, 2 / 3, 1.0, 4 / 3)]) * 3
    assert at[:, 5].tolist() == pytest.approx([1.0, 2.0, 3.0, 1.5, 0.0], abs=1e-5)
    assert float(at[:, [c for c in range(12) if c != 5]].abs().max()) == 0


def test_levels_are_averaged_whatever_their_size() -> None:
    levels = [torch.full((3, 36, n, n), float(n)) for n in (2, 4, 12)]
    assert torch.allclose(features(levels, [[0.0, 0.0, 0.0]]), torch.full((1, 12), 6.0))


def test_the_folded_colour_layer_is_the_colour_layer() -> None:
    g = torch.Generator().manual_seed(0)
    shapes = {
        "decoder.net.0.weight": (32, 12), "decoder.net.0.bias": (32,), "decoder.net.2.weight": (33, 32),
        "decoder.net.2.bias": (33,), "torgb.weight": (3, 32, 1, 1), "torgb.bias": (3,),
        "torgb.affine.weight": (32, 512), "torgb.affine.bias": (32,),
    }  # fmt: skip
    t = {name: torch.randn(*shape, generator=g) for name, shape in shapes.items()}
    ws, x = torch.randn(14, 512, generator=g), torch.randn(50, 12, generator=g)
    hidden = torch.nn.functional.softplus(x @ t["decoder.net.0.weight"].T / math.sqrt(12) + t["decoder.net.0.bias"])
    out = hidden @ t["decoder.net.2.weight"].T / math.sqrt(32) + t["decoder.net.2.bias"]
    style = (ws[13] @ t["torgb.affine.weight"].T / math.sqrt(512) + t["torgb.affine.bias"]) / math.sqrt(32)
    colour = (out[:, 1:] * style) @ t["torgb.weight"][:, :, 0, 0].T + t["torgb.bias"]
    got = Decoder(RenderNetworks(t), ws)(x)
    assert torch.allclose(got[:, 0], out[:, 0], atol=1e-4) and torch.allclose(got[:, 1:], colour, atol=1e-4)


def test_a_slab_is_opaque_lies_where_it_is_and_ends_at_the_crop() -> None:
    def slab(points: Tensor) -> Tensor:
        raw = torch.where(points[:, 2] < 0.1, 400.0, -50.0)
        return torch.cat([raw[:, None], torch.full((len(points), 3), 0.5)], 1)

    origin = torch.tensor([0.0, 0.0, 2.65])
    towards = torch.tensor([[0.0, 0.0, 0.3], [0.5, 0.0, 0.3], [1.1, 0.0, 0.3]]) - origin  # world units, three a metre
    seen = march_exact(slab, origin, torch.nn.functional.normalize(towards, dim=1), 3.0)
    assert seen.alpha[:2].tolist() == pytest.approx([1.0, 1.0], abs=1e-3)
    assert seen.depth[:2].tolist() == pytest.approx(towards[:2].norm(dim=1).tolist(), abs=0.02)
    assert float(seen.alpha[2]) < 1e-3  # beyond 0.28 SMPL metres
    assert seen.colour[0].tolist() == pytest.approx([0.75] * 3, abs=1e-3)
