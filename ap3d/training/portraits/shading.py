"""Soft light: a wide key from the camera's side, sky from above, a little gloss."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ap3d.training.portraits.materials import Material


@dataclass(frozen=True)
class Light:
    """Key direction in camera axes (x right, y up, z towards the viewer) and strengths."""

    key: tuple[float, float, float]
    strength: float
    sky: float

    @staticmethod
    def sample(rng: np.random.Generator) -> "Light":
        """Mild variation round a frontal key from above."""
        return Light(
            (rng.uniform(-0.45, 0.45), rng.uniform(0.35, 0.7), 1.0), rng.uniform(0.56, 0.64), rng.uniform(0.10, 0.15)
        )


def shade(material: Material, normals: Tensor, up: Tensor, light: Light) -> Tensor:
    """Colours ``[P, 3]`` of points with camera-space normals ``[P, 3]``; ``up [3]``: the world's, in camera axes."""
    key = torch.nn.functional.normalize(torch.tensor(light.key, dtype=torch.float32), dim=0)
    lit = ((normals @ key + 0.30) / 1.30).clamp(0, 1)
    lit = lit * (0.35 + 0.65 * material.openness)
    sky = 0.5 + 0.5 * (normals @ up)
    ambient = (0.36 + light.sky * sky) * material.openness
    half = torch.nn.functional.normalize(key + torch.tensor([0.0, 0.0, 1.0]), dim=0)
    facing = (normals @ half).clamp(0, 1)
    spark = torch.nn.functional.normalize(0.38 * key + torch.tensor([0.0, 0.0, 1.0]), dim=0)
    catch_light = ((normals @ spark - 0.992) / 0.004).clamp(0, 1)
    wet = material.gloss > 0.5
    highlight = torch.where(wet, catch_light, facing**18 * 0.9 * material.openness) * material.gloss
    warm = torch.tensor([1.02, 0.995, 0.97])
    colour = material.albedo * (ambient[:, None] + light.strength * lit[:, None] * warm)
    return (colour + highlight[:, None]).clamp(0, 1)
