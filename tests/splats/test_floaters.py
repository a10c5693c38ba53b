"""Floating crumbs go, attached hair and every part of the rig stay."""

import torch

from ap3d.splats.avatar import SH_C0, GaussianAvatar, Group
from ap3d.splats.floaters import attached_mask
from ap3d.splats.frames import triangle_frames
from ap3d.splats.initial import bind, surface_avatar


def test_crumbs_and_transparent_hair_are_removed(rig, neutral) -> None:  # type: ignore[no-untyped-def]
    vertices = rig.vertices(neutral)[0]
    frames = triangle_frames(vertices, rig.faces)
    skin = surface_avatar(rig, vertices, 5000, torch.Generator().manual_seed(0))
    top = vertices[:, 1].argmax()
    height = torch.arange(20)[:, None] * torch.tensor([0.0, 0.02, 0.0])
    strand = vertices[top] + height
    crumbs = vertices[top] + torch.tensor([0.0, 0.8, 0.0]) + 0.01 * torch.randn(10, 3)
    faint = vertices[top] + 0.02 * torch.randn(10, 3)
    points = torch.cat([strand, crumbs, faint])
    binding = torch.zeros(40, dtype=torch.long)
    hair = bind(points, binding, frames, torch.full((40,), 0.01), 1.0, 0.5, torch.full((40,), int(Group.HAIR)))
    hair.opacity[30:] = -5.0
    avatar = GaussianAvatar.concatenate([skin, hair])
    mask = attached_mask(avatar, frames)
    assert mask[:5000].all()
    assert mask[5000:5020].all() and not mask[5020:].any()
    key = torch.tensor([0.45, 0.80, 0.78])
    avatar.f_dc[5003] = (key - 0.5) / SH_C0
    keyed = attached_mask(avatar, frames, key)
    assert not keyed[5003] and keyed[:5003].all()
