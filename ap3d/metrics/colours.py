"""Colours of hair, shirt and cheeks without a network: medians of the rig's own regions against the palette."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ap3d.metrics.attributes import asked_value
from ap3d.metrics.protocol import Measured, Summary, Values, confusion, mean_figure
from ap3d.metrics.subject import Subject
from ap3d.rig.regions import label_fields
from ap3d.splats.avatar import Group
from ap3d.training.portraits.surface import HAIR, SHIRT, SKIN

PALETTES: Mapping[str, Mapping[str, tuple[float, float, float]]] = {"hair_colour": HAIR, "shirt": SHIRT, "skin": SKIN}
TARGETS = {"hair_colour": 0.9, "shirt": 0.95, "skin": 0.9}
AZIMUTHS = (0.0, -30.0, 30.0)
SIZE = 192
# The soft light of the portraits leaves this much of an albedo in the median pixel; lightness counts less than hue.
# With both, all 548 regions of held-out portraits are told right.
LIGHT, LIGHTNESS_WEIGHT = 0.65, 0.3
LEAST_PIXELS = 40
_OWN, _OTHER = 0.7, 0.1  # least share of a pixel's own group, largest of another


class ColourMetric:
    """The nearest palette colour of each region, in CIE Lab.

    Values by region: ``.asked`` and ``.read`` (positions in the palette), ``.right``, and the median ``.L``, ``.a``,
    ``.b``; a region too small to be measured has none of them but ``.asked`` and ``.right`` of 0.
    """

    name, version, needs = "colours", 1, ()

    def evaluate(self, subject: Subject) -> Values:
        """See the class."""
        cameras = subject.cameras(AZIMUTHS, SIZE)
        pictures = subject.pictures(cameras).permute(0, 2, 3, 1)
        values: dict[str, float] = {}
        for name, mask in region_masks(subject, AZIMUTHS, SIZE).items():
            labels, asked = list(PALETTES[name]), asked_value(subject, name)
            found = int(mask.sum()) >= LEAST_PIXELS
            if asked in labels:
                values[f"{name}.asked"] = float(labels.index(str(asked)))
                values[f"{name}.right"] = 0.0
            if not found:
                continue
            median = lab(np.median(pictures[mask].numpy(), 0))
            values.update(zip((f"{name}.L", f"{name}.a", f"{name}.b"), map(float, median), strict=True))
            values[f"{name}.read"] = float(nearest_colour(median, PALETTES[name]))
            if asked in labels:
                values[f"{name}.right"] = float(values[f"{name}.read"] == values[f"{name}.asked"])
        return values

    def summarise(self, measured: Sequence[Measured]) -> Summary:
        """Accuracy and confusion of every region."""
        summary = Summary()
        for name, palette in PALETTES.items():
            figure = mean_figure(name, measured, f"{name}.right", TARGETS[name], chance=1 / len(palette))
            summary.figures.extend(figure)
            if figure:
                summary.confusions.append(confusion(name, list(palette), measured, f"{name}.asked", f"{name}.read"))
        return summary


def region_masks(subject: Subject, azimuths: Sequence[float], size: int) -> dict[str, Tensor]:
    """Pixels ``[B, size, size]`` of hair above the eyes, of cloth, and of the cheeks without hair over them.

    The rig's scalp and torso count where no other group lies over them; a scalp only where there is hair at all.
    """
    cameras = subject.cameras(azimuths, size)
    shares, _ = subject.shares((Group.HAIR, Group.CLOTHES), cameras)
    faces, canonical = subject.surface(cameras)
    pixels, _ = cameras.project(subject.bundle.rig.landmarks(subject.bundle.params)[0])
    above = torch.arange(size)[None, :, None] + 0.5 < pixels[:, 68:70, 1].mean(1)[:, None, None]
    hair, cloth = shares[:, 0], shares[:, 1]
    scalp, torso = (subject.region(faces, (name,)) for name in ("scalp", "torso"))
    strands = (hair > _OWN) & above
    if int(strands.sum()) >= LEAST_PIXELS:
        strands |= scalp & above & (cloth < _OTHER)
    return {
        "hair_colour": strands,
        "shirt": (cloth > _OWN) | (torso & (hair < _OTHER)),
        "skin": cheeks(subject, canonical) & subject.region(faces, ("face",)) & (hair < _OTHER),
    }


def cheeks(subject: Subject, canonical: Tensor) -> Tensor:
    """Whether canonical positions ``[..., 3]`` lie on a cheek, between eye, nose and beard."""
    x, y, z = canonical.unbind(-1)
    eye = float(label_fields(subject.bundle.rig)["eye_centres"][0, 1])
    return (x.abs() > 0.026) & (x.abs() < 0.048) & (y < eye - 0.020) & (y > eye - 0.042) & (z > 0.02)


def nearest_colour(median: NDArray[np.float64], palette: Mapping[str, tuple[float, float, float]]) -> int:
    """Position of the palette's colour, as the portraits' light shows it, that is nearest to a Lab colour ``[3]``."""
    known = lab(np.array(list(palette.values())), LIGHT)
    return int((((known - median) ** 2) * np.array([LIGHTNESS_WEIGHT, 1.0, 1.0])).sum(1).argmin())


def lab(colours: NDArray[np.floating], light: float = 1.0) -> NDArray[np.float64]:
    """CIE 1976 L*a*b* (D65) of sRGB colours ``[..., 3]`` in 0..1, after a factor on the linear light."""
    c = np.asarray(colours, np.float64)
    linear = light * np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x = (linear @ to_xyz.T) / to_xyz.sum(1)
    f = np.where(x > (6 / 29) ** 3, np.cbrt(x), x / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1
    )  # fmt: skip
