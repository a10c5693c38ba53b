"""Colours for Gaussians that no picture has shown, such as folded lids: those of their nearest seen neighbours."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ap3d.raster.splats import rasterize_splats
from ap3d.splats.avatar import SH_C0, GaussianAvatar, Group
from ap3d.splats.fitting import TargetViews
from ap3d.splats.frames import TriangleFrames

NEIGHBOURS = 6
LEAST_WEIGHT = 0.35  # share of the group's median blending weight below which a Gaussian counts as unseen


def blending_weights(avatar: GaussianAvatar, targets: Sequence[TargetViews], neutral: TriangleFrames) -> Tensor:
    """How much each Gaussian contributes to all pictures together, ``[N]`` in pixels.

    The derivative of the summed picture by a Gaussian's colour is the sum of its blending weights.
    """
    colours = avatar.f_dc.detach().clamp(min=-1.5).requires_grad_()
    seen = replace(avatar, f_dc=colours, f_rest=avatar.f_rest.detach()[:, :0])
    total = torch.zeros(len(avatar), device=colours.device)
    for target in targets:
        images = rasterize_splats(seen.pose(target.frames, neutral), target.cameras, sh_degree=0)
        (gradient,) = torch.autograd.grad(images.color[:, 1].sum(), colours)
        total += gradient[:, 1] / SH_C0
    return total


def fill_unseen(avatar: GaussianAvatar, targets: Sequence[TargetViews], neutral: TriangleFrames) -> GaussianAvatar:
    """Give Gaussians that hardly contribute to the pictures the colour of seen neighbours of their group.

    Args:
        avatar: fitted avatar.
        targets: the pictures that it was fitted to.
        neutral: frames in which neighbours are looked for.
    """
    weights = blending_weights(avatar, targets, neutral).cpu()
    device = avatar.xyz.device
    avatar = avatar.to("cpu")
    points = avatar.pose(neutral.to("cpu"), neutral.to("cpu")).means.detach()
    colours = avatar.f_dc.detach().clone()
    for group in (Group.SKIN, Group.HAIR, Group.CLOTHES):
        members = avatar.group == int(group)
        if not members.any():
            continue
        seen = members & (weights >= LEAST_WEIGHT * weights[members].median())
        unseen = members & ~seen
        if not seen.any() or not unseen.any():
            continue
        distance, index = cKDTree(points[seen].numpy()).query(
            points[unseen].numpy(), k=min(NEIGHBOURS, int(seen.sum()))
        )
        closeness = 1 / (torch.from_numpy(distance).float().reshape(len(index), -1) + 1e-4)
        nearest = colours[seen][torch.from_numpy(index).reshape(len(index), -1)]
        colours[unseen] = (nearest * closeness[..., None]).sum(1) / closeness.sum(1, keepdim=True)
    return replace(avatar, f_dc=colours).to(device)
