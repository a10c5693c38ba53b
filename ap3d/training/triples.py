"""Training data of a ControlNet: pictures, their condition images and captions, in Parquet or WebDataset shards.

Parquet rows hold ``image`` (an encoded picture), ``condition`` (an encoded picture, or the bytes of a uint8 ``.npy``
``[H, W, C]`` where there are more than four channels) and ``caption``; pictures may be structs with a field ``bytes``.
Tar members are named ``KEY.jpg`` (or png, webp), ``KEY.condition.png`` (or npy) and ``KEY.txt``.

What cannot be read is named, skipped and counted; too much of it is refused.
"""

import io
import tarfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import fsspec
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ap3d.errors import DataFileError, InputError

MAXIMUM_PIXELS, MAXIMUM_BYTES = 4096 * 4096, 64 * 2**20
_RESIDENT_UNITS = 2  # row groups or tars that are kept in memory
_PICTURES = ("jpg", "jpeg", "png", "webp")
_FIELDS = {
    **dict.fromkeys((*_PICTURES, *(f"image.{p}" for p in _PICTURES)), "image"),
    **dict.fromkeys(("condition.png", "condition.webp", "condition.npy"), "condition"),
    **dict.fromkeys(("txt", "caption.txt"), "caption"),
}
Raw = Mapping[str, Any]


@dataclass(frozen=True)
class _Unit:
    """A row group of a Parquet file or a whole tar: what is read at once."""

    name: str
    rows: int
    read: Callable[[], list[Raw]]


