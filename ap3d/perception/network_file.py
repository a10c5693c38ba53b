"""Small convolutional networks stored as one safetensors file: half-precision weights, the operations as metadata.

The file's ``graph`` entry is JSON: ``inputs`` and ``outputs`` (tensor names), and ``nodes``, each with ``op``, ``in``,
``out`` and the operation's own numbers. Weights are tensors of the file, named ``w<number>``. Nothing in a file is ever
executed as code: an operation is a name in :data:`OPERATIONS`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ap3d.errors import DataFileError

Node = dict[str, Any]


def _pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Zeros so that the output has ``ceil(size / stride)`` pixels; an odd one goes to the lower right."""
    missing = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[-2:]]
    rows, columns = missing
    return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


def _convolve(node: Node, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    kernel, stride = weight.shape[-1], node["stride"]
    padding = 0
    if not node["valid"] and kernel > 1:
        if stride == 1:
            padding = kernel // 2
        else:
            x = _pad_same(x, kernel, stride)
    return F.conv2d(x, weight, bias, stride, padding, groups=x.shape[1] // weight.shape[1])


def _add(node: Node, x: Tensor, y: Tensor) -> Tensor:
    """The sum; a tensor with fewer channels counts as padded with zeros."""
    if x.shape[1] == y.shape[1]:
        return x + y
    narrow, wide = (x, y) if x.shape[1] < y.shape[1] else (y, x)
    total = wide.clone()
    total[:, : narrow.shape[1]] += narrow
    return total


def _reshape(node: Node, x: Tensor) -> Tensor:
    """Channels last, then another shape with the same batch."""
    return (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).reshape(len(x), *node["shape"])


def _crop_matrix(node: Node, points: Tensor) -> Tensor:
    """Affine maps ``[B, 2, 3]`` from a crop's pixels to those of the points: level with two of them, round a subset.

    The crop is ``scale`` times the subset's box in the turned frame (Grishchenko et al., Attention Mesh, 2020).
    """
    left, right = points[:, node["left"], :2], points[:, node["right"], :2]
    along = F.normalize(right - left, dim=1)
    axes = torch.stack([along, torch.stack([-along[:, 1], along[:, 0]], 1)], 2)  # columns: right and down of the crop
    turned = points[:, node["subset"], :2] @ axes
    low, high = turned.amin(1), turned.amax(1)
    step = node["scale"] * (high - low) / node["size"]
    linear = axes * step[:, None]
    centre = (axes @ ((low + high) / 2)[..., None])[..., 0]
    return torch.cat([linear, (centre - linear.sum(2) * node["size"] / 2)[..., None]], 2)


def _crop(node: Node, x: Tensor, matrix: Tensor) -> Tensor:
    """Bilinear samples of a feature map at the pixel centres of a crop; zero outside the map's outermost centres."""
    size = node["size"]
    steps = torch.arange(size).to(x) + 0.5
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    grid = torch.stack([columns, rows, torch.ones_like(rows)], 2).reshape(-1, 3)
    where = grid @ matrix.transpose(1, 2)
    extent = x.new_tensor([x.shape[3], x.shape[2]])
    inside = ((where >= 0.5) & (where <= extent - 0.5)).all(2).reshape(len(x), 1, size, size)
    scaled = (2 * where / extent - 1).reshape(len(x), size, size, 2)
    return F.grid_sample(x, scaled, "bilinear", "zeros", align_corners=False) * inside


def _transform(node: Node, points: Tensor, matrix: Tensor) -> Tensor:
    return points @ matrix[..., :2].transpose(1, 2) + matrix[:, None, :, 2]


OPERATIONS: dict[str, Callable[..., Tensor]] = {
    "convolve": _convolve,
    "prelu": lambda node, x, slope: F.prelu(x, slope),
    "relu": lambda node, x: F.relu(x),
    "add": _add,
    "multiply": lambda node, x, factor: x * factor,
    "max_pool": lambda node, x: F.max_pool2d(x, node["window"], node["stride"]),
    "reshape": _reshape,
    "concatenate": lambda node, *parts: torch.cat(parts, node["axis"]),
    "crop_matrix": _crop_matrix,
    "crop": _crop,
    "transform": _transform,
}


class Network:
    """A network read from a file; calling it runs a batch in float32."""

    def __init__(self, graph: dict[str, Any], weights: dict[str, Tensor], name: str) -> None:
        self.name = name
        self._weights = {key: value.float() for key, value in weights.items()}
        self._weights |= {
            key: value.contiguous(memory_format=torch.channels_last)
            for key, value in self._weights.items()
            if value.ndim == 4
        }
        try:
            self._inputs, self._outputs = list(graph["inputs"]), list(graph["outputs"])
            self._nodes = [(OPERATIONS[n["op"]], n, list(n["in"]), str(n["out"])) for n in graph["nodes"]]
        except (KeyError, TypeError) as error:
            raise DataFileError(f"{name} holds no network of this version ({error}); reinstall ap3d") from error
        self._last_use = {key: step for step, (_, _, sources, _) in enumerate(self._nodes) for key in sources}

    @classmethod
    def load(cls, path: Path) -> "Network":
        """Read a network.

        Raises:
            DataFileError: missing, truncated or of another kind.
        """
        try:
            with safe_open(path, "pt") as file:
                graph = json.loads((file.metadata() or {})["graph"])
                return cls(graph, {key: file.get_tensor(key) for key in file.keys()}, path.name)  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise DataFileError(f"{path} is missing, damaged or no network ({error}); reinstall ap3d") from None

    @torch.inference_mode()
    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Run a batch; inputs and outputs in the file's order, pictures as ``[B, C, H, W]``."""
        values = dict(zip(self._inputs, inputs, strict=True))
        values = {k: v.contiguous(memory_format=torch.channels_last) for k, v in values.items()}
        for step, (operation, node, sources, target) in enumerate(self._nodes):
            arguments = [values[key] if key in values else self._weights[key] for key in sources]
            values[target] = operation(node, *arguments)
            for key in sources:
                if self._last_use[key] == step and key in values and key not in self._outputs:
                    del values[key]
        return [values[key] for key in self._outputs]
