"""What a tri-grid file and the networks that read it hold, checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ap3d.errors import DataFileError

LEVELS = (8, 16, 32, 64, 128, 256, 512)
PLANES, CHANNELS, SLICES, STYLE, STYLES = 3, 12, 3, 512, 14
HIDDEN, FEATURES = 32, 32
LARGEST_SIDE = 1024

NETWORK_SHAPES: dict[str, tuple[int, ...]] = {
    "decoder.net.0.weight": (HIDDEN, CHANNELS), "decoder.net.0.bias": (HIDDEN,),
    "decoder.net.2.weight": (1 + FEATURES, HIDDEN), "decoder.net.2.bias": (1 + FEATURES,),
    "torgb.weight": (3, FEATURES, 1, 1), "torgb.bias": (3,),
    "torgb.affine.weight": (FEATURES, STYLE), "torgb.affine.bias": (FEATURES,),
}  # fmt: skip
BACKGROUND = "bcg_synthesis."


@dataclass(frozen=True)
class TriGrid:
    """One portrait: seven tri-grids and the style that their decoder was trained with.

    Attributes:
        levels: ``[3, 36, R, R]`` for each of ``LEVELS``; dimension 1 is channel * 3 + depth slice. R need not be the
            level's number.
        ws: ``[14, 512]``.
        prompt: the words of the portrait, or empty.
        name: its id.
    """

    levels: Mapping[int, Tensor]
    ws: Tensor
    prompt: str = ""
    name: str = ""

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor], source: str, prompt: str = "", name: str = "") -> "TriGrid":
        """Check the tensors of a file named ``source``.

        Raises:
            DataFileError: one is missing, has another shape or type, or is not finite.
        """
        levels = {level: _level(tensors, level, source) for level in LEVELS}
        ws = _tensor(tensors, "ws", source)
        if ws.numel() != STYLES * STYLE:
            raise DataFileError(f"{source}: ws has shape {tuple(ws.shape)} instead of (1, {STYLES}, {STYLE})")
        return TriGrid(levels, _finite(ws.reshape(STYLES, STYLE), "ws", source), prompt, name)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by the names of Portrait3D's files."""
        return {f"trigrids_{level}": value[None] for level, value in self.levels.items()} | {"ws": self.ws[None]}


@dataclass(frozen=True)
class RenderNetworks:
    """Decoder, colour layer and, where it is known, the background network.

    Attributes:
        tensors: of ``NETWORK_SHAPES``.
        background: the tensors of the background network without their prefix; empty where it is not known.
    """

    tensors: Mapping[str, Tensor]
    background: Mapping[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor], source: str) -> "RenderNetworks":
        """Check the tensors of a file named ``source``.

        Raises:
            DataFileError: one is missing, has another shape or type, or is not finite.
        """
        checked = {}
        for name, shape in NETWORK_SHAPES.items():
            value = _tensor(tensors, name, source)
            if tuple(value.shape) != shape:
                raise DataFileError(f"{source}: {name} has shape {tuple(value.shape)} instead of {shape}")
            checked[name] = _finite(value, name, source)
        background = {
            name.removeprefix(BACKGROUND): _finite(_tensor(tensors, name, source), name, source)
            for name in tensors
            if name.startswith(BACKGROUND)
        }
        return RenderNetworks(checked, background)


def _level(tensors: Mapping[str, Tensor], level: int, source: str) -> Tensor:
    name = f"trigrids_{level}"
    value = _tensor(tensors, name, source)
    shape = tuple(value.shape)
    plain = shape[1:] if len(shape) == 5 and shape[0] == 1 else shape
    fits = len(plain) == 4 and plain[:2] == (PLANES, CHANNELS * SLICES)
    if not fits or plain[2] != plain[3] or not 1 <= plain[2] <= LARGEST_SIDE:
        raise DataFileError(
            f"{source}: {name} has shape {shape} instead of (1, {PLANES}, {CHANNELS * SLICES}, {level}, {level})"
        )
    return _finite(value.reshape(plain), name, source)


def _tensor(tensors: Mapping[str, Tensor], name: str, source: str) -> Tensor:
    value = tensors.get(name)
    if not isinstance(value, Tensor):
        raise DataFileError(f"{source}: there is no tensor {name}; it is no result of Portrait3D or not a whole one")
    if not value.is_floating_point() or value.layout != torch.strided:
        raise DataFileError(f"{source}: {name} is not a dense tensor of floating-point numbers")
    return value.detach()


def _finite(value: Tensor, name: str, source: str) -> Tensor:
    value = value.float().contiguous()
    if not bool(torch.isfinite(value).all()):
        raise DataFileError(f"{source}: {name} has values that are not finite; make the portrait anew")
    return value
