"""The plain C++ loop (plain_tiles.cpp) as a candidate, behind a projection and harmonics in torch."""

import ctypes
import functools
import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.raster.splats import GSPLAT, Splats
from benchmarks.rasterisers import tiled
from benchmarks.rasterisers.places import CACHE

FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC")


@functools.cache
def compiled(name: str) -> ctypes.CDLL:
    """A source of this folder, compiled once into the cache."""
    source = Path(__file__).with_name(name)
    digest = hashlib.sha256(source.read_bytes() + repr(FLAGS).encode()).hexdigest()[:12]
    target = CACHE / f"{source.stem}-{digest}.so"
    if not target.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        compiler = os.environ.get("CXX", "c++").split()
        subprocess.run([*compiler, *FLAGS, str(source), "-o", str(target)], check=True)
    return ctypes.CDLL(str(target))


def library() -> ctypes.CDLL:
    """The plain loop."""
    loaded = compiled("plain_tiles.cpp")
    loaded.plain_forward.restype = ctypes.c_void_p
    return loaded


def render(splats: Splats, cameras: Cameras) -> Tensor:
    """Colour ``[3, H, W]`` under the rule GSPLAT."""
    means2d, covariances, colors, depths, boxes = tiled.project(splats, cameras, GSPLAT)
    return composite(means2d, conics(covariances), colors, depths, splats.opacities, boxes, cameras)


def conics(covariances: Tensor) -> Tensor:
    """Upper triangles ``[N, 3]`` of the inverses."""
    a, b, c = covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]
    return torch.stack([c, -b, a], 1) / (a * c - b * b)[:, None]


def composite(
    means2d: Tensor, conics: Tensor, colors: Tensor, depths: Tensor, opacities: Tensor, boxes: Tensor, cameras: Cameras
) -> Tensor:
    """The C++ part alone."""
    out: Tensor = _Composite.apply(means2d, conics, colors, depths, opacities, boxes, cameras.width, cameras.height)
    return out


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        tensors = [tensor.detach().contiguous() for tensor in arguments[:5]]
        boxes, (width, height) = arguments[5].reshape(-1, 4).int().contiguous(), arguments[6:]
        image = torch.empty(3, height, width)
        thresholds = [ctypes.c_float(v) for v in (GSPLAT.alpha_clamp, GSPLAT.cut, GSPLAT.stop)]
        ctx.kept = _Kept(library().plain_forward(
            *map(_p, tensors), _p(boxes), len(boxes), width, height, *thresholds, _p(image)
        ))  # fmt: skip
        ctx.save_for_backward(*tensors)
        return image

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        means, conics, colors, _, opacities = ctx.saved_tensors
        incoming = gradients[0].contiguous()
        out = [torch.zeros_like(t) for t in (means, conics, colors, opacities)]
        library().plain_backward(
            ctypes.c_void_p(ctx.kept.address), *map(_p, (means, conics, colors, opacities)), incoming.shape[2],
            incoming.shape[1], ctypes.c_float(GSPLAT.alpha_clamp), ctypes.c_float(GSPLAT.cut), _p(incoming),
            *map(_p, out),
        )  # fmt: skip
        return out[0], out[1], out[2], None, out[3], None, None, None


class _Kept:
    def __init__(self, address: int) -> None:
        self.address, self._release = address, library().plain_release

    def __del__(self) -> None:
        self._release(ctypes.c_void_p(self.address))


def _p(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
