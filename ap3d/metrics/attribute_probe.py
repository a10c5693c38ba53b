"""The measuring probe: reads a head's attributes from a picture. Trained on people that no shipped model has seen."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ap3d.checksums import BUILTIN
from ap3d.perception.parsing import load_network
from ap3d.training.attributes import (
    GENDERS,
    HAIR_COLOURS,
    HAIR_STYLES,
    SHIRT_COLOURS,
    SKINS,
)

FILE = "attribute_probe.safetensors"
SIZE = 128
READ: dict[str, tuple[object, ...]] = {
    "gender": GENDERS, "skin": SKINS, "hair_style": HAIR_STYLES,
    "hair_colour": HAIR_COLOURS, "shirt": SHIRT_COLOURS, "beard": (False, True),
}  # fmt: skip


class AttributeProbe(nn.Module):
    """Pictures ``[B, 3, 128, 128]`` in 0..1 of whole heads (framing ``full``, front to 45 degrees) to logits."""

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 96, 128, 128)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in zip((3, *widths), widths, strict=False):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2))
        side = SIZE // 2 ** len(widths)
        self.heads = nn.ModuleDict({name: nn.Linear(widths[-1] * side * side, len(v)) for name, v in READ.items()})

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        features = self.body(pictures * 2 - 1)
        if not self.training:  # the mean of a picture and its mirror image
            features = (features + self.body(pictures.flip(-1) * 2 - 1)) / 2
        return {name: head(features) for name, head in self.heads.items()}

    @torch.no_grad()
    def read(self, pictures: Tensor) -> dict[str, list[object]]:
        """The likeliest value of every attribute for pictures ``[B, 3, H, W]`` in 0..1 of any size."""
        logits = self(F.interpolate(pictures, (SIZE, SIZE), mode="bilinear", antialias=True))
        return {name: [READ[name][int(k)] for k in values.argmax(1)] for name, values in logits.items()}

    @staticmethod
    def load(path: Path = BUILTIN / FILE) -> "AttributeProbe":
        """Read the shipped probe, or another.

        Raises:
            DataFileError: the file is missing, truncated, or of another kind.
        """
        network = AttributeProbe()
        load_network(network, path, "attribute probe")
        return network
