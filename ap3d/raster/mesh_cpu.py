"""The C++ mesh kernel (csrc/mesh.cpp); see :mod:`ap3d.raster.mesh` for what its operations mean."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from ap3d.raster.library import library, thread_count


def rasterize(clip: Tensor, faces: Tensor, size: tuple[int, int]) -> Tensor:
    """``[B, H, W, 4]`` on the device of ``clip``."""
    positions, indices = _dense(clip), _dense(faces, torch.int32)
    out = torch.empty(len(clip), *size, 4)
    counts = (len(clip), clip.shape[1], len(faces), *size)
    library().ap3d_mesh_rasterize(_p(positions), _p(indices), *counts, _p(out), thread_count())
    return out.to(clip.device)


def interpolate(attributes: Tensor, rast: Tensor, faces: Tensor) -> Tensor:
    """``[B, H, W, C]`` on the device of ``attributes``."""
    return _Interpolate.apply(attributes, rast, faces)  # type: ignore[no-any-return]


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, attributes: Tensor, rast: Tensor, faces: Tensor) -> Tensor:
        table, raster, indices = _dense(attributes), _dense(rast), _dense(faces, torch.int32)
        batch, height, width, _ = raster.shape
        out = torch.empty(batch, height, width, table.shape[2])
        ctx.sizes = (len(table), batch, table.shape[1], height * width, table.shape[2])
        ctx.save_for_backward(raster, indices)
        ctx.device, ctx.dtype = attributes.device, attributes.dtype
        library().ap3d_mesh_interpolate(_p(table), _p(raster), _p(indices), *ctx.sizes, _p(out), thread_count())
        return out.to(attributes.device)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        raster, indices = ctx.saved_tensors
        incoming = _dense(gradients[0])
        attribute_batch, _, vertices, _, channels = ctx.sizes
        out = torch.zeros(attribute_batch, vertices, channels)
        library().ap3d_mesh_interpolate_backward(
            _p(incoming), _p(raster), _p(indices), *ctx.sizes, _p(out), thread_count()
        )
        return out.to(ctx.device, ctx.dtype), None, None


def _dense(tensor: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    return tensor.detach().to("cpu", dtype).contiguous()


def _p(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
