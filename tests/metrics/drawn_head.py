"""A drawn head: Gaussians on the rig's surface in the colours of what they lie on."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from ap3d.metrics.subject import Subject
from ap3d.rig.protocol import Rig, RigParams
from ap3d.rig.regions import Label, point_labels
from ap3d.splats.avatar import SH_C0, GaussianAvatar, Group
from ap3d.splats.initial import surface_avatar
from ap3d.training.portraits.surface import HAIR, SHIRT, SKIN
from tests.tiny_avatar import tiny_bundle

COUNT = 24_000
LIGHT = 0.82  # of the drawn colours, as shading would leave of them
PAINT = {
    Label.SCALP: HAIR["brown"], Label.BROW: HAIR["brown"], Label.CLOTHES: SHIRT["blue"], Label.LIPS: (0.75, 0.3, 0.3),
    Label.SCLERA: (0.95, 0.95, 0.95), Label.IRIS: (0.3, 0.2, 0.1), Label.PUPIL: (0.02, 0.02, 0.02),
    Label.TEETH: (0.95, 0.95, 0.9), Label.TONGUE: (0.8, 0.4, 0.4), Label.MOUTH: (0.3, 0.1, 0.1),
}  # fmt: skip
ASKED: Mapping[str, object] = {"hair_colour": "brown", "shirt": "blue", "skin": "pale", "hair_style": "short"}


def drawn_avatar(rig: Rig) -> GaussianAvatar:
    """Brown hair, blue shirt, pale skin."""
    params = RigParams.neutral(rig)
    avatar = surface_avatar(rig, rig.vertices(params)[0], COUNT, torch.Generator().manual_seed(0))
    bundle = replace(tiny_bundle(rig, 100), avatar=avatar)
    template = (bundle.pose(params).means - params.translation) / params.scale
    labels = point_labels(rig, avatar.binding, template)
    colours = torch.tensor(SKIN["pale"]).repeat(len(avatar), 1)
    for label, colour in PAINT.items():
        colours[labels == label] = torch.tensor(colour)
    group = torch.where(labels == Label.SCALP, torch.full_like(avatar.group, int(Group.HAIR)), avatar.group)
    return painted(replace(avatar, group=group), LIGHT * colours)


def painted(avatar: GaussianAvatar, colours: torch.Tensor) -> GaussianAvatar:
    """The avatar in other colours ``[N, 3]``."""
    return replace(avatar, f_dc=(colours - 0.5) / SH_C0)


def broken(subject: Subject, **changes: Any) -> Subject:
    """The subject with other tensors in its avatar."""
    bundle = replace(subject.bundle, avatar=replace(subject.bundle.avatar, **changes))
    return replace(subject, bundle=bundle)
