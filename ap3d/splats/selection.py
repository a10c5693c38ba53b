"""Which Gaussians a phase may change, by the names of groups and of the rig's regions."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ap3d.errors import InputError
from ap3d.rig.protocol import Rig
from ap3d.splats.avatar import GaussianAvatar, Group


def selected_points(avatar: GaussianAvatar, rig: Rig, names: Sequence[str]) -> Tensor:
    """Mask ``[N]`` of the Gaussians in any of the groups or bound to any of the regions; all without names.

    Names that begin with a minus are taken away, from all where there are no others.

    Raises:
        InputError: a name that is neither.
    """
    wanted = [name for name in names if not name.startswith("-")]
    chosen = _any_of(avatar, rig, wanted) if wanted else torch.ones_like(avatar.group, dtype=torch.bool)
    return chosen & ~_any_of(avatar, rig, [name[1:] for name in names if name.startswith("-")])


def _any_of(avatar: GaussianAvatar, rig: Rig, names: Sequence[str]) -> Tensor:
    chosen = torch.zeros_like(avatar.group, dtype=torch.bool)
    for name in names:
        if name.upper() in Group.__members__:
            chosen |= avatar.group == Group[name.upper()]
        elif name in rig.regions:
            bound = torch.isin(avatar.binding, rig.regions[name].to(avatar.binding))
            chosen |= bound & (avatar.group == Group.SKIN)
        else:
            known = [*(g.name.lower() for g in Group), *rig.regions]
            raise InputError(f"'points' names {name!r}; there are: {', '.join(dict.fromkeys(known))}")
    return chosen


def with_fixed(avatar: GaussianAvatar, fixed: Tensor | None) -> GaussianAvatar:
    """The same avatar whose Gaussians of the mask ``fixed [N]`` pass no gradients."""
    if fixed is None:
        return avatar
    parameters = {
        name: torch.where(fixed.view(-1, *[1] * (value.ndim - 1)), value.detach(), value)
        for name, value in avatar.parameters().items()
    }
    return replace(avatar, **parameters)
