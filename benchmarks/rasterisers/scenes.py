"""What the splat rasterisers draw: one synthetic head, few or many Gaussians, small or heavily overlapping."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ap3d.cameras import Cameras, orbit
from ap3d.raster.splats import Splats

RADIUS = 0.3
SIZES = ((20_000, 256), (20_000, 512), (60_000, 256), (60_000, 512), (200_000, 512), (200_000, 800))


@dataclass(frozen=True)
class Scene:
    """A head of ``count`` Gaussians seen under 20 degrees by one camera.

    ``heavy`` Gaussians are 2.5 times as large and fainter, so that many cover a pixel before it is opaque.
    """

    count: int
    size: int
    degree: int
    heavy: bool = False

    @property
    def name(self) -> str:
        overlap = "heavy" if self.heavy else "sparse"
        return f"{self.count // 1000}k {self.size}px SH{self.degree} {overlap}"

    @cached_property
    def splats(self) -> Splats:
        g = torch.Generator().manual_seed(0)
        n = self.count
        directions = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=1)
        means = directions * torch.tensor([0.8, 1.1, 0.9]) * RADIUS * (1 + 0.02 * torch.randn(n, 1, generator=g))
        spacing = math.sqrt(4 * math.pi * RADIUS**2 / n)
        scales = (1.5 if self.heavy else 0.6) * spacing * torch.exp(0.4 * torch.randn(n, 3, generator=g))
        opacities = torch.sigmoid(
            torch.randn(n, generator=g) - 2 if self.heavy else 2 * torch.randn(n, generator=g) + 0.5
        )
        quaternions = torch.nn.functional.normalize(torch.randn(n, 4, generator=g), dim=1)
        sh = 0.3 * torch.randn(n, (self.degree + 1) ** 2, 3, generator=g)
        return Splats(means, quaternions, scales, opacities, sh)

    @cached_property
    def camera(self) -> Cameras:
        return orbit([0.0], [0.0], torch.zeros(3), 2.7, 20.0, self.size)

    @cached_property
    def weights(self) -> Tensor:
        """The loss is the sum of these, ``[3, H, W]``, times the picture: every candidate backpropagates the same."""
        return torch.randn(3, self.size, self.size, generator=torch.Generator().manual_seed(1))


def scenes(quick: bool) -> list[Scene]:
    """Every pair of count and size with SH 0 and 3, then three with heavy overlap; ``quick``: the first with SH 3."""
    if quick:
        return [Scene(20_000, 256, 3)]
    sparse = [Scene(count, size, degree) for count, size in SIZES for degree in (0, 3)]
    return sparse + [Scene(count, size, 3, heavy=True) for count, size in (SIZES[0], SIZES[3], SIZES[5])]
