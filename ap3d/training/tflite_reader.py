"""Reads TensorFlow Lite models: the small part of the FlatBuffers encoding that their tables need.

The schema's field numbers and codes are those of TensorFlow Lite schema version 3.
"""

import struct
from dataclasses import dataclass

import numpy as np

from ap3d.errors import DataFileError

OPERATIONS = {
    0: "add", 2: "concatenate", 3: "convolve", 4: "convolve_depthwise", 6: "dequantize", 17: "max_pool", 18: "multiply",
    19: "relu", 22: "reshape", 32: "custom", 34: "pad", 45: "slice", 54: "prelu",
}  # fmt: skip
_DTYPES: dict[int, type[np.generic]] = {0: np.float32, 1: np.float16, 2: np.int32}
# Position of the options that matter, by operation; all are 32-bit or 8-bit integers.
_OPTIONS = {
    "convolve": {"valid": (0, "b"), "stride": (1, "i"), "activation": (3, "b")},
    "convolve_depthwise": {"valid": (0, "b"), "stride": (1, "i"), "activation": (4, "b")},
    "max_pool": {"valid": (0, "b"), "stride": (1, "i"), "window": (3, "i")},
    "concatenate": {"axis": (0, "i")},
}


@dataclass(frozen=True)
class Table:
    """A FlatBuffers table at a position of a buffer."""

    data: bytes
    position: int

    def _field(self, index: int) -> int | None:
        table = self.position - struct.unpack_from("<i", self.data, self.position)[0]
        size = struct.unpack_from("<H", self.data, table)[0]
        if 4 + 2 * index >= size:
            return None
        offset = struct.unpack_from("<H", self.data, table + 4 + 2 * index)[0]
        return self.position + offset if offset else None

    def _target(self, index: int) -> int | None:
        field = self._field(index)
        return None if field is None else field + struct.unpack_from("<I", self.data, field)[0]

    def number(self, index: int, kind: str) -> int:
        """A scalar field of a :mod:`struct` kind; 0 where it is left out."""
        field = self._field(index)
        return 0 if field is None else int(struct.unpack_from("<" + kind, self.data, field)[0])

    def table(self, index: int) -> "Table":
        """A table field."""
        target = self._target(index)
        if target is None:
            raise DataFileError("the model lacks a table that TensorFlow Lite requires")
        return Table(self.data, target)

    def array(self, index: int, dtype: type[np.generic]) -> np.ndarray:
        """A vector of numbers; empty where it is left out."""
        target = self._target(index)
        if target is None:
            return np.zeros(0, dtype)
        count = struct.unpack_from("<I", self.data, target)[0]
        return np.frombuffer(self.data, dtype, count, target + 4)

    def tables(self, index: int) -> list["Table"]:
        """A vector of tables."""
        target = self._target(index)
        if target is None:
            return []
        starts = range(target + 4, target + 4 + 4 * struct.unpack_from("<I", self.data, target)[0], 4)
        return [Table(self.data, s + struct.unpack_from("<I", self.data, s)[0]) for s in starts]


@dataclass(frozen=True)
class Operation:
    """One operation: its name (a custom one's own), tensors in and out, and integer options."""

    name: str
    inputs: list[int]
    outputs: list[int]
    options: dict[str, int]


@dataclass(frozen=True)
class TfliteModel:
    """A model's first subgraph: operations in order, constants by tensor number, shapes, inputs and outputs."""

    operations: list[Operation]
    constants: dict[int, np.ndarray]
    shapes: list[list[int]]
    inputs: list[int]
    outputs: list[int]


def read_tflite(data: bytes) -> TfliteModel:
    """Parse a ``.tflite`` file.

    Raises:
        DataFileError: another kind of file, or an operation or number type that is not known here.
    """
    if data[4:8] != b"TFL3":
        raise DataFileError("not a TensorFlow Lite model: the marker TFL3 is missing")
    try:
        root = Table(data, struct.unpack_from("<I", data)[0])
        codes = [_name(code) for code in root.tables(1)]
        graph, buffers = root.tables(2)[0], root.tables(4)
        tensors = graph.tables(0)
        shapes = [[int(n) for n in t.array(0, np.int32)] for t in tensors]
        constants = {}
        for index, tensor in enumerate(tensors):
            raw = buffers[tensor.number(2, "I")].array(0, np.uint8)
            if raw.size:
                constants[index] = raw.view(_DTYPES[tensor.number(1, "b")]).reshape(shapes[index])
        operations = [_operation(table, codes) for table in graph.tables(3)]
    except (struct.error, KeyError, IndexError, ValueError) as error:
        raise DataFileError(f"the TensorFlow Lite model is damaged or of an unknown kind: {error}") from error
    numbers = lambda index: [int(n) for n in graph.array(index, np.int32)]  # noqa: E731
    return TfliteModel(operations, constants, shapes, numbers(1), numbers(2))


def _name(code: Table) -> str:
    name = OPERATIONS[max(code.number(0, "b"), code.number(3, "i"))]
    return code.array(1, np.uint8).tobytes().decode() if name == "custom" else name


def _operation(table: Table, codes: list[str]) -> Operation:
    name = codes[table.number(0, "I")]
    options = {}
    if name in _OPTIONS:
        fields = table.table(4)
        options = {key: fields.number(*where) for key, where in _OPTIONS[name].items()}
    numbers = lambda index: [int(n) for n in table.array(index, np.int32)]  # noqa: E731
    return Operation(name, numbers(1), numbers(2), options)
