"""The triangle-local Gaussian PLY of a bundle; ``ap3d.export.ply`` has the one that 3DGS viewers open."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ap3d.errors import DataFileError
from ap3d.splats.avatar import GaussianAvatar, Group
from ap3d.splats.ply_table import read_table, write_table
from ap3d.splats.posing import MAXIMUM_TRIANGLES
from ap3d.tensor_files import pack_tensors, unpack_tensors

MASKS = {
    "hair_points_mask": Group.HAIR,
    "clothes_points_mask": Group.CLOTHES,
    "smplx_points_mask": Group.SKIN,
    "teeth_points_mask": Group.TEETH,
    "eye_region_points_mask": Group.EYES,
}
_COMMON = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2"]
_SHAPE = ["opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]


def write_local(avatar: GaussianAvatar) -> bytes:
    """The triangle-local PLY in AnimPortrait3D's property order; ``f_rest`` channel-major, as many as are kept."""
    rest = avatar.f_rest.detach().transpose(1, 2).flatten(1)
    masks = torch.stack([avatar.group == int(g) for g in MASKS.values()], 1).float()
    columns = [avatar.xyz, avatar.f_dc, rest, avatar.opacity, avatar.scaling, avatar.rotation]
    table = torch.cat([*(c.detach() for c in columns), avatar.binding[:, None].float(), masks], 1)
    names = [*_COMMON, *(f"f_rest_{i}" for i in range(rest.shape[1])), *_SHAPE, "binding_0", *MASKS]
    return write_table(table.numpy(), names)


def read_local(data: bytes) -> GaussianAvatar:
    """The avatar of a triangle-local PLY; properties that it does not need are ignored.

    Raises:
        DataFileError: not such a file, without one of its properties, or with values that are not finite.
    """
    vertex = read_table(data)
    names = set(vertex)
    missing = set(_COMMON + _SHAPE + ["binding_0"]) - names
    if missing:
        raise DataFileError(f"this PLY is not bound to a rig: it lacks {', '.join(sorted(missing))}")
    column = lambda *n: torch.from_numpy(np.stack([np.asarray(vertex[k], np.float32) for k in n], 1))  # noqa: E731
    rest = [f"f_rest_{i}" for i in range(sum(n.startswith("f_rest_") for n in names))]
    if len(rest) not in (0, 9, 24, 45) or set(rest) - names:
        raise DataFileError("this PLY's f_rest properties must be numbered from 0 and 0, 9, 24 or 45 in number")
    if not (count := len(vertex["x"])):
        raise DataFileError("this PLY holds no Gaussian")
    f_rest = column(*rest).reshape(count, 3, -1).transpose(1, 2).contiguous() if rest else torch.zeros(count, 0, 3)
    group = torch.zeros(count, dtype=torch.int64)
    for name, value in MASKS.items():
        if name in names:
            group[column(name)[:, 0] > 0.5] = int(value)
    xyz, scaling = column("x", "y", "z"), column("scale_0", "scale_1", "scale_2")
    avatar = GaussianAvatar(
        xyz, column("rot_0", "rot_1", "rot_2", "rot_3"), scaling, column("opacity"),
        column("f_dc_0", "f_dc_1", "f_dc_2"), f_rest, _triangles(column("binding_0")[:, 0]), group,
        xyz.clone(), scaling.clone(),
    )  # fmt: skip
    for name, values in avatar.parameters().items():
        if not bool(torch.isfinite(values).all()):
            raise DataFileError(f"this PLY holds values that are not finite ({name})")
    return avatar


def _triangles(values: Tensor) -> Tensor:
    if not bool(((values >= 0) & (values < 1 << 24) & (values == values.floor())).all()):
        raise DataFileError("this PLY's binding_0 must hold triangle indices")
    return values.long()


def write_binding(avatar: GaussianAvatar) -> bytes:
    """``binding.safetensors``: ``triangles [N, K]`` and ``weights [N, K]``, strongest first."""
    weights = torch.cat([1 - avatar.extra_weights.sum(1, keepdim=True), avatar.extra_weights], 1)
    triangles = torch.cat([avatar.binding[:, None], avatar.extra_binding], 1)
    return pack_tensors({"triangles": triangles.int(), "weights": weights})


def read_binding(data: bytes, avatar: GaussianAvatar) -> GaussianAvatar:
    """The avatar with the further triangles of a ``binding.safetensors``.

    Raises:
        DataFileError: not such a file, or that of another avatar.
    """
    tensors = unpack_tensors(data, "binding.safetensors")
    if set(tensors) != {"triangles", "weights"}:
        raise DataFileError("binding.safetensors must hold triangles and weights")
    triangles, weights = tensors["triangles"].long(), tensors["weights"].float()
    count = triangles.shape[1] if triangles.ndim == 2 else 0
    if triangles.shape != weights.shape or len(triangles) != len(avatar) or not 1 <= count <= MAXIMUM_TRIANGLES:
        raise DataFileError(
            f"binding.safetensors must be [{len(avatar)}, 1 to {MAXIMUM_TRIANGLES}], got {list(triangles.shape)} "
            f"triangles and {list(weights.shape)} weights"
        )
    sums = weights.sum(1)
    if not bool((weights >= 0).all()) or not bool(((sums - 1).abs() < 1e-3).all()):
        raise DataFileError("the weights in binding.safetensors must not be negative and must have sums of 1")
    if not torch.equal(triangles[:, 0], avatar.binding):
        raise DataFileError("binding.safetensors belongs to another splats.ply: the strongest triangles differ")
    return replace(avatar, extra_binding=triangles[:, 1:].contiguous(), extra_weights=weights[:, 1:].contiguous())
