"""The field of a tri-grid: raw density and colour at any point (Portrait3D; after EG3D, arXiv 2112.07945)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ap3d.portrait.trigrid.tensors import CHANNELS, HIDDEN, PLANES, SLICES, STYLE, RenderNetworks, TriGrid

BOX = 0.7  # side of the box, SMPL metres
CROP = 0.28  # half extent in x and z inside which views are rendered: half the box less a tenth, SMPL metres
# Which coordinates of a point are (width, height, depth) in each plane's volume.
PLANE_AXES = ((0, 1, 2), (0, 2, 1), (1, 2, 0))
_CHUNK = 1 << 17


class Decoder:
    """Twelve features to raw density and colour; the style of the colour layer is folded into the last weights."""

    def __init__(self, networks: RenderNetworks, ws: Tensor) -> None:
        t = networks.tensors
        self.hidden_weight = t["decoder.net.0.weight"] / math.sqrt(CHANNELS)
        self.hidden_bias = t["decoder.net.0.bias"]
        last, bias = t["decoder.net.2.weight"] / math.sqrt(HIDDEN), t["decoder.net.2.bias"]
        self.colour = colour_matrix(networks, ws[-1])
        self.offset = t["torgb.bias"]
        self.weight = torch.cat([last[:1], self.colour @ last[1:]])
        self.bias = torch.cat([bias[:1], self.colour @ bias[1:] + self.offset])

    def __call__(self, features: Tensor) -> Tensor:
        """``[N, 12]`` to ``[N, 4]``: raw density, then red, green and blue from -1 to 1 (not clamped)."""
        hidden = torch.nn.functional.softplus(features @ self.hidden_weight.T + self.hidden_bias)
        return hidden @ self.weight.T + self.bias

    @property
    def background(self) -> Tensor:
        """Colour ``[3]`` of empty space, 0 to 1."""
        return (self.offset + 1) / 2


def colour_matrix(networks: RenderNetworks, w: Tensor) -> Tensor:
    """The colour layer ``[3, 32]`` under a style ``w [512]``: modulated 1 x 1 convolution without demodulation."""
    t = networks.tensors
    style = (t["torgb.affine.weight"] @ w / math.sqrt(STYLE) + t["torgb.affine.bias"]) / math.sqrt(HIDDEN)
    return t["torgb.weight"][:, :, 0, 0] * style


class TriGridField:
    """Raw density and colour at points in SMPL metres."""

    def __init__(self, levels: Sequence[Tensor], decoder: Decoder) -> None:
        self.levels = [split_slices(level) for level in levels]
        self.decoder = decoder

    @staticmethod
    def of(grid: TriGrid, networks: RenderNetworks) -> "TriGridField":
        """The field of a portrait."""
        return TriGridField(list(grid.levels.values()), Decoder(networks, grid.ws))

    def __call__(self, points: Tensor) -> Tensor:
        """``[N, 3]`` to ``[N, 4]``: raw density, then colour from -1 to 1."""
        parts = [self.decoder(pyramid_features(self.levels, part)) for part in points.split(_CHUNK)]
        return torch.cat(parts) if parts else points.new_zeros(0, 4)


def split_slices(level: Tensor) -> Tensor:
    """``[3, 36, R, R]`` as three volumes ``[3, 12, 3, R, R]``: planes, channels, depth slices, rows, columns."""
    return level.reshape(PLANES, CHANNELS, SLICES, *level.shape[-2:])


def pyramid_features(levels: Sequence[Tensor], points: Tensor) -> Tensor:
    """Features ``[N, 12]`` of points ``[N, 3]`` in SMPL metres: the mean over levels and planes.

    Args:
        levels: ``[3, 12, 3, R, R]`` each.
        points: in SMPL metres; outside the box features fade to zero.
    """
    unit = points * (2 / BOX)
    places = torch.stack([unit[:, axes] for axes in PLANE_AXES])[:, None, None]
    total = sum(torch.nn.functional.grid_sample(level, places, align_corners=False) for level in levels)
    assert isinstance(total, Tensor)
    return total[:, :, 0, 0].sum(0).T / (len(levels) * PLANES)
