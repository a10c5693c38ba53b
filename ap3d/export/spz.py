"""SPZ, version 3: compressed Gaussians after Niantic's published format (github.com/nianticlabs/spz).

A gzip stream of a 16-byte header and, attribute by attribute: positions as 24-bit fixed point, opacities, colours and
log scales in 8 bits, the three smaller parts of the quaternions in 10 bits each, and harmonics in 8 bits of which 5
(first degree) or 4 are used. Axes: x right, y up, z to the viewer.
"""

import gzip
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ap3d.errors import DataFileError, InputError
from ap3d.raster.splats import Splats

_HEADER = struct.Struct("<IIIBBBB")  # magic, version, count, degree, fractional bits, flags, reserved
_MAGIC = 0x5053474E
_VERSION = 3
_FRACTIONAL_BITS = 12
_COLOR_SCALE = 0.15  # colours leave room for constant terms that higher bands bring back into range
_MOST = 10_000_000  # Gaussians that other readers accept


def write(splats: Splats, notes: Mapping[str, Any] | None = None) -> bytes:
    """The Gaussians as an SPZ file.

    Raises:
        InputError: a position is too far out for 24 bits.
    """
    array = lambda t: t.detach().numpy().astype(np.float32)  # noqa: E731
    fixed = np.round(array(splats.means).astype(np.float64) * (1 << _FRACTIONAL_BITS)).astype(np.int64)
    if len(splats) and np.abs(fixed).max() >= 1 << 23:
        raise InputError("a Gaussian lies more than 2047 units out, which SPZ cannot hold")
    header = _HEADER.pack(_MAGIC, _VERSION, len(splats), splats.sh_degree, _FRACTIONAL_BITS, 0, 0)
    parts = [
        fixed.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3],
        np.minimum(_byte(array(splats.opacities) * 255), 254),  # 255 is an infinite logit to other readers
        _byte(array(splats.sh[:, 0]) * (_COLOR_SCALE * 255) + 127.5),
        _byte((np.log(np.maximum(array(splats.scales), 1e-9)) + 10) * 16),
        _packed_quaternions(array(splats.quaternions)),
        _packed_harmonics(array(splats.sh[:, 1:])),
    ]
    # Time 0 keeps equal avatars equal files.
    return gzip.compress(header + b"".join(p.tobytes() for p in parts), compresslevel=6, mtime=0)


def read(data: bytes) -> Splats:
    """The Gaussians of a file of version 2 or 3.

    Raises:
        DataFileError: damaged, of another version, or larger than it says.
    """
    stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        head = stream.decompress(data, _HEADER.size)
        magic, version, count, degree, bits, _, _ = _HEADER.unpack(head)
        widths = {"position": 9, "alpha": 1, "color": 3, "scale": 3, "rotation": 4 if version == 3 else 3}
        widths["harmonics"] = 3 * ((degree + 1) ** 2 - 1)
        if magic != _MAGIC or version not in (2, 3) or count > _MOST or degree > 3 or bits > 23:
            raise DataFileError("this is not an SPZ file of version 2 or 3 with harmonics up to degree 3")
        size = count * sum(widths.values())
        body = stream.decompress(stream.unconsumed_tail, size) if size else b""
        whole = bool(stream.decompress(stream.unconsumed_tail, 1)) or stream.eof  # at its end the checksum is verified
    except (zlib.error, struct.error) as error:
        raise DataFileError(f"this is not an SPZ file, or it is damaged: {error}") from None
    if len(body) < size or not whole:
        raise DataFileError(f"this SPZ file is cut off: {len(body)} of {size} bytes of data")
    columns, start = {}, 0
    for name, width in widths.items():
        columns[name] = np.frombuffer(body, np.uint8, count * width, start).reshape(count, width)
        start += count * width
    return _unpacked(columns, bits)


def _unpacked(columns: dict[str, np.ndarray], bits: int) -> Splats:
    count = len(columns["alpha"])
    fixed = np.zeros((count * 3, 4), np.uint8)
    fixed[:, 1:] = columns["position"].reshape(-1, 3)  # in the upper bytes, so that a shift extends the sign
    means = (fixed.view("<i4")[:, 0] >> 8).reshape(count, 3) / float(1 << bits)
    color = (columns["color"] / 255 - 0.5) / _COLOR_SCALE
    rest = (columns["harmonics"].reshape(count, -1, 3) - 128.0) / 128
    quaternions = _smallest_three if columns["rotation"].shape[1] == 4 else _first_three
    tensor = lambda a: torch.from_numpy(np.ascontiguousarray(a, np.float32))  # noqa: E731
    return Splats(
        means=tensor(means),
        quaternions=tensor(quaternions(columns["rotation"])),
        scales=tensor(np.exp(columns["scale"] / 16 - 10)),
        opacities=tensor(columns["alpha"][:, 0] / 255),
        sh=tensor(np.concatenate([color[:, None], rest], 1)),
    )


def _byte(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _packed_quaternions(quaternions: np.ndarray) -> np.ndarray:
    """``[N]`` uint32: index of the largest of x, y, z, w in 2 bits, then sign and 9 bits of each of the others."""
    q = np.roll(quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True), -1, 1)
    largest = np.abs(q).argmax(1)
    q = q * np.where(q[np.arange(len(q)), largest] < 0, -1, 1)[:, None]
    packed = largest.astype(np.uint32)
    magnitude = np.minimum(np.abs(q) * (511 * 2**0.5) + 0.5, 511).astype(np.uint32)
    field = magnitude | ((q < 0).astype(np.uint32) << np.uint32(9))
    for part in range(4):
        packed = np.where(largest == part, packed, (packed << np.uint32(10)) | field[:, part])
    return packed.astype("<u4")


def _smallest_three(stored: np.ndarray) -> np.ndarray:
    """Quaternions ``[N, 4]`` w x y z of version 3."""
    packed = np.ascontiguousarray(stored).view("<u4")[:, 0]
    largest = packed >> 30
    q = np.zeros((len(packed), 4))
    for part in (3, 2, 1, 0):
        value = (packed & 511) / (511 * 2**0.5) * np.where(packed & 512, -1, 1)
        here = largest == part
        q[:, part] = np.where(here, 0, value)
        packed = np.where(here, packed, packed >> 10)
    q[np.arange(len(q)), largest] = np.sqrt(np.maximum(1 - (q * q).sum(1), 0))
    return np.roll(q, 1, 1)


def _first_three(stored: np.ndarray) -> np.ndarray:
    """Quaternions ``[N, 4]`` w x y z of version 2."""
    xyz = stored / 127.5 - 1
    return np.concatenate([np.sqrt(np.maximum(1 - (xyz * xyz).sum(1, keepdims=True), 0)), xyz], 1)


def _packed_harmonics(rest: np.ndarray) -> np.ndarray:
    """``[N, K - 1, 3]`` in -1 to 1 as 8 bits, rounded to multiples of 8 (first degree) or 16: they compress better."""
    step = np.where(np.arange(rest.shape[1]) < 3, 8, 16)[:, None]
    levels = np.round(rest * 128) + 128
    return np.clip(np.floor((levels + step // 2) / step) * step, 0, 255).astype(np.uint8)
