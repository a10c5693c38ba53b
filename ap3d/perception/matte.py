"""Mattes without a network: the alpha that a portrait knows, or that of pictures on a flat background.

Text-to-image models of our own paint such a background.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ap3d.perception.field import FieldModel
from ap3d.portrait.protocol import PortraitViews

NOISE = 0.155  # colour distance to the background from which on a pixel holds some foreground
CORE = 3  # pixels from the outline to where a colour is pure foreground
BAND = 2  # pixels outside the outline that may be partly covered
PINHOLE = 0.001  # share of the picture; larger holes are gaps between hair and neck, not noise


@dataclass(frozen=True)
class FieldMatting(FieldModel):
    """The offline default: the portrait's own alpha."""

    kind = "matting model"

    def matte(self, views: PortraitViews) -> Tensor:
        """See :class:`ap3d.perception.protocol.Matting`."""
        return views.alpha


def border_colour(images: Tensor) -> Tensor:
    """Median colour ``[3]`` of the two upper corners of pictures ``[B, 3, H, W]`` that show a whole head."""
    size = max(images.shape[-1] // 16, 2)
    corners = torch.cat([images[..., :size, :size], images[..., :size, -size:]], 3)
    return corners.permute(1, 0, 2, 3).reshape(3, -1).median(1).values


def flat_background_matte(images: Tensor, background: Tensor, solid: Tensor | None = None) -> Tensor:
    """Alpha ``[B, 1, H, W]``: each outline pixel is unmixed into background and the nearest pure foreground colour.

    A threshold alone would count pixels with a little foreground as covered, and paint the background's colour on
    the rim of every avatar. Pinholes are filled and loose specks removed.

    Args:
        images: ``[B, 3, H, W]`` in 0 to 1.
        background: ``[3]`` colour.
        solid: ``[B, 1, H, W]`` bool, pixels known to be foreground.
    """
    known = torch.zeros_like(images[:, :1], dtype=torch.bool) if solid is None else solid
    mattes = [
        _matte(image.permute(1, 2, 0).numpy(), background.numpy(), inside[0].numpy())
        for image, inside in zip(images, known, strict=True)
    ]
    return torch.from_numpy(np.stack(mattes))[:, None]


def _matte(image: np.ndarray, background: np.ndarray, solid: np.ndarray) -> np.ndarray:
    offset = image - background
    inside = _largest(_without_pinholes((np.linalg.norm(offset, axis=2) > NOISE) | solid))
    core = ndimage.binary_erosion(inside, iterations=CORE, border_value=1) | (solid & inside)
    if not core.any():
        return inside.astype(np.float32)
    rows, columns = ndimage.distance_transform_edt(~core, return_distances=False, return_indices=True)
    pure = offset[rows, columns]
    covered = (offset * pure).sum(2) / np.maximum((pure * pure).sum(2), 1e-6)
    near = ndimage.binary_dilation(inside, iterations=BAND)
    return np.where(core, 1.0, np.where(near, covered.clip(0, 1), 0.0)).astype(np.float32)


def _largest(inside: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(inside)
    if count < 2:
        return inside
    sizes = ndimage.sum_labels(inside, labels, range(1, count + 1))
    return labels == 1 + int(np.argmax(sizes))


def _without_pinholes(inside: np.ndarray) -> np.ndarray:
    holes = ndimage.binary_fill_holes(inside) & ~inside
    labels, count = ndimage.label(holes)
    sizes = ndimage.sum_labels(holes, labels, range(1, count + 1))
    small = 1 + np.flatnonzero(sizes <= PINHOLE * inside.size)
    return inside | np.isin(labels, small)
