"""One-time conversion of 3DPortraitGAN's network files to safetensors; nothing that they name or carry is run.

``decoder_512.ckpt`` is a file of ``torch.save``. ``model_512.pkl`` is a plain pickle whose classes bring their own
Python source, to be executed when it is loaded the ordinary way. Here every class is replaced by an inert object that
only keeps its state; tensors are rebuilt from their bytes, and any other name ends the reading.
"""

import io
import json
import math
import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ap3d.array_files import read_limited
from ap3d.errors import DataFileError
from ap3d.portrait.trigrid.reading import load_torch_zip
from ap3d.portrait.trigrid.tensors import BACKGROUND, NETWORK_SHAPES, RenderNetworks

LARGEST = 2 << 30
FIELDS = {
    "box_warp": 0.7, "triplane_depth": 3, "ray_start": 2.35, "ray_end": 3.12, "depth_resolution": 48,
    "depth_resolution_importance": 48, "clamp_mode": "softplus",
}  # fmt: skip
_RENDERING = ("decoder.", "torgb.", BACKGROUND)


class _Inert:
    """Stands for any object of the file: keeps what it would have been given, does nothing."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.kept: Any = {"arguments": arguments, **named}

    def __setstate__(self, state: Any) -> None:
        self.kept = state


class _Dictionary(dict[Any, Any]):
    """``EasyDict``: a dictionary."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, Mapping):
            self.update(state)


def _persistent(meta: Any, *_rest: Any) -> _Inert:
    """An object whose class came as source: only its state is kept."""
    found = _Inert()
    state = meta.get("state") if isinstance(meta, Mapping) else None
    if not isinstance(state, Mapping):
        raise pickle.UnpicklingError("a persistent object without state")
    found.kept = state
    return found


def _storage(data: bytes) -> Any:
    """A storage that ``torch.save`` wrote into the pickle."""
    if not isinstance(data, bytes) or len(data) > LARGEST:
        raise pickle.UnpicklingError("a storage that is not bytes")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _rebuild_tensor(storage: Any, offset: int, size: Any, stride: Any, *_rest: Any) -> Tensor:
    numbers = [offset, *size, *stride]
    if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in numbers):
        raise pickle.UnpicklingError("a damaged tensor")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    held = storage._size()
    if math.prod(size) > 0 and (last >= held or math.prod(size) > held):
        raise pickle.UnpicklingError("a tensor larger than its storage")
    return torch._utils._rebuild_tensor_v2(storage, offset, size, stride, False, OrderedDict())  # type: ignore[no-untyped-call]


def _rebuild_parameter(data: Any, *_rest: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise pickle.UnpicklingError("a parameter that is no tensor")
    return data


_STAND_INS: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
    ("dnnlib.util", "EasyDict"): _Dictionary,
    ("dnnlib", "EasyDict"): _Dictionary,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("torch", "Size"): tuple,
    ("torch", "device"): _Inert,
    ("numpy", "dtype"): _Inert,
    ("numpy", "ndarray"): _Inert,
    ("numpy.core.multiarray", "_reconstruct"): _Inert,
    ("numpy._core.multiarray", "_reconstruct"): _Inert,
    ("numpy.core.multiarray", "scalar"): _Inert,
    ("numpy._core.multiarray", "scalar"): _Inert,
}
# Packages whose classes may be named: of the GAN's own code and of layers; each becomes an inert object.
_INERT_PACKAGES = ("training", "torch_utils", "dnnlib", "smplx", "kaolin", "torch.nn.modules", "camera_utils", "models")
_DTYPES = {name: getattr(torch, name) for name in ("float16", "float32", "float64", "int32", "int64", "uint8", "bool")}


class _NetworkUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _STAND_INS:
            return _STAND_INS[module, name]
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if any(module == package or module.startswith(package + ".") for package in _INERT_PACKAGES):
            return _Inert
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, _identifier: Any) -> Any:
        raise pickle.UnpicklingError("it refers to data outside the file")


def convert_networks(source: Path, target: Path) -> dict[str, tuple[int, ...]]:
    """Write what renders a tri-grid from ``model_512.pkl`` or ``decoder_512.ckpt`` to a safetensors file.

    Returns:
        The names and shapes that were written.

    Raises:
        DataFileError: unreadable, too large, of other networks, or naming what such a file does not need.
    """
    data = read_limited(source, LARGEST, "this is no network of 3DPortraitGAN")
    tensors = _from_checkpoint(data, str(source)) if data[:4] == b"PK\x03\x04" else _from_pickle(data, str(source))
    chosen = {name: value for name, value in tensors.items() if name in NETWORK_SHAPES or name.startswith(BACKGROUND)}
    networks = RenderNetworks.from_tensors(chosen, str(source))
    found = dict(networks.tensors) | {BACKGROUND + name: value for name, value in networks.background.items()}
    from safetensors.torch import save

    content = save({name: value.contiguous() for name, value in found.items()}, {"rendering": json.dumps(FIELDS)})
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    return {name: tuple(value.shape) for name, value in found.items()}


def _from_checkpoint(data: bytes, source: str) -> dict[str, Tensor]:
    content = load_torch_zip(data, source, LARGEST)
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping):
        raise DataFileError(f"{source}: there is no 'state_dict'; give decoder_512.ckpt or model_512.pkl")
    return {str(name): value for name, value in state.items() if isinstance(value, Tensor)}


def _from_pickle(data: bytes, source: str) -> dict[str, Tensor]:
    try:
        content = _NetworkUnpickler(io.BytesIO(data)).load()
        generator = content["G_ema"] if isinstance(content, Mapping) else None
        if not isinstance(generator, _Inert):
            raise pickle.UnpicklingError("there is no network G_ema")
        return dict(_tensors(generator, ""))
    except Exception as error:  # a hostile stream may raise anything; nothing of it has been run
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataFileError(f"{source} is no network of 3DPortraitGAN that can be read: {reason}") from None


def _tensors(module: _Inert, prefix: str, depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a module and of those below it that rendering needs."""
    state = module.kept
    if not isinstance(state, Mapping) or depth > 16:
        return
    for kind in ("_parameters", "_buffers"):
        for name, value in (state.get(kind) or {}).items():
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
    for name, child in (state.get("_modules") or {}).items():
        path = f"{prefix}{name}."
        if isinstance(child, _Inert) and any(path.startswith(p) or p.startswith(path) for p in _RENDERING):
            yield from _tensors(child, path, depth + 1)
