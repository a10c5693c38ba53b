"""A finished avatar of another program as a bundle; local Gaussians stay as they are, bit by bit."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ap3d import __version__
from ap3d.array_files import read_npy
from ap3d.errors import DataFileError
from ap3d.importing.faces import animportrait3d_faces, flame_faces
from ap3d.importing.original_teeth import rebind_teeth
from ap3d.importing.params import read_fitted_params, read_flame_params
from ap3d.importing.source import AvatarSource, find_source, read_file
from ap3d.rig import load_rig
from ap3d.rig.protocol import Rig, RigParams
from ap3d.splats.avatar import GaussianAvatar, Group, group_counts
from ap3d.splats.bundle import Bundle, neutral_frames
from ap3d.splats.facts import HISTORIC_ORDER, ORDER, REVERSED, SCHEMA_VERSION
from ap3d.splats.ply import MASKS, read_local
from ap3d.splats.ply_table import read_table

REGION_GROUPS = {"scalp": Group.HAIR, "torso": Group.CLOTHES, "teeth": Group.TEETH, "eyes": Group.EYES}


@dataclass(frozen=True)
class Imported:
    """A bundle, and in words what could not come along."""

    bundle: Bundle
    notes: tuple[str, ...]


def import_avatar(
    path: str, rig: "Rig | str", params: str | None = None, *, historic: bool | None = None,
    vertex_list: str | None = None, teeth: str | None = None,
) -> Imported:  # fmt: skip
    """Read an avatar of GaussianAvatars or AnimPortrait3D.

    Args:
        path: its PLY, or the folder that holds it.
        rig: the user's FLAME 2023 or SMPL-X 2020 as a rig, or what :func:`ap3d.rig.load_rig` takes.
        params: ``flame_param.npz`` or ``fitted_params.pkl`` where it lies elsewhere.
        historic: quaternions are local before triangle. By default so for AnimPortrait3D, whose released avatars were
            made that way, and not for GaussianAvatars, which mended it in March 2024.
        vertex_list: AnimPortrait3D's ``valid_vert_id.npy``, for models whose crop differs.
        teeth: folder with AnimPortrait3D's ``upper_teeth.obj`` and ``lower_teeth.obj``; without it Gaussians on teeth
            and gums are left out, and counted.

    Raises:
        InputError: a file is missing, damaged, or of another program or rig.
    """
    source = find_source(path, params)
    historic = not source.from_gaussian_avatars if historic is None else historic
    loaded = load_rig(rig) if isinstance(rig, str) else rig
    gaussians = read_file(source.gaussians)
    try:
        avatar, has_groups = read_local(gaussians), set(MASKS) <= set(read_table(gaussians))
    except DataFileError as error:
        raise DataFileError(f"{source.gaussians}: {error}") from error
    if source.from_gaussian_avatars:
        placed, fitted, notes = _gaussian_avatars(source, avatar, loaded)
    else:
        placed, fitted, notes = _animportrait3d(source, avatar, loaded, vertex_list, teeth, historic)
    if not len(placed):
        raise DataFileError(f"{source.gaussians}: no Gaussian is bound to a triangle that rig {loaded.name} has")
    if not has_groups:
        placed = replace(placed, group=_groups_by_region(loaded, placed.binding))
    facts = _facts(source, placed, loaded, historic, hashlib.sha256(gaussians).hexdigest(), notes)
    frames = neutral_frames(facts, loaded, fitted, str(source.params))
    return Imported(Bundle(facts, placed, fitted, loaded, frames), tuple(notes))


def _gaussian_avatars(
    source: AvatarSource, avatar: GaussianAvatar, rig: Rig
) -> tuple[GaussianAvatar, RigParams, list[str]]:
    params, offset = read_flame_params(read_file(source.params), rig, source.params.name)
    placed, dropped = _on_our_faces(avatar, flame_faces(rig), source)
    notes = [f"{dropped} Gaussians on its teeth are left out: our teeth are others"] if dropped else []
    if offset > 0:
        notes.append(f"vertex offsets of up to {1000 * offset:.1f} mm are left out: rigs here have none")
    return placed, params, notes


def _animportrait3d(
    source: AvatarSource, avatar: GaussianAvatar, rig: Rig, vertex_list: str | None, teeth: str | None, historic: bool
) -> tuple[GaussianAvatar, RigParams, list[str]]:
    ids = None if vertex_list is None else read_npy(read_file(Path(vertex_list)), vertex_list)
    faces = animportrait3d_faces(rig, ids)
    params = read_fitted_params(read_file(source.params), rig, source.params.name)
    placed, dropped = _on_our_faces(avatar, faces, source)
    if not dropped:
        return placed, params, []
    if teeth is None:
        return placed, params, [
            f"{dropped} Gaussians on its teeth and gums are left out: give the folder of the original's "
            "upper_teeth.obj and lower_teeth.obj with --teeth"
        ]  # fmt: skip
    first = int((faces >= 0).sum())
    on_teeth = avatar.select(avatar.binding >= first)
    kept = rebind_teeth(replace(on_teeth, binding=on_teeth.binding - first), Path(teeth), rig, params, historic)
    lost = dropped - len(kept)
    notes = [f"{lost} Gaussians on the strip between its gums are left out"] if lost else []
    return GaussianAvatar.concatenate([placed, kept]), params, notes


def _on_our_faces(avatar: GaussianAvatar, faces: Tensor, source: AvatarSource) -> tuple[GaussianAvatar, int]:
    """The Gaussians whose triangle we have, and how many others there were."""
    if int(avatar.binding.max()) >= len(faces):
        raise DataFileError(
            f"{source.gaussians} is bound to triangle {int(avatar.binding.max())} of a mesh that has {len(faces)}; "
            "it was made with another mesh"
        )
    ours = faces[avatar.binding]
    kept = ours >= 0
    return replace(avatar.select(kept), binding=ours[kept]), int((~kept).sum())


def _groups_by_region(rig: Rig, binding: Tensor) -> Tensor:
    groups = torch.full((len(rig.faces),), int(Group.SKIN))
    for name, group in REGION_GROUPS.items():
        groups[rig.regions[name]] = int(group)
    return groups[binding]


def _facts(
    source: AvatarSource, avatar: GaussianAvatar, rig: Rig, historic: bool, sha256: str, notes: list[str]
) -> dict[str, object]:
    program = "GaussianAvatars" if source.from_gaussian_avatars else "AnimPortrait3D"
    return {
        "schema_version": SCHEMA_VERSION,
        "ap3d_version": __version__,
        "prompt": "",
        "imported": {"program": program, "file": source.gaussians.name, "sha256": sha256, "notes": notes},
        "rig": rig.name,
        "topology_sha256": rig.topology_sha256,
        "expression_basis": rig.expression_basis,
        "rotation_order": HISTORIC_ORDER if historic else ORDER,
        "winding": None if source.from_gaussian_avatars else REVERSED,
        "sh_degree": avatar.sh_degree,
        "triangles": 1,
        "groups": group_counts(avatar),
        "metrics": {},
        "licences": {"rig": rig.licence, "avatar": f"as its authors gave it; made with {program}"},
    }
