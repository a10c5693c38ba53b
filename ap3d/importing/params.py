"""The rig's parameters as GaussianAvatars and AnimPortrait3D store them."""

import io
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ap3d.array_files import numbers, read_npz
from ap3d.errors import DataFileError
from ap3d.rig.protocol import Rig, RigParams
from ap3d.rig.unpickling import read_array_pickle

# AnimPortrait3D's names of our parameters.
FITTED = {
    "shape": "fitted_shape", "expression": "fitted_expr", "neck": "fitted_neck_pose", "head": "fitted_head_pose",
    "jaw": "fitted_jaw_pose", "eyes": "fitted_eyes_pose", "eyelids": "fitted_eyelid_params",
    "scale": "fitted_global_scale", "translation": "fitted_global_translation",
}  # fmt: skip
LARGEST_PICKLE = 64 << 20


def read_fitted_params(data: bytes, rig: Rig, name: str) -> RigParams:
    """Parameters of a ``fitted_params.pkl``; missing eyelids and eyes are zero.

    Raises:
        DataFileError: damaged, hostile, or without a parameter.
    """
    values = _unpickled(data, name)
    neutral = RigParams.neutral(rig).tensors()
    out = {}
    for ours, theirs in FITTED.items():
        if theirs not in values and ours not in ("eyes", "eyelids"):
            raise DataFileError(f"{name} lacks {theirs}; it is no fitted_params.pkl of AnimPortrait3D")
        out[ours] = _row(values.get(theirs, neutral[ours]), neutral[ours], f"{theirs} in {name}")
    return RigParams(**out)


def read_flame_params(data: bytes, rig: Rig, name: str) -> tuple[RigParams, float]:
    """The person's shape in a ``flame_param.npz``, at our neutral pose, and its largest static offset in metres.

    Raises:
        DataFileError: damaged, or without a shape.
    """
    arrays = read_npz(data, name)
    if "shape" not in arrays:
        raise DataFileError(f"{name} lacks shape; it is no flame_param.npz of GaussianAvatars")
    neutral = RigParams.neutral(rig)
    shape = _row(arrays["shape"], neutral.shape, f"shape in {name}")
    offsets = numbers(arrays.get("static_offset", np.zeros((1, 1, 3))), f"static_offset in {name}")
    if not np.isfinite(offsets).all() or offsets.shape[-1:] != (3,) or not offsets.size:
        raise DataFileError(f"static_offset in {name} must be finite numbers of shape [1, V, 3]")
    return neutral.replace(shape=shape), float(np.linalg.norm(offsets, axis=-1).max())


def _unpickled(data: bytes, name: str) -> Mapping[str, Any]:
    """What ``torch.save`` or ``pickle.dump`` wrote, read without running anything that it names."""
    if len(data) > LARGEST_PICKLE:
        raise DataFileError(f"{name} has {len(data):,} bytes, more than parameters of a rig take")
    if data[:2] != b"PK":
        return read_array_pickle(data, name)
    try:
        loaded = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        if isinstance(loaded, Mapping):
            return loaded
    except Exception:  # numpy arrays, which weights_only does not take; the reader below decides
        pass
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            inner = [m for m in archive.infolist() if m.filename.endswith("/data.pkl")]
            if len(inner) != 1 or inner[0].file_size > LARGEST_PICKLE:
                raise DataFileError(f"{name} is not a file of torch.save that holds parameters")
            return read_array_pickle(archive.read(inner[0]), name)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise DataFileError(f"{name} is damaged: {error}") from error


def _row(value: Any, like: Tensor, name: str) -> Tensor:
    """A parameter as a batch of one; fewer coefficients than the rig has are padded with zeros."""
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    row = torch.from_numpy(numbers(array, name).reshape(1, -1).copy())
    coefficients = like.shape[1] >= 50
    if row.shape[1] > like.shape[1] or (row.shape[1] < like.shape[1] and not coefficients):
        raise DataFileError(f"{name} must hold {like.shape[1]} numbers, got {row.shape[1]}")
    if not bool(torch.isfinite(row).all()):
        raise DataFileError(f"{name} holds values that are not finite")
    return torch.nn.functional.pad(row, (0, like.shape[1] - row.shape[1]))
