"""Binary glTF 2.0: accessors into one buffer, and reading them back."""

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from ap3d import __version__
from ap3d.errors import DataFileError

_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
_WIDTHS = {name: width for width, name in _TYPES.items()}
_COMPONENTS: dict[np.dtype[Any], int] = {
    np.dtype("u1"): 5121,
    np.dtype("<u2"): 5123,
    np.dtype("<u4"): 5125,
    np.dtype("<f4"): 5126,
}
_DTYPES = {code: dtype for dtype, code in _COMPONENTS.items()}
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
_HEADER, _CHUNK = struct.Struct("<4sII"), struct.Struct("<I4s")


class GlbWriter:
    """Collects accessors and images, then writes the file; ``document`` holds the rest of the JSON."""

    def __init__(self, notes: Mapping[str, Any] | None = None) -> None:
        asset: dict[str, Any] = {"version": "2.0", "generator": f"ap3d {__version__}"}
        if notes:
            asset["extras"] = dict(notes)
        self.document: dict[str, Any] = {"asset": asset}
        self._views: list[dict[str, int]] = []
        self._accessors: list[dict[str, Any]] = []
        self._data = bytearray()

    def accessor(
        self, values: np.ndarray, *, target: int | None = None, bounds: bool = False, normalized: bool = False
    ) -> int:
        """Add ``[N]`` or ``[N, C]`` values of a component type of glTF; returns the accessor's index."""
        entry = self._entry(values, bounds)
        entry["bufferView"] = self._view(values, target)
        if normalized:
            entry["normalized"] = True
        self._accessors.append(entry)
        return len(self._accessors) - 1

    def sparse_accessor(self, values: np.ndarray) -> int:
        """Add ``[N, C]`` values of which most rows are zero: only the others are stored."""
        rows = np.flatnonzero(np.abs(values).max(1) > 0).astype("<u4")
        entry = self._entry(values, True)
        if len(rows):
            kept = rows.astype("<u2") if len(values) < 65536 else rows
            entry["sparse"] = {
                "count": len(rows),
                "indices": {"bufferView": self._view(kept, None), "componentType": _COMPONENTS[kept.dtype]},
                "values": {"bufferView": self._view(values[rows], None)},
            }
        self._accessors.append(entry)
        return len(self._accessors) - 1

    def image(self, data: bytes, mime_type: str, name: str) -> int:
        """Add an encoded picture; returns its index."""
        images = self.document.setdefault("images", [])
        images.append(
            {"bufferView": self._view(np.frombuffer(data, np.uint8), None), "mimeType": mime_type, "name": name}
        )
        return len(images) - 1

    def finish(self) -> bytes:
        """The file."""
        document = {
            **self.document,
            "accessors": self._accessors,
            "bufferViews": self._views,
            "buffers": [{"byteLength": len(self._data)}],
        }
        text = json.dumps(document, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        body = bytes(self._data) + bytes(-len(self._data) % 4)
        chunks = _CHUNK.pack(len(text), b"JSON") + text + _CHUNK.pack(len(body), b"BIN\0") + body
        return _HEADER.pack(b"glTF", 2, _HEADER.size + len(chunks)) + chunks

    def _entry(self, values: np.ndarray, bounds: bool) -> dict[str, Any]:
        width = 1 if values.ndim == 1 else values.shape[1]
        entry = {"componentType": _COMPONENTS[values.dtype], "count": len(values), "type": _TYPES[width]}
        if bounds:
            table = values.reshape(len(values), width)
            entry |= {"min": table.min(0).tolist(), "max": table.max(0).tolist()}
        return entry

    def _view(self, values: np.ndarray, target: int | None) -> int:
        self._data += bytes(-len(self._data) % 4)
        data = np.ascontiguousarray(values).tobytes()
        view = {"buffer": 0, "byteOffset": len(self._data), "byteLength": len(data)}
        self._views.append(view | ({} if target is None else {"target": target}))
        self._data += data
        return len(self._views) - 1


class GlbReader:
    """A binary glTF file with one buffer: its JSON ``document`` and its accessors as arrays.

    Raises:
        DataFileError: damaged, or not such a file.
    """

    def __init__(self, data: bytes) -> None:
        try:
            magic, version, length = _HEADER.unpack_from(data)
            size, kind = _CHUNK.unpack_from(data, _HEADER.size)
            start = _HEADER.size + _CHUNK.size
            document = json.loads(data[start : start + size])
            body, body_kind = _CHUNK.unpack_from(data, start + size)
        except (struct.error, ValueError) as error:
            raise DataFileError(f"this is not a binary glTF file, or it is damaged: {error}") from None
        good = (magic, version, kind, body_kind) == (b"glTF", 2, b"JSON", b"BIN\0")
        if (
            not good
            or length > len(data)
            or start + size + _CHUNK.size + body > length
            or not isinstance(document, dict)
        ):
            raise DataFileError("this is not a whole binary glTF 2.0 file")
        self.document: dict[str, Any] = document
        self._body = data[start + size + _CHUNK.size :][:body]

    def accessor(self, index: int) -> np.ndarray:
        """Values ``[N, C]`` of an accessor, integers scaled to 0 to 1 where they are normalised."""
        try:
            return self._accessor(index)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise DataFileError(f"accessor {index} of this glTF file is damaged: {error}") from None

    def bytes_of_view(self, index: int) -> bytes:
        """The content of a buffer view."""
        view = self.document["bufferViews"][index]
        start = view.get("byteOffset", 0)
        data = self._body[start : start + view["byteLength"]]
        if len(data) != view["byteLength"]:
            raise ValueError("it reaches beyond the buffer")
        return data

    def _accessor(self, index: int) -> np.ndarray:
        entry = self.document["accessors"][index]
        dtype, width, count = _DTYPES[entry["componentType"]], _WIDTHS[entry["type"]], entry["count"]
        if "bufferView" in entry:
            values = self._array(entry["bufferView"], entry.get("byteOffset", 0), dtype, count * width)
        elif count * width * dtype.itemsize > 16 * len(self._body):
            raise ValueError("it declares more than the file holds")
        else:
            values = np.zeros(count * width, dtype)
        values = values.reshape(count, width)
        if sparse := entry.get("sparse"):
            values = values.copy()
            kind = _DTYPES[sparse["indices"]["componentType"]]
            rows = self._array(sparse["indices"]["bufferView"], 0, kind, sparse["count"])
            changed = self._array(sparse["values"]["bufferView"], 0, dtype, sparse["count"] * width)
            values[rows] = changed.reshape(-1, width)
        return values / np.float32(np.iinfo(dtype).max) if entry.get("normalized") else values

    def _array(self, view: int, offset: int, dtype: np.dtype[Any], count: int) -> np.ndarray:
        return np.frombuffer(self.bytes_of_view(view), dtype, count, offset)
