"""Files from outside: of limited size, numpy's without objects and never more than the file itself can hold."""

import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO

import numpy as np

from ap3d.errors import DataFileError

LARGEST_BYTES = 1 << 29  # of one file, and of an archive when it is unpacked
# What numpy and zipfile raise on damaged files.
_BROKEN = (
    ValueError, TypeError, KeyError, SyntaxError, EOFError, OSError, RuntimeError, OverflowError, MemoryError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_limited(path: Path, largest: int, advice: str) -> bytes:
    """A file's content.

    Raises:
        DataFileError: it cannot be read, or has more than ``largest`` bytes, which ``advice`` says what to do about.
    """
    try:
        if (size := path.stat().st_size) > largest:
            raise DataFileError(f"{path} has {size:,} bytes, more than {largest:,}: {advice}")
        return path.read_bytes()
    except OSError as error:
        raise DataFileError(f"cannot read {path}: {error.strerror}") from error


def read_npy(data: bytes, name: str) -> np.ndarray:
    """The array of a ``.npy`` file.

    Raises:
        DataFileError: damaged, an array of objects, or larger than it is allowed to be.
    """
    return _read(io.BytesIO(data), len(data), name)


def read_npz(
    data: bytes, name: str, *, keys: Collection[str] | None = None, largest: int | None = None
) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` file by key; arrays of objects are left out.

    Args:
        data: the file's content.
        name: for messages.
        keys: the arrays that are wanted, those that are there; these must not hold objects. All by default.
        largest: bytes that they may take unpacked, :data:`LARGEST_BYTES` by default.

    Raises:
        DataFileError: damaged, or larger than it is allowed to be when unpacked.
    """
    largest = LARGEST_BYTES if largest is None else largest
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {m.filename.removesuffix(".npy"): m for m in archive.infolist() if m.filename.endswith(".npy")}
            wanted = {k: m for k, m in members.items() if keys is None or k in keys}
            if sum(m.file_size for m in wanted.values()) > largest:
                raise DataFileError(f"{name} unpacks to more than {largest >> 20} MiB")
            out: dict[str, np.ndarray] = {}
            for key, member in wanted.items():
                with archive.open(member) as file:
                    if keys is not None or not _holds_objects(file):
                        file.seek(0)
                        out[key] = _read(file, member.file_size, f"{key} of {name}")
            return out
    except _BROKEN as error:
        raise DataFileError(f"{name} is damaged or no npz file ({_reason(error)})") from error


def numbers(array: np.ndarray, name: str) -> np.ndarray:
    """The array as float32.

    Raises:
        DataFileError: it holds no real numbers.
    """
    if array.dtype.kind not in "fiub":
        raise DataFileError(f"{name} holds {array.dtype}, not numbers")
    with np.errstate(over="ignore"):
        return np.asarray(array, dtype=np.float32)


def rows(array: np.ndarray, name: str) -> np.ndarray:
    """The array as float32 ``[T, N]``: one row of a vector, joints ``[T, J, 3]`` in a row.

    Raises:
        DataFileError: it holds no real numbers, or is a single one.
    """
    value = numbers(array, name)
    if not value.ndim:
        raise DataFileError(f"{name} is a single number, not frames and columns")
    return value[None] if value.ndim == 1 else value.reshape(len(value), math.prod(value.shape[1:]))


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _holds_objects(file: IO[bytes]) -> bool:
    try:
        return bool(_header(file)[1].hasobject)
    except _BROKEN:
        return False  # reading it says what is wrong


def _read(file: IO[bytes], size: int, name: str) -> np.ndarray:
    try:
        shape, dtype = _header(file)
        if dtype.hasobject:
            raise DataFileError(f"{name} is an array of Python objects, which are never read; save plain numbers")
        if math.prod(shape) * dtype.itemsize > size:
            raise DataFileError(f"{name} is cut off: it declares {list(shape)}, more than the file holds")
        file.seek(0)
        return np.asarray(np.load(file, allow_pickle=False))
    except _BROKEN as error:
        raise DataFileError(f"{name} is damaged or no npy array ({_reason(error)})") from error


def _reason(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
