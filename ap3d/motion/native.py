"""Our own motion file: an npz with the fields of :class:`Motion` under their names."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ap3d.array_files import numbers
from ap3d.errors import DataFileError, InputError
from ap3d.motion.schema import POSE_WIDTHS, Motion
from ap3d.motion.source import Source

SCHEMA_VERSION = 1
_KEY = "ap3d_motion"  # holds the schema version and marks the format


def matches(source: Source) -> bool:
    """Whether the archive carries our mark."""
    return _KEY in source.arrays


def write_native(motion: Motion) -> bytes:
    """The content of an ``.npz`` that :func:`read_native` reads back unchanged."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {name: value.detach().numpy() for name, value in motion.tensors().items()}
    arrays |= {_KEY: SCHEMA_VERSION, "fps": motion.fps, "basis": motion.expression_basis}
    np.savez_compressed(buffer, names=np.array(motion.expression_names, dtype=np.str_), **arrays)
    return buffer.getvalue()


def save_native(motion: Motion, path: str | Path) -> None:
    """Write a motion to a local file."""
    try:
        Path(path).write_bytes(write_native(motion))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def read_native(source: Source) -> Motion:
    """Read what :func:`write_native` wrote; the file's own basis and rate stand.

    Raises:
        DataFileError: a field is missing or of another kind, or the schema is newer.
    """
    arrays, name = source.arrays, source.name
    missing = [k for k in ("expression", "fps", "basis", *POSE_WIDTHS) if k not in arrays]
    if missing:
        raise DataFileError(f"{name} is no whole ap3d motion: it lacks {', '.join(missing)}")
    mark = arrays[_KEY]
    if mark.size != 1 or mark.dtype.kind not in "iu":
        raise DataFileError(f"{name} has no motion schema: {_KEY} must be one whole number")
    if (version := int(mark.reshape(-1)[0])) > SCHEMA_VERSION:
        raise DataFileError(f"{name} has motion schema {version}, this version reads up to {SCHEMA_VERSION}")
    tensors = {k: torch.from_numpy(numbers(arrays[k], f"{k} of {name}")) for k in ("expression", *POSE_WIDTHS)}
    names = tuple(str(n) for n in arrays.get("names", np.zeros(0, np.str_)).reshape(-1))
    if arrays["fps"].size != 1 or arrays["fps"].dtype.kind not in "fiu":
        raise DataFileError(f"fps of {name} must be one number")
    still = Motion.still(1, float(arrays["fps"].reshape(-1)[0]), str(arrays["basis"]))
    return still.with_tensors(tensors, expression_names=names)
