"""Face parsing: which part of a head each pixel shows, by a small network trained on procedural portraits."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ap3d.checksums import BUILTIN
from ap3d.errors import DataFileError
from ap3d.perception.protocol import Part
from ap3d.tensor_files import unpack_tensors

FILE = "face_parser.safetensors"
CLASSES = ("background", "skin", "hair", "ears", "brows", "eyes", "mouth", "neck", "clothes", "beard")
CHUNK = 16  # pictures a pass
SIZE = 192  # pixels of the pictures that it was trained on: a whole head, or its face


class FaceParser(nn.Module):
    """Pictures ``[B, 3, S, S]`` in 0..1 to logits ``[B, K, S, S]``; S a multiple of 16. A U-shaped network
    (arXiv 1505.04597) with one convolution a level on the way up."""

    def __init__(self, widths: tuple[int, ...] = (16, 24, 40, 64, 96)) -> None:
        super().__init__()
        self.stem = _layer(3, widths[0])
        self.down = nn.ModuleList(_layer(a, b, stride=2) for a, b in zip(widths, widths[1:], strict=False))
        self.deep = nn.ModuleList(_layer(b, b) for b in widths[1:])
        self.up = nn.ModuleList(_layer(b + a, a) for a, b in zip(widths, widths[1:], strict=False))
        self.last = nn.Conv2d(widths[0], len(CLASSES), 3, padding=1)

    def forward(self, pictures: Tensor) -> Tensor:
        levels = [self.stem(pictures * 2 - 1)]
        for down, deep in zip(self.down, self.deep, strict=True):
            features = down(levels[-1])
            levels.append(features + deep(features))
        features = levels.pop()
        for up in reversed(self.up):
            features = up(torch.cat([F.interpolate(features, scale_factor=2.0), levels.pop()], 1))
        logits: Tensor = self.last(features)
        return logits

    @torch.no_grad()
    def parse(self, pictures: Tensor) -> Tensor:
        """Class indices (int64 ``[B, H, W]``, see ``CLASSES``) of pictures ``[B, 3, H, W]`` in 0..1 of any size.

        The mean of what it says of a picture and of its mirror image, which steadies outlines.
        """
        small = F.interpolate(pictures, (SIZE, SIZE), mode="bilinear", antialias=True)
        logits = self(small) + self(small.flip(-1)).flip(-1)
        return F.interpolate(logits, pictures.shape[2:], mode="bilinear").argmax(1)

    @staticmethod
    def load(path: Path = BUILTIN / FILE) -> "FaceParser":
        """Read the shipped parser, or another.

        Raises:
            DataFileError: the file is missing, truncated, or of another kind.
        """
        network = FaceParser()
        load_network(network, path, "face parser")
        return network


@dataclass(frozen=True)
class BuiltinSegmenter:
    """The shipped parser as a segmenter; its classes are the first ten parts."""

    network: FaceParser
    fingerprint: str
    device: str = "cpu"
    name: str = "builtin"
    licence: str = "Apache-2.0"
    parts: frozenset[Part] = frozenset(list(Part)[: len(CLASSES)])

    @classmethod
    def load(cls, path: str | Path | None = None, device: str = "cpu") -> "BuiltinSegmenter":
        """Read the shipped parser, or another of the same kind.

        Raises:
            DataFileError: the file is missing, truncated, or of another kind.
        """
        file = Path(path or BUILTIN / FILE)
        network = FaceParser.load(file).to(device)
        return cls(network, hashlib.sha256(file.read_bytes()).hexdigest(), device)

    def segment(self, images: Tensor) -> Tensor:
        """See :class:`ap3d.perception.protocol.Segmenter`."""
        parts = [self.network.parse(chunk.to(self.device)).to(images.device) for chunk in images.split(CHUNK)]
        return torch.cat(parts) if parts else torch.zeros(0, *images.shape[2:], dtype=torch.int64)


def load_network(network: nn.Module, path: Path, what: str) -> None:
    """Fill ``network`` from a safetensors file and freeze it.

    Raises:
        DataFileError: the file is missing, truncated, or of another kind.
    """
    try:
        tensors = unpack_tensors(path.read_bytes(), str(path))
        network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    except OSError as error:
        message = f"{what} {path} cannot be read ({error}); python -m jobs.train_builtin readers remakes it"
        raise DataFileError(message) from None
    except RuntimeError as error:
        raise DataFileError(f"{path} is no {what}: {str(error).splitlines()[0]}") from error
    network.eval().requires_grad_(False)


def _layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )
