"""The subset of PLY that Gaussian files use: one binary element of scalar properties, as a numpy table."""

import numpy as np

from ap3d.errors import DataFileError

_TYPES = {
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8", "char": "i1", "int8": "i1", "uchar": "u1",
    "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4",
    "uint": "u4", "uint32": "u4",
}  # fmt: skip
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
_LONGEST_HEADER = 1 << 16


def write_table(columns: np.ndarray, names: list[str]) -> bytes:
    """Columns ``[N, P]`` as a little-endian file of float32 vertex properties."""
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(columns)}"]
    lines += [f"property float {name}" for name in names]
    header = "\n".join([*lines, "end_header"]) + "\n"
    return header.encode() + np.ascontiguousarray(columns, "<f4").tobytes()


def read_table(data: bytes) -> dict[str, np.ndarray]:
    """The first element's properties by name, each ``[N]``.

    Raises:
        DataFileError: not a binary PLY of scalar properties, or truncated.
    """
    end = data[:_LONGEST_HEADER].find(b"end_header")
    newline = data.find(b"\n", end)
    if not data.startswith(b"ply") or end < 0 or newline < 0:
        raise DataFileError("this is not a PLY file, or its header is cut off")
    lines = [line.split() for line in data[:end].decode("ascii", "replace").splitlines()]
    order = next((_ORDERS.get(line[1]) for line in lines if line[:1] == ["format"] and len(line) > 1), None)
    if order is None:
        raise DataFileError("this PLY file is not binary; convert it to binary_little_endian")
    count, kinds = _first_element(lines, order)
    dtype = np.dtype(kinds)
    body = data[newline + 1 :]
    if len(body) < count * dtype.itemsize:
        raise DataFileError(
            f"this PLY file is cut off: its {count} vertices take {count * dtype.itemsize} bytes, it holds {len(body)}"
        )
    table = np.frombuffer(body, dtype, count)
    return {name: table[name] for name, _ in kinds}


def _first_element(lines: list[list[str]], order: str) -> tuple[int, list[tuple[str, str]]]:
    count, kinds = -1, []
    for line in lines:
        if line[:1] == ["element"]:
            if count >= 0:
                break
            count = int(line[2]) if len(line) == 3 and line[2].isdigit() else -1
        elif line[:1] == ["property"] and count >= 0:
            if len(line) != 3 or line[1] not in _TYPES:
                raise DataFileError(f"this PLY file has a property that Gaussian files lack: {' '.join(line)}")
            kinds.append((line[2], order + _TYPES[line[1]]))
    if count < 0 or not kinds or len({name for name, _ in kinds}) != len(kinds):
        raise DataFileError("this PLY file has no usable element")
    return count, kinds