@dataclass
class Triples:
    """Rows of all shards below a folder (or of one file), by number.

    Args:
        uri: a folder with ``*.parquet`` or ``*.tar``, or one such file; any fsspec URI.
        size: pixels of a square picture; others are resized.
        channels: of the condition.
        bad_share: refuse when more of the shards, or of the rows, are unreadable.

    Raises:
        InputError: there are no shards.
        DataFileError: too many are unreadable.
    """

    uri: str
    size: int
    channels: int
    bad_share: float = 0.1
    bad_shards: dict[str, str] = field(default_factory=dict, init=False)
    bad_rows: dict[int, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        shards = _shards(self.uri)
        self._units: list[_Unit] = []
        for shard in shards:
            try:
                self._units += (_parquet_units if shard.endswith(".parquet") else _tar_units)(shard)
            except Exception as error:  # pyarrow, tarfile and file systems have many
                self.bad_shards[shard] = _reason(error)
        if len(self.bad_shards) > self.bad_share * len(shards):
            name, reason = next(iter(self.bad_shards.items()))
            raise DataFileError(
                f"{len(self.bad_shards)} of {len(shards)} shards in {self.uri!r} cannot be read, "
                f"such as {name}: {reason}"
            )
        self._starts = np.cumsum([0, *(unit.rows for unit in self._units)])
        if not len(self):
            raise InputError(f"the shards in {self.uri!r} hold no rows")
        self._cache: OrderedDict[int, list[Raw]] = OrderedDict()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def order(self, epoch: int, seed: int) -> NDArray[np.int64]:
        """All rows in the random order of one epoch; rows of a row group or tar stay together."""
        rng = np.random.default_rng((seed, epoch))
        parts = [rng.permutation(np.arange(*self._starts[i : i + 2])) for i in rng.permutation(len(self._units))]
        return np.concatenate(parts)

    def batch(self, rows: Sequence[int]) -> tuple[Tensor, Tensor, list[str]]:
        """Pictures ``[B, 3, S, S]`` and conditions ``[B, C, S, S]`` in 0..1, and captions.

        A row that cannot be read is replaced by the next one that can.

        Raises:
            DataFileError: too many rows are bad.
        """
        found = [self._good(int(row)) for row in rows]
        return torch.stack([f[0] for f in found]), torch.stack([f[1] for f in found]), [f[2] for f in found]

    def _good(self, row: int) -> tuple[Tensor, Tensor, str]:
        for candidate in range(row, row + len(self)):
            number = candidate % len(self)
            if number in self.bad_rows:
                continue
            try:
                return self._decoded(number)
            except (DataFileError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                self._refuse(number, _reason(error))
        raise DataFileError(f"no row of {self.uri!r} can be read")

    def _refuse(self, number: int, reason: str) -> None:
        self.bad_rows[number] = reason
        if len(self.bad_rows) > self.bad_share * len(self):
            raise DataFileError(
                f"{len(self.bad_rows)} of {len(self)} rows in {self.uri!r} cannot be used, "
                f"such as {self.place(number)}: {reason}"
            )

    def place(self, number: int) -> str:
        """Where a row lies, for messages."""
        unit = int(np.searchsorted(self._starts, number, "right")) - 1
        return f"{self._units[unit].name}, row {number - int(self._starts[unit])}"

    def _decoded(self, number: int) -> tuple[Tensor, Tensor, str]:
        unit = int(np.searchsorted(self._starts, number, "right")) - 1
        raw = self._load(unit)[number - int(self._starts[unit])]
        if raw.get("error"):
            raise DataFileError(str(raw["error"]))
        missing = [name for name in ("image", "condition", "caption") if raw.get(name) is None]
        if missing:
            raise DataFileError(f"without {' and '.join(missing)}")
        caption = raw["caption"]
        text = caption.decode("utf-8") if isinstance(caption, bytes) else str(caption)
        return self._picture(raw["image"], 3), self._picture(raw["condition"], self.channels), " ".join(text.split())

    def _load(self, unit: int) -> list[Raw]:
        if unit not in self._cache:
            try:
                self._cache[unit] = self._units[unit].read()
            except Exception as error:  # a damaged row group; each of its rows is then bad
                self._cache[unit] = [{"error": _reason(error)}] * self._units[unit].rows
            while len(self._cache) > _RESIDENT_UNITS:
                self._cache.popitem(last=False)
        self._cache.move_to_end(unit)
        return self._cache[unit]

    def _picture(self, data: Any, channels: int) -> Tensor:
        """``[channels, S, S]`` in 0..1."""
        data = data["bytes"] if isinstance(data, Mapping) else data
        if not isinstance(data, bytes) or len(data) > MAXIMUM_BYTES:
            raise DataFileError(f"a picture must be bytes, at most {MAXIMUM_BYTES} of them")
        array = _array(data) if data[:6] == b"\x93NUMPY" else _image(data, channels)
        if array.ndim != 3 or array.dtype != np.uint8 or array.shape[2] != channels or array.shape[0] != array.shape[1]:
            raise DataFileError(f"{array.dtype} {array.shape} where uint8 [S, S, {channels}] is meant")
        picture = torch.from_numpy(array).permute(2, 0, 1).float() / 255
        if len(array) == self.size:
            return picture
        return F.interpolate(
            picture[None], size=(self.size, self.size), mode="bilinear", antialias=True, align_corners=False
        )[0].clamp(0, 1)


def _image(data: bytes, channels: int) -> NDArray[Any]:
    with Image.open(io.BytesIO(data)) as image:
        if image.width * image.height > MAXIMUM_PIXELS:
            raise DataFileError(f"a picture of {image.width} x {image.height} pixels is too large")
        mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels)
        if mode is None or (image.mode != mode and channels != 3):
            raise DataFileError(f"a picture in mode {image.mode} has no {channels} channels; use .npy")
        array = np.asarray(image.convert(mode)).copy()
    return array[..., None] if array.ndim == 2 else array


def _array(data: bytes) -> NDArray[Any]:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = reader(file)
    if dtype != np.uint8 or int(np.prod(shape, dtype=np.float64)) > len(data):
        raise DataFileError(f"an array of {dtype} {shape} does not fit its bytes")
    file.seek(0)
    array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _shards(uri: str) -> list[str]:
    """URIs of the shards, sorted."""
    if uri.endswith((".parquet", ".tar")):
        return [uri]
    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
        names = sorted(n for n in filesystem.find(path) if n.endswith((".parquet", ".tar")))
    except (ImportError, ValueError, OSError) as error:
        raise InputError(f"training data {uri!r} cannot be listed: {_reason(error)}") from error
    if not names:
        raise InputError(f"no *.parquet or *.tar in {uri!r}")
    return [filesystem.unstrip_protocol(name) for name in names]


def _parquet_units(uri: str) -> list[_Unit]:
    import pyarrow.parquet as pq

    with fsspec.open(uri, "rb") as file:
        parquet = pq.ParquetFile(file)
        absent = {"image", "condition", "caption"} - set(parquet.schema_arrow.names)
        if absent:
            raise DataFileError(f"it has no column {' and '.join(sorted(absent))}")
        counts = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]

    def read(group: int) -> list[Raw]:
        with fsspec.open(uri, "rb") as file:
            table = pq.ParquetFile(file).read_row_group(group, ["image", "condition", "caption"])
        return list(table.to_pylist())

    return [_Unit(f"{uri}, row group {i}", n, lambda i=i: read(i)) for i, n in enumerate(counts)]  # type: ignore[misc]


def _tar_units(uri: str) -> list[_Unit]:
    with fsspec.open(uri, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        count = len({key for member in tar if member.isfile() for key, name in [_split(member.name)] if name})

    def read() -> list[Raw]:
        rows: dict[str, dict[str, Any]] = {}
        with fsspec.open(uri, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                key, name = _split(member.name)
                if not member.isfile() or not name:
                    continue
                row = rows.setdefault(key, {})
                if member.size > MAXIMUM_BYTES:
                    row["error"] = f"{member.name} is larger than {MAXIMUM_BYTES} bytes"
                elif (data := tar.extractfile(member)) is not None:
                    row[name] = data.read()
        return list(rows.values())

    return [_Unit(uri, count, read)]


def _split(name: str) -> tuple[str, str | None]:
    """A member's key and which field it is, by its extension after the first dot."""
    folder, _, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return f"{folder}/{stem}", _FIELDS.get(extension.lower())


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
