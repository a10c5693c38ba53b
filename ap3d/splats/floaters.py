"""Removes Gaussians that float apart from the head, that nobody can see, or that took on the background's colour."""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ap3d.splats.avatar import GaussianAvatar, Group
from ap3d.splats.frames import TriangleFrames

CELL = 0.03  # world units, about a centimetre: matter further apart than this is not connected
MINIMUM_OPACITY = 0.04
REACH = 1.0  # world units round the body, a third of a metre, beyond which nothing belongs to a head
_SEEDED = (Group.HAIR, Group.CLOTHES)
SPILL = 0.25  # colour distance to a flat background that no part of a head has


def attached_mask(avatar: GaussianAvatar, neutral: TriangleFrames, key_colour: Tensor | None = None) -> Tensor:
    """Mask ``[N]`` of the Gaussians to keep: all of the skin, eyes and mouth, and hair and cloth that touch them.

    Args:
        avatar: fitted avatar.
        neutral: frames of the neutral pose.
        key_colour: ``[3]`` flat background of the model that painted the pictures; None where it has many.
    """
    points = avatar.pose(neutral, neutral).means.detach()
    alpha = torch.sigmoid(avatar.opacity.detach()[:, 0])
    seeded = torch.isin(avatar.group, torch.tensor([int(g) for g in _SEEDED]))
    visible = (alpha >= MINIMUM_OPACITY) | ~seeded
    if key_colour is not None:
        visible &= ~seeded | ((avatar.colors().detach() - key_colour).norm(dim=1) > SPILL)
    near = points[~seeded]
    low, high = near.amin(0) - REACH, near.amax(0) + REACH
    inside = ((points >= low) & (points <= high)).all(1)  # false for what is not finite
    visible &= inside
    cells = ((torch.where(inside[:, None], points, low) - low) / CELL).floor().long().numpy()
    grid = np.zeros(cells.max(0) + 1, dtype=bool)
    grid[tuple(cells[visible.numpy()].T)] = True
    labels, _ = ndimage.label(grid, np.ones((3, 3, 3)))
    component = torch.from_numpy(labels[tuple(cells.T)])
    body = torch.bincount(component[visible & ~seeded]).argmax()
    return ~seeded | (visible & (component == body))
