"""Triangle meshes on the CPU with nvdiffrast's operations and conventions.

Clip positions come from ``Cameras.clip_matrices()``: row 0 of an image is clip y = -1, its top.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor

from ap3d.errors import NumericalError
from ap3d.raster.library import library, thread_count


def rasterize_mesh(clip: Tensor, faces: Tensor, size: tuple[int, int]) -> Tensor:
    """Rasterise triangles of both windings, nearest first.

    Args:
        clip: ``[B, V, 4]`` homogeneous clip positions; only -w <= z <= w is seen.
        faces: ``[F, 3]`` vertex indices.
        size: height and width of the image in pixels.

    Returns:
        ``[B, H, W, 4]`` float32: u and v (perspective-correct barycentrics of vertices 0 and 1), z/w, and the
        triangle's index plus 1 (0: empty). Not differentiable.

    Raises:
        ValueError: a shape or an index is wrong.
        NumericalError: a position is not finite.
    """
    height, width = size
    if clip.ndim != 3 or clip.shape[2] != 4:
        raise ValueError(f"clip must be [B, V, 4], got {tuple(clip.shape)}")
    if not (0 < height <= 8192 and 0 < width <= 8192):
        raise ValueError(f"size must be between 1 and 8192 pixels, got {size}")
    positions = clip.detach().to("cpu", torch.float32).contiguous()
    if not bool(positions.isfinite().all()):
        raise NumericalError("clip positions hold values that are not finite")
    indices = _indices(faces, clip.shape[1])
    out = torch.empty(len(clip), height, width, 4)
    library().ap3d_mesh_rasterize(
        _p(positions), _p(indices), *map(int, (*clip.shape[:2], len(indices), height, width)), _p(out), thread_count()
    )
    return out


def interpolate(attributes: Tensor, rast: Tensor, faces: Tensor) -> Tensor:
    """Vertex attributes at each pixel, 0 where nothing was hit.

    Args:
        attributes: ``[B or 1, V, C]``; gradients flow to it.
        rast: ``[B, H, W, 4]`` from :func:`rasterize_mesh`.
        faces: ``[F, 3]`` vertex indices, the same as were rasterised.

    Returns:
        ``[B, H, W, C]`` float32.
    """
    if attributes.ndim != 3 or len(attributes) not in (1, len(rast)):
        raise ValueError(f"attributes must be [{len(rast)} or 1, V, C], got {tuple(attributes.shape)}")
    if rast.ndim != 4 or rast.shape[3] != 4:
        raise ValueError(f"rast must be [B, H, W, 4], got {tuple(rast.shape)}")
    if rast.numel() and int(rast[..., 3].max()) > len(faces):
        raise ValueError(f"rast names triangle {int(rast[..., 3].max())}, but faces holds {len(faces)}")
    return _Interpolate.apply(attributes, rast, faces)  # type: ignore[no-any-return]


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, attributes: Tensor, rast: Tensor, faces: Tensor) -> Tensor:
        table = attributes.detach().to("cpu", torch.float32).contiguous()
        raster = rast.detach().to("cpu", torch.float32).contiguous()
        indices = _indices(faces, table.shape[1])
        batch, height, width, _ = raster.shape
        out = torch.empty(batch, height, width, table.shape[2])
        ctx.sizes = (len(table), batch, table.shape[1], height * width, table.shape[2])
        ctx.save_for_backward(raster, indices)
        library().ap3d_mesh_interpolate(
            _p(table), _p(raster), _p(indices), *ctx.sizes, _p(out), thread_count()
        )
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        raster, indices = ctx.saved_tensors
        incoming = gradients[0].to(torch.float32).contiguous()
        attribute_batch, _, vertices, _, channels = ctx.sizes
        out = torch.zeros(attribute_batch, vertices, channels)
        library().ap3d_mesh_interpolate_backward(
            _p(incoming), _p(raster), _p(indices), *ctx.sizes, _p(out), thread_count()
        )
        return out, None, None


def _indices(faces: Tensor, vertices: int) -> Tensor:
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.is_floating_point():
        raise ValueError(f"faces must be [F, 3] integers, got {tuple(faces.shape)} {faces.dtype}")
    if faces.numel() and not (int(faces.min()) >= 0 and int(faces.max()) < vertices):
        raise ValueError(f"faces index vertices {int(faces.min())}..{int(faces.max())}, but there are {vertices}")
    if len(faces) >= 1 << 24:
        raise ValueError(f"at most {(1 << 24) - 1} triangles fit the float32 index, got {len(faces)}")
    return faces.detach().to("cpu", torch.int32).contiguous()


def _p(tensor: Tensor) -> Any:
    return ctypes.c_void_p(tensor.data_ptr())
