"""Strands: the colour of hair on shells, scalp, beard and brows."""

import torch
from torch import Tensor

from ap3d.training.attributes import PortraitAttributes
from ap3d.training.portraits.surface import HAIR, Material, colour


def strand_noise(azimuth: Tensor, way: Tensor, phases: Tensor, curly: bool = False) -> Tensor:
    """Brightness of locks and strands ``[P]``, about -1 to 1: waves across the azimuth that drift along the way."""
    if curly:
        coils = torch.sin(21 * azimuth + 8 * torch.sin(9 * way + phases[8]) + phases[3])
        return 0.6 * coils * torch.sin(24 * way + 5 * torch.sin(11 * azimuth + phases[9]) + phases[4])
    bend = azimuth + 0.10 * torch.sin(3 * way + 2 * azimuth + phases[10])
    total = torch.zeros_like(azimuth)
    for k, (frequency, drift, strength) in enumerate(
        ((11, 1.2, 0.16), (19, -1.7, 0.30), (37, 2.3, 0.34), (61, -2.9, 0.26), (97, 3.7, 0.16))
    ):
        total = total + strength * torch.sin(frequency * bend + drift * way + phases[k])
    return total


def hair_albedo(name: str, noise: Tensor, way: Tensor) -> Tensor:
    """Colour ``[P, 3]`` of a hair colour under strand noise; darker near the crown's parting, lighter at the tips."""
    base = colour(HAIR[name])
    depth = 0.93 + 0.10 * way.clamp(0, 1.6)
    warm = 1 + noise[:, None] * torch.tensor([0.15, 0.17, 0.18])
    return (base * warm * depth[:, None] + 0.012 * noise[:, None]).clamp(0, 1)


def paint_hair(a: PortraitAttributes, azimuth: Tensor, way: Tensor, phases: Tensor) -> Material:
    """Material of hair shells at azimuths (radians) and ways along the strand."""
    curly = a.hair_style == "curly"
    noise = strand_noise(azimuth, way, phases, curly)
    out = Material.plain(len(way), gloss=0.02)
    out.albedo = hair_albedo(a.hair_colour, noise, way)
    out.sheen = (0.10 if curly else 0.26) * (0.75 + 0.5 * noise).clamp(0.2, 1.3)
    return out
