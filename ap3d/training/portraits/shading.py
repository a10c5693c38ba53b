"""One deliberate light: a wide, slightly warm key from the camera's side, a cool sky, warm bounce from below.

Skin lets red light spread past the shadow's edge; ambient occlusion of the person's own geometry darkens corners.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ap3d.training.portraits.surface import Material

WRAP_SKIN, WRAP = torch.tensor([0.55, 0.34, 0.28]), 0.30  # how far light reaches round a surface
KEY, SKY, GROUND = torch.tensor([1.02, 0.995, 0.965]), torch.tensor([0.97, 1.0, 1.05]), torch.tensor([1.05, 0.98, 0.91])
OCCLUSION_TINT = torch.tensor([0.80, 1.05, 1.15])  # exponents: shaded skin stays warm


@dataclass(frozen=True)
class Light:
    """Key direction in camera axes (x right, y up, z towards the viewer) and strengths."""

    key: tuple[float, float, float]
    strength: float
    ambient: float

    @staticmethod
    def sample(rng: np.random.Generator) -> "Light":
        """Mild variation round a frontal key from above."""
        key = (rng.uniform(-0.40, 0.40), rng.uniform(0.45, 0.75), 1.0)
        return Light(key, rng.uniform(0.53, 0.59), rng.uniform(0.45, 0.49))


def shade(material: Material, normals: Tensor, occlusion: Tensor, up: Tensor, light: Light) -> Tensor:
    """Colours ``[P, 3]`` of points.

    Args:
        material: of the points.
        normals: ``[P, 3]`` in camera space.
        occlusion: ``[P]`` share of the surroundings that geometry leaves open.
        up: ``[3]`` the world's up in camera axes.
        light: key and ambient.
    """
    key = torch.nn.functional.normalize(torch.tensor(light.key, dtype=torch.float32), dim=0)
    wrap = WRAP + (WRAP_SKIN - WRAP) * material.scatter[:, None]
    lit = (((normals @ key)[:, None] + wrap) / (1 + wrap)).clamp(0, 1)
    exponent = 1 + (OCCLUSION_TINT - 1) * material.scatter[:, None]
    open_ = (occlusion * material.openness).clamp(0, 1.12)[:, None] ** exponent
    height = (0.5 + 0.5 * (normals @ up))[:, None]
    surroundings = GROUND * (1 - height) * 0.72 + SKY * height
    irradiance = light.ambient * surroundings * open_ + light.strength * KEY * lit * (0.40 + 0.60 * open_)
    half = torch.nn.functional.normalize(key + torch.tensor([0.0, 0.0, 1.0]), dim=0)
    highlight = (normals @ half).clamp(0, 1) ** 20 * 0.95 * material.gloss * open_[:, 1]
    band = torch.exp(-(((normals @ up) - 0.60) / 0.20).square()) * normals[:, 2].clamp(0, 1)
    tint = 0.35 + 0.65 * material.albedo / material.albedo.amax(1, keepdim=True).clamp_min(0.05)
    colour = material.albedo * irradiance + highlight[:, None] + (material.sheen * band * open_[:, 1])[:, None] * tint
    return torch.lerp(colour, torch.ones(3), material.glow[:, None]).clamp(0, 1)
