"""The background network's pieces against their definitions, and the shape of the whole."""

import math

import pytest
import torch

from ap3d.errors import DataFileError
from ap3d.portrait.trigrid.background import SIDES, background_features, styled_convolution, upsample

CHANNELS = {4: 8, 8: 8, 16: 8, 32: 8, 64: 4, 128: 4}


def _network(generator: torch.Generator) -> dict[str, torch.Tensor]:
    draw = lambda *shape: torch.randn(*shape, generator=generator) * 0.3  # noqa: E731
    tensors, before = {"b4.const": draw(1, 8, 4, 4)}, 8
    for side in SIDES:
        out = CHANNELS[side]
        for name, channels in ([("conv0", before)] if side > 4 else []) + [("conv1", out if side > 4 else before)]:
            tensors |= {
                f"b{side}.{name}.weight": draw(out, channels, 3, 3), f"b{side}.{name}.bias": draw(out),
                f"b{side}.{name}.affine.weight": draw(channels, 512),
                f"b{side}.{name}.affine.bias": torch.ones(channels),
                f"b{side}.{name}.noise_const": draw(side, side), f"b{side}.{name}.noise_strength": torch.tensor(0.1),
            }  # fmt: skip
        tensors |= {
            f"b{side}.torgb.weight": draw(32, out, 1, 1), f"b{side}.torgb.bias": draw(32),
            f"b{side}.torgb.affine.weight": draw(out, 512), f"b{side}.torgb.affine.bias": torch.ones(out),
        }  # fmt: skip
        before = out
    return tensors


def test_upsampling_keeps_constants_and_straight_lines() -> None:
    flat = torch.ones(1, 2, 8, 8)
    assert torch.allclose(upsample(flat)[:, :, 2:-2, 2:-2], torch.ones(1), atol=1e-6)
    line = torch.arange(8.0).expand(1, 1, 8, 8)
    inner = upsample(line)[0, 0, 8, 4:-4]
    assert torch.allclose(inner.diff(), torch.full((7,), 0.5), atol=1e-5)


def test_convolution_is_demodulated() -> None:
    """Whatever the style's size, unit noise comes out with about unit variance before bias and gain."""
    generator = torch.Generator().manual_seed(0)
    t = {
        "c.weight": torch.randn(16, 8, 3, 3, generator=generator), "c.bias": torch.zeros(16),
        "c.affine.weight": torch.randn(8, 512, generator=generator), "c.affine.bias": torch.ones(8),
        "c.noise_const": torch.zeros(64, 64), "c.noise_strength": torch.tensor(0.0),
    }  # fmt: skip
    x = torch.randn(1, 8, 64, 64, generator=generator)
    w = torch.randn(512, generator=generator)
    small, large = (styled_convolution(t, "c", x, w) for t in (t, t | {"c.weight": t["c.weight"] * 100}))
    assert torch.allclose(small, large, atol=1e-3)
    # leaky ReLU of slope 0.2 keeps 0.52 of the mean square of symmetric noise; the gain doubles it
    assert large[..., 4:-4, 4:-4].square().mean() == pytest.approx(2 * 0.52, rel=0.1)


def test_whole_network_depends_on_twelve_styles() -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = _network(generator)
    ws = torch.randn(14, 512, generator=generator)
    picture = background_features(tensors, ws)
    assert picture.shape == (32, 128, 128) and math.isfinite(float(picture.sum()))
    other = ws.clone()
    other[12:] = 0
    assert torch.equal(background_features(tensors, other), picture)
    for index in range(12):
        changed = ws.clone()
        changed[index] += 1
        assert not torch.equal(background_features(tensors, changed), picture), index


def test_incomplete_networks_are_named() -> None:
    tensors = _network(torch.Generator().manual_seed(0))
    del tensors["b32.conv0.weight"]
    with pytest.raises(DataFileError, match="background network"):
        background_features(tensors, torch.zeros(14, 512))
