"""Pickles of arrays read without running anything that they name.

Body models come as pickles of numpy arrays, scipy's sparse matrices and ``chumpy.ch.Ch`` objects, mostly written by
Python 2. Each class that such a file may name is replaced by a stand-in of this module that only keeps data; the
arrays are built and checked here. Any other name ends the reading.
"""

import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from ap3d.errors import DataFileError

MAXIMUM_BYTES = 2**30
_CODE = re.compile(r"[biuf][1248]|[SU]\d{1,4}")


class _State:
    """Keeps what the pickle wants to restore."""

    __slots__ = ("state",)

    def __init__(self, *arguments: Any) -> None:
        self.state: Any = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _DType(_State):
    """``numpy.dtype``: the code that it was called with, and its byte order."""

    __slots__ = ("code",)

    def __init__(self, code: Any, *_flags: Any) -> None:
        self.code, self.state = code, None

    def plain(self) -> np.dtype[Any]:
        order = self.state[1] if isinstance(self.state, tuple) and len(self.state) > 1 else "<"
        code = self.code.decode("latin-1") if isinstance(self.code, bytes) else self.code
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise pickle.UnpicklingError(f"array of type {code!r}")
        return np.dtype(code).newbyteorder(">" if order in (">", b">") else "<")


class _Array(_State):
    """``numpy.ndarray``, made by ``_reconstruct`` and then given version, shape, dtype, order and bytes."""

    __slots__ = ()

    def plain(self) -> np.ndarray:
        try:
            _, shape, dtype, fortran, data = self.state
            raw = data.encode("latin-1") if isinstance(data, str) else bytes(data)
            flat = np.frombuffer(raw, dtype.plain())
            return flat.reshape(tuple(map(int, shape)), order="F" if fortran else "C")
        except (TypeError, ValueError, AttributeError) as error:
            raise pickle.UnpicklingError(f"a damaged array ({type(error).__name__})") from None


class _Buffer(_State):
    """``_frombuffer`` of pickle protocol 5: bytes, dtype, shape, order."""

    __slots__ = ()

    def plain(self) -> np.ndarray:
        try:
            data, dtype, shape, order = self.state
            return np.frombuffer(bytes(data), dtype.plain()).reshape(tuple(map(int, shape)), order=order)
        except (TypeError, ValueError, AttributeError) as error:
            raise pickle.UnpicklingError(f"a damaged array ({type(error).__name__})") from None


class _Scalar(_State):
    """A numpy number: dtype and bytes."""

    __slots__ = ()

    def plain(self) -> Any:
        dtype, data = self.state
        raw = data.encode("latin-1") if isinstance(data, str) else bytes(data)
        return np.frombuffer(raw, dtype.plain())[0]


class _Compressed(_State):
    """A CSC or CSR matrix, given back dense."""

    __slots__ = ()
    by_columns = True

    def plain(self) -> np.ndarray:
        state = {str(k).lstrip("_"): v for k, v in dict(self.state).items()}
        shape = state["shape"]
        data, indices, indptr = (_plain(state[k]) for k in ("data", "indices", "indptr"))
        rows, columns = (int(n) for n in shape)
        outer, inner = (columns, rows) if self.by_columns else (rows, columns)
        counts = np.diff(indptr.astype(np.int64))
        fits = len(counts) == outer and (counts >= 0).all() and counts.sum() == len(data) == len(indices)
        inside = not len(indices) or 0 <= indices.min() <= indices.max() < inner
        if not fits or not inside or rows * columns * 8 > MAXIMUM_BYTES:
            raise pickle.UnpicklingError("a damaged sparse matrix")
        dense = np.zeros((outer, inner))
        np.add.at(dense, (np.repeat(np.arange(outer), counts), indices), data)
        return dense.T if self.by_columns else dense


class _CompressedRows(_Compressed):
    __slots__ = ()
    by_columns = False


class _Chumpy(_State):
    """``chumpy.ch.Ch``: the array in its field ``x``; what it depends on is not followed."""

    __slots__ = ()

    def plain(self) -> Any:
        if not isinstance(self.state, dict) or "x" not in self.state:
            raise pickle.UnpicklingError("a chumpy object without an array in its field x")
        return _plain(self.state["x"])


class _Reconstructor:
    """``copy_reg._reconstructor``, for stand-ins alone."""

    __slots__ = ()

    def __new__(cls, kind: Any, *_rest: Any) -> Any:
        if not (isinstance(kind, type) and issubclass(kind, _State)):
            raise pickle.UnpicklingError("an object of an unknown class")
        return kind()


class _Encoded:
    """``_codecs.encode(text, 'latin1')``, how Python 3 writes bytes for Python 2."""

    __slots__ = ()

    def __new__(cls, text: str, codec: str = "latin1") -> bytes:  # type: ignore[misc]
        return text.encode("latin-1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _Array,
    ("chumpy.ch", "Ch"): _Chumpy,
    ("copyreg", "_reconstructor"): _Reconstructor,
    ("_codecs", "encode"): _Encoded,
    ("builtins", "object"): object,
    ("builtins", "set"): set,
    ("builtins", "bytearray"): bytearray,
    ("collections", "OrderedDict"): OrderedDict,
}
for _module in ("numpy.core", "numpy._core"):
    _STAND_INS[f"{_module}.multiarray", "_reconstruct"] = _Array
    _STAND_INS[f"{_module}.multiarray", "scalar"] = _Scalar
    _STAND_INS[f"{_module}.numeric", "_frombuffer"] = _Buffer
for _module in ("scipy.sparse", "scipy.sparse.{0}", "scipy.sparse._{0}"):
    _STAND_INS[_module.format("csc"), "csc_matrix"] = _Compressed
    _STAND_INS[_module.format("csr"), "csr_matrix"] = _CompressedRows
_OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _STAND_INS[_OLD_MODULES.get(module, module), name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}") from None


def read_array_pickle(data: bytes, name: str) -> dict[str, Any]:
    """The top dictionary of a pickle, with arrays as numpy arrays and sparse matrices dense.

    Args:
        data: the file's content.
        name: for messages.

    Raises:
        DataFileError: not a pickle, damaged, too large, or it names a class that arrays do not need.
    """
    if len(data) > MAXIMUM_BYTES:
        raise DataFileError(f"{name} has {len(data):,} bytes, more than a body model ({MAXIMUM_BYTES:,})")
    try:
        loaded = _Unpickler(io.BytesIO(data), encoding="latin1").load()
        if not isinstance(loaded, Mapping):
            raise pickle.UnpicklingError("it does not hold a dictionary")
        return {_text(key): _plain(value) for key, value in loaded.items()}
    except Exception as error:  # a hostile stream may raise anything; nothing of it has been run
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataFileError(f"{name} is not a readable pickle of arrays: {reason}; pass the original file") from None


def _text(key: Any) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


def _plain(value: Any) -> Any:
    return value.plain() if hasattr(value, "plain") else value
