"""A tri-grid whose field is known exactly: an ellipsoid with an exactly linear decoder (reference sheet 5.1)."""

import math

import torch
from torch import Tensor

from ap3d.portrait.trigrid.tensors import LEVELS, RenderNetworks, TriGrid

AXES = (0.10, 0.14, 0.12)  # SMPL metres
STEEPNESS = 60.0
SIDE = 64
_LARGEST = 14.0  # of x^2/a^2 + y^2/b^2 and of z^2/c^2 inside the box


def linear_networks(bias: float) -> RenderNetworks:
    """Networks that pass twelve channels through: density is channel 0 plus a bias, colour channels 1 to 3."""
    hidden = torch.zeros(32, 12)
    last = torch.zeros(33, 32)
    for k in range(12):
        hidden[2 * k, k], hidden[2 * k + 1, k] = math.sqrt(12), -math.sqrt(12)
        last[k, 2 * k], last[k, 2 * k + 1] = math.sqrt(32), -math.sqrt(32)
    out_bias = torch.zeros(33)
    out_bias[0] = bias
    colour = torch.zeros(3, 32, 1, 1)
    colour[[0, 1, 2], [0, 1, 2]] = 1
    return RenderNetworks(
        {
            "decoder.net.0.weight": hidden, "decoder.net.0.bias": torch.zeros(32),
            "decoder.net.2.weight": last, "decoder.net.2.bias": out_bias,
            "torgb.weight": colour, "torgb.bias": torch.zeros(3),
            "torgb.affine.weight": torch.zeros(32, 512), "torgb.affine.bias": torch.full((32,), math.sqrt(32)),
        }
    )  # fmt: skip


def ellipsoid() -> tuple[TriGrid, RenderNetworks]:
    """Raw density 15 on the ellipsoid with semi-axes ``AXES``; red grows along x and green along y."""
    at = ((torch.arange(SIDE) + 0.5) / SIDE * 2 - 1) * 0.35
    a, b, c = AXES
    level = torch.zeros(3, 12, 3, SIDE, SIDE)
    level[0, 0] = STEEPNESS * (_LARGEST * 2 - (at[None, :] / a) ** 2 - (at[:, None] / b) ** 2)
    level[1, 0] = STEEPNESS * (_LARGEST * 2 - (at[:, None] / c) ** 2)
    level[0, 1] = at[None, :] * 2
    level[0, 2] = at[:, None] * 2
    levels = {n: torch.zeros(3, 36, 1, 1) for n in LEVELS} | {64: (level * 21).reshape(3, 36, SIDE, SIDE)}
    bias = 15 + STEEPNESS - 4 * STEEPNESS * _LARGEST
    return TriGrid(levels, torch.zeros(14, 512), "upper body photo, an egg", "egg"), linear_networks(bias)


def raw_density(points: Tensor) -> Tensor:
    """The formula that the tri-grid stores, at points in SMPL metres."""
    return 15 + STEEPNESS * (1 - (points / torch.tensor(AXES)).square().sum(1))
