"""What painters read and write, the palette, and the few operations they share."""

from dataclasses import dataclass

import torch
from torch import Tensor

Colour = tuple[float, float, float]
SKIN: dict[str, Colour] = {
    "pale": (0.95, 0.77, 0.685), "tan": (0.80, 0.56, 0.39), "brown": (0.54, 0.335, 0.22), "dark": (0.315, 0.20, 0.145),
}  # fmt: skip
HAIR: dict[str, Colour] = {
    "black": (0.065, 0.055, 0.06), "brown": (0.36, 0.20, 0.10), "blonde": (0.92, 0.75, 0.38), "red": (0.75, 0.23, 0.06),
    "gray": (0.64, 0.64, 0.65), "blue": (0.12, 0.26, 0.78), "pink": (0.94, 0.42, 0.64),
}  # fmt: skip
EYES: dict[str, Colour] = {"brown": (0.42, 0.20, 0.07), "blue": (0.20, 0.50, 0.95), "green": (0.22, 0.66, 0.26)}
SHIRT: dict[str, Colour] = {
    "white": (0.94, 0.94, 0.94), "black": (0.08, 0.08, 0.09), "red": (0.80, 0.10, 0.10), "blue": (0.12, 0.23, 0.74),
    "green": (0.12, 0.52, 0.20), "yellow": (0.95, 0.82, 0.14), "purple": (0.47, 0.15, 0.63),
}  # fmt: skip


@dataclass(frozen=True)
class Surface:
    """Visible points: ``[P]`` or ``[P, 3]`` each.

    Attributes:
        part: the rig's part id, or -1 for hair.
        template: positions on the rig's template, metres.
        masks: lips, ears, inside of the mouth.
        strands: of hair: cosine and sine of the azimuth, and the way along the strand (0 at the crown).
    """

    part: Tensor
    template: Tensor
    masks: Tensor
    strands: Tensor

    def __getitem__(self, index: Tensor) -> "Surface":
        return Surface(self.part[index], self.template[index], self.masks[index], self.strands[index])


@dataclass
class Material:
    """What light meets at ``P`` points.

    Attributes:
        albedo: ``[P, 3]``.
        gloss: ``[P]`` strength of the soft highlight.
        openness: ``[P]`` share of light that painted details let through.
        scatter: ``[P]`` how much red light spreads under the surface: 1 for skin.
        sheen: ``[P]`` strength of the band of light round the crown: hair.
        glow: ``[P]`` white that no light changes: catch-lights.
    """

    albedo: Tensor
    gloss: Tensor
    openness: Tensor
    scatter: Tensor
    sheen: Tensor
    glow: Tensor

    @staticmethod
    def plain(count: int, gloss: float = 0.0) -> "Material":
        """Black, fully open."""
        zeros = lambda: torch.zeros(count)  # noqa: E731
        return Material(
            torch.zeros(count, 3), torch.full((count,), gloss), torch.ones(count), zeros(), zeros(), zeros()
        )

    def put(self, index: Tensor, part: "Material") -> None:
        """Overwrite the points ``index``."""
        for name, values in vars(part).items():
            getattr(self, name)[index] = values


def colour(values: Colour) -> Tensor:
    """A palette entry as ``[3]``."""
    return torch.tensor(values)


def mix(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """From colours ``a`` to ``b`` by weights ``[P]``."""
    return a + (b - a) * weight[:, None]


def step(x: Tensor, edge: float, width: float) -> Tensor:
    """0 below ``edge``, 1 above, linear over ``width``."""
    return ((x - edge) / width + 0.5).clamp(0, 1)


def bell(x: Tensor, centre: float, width: float) -> Tensor:
    """Gaussian of height 1."""
    return torch.exp(-((x - centre) / width).square())
