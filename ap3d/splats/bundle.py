"""The avatar bundle: what a user keeps, a folder with ``avatar.json`` and the files that it names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ap3d.errors import DataFileError
from ap3d.raster.splats import Splats
from ap3d.rig import load_rig
from ap3d.rig.protocol import Rig, RigParams
from ap3d.splats.avatar import GaussianAvatar
from ap3d.splats.facts import check_facts
from ap3d.splats.frames import TriangleFrames, triangle_frames
from ap3d.splats.ply import read_local
from ap3d.storage import Store
from ap3d.tensor_files import unpack_tensors


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
    neutral: TriangleFrames

    def pose(self, params: RigParams) -> Splats:
        """World Gaussians at a pose (a batch of one) of this avatar's rig."""
        frames = triangle_frames(self.rig.vertices(params)[0], self.rig.faces)
        historic = self.facts.get("rotation_order") == "local*triangle"
        return self.avatar.pose(frames, self.neutral, historic_rotation=historic)

    @property
    def background(self) -> Tensor:
        """A light grey ``[3]`` that pictures of the avatar stand on."""
        return torch.tensor([0.92, 0.92, 0.93])


def load_bundle(path: str) -> Bundle:
    """Read a bundle's folder.

    Raises:
        DataFileError: a file is missing, damaged, of a newer schema, or made for another rig.
    """
    store = Store(path)
    if not store.exists("avatar.json"):
        raise DataFileError(f"{path} is not an avatar bundle: it holds no avatar.json")
    facts = store.read_json("avatar.json")
    check_facts(facts, path)
    rig = load_rig(facts["rig"])
    if rig.topology_sha256 != facts["topology_sha256"]:
        raise DataFileError(f"{path} was made for another version of rig {facts['rig']}")
    params = _read_params(store, rig)
    avatar = read_local(store.read_bytes("splats.ply"))
    if not len(avatar) or int(avatar.binding.max()) >= len(rig.faces) or int(avatar.binding.min()) < 0:
        raise DataFileError(f"{path}/splats.ply is bound to triangles that rig {facts['rig']} does not have")
    neutral = triangle_frames(rig.vertices(params)[0], rig.faces)
    return Bundle(facts, avatar, params, rig, neutral)


def _read_params(store: Store, rig: Rig) -> RigParams:
    tensors = unpack_tensors(store.read_bytes("rig.safetensors"), "rig.safetensors")
    shapes = {name: tuple(value.shape) for name, value in RigParams.neutral(rig).tensors().items()}
    if {name: tuple(value.shape) for name, value in tensors.items()} != shapes:
        raise DataFileError(f"{store.root}/rig.safetensors does not hold the parameters of rig {rig.name}")
    return RigParams(**tensors)
