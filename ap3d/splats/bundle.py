"""The avatar bundle: what a user keeps, a folder or one zip with ``avatar.json`` and the files that it names."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ap3d.bundle_files import open_files, write_files
from ap3d.errors import DataFileError, InputError
from ap3d.export import FORMATS, ply
from ap3d.export.axes import to_file
from ap3d.raster.splats import Splats
from ap3d.rig import load_rig
from ap3d.rig.protocol import Rig, RigParams
from ap3d.splats.avatar import GaussianAvatar
from ap3d.splats.facts import BINDING_FILE, HISTORIC_ORDER, REVERSED, check_facts, facts_bytes, named_files
from ap3d.splats.frames import TriangleFrames, triangle_frames
from ap3d.splats.ply import read_binding, read_local, write_binding, write_local
from ap3d.tensor_files import pack_tensors, unpack_tensors

_FARTHEST = 1e6  # world units, in which a head is about 0.8 high


def bundle_frames(facts: Mapping[str, Any], rig: Rig, params: RigParams) -> TriangleFrames:
    """The frames of a rig's triangles at a pose (a batch of one), as a bundle's facts want them."""
    faces = rig.faces[:, [0, 2, 1]] if facts.get("winding") == REVERSED else rig.faces
    return triangle_frames(rig.vertices(params)[0], faces)


def neutral_frames(facts: Mapping[str, Any], rig: Rig, params: RigParams, name: str) -> TriangleFrames:
    """The frames at an avatar's own parameters, read from the file ``name``.

    Raises:
        DataFileError: no head has such parameters.
    """
    frames = bundle_frames(facts, rig, params)
    reach = float(frames.origin.abs().max())  # not a number where a vertex is none
    if not (reach < _FARTHEST and float(params.scale.min()) > 0 and bool(frames.rotation.isfinite().all())):
        raise DataFileError(f"{name} holds parameters that no head has")
    return frames


@dataclass(frozen=True)
class Bundle:
    """A loaded avatar, ready to be posed.

    Attributes:
        facts: content of ``avatar.json``.
        avatar: the Gaussians.
        params: the fitted rig at its neutral pose, a batch of one.
        rig: the morphable model.
        neutral: triangle frames at the neutral pose.
    """

    facts: Mapping[str, Any]
    avatar: GaussianAvatar
    params: RigParams
    rig: Rig
    neutral: TriangleFrames = field(repr=False)

    @staticmethod
    def open(path: str, rig: "Rig | str | None" = None) -> "Bundle":
        """Read a bundle's folder or zip, on any storage; see :func:`load_bundle`."""
        return load_bundle(path, rig)

    @property
    def historic_rotation(self) -> bool:
        """Whether quaternions are composed as AnimPortrait3D's released avatars expect."""
        return bool(self.facts.get("rotation_order") == HISTORIC_ORDER)

    def pose(self, params: RigParams) -> Splats:
        """World Gaussians at a pose (a batch of one) of this avatar's rig."""
        frames = bundle_frames(self.facts, self.rig, params)
        return self.avatar.pose(frames, self.neutral, historic_rotation=self.historic_rotation)

    @property
    def background(self) -> Tensor:
        """A light grey ``[3]`` that pictures of the avatar stand on."""
        return torch.tensor([0.92, 0.92, 0.93])

    def files(self) -> dict[str, bytes]:
        """The files that hold the avatar itself, ``avatar.json`` last; pictures and videos come from elsewhere."""
        # Nothing has turned since the neutral pose, so the harmonics hold in world axes.
        still = replace(self.pose(self.params), view_rotations=None)
        files = {
            "splats.ply": write_local(self.avatar),
            "rig.safetensors": pack_tensors(self.params.tensors()),
            "world.ply": ply.write(to_file(still, FORMATS["ply"].axes)),
        }
        if self.avatar.extra_binding.shape[1]:
            files[BINDING_FILE] = write_binding(self.avatar)
        return files | {"avatar.json": facts_bytes(self.facts)}

    def save(self, path: str, others: Mapping[str, bytes] | None = None) -> None:
        """Write a folder, or one zip where the name ends in ``.zip``; a zip appears whole or not at all.

        Args:
            path: folder or zip, local or an fsspec URL.
            others: pictures and videos by name.

        Raises:
            RunError: the storage refuses.
        """
        write_files(path, {**(others or {}), **self.files()})


def load_bundle(path: str, rig: "Rig | str | None" = None) -> Bundle:
    """Read a bundle's folder or zip.

    Args:
        path: folder or zip, local or an fsspec URL.
        rig: the rig, or what :func:`ap3d.rig.load_rig` takes, where it is not to be found by the bundle's own name.

    Raises:
        DataFileError: a file is missing, damaged, of a newer schema, or made for another rig.
    """
    files = open_files(path)
    if not files.exists("avatar.json"):
        raise DataFileError(f"{path} is not an avatar bundle: it holds no avatar.json")
    facts = files.read_json("avatar.json")
    check_facts(facts, path)
    for name in named_files(facts):
        if not files.exists(name):
            raise DataFileError(f"{path} is not whole: {name} is missing")
    loaded = _rig_of(facts, path, rig)
    try:
        params = _read_params(files.read_bytes("rig.safetensors"), loaded)
        avatar = read_local(files.read_bytes("splats.ply"))
        if BINDING_FILE in named_files(facts):
            avatar = read_binding(files.read_bytes(BINDING_FILE), avatar)
    except DataFileError as error:
        raise DataFileError(f"{path} is damaged: {error}") from error
    _check_triangles(avatar, loaded, path)
    return Bundle(facts, avatar, params, loaded, neutral_frames(facts, loaded, params, f"{path}/rig.safetensors"))


def _rig_of(facts: Mapping[str, Any], path: str, given: "Rig | str | None") -> Rig:
    try:
        rig = load_rig(given or facts["rig"]) if given is None or isinstance(given, str) else given
    except InputError as error:
        raise type(error)(f"{path} needs rig {facts['rig']}: {error}") from error
    if rig.name != facts["rig"]:  # FLAME's years share one topology
        raise InputError(f"{path} was made for rig {facts['rig']}, not {rig.name}")
    if rig.topology_sha256 != facts["topology_sha256"]:
        raise DataFileError(
            f"{path} was made for another version of rig {facts['rig']}: its topology is "
            f"{facts['topology_sha256'][:12]}, that of {rig.name} here {rig.topology_sha256[:12]}"
        )
    return rig


def _check_triangles(avatar: GaussianAvatar, rig: Rig, path: str) -> None:
    for ids in (avatar.binding, avatar.extra_binding):
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < len(rig.faces):
            raise DataFileError(f"{path} is bound to triangles that rig {rig.name} does not have")


def _read_params(data: bytes, rig: Rig) -> RigParams:
    tensors = unpack_tensors(data, "rig.safetensors")
    shapes = {name: tuple(value.shape) for name, value in RigParams.neutral(rig).tensors().items()}
    if {name: tuple(value.shape) for name, value in tensors.items()} != shapes:
        raise DataFileError(f"rig.safetensors does not hold the parameters of rig {rig.name}")
    if not all(v.dtype == torch.float32 and bool(torch.isfinite(v).all()) for v in tensors.values()):
        raise DataFileError("rig.safetensors holds values that are not finite float32 numbers")
    return RigParams(**tensors)
