"""Colours for Gaussians that no picture has shown, such as folded lids: those of their nearest seen neighbours."""

from dataclasses import replace

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ap3d.splats.avatar import GaussianAvatar, Group

NEIGHBOURS = 4


def fill_unseen(avatar: GaussianAvatar, points: Tensor, moved: Tensor) -> GaussianAvatar:
    """Give unseen Gaussians the mean colour of the nearest seen ones of their group.

    Args:
        avatar: fitted avatar.
        points: ``[N, 3]`` world positions.
        moved: ``[N]`` bool, whether the fit has changed the Gaussian's colour.
    """
    colours = avatar.f_dc.detach().clone()
    for group in Group:
        members = avatar.group == int(group)
        seen, unseen = members & moved, members & ~moved
        if group is Group.TEETH or not seen.any() or not unseen.any():
            continue
        count = min(NEIGHBOURS, int(seen.sum()))
        _, index = cKDTree(points[seen].numpy()).query(points[unseen].numpy(), k=count)
        nearest = torch.from_numpy(index).reshape(-1, count)
        colours[unseen] = colours[seen][nearest].mean(1)
    return replace(avatar, f_dc=colours)
