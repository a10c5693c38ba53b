"""Alpha mattes of pictures on a flat background, for text-to-image models that paint one."""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

CLEAR, SOLID = 0.07, 0.24  # colour distances to the background at which alpha is 0 and 1
PINHOLE = 0.001  # share of the picture; larger holes are gaps between hair and neck, not noise


def border_colour(images: Tensor) -> Tensor:
    """Median colour ``[3]`` of the two upper corners of pictures ``[B, 3, H, W]`` that show a whole head."""
    size = max(images.shape[-1] // 16, 2)
    corners = torch.cat([images[..., :size, :size], images[..., :size, -size:]], 3)
    return corners.permute(1, 0, 2, 3).reshape(3, -1).median(1).values


def flat_background_matte(images: Tensor, background: Tensor, solid: Tensor | None = None) -> Tensor:
    """Alpha ``[B, 1, H, W]`` by colour distance, with pinholes filled and loose specks removed.

    Args:
        images: ``[B, 3, H, W]`` in 0 to 1.
        background: ``[3]`` colour.
        solid: ``[B, 1, H, W]`` bool, pixels known to be foreground.
    """
    distance = (images - background[:, None, None].to(images)).norm(dim=1, keepdim=True)
    alpha = ((distance - CLEAR) / (SOLID - CLEAR)).clamp(0, 1)
    if solid is not None:
        alpha = torch.where(solid, torch.ones_like(alpha), alpha)
    cleaned = [_clean(a[0].numpy()) for a in alpha]
    return torch.from_numpy(np.stack(cleaned))[:, None]


def _clean(alpha: np.ndarray) -> np.ndarray:
    inside = _without_pinholes(alpha > 0.5)
    labels, count = ndimage.label(inside)
    if count > 1:
        sizes = ndimage.sum_labels(inside, labels, range(1, count + 1))
        inside = labels == 1 + int(np.argmax(sizes))
    near = ndimage.binary_dilation(inside, iterations=2)
    filled = np.where(ndimage.binary_erosion(inside, iterations=2), 1.0, alpha)
    return np.where(near, filled, 0.0).astype(np.float32)


def _without_pinholes(inside: np.ndarray) -> np.ndarray:
    holes = ndimage.binary_fill_holes(inside) & ~inside
    labels, count = ndimage.label(holes)
    sizes = ndimage.sum_labels(holes, labels, range(1, count + 1))
    small = 1 + np.flatnonzero(sizes <= PINHOLE * inside.size)
    return inside | np.isin(labels, small)
