"""A bundle of a few thousand Gaussians on the built-in rig, written in a moment."""

from pathlib import Path

import torch

from ap3d.rig.protocol import Rig, RigParams
from ap3d.splats.avatar import SH_C0, GaussianAvatar, Group
from ap3d.splats.bundle import Bundle
from ap3d.splats.facts import ORDER, SCHEMA_VERSION
from ap3d.splats.frames import triangle_frames
from ap3d.splats.initial import surface_avatar

COLORS = {Group.SKIN: (0.85, 0.62, 0.52), Group.CLOTHES: (0.15, 0.3, 0.6), Group.EYES: (0.2, 0.2, 0.25)}


def tiny_avatar(rig: Rig, count: int = 3000) -> GaussianAvatar:
    """Skin, shirt and eyes in plain colours on the neutral head."""
    vertices = rig.vertices(RigParams.neutral(rig))[0]
    avatar = surface_avatar(rig, vertices, count, torch.Generator().manual_seed(0))
    for group, color in COLORS.items():
        avatar.f_dc[avatar.group == group] = (torch.tensor(color) - 0.5) / SH_C0
    return avatar


def tiny_bundle(rig: Rig, count: int = 3000, name: str = "plain") -> Bundle:
    """An avatar at rest on any rig."""
    facts = {
        "schema_version": SCHEMA_VERSION, "face_id": name, "prompt": "a plain head", "rig": rig.name,
        "topology_sha256": rig.topology_sha256, "expression_basis": rig.expression_basis, "metrics": {}, "groups": {},
        "rotation_order": ORDER, "sh_degree": 0, "config_hash": "0" * 8, "seed": 0, "licences": {},
    }  # fmt: skip
    params = RigParams.neutral(rig)
    return Bundle(facts, tiny_avatar(rig, count), params, rig, triangle_frames(rig.vertices(params)[0], rig.faces))


def write_tiny_bundle(folder: Path, rig: Rig, count: int = 3000) -> Path:
    """The bundle's folder."""
    tiny_bundle(rig, count, folder.name).save(str(folder))
    return folder
