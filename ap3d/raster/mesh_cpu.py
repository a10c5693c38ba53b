"""The C++ mesh kernels (csrc/mesh_*.cpp) as autograd functions; :mod:`ap3d.raster.mesh` says what they mean."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from ap3d.errors import NumericalError
from ap3d.raster.library import library, thread_count

BOUNDARY_CODES = {"wrap": 0, "clamp": 1, "zero": 2}
Gradients = tuple[Tensor | None, ...]


def rasterize(clip: Tensor, faces: Tensor, size: tuple[int, int]) -> Tensor:
    """``[B, H, W, 4]`` on the device of ``clip``."""
    return _Rasterize.apply(clip, faces, size)  # type: ignore[no-any-return]


def interpolate(attributes: Tensor, rast: Tensor, faces: Tensor) -> Tensor:
    """``[B, H, W, C]`` on the device of ``attributes``."""
    return _Interpolate.apply(attributes, rast, faces)  # type: ignore[no-any-return]


def texture(levels: list[Tensor], uv: Tensor, level: Tensor | None, filter_mode: str, boundary_mode: str) -> Tensor:
    """``[B, H, W, C]`` from a pyramid of ``[B or 1, h, w, C]``, largest first."""
    pyramid = torch.cat([texels.flatten(1, 2) for texels in levels], 1) if len(levels) > 1 else levels[0].flatten(1, 2)
    modes = (BOUNDARY_CODES[boundary_mode], filter_mode != "nearest", filter_mode == "linear-mipmap-linear")
    shape = (levels[0].shape[1], levels[0].shape[2], len(levels))
    return _Texture.apply(pyramid, uv, level, shape, modes)  # type: ignore[no-any-return]


def topology(faces: Tensor) -> Tensor:
    """``[F, 3]`` int32: each edge, named 3 face + corner opposite, gets its name in the next triangle, or -1."""
    highest = int(faces.max()) if faces.numel() else -1
    if highest > 4 * faces.numel():  # numbered anew: the kernel's table holds every vertex up to the highest
        faces = faces.unique(return_inverse=True)[1]
        highest = int(faces.max())
    indices = _dense(faces, torch.int32)
    beyond, vertices = torch.empty_like(indices), highest + 1
    library().ap3d_mesh_topology(_p(indices), len(indices), vertices, _p(beyond))
    return beyond


def antialias(color: Tensor, rast: Tensor, clip: Tensor, faces: Tensor, table: Tensor, boost: float) -> Tensor:
    """``[B, H, W, C]`` on the device of ``color``."""
    if table.shape != faces.shape or (table.numel() and int(table.max()) >= faces.numel()):
        raise ValueError(f"topology was made of other faces ({len(table)} of them, here {len(faces)})")
    return _Antialias.apply(color, rast, clip, faces, table, boost)  # type: ignore[no-any-return]


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, clip: Tensor, faces: Tensor, size: tuple[int, int]) -> Tensor:
        positions, indices = _dense(clip), _dense(faces, torch.int32)
        out = _empty(len(clip), *size, 4)
        ctx.sizes = (len(clip), clip.shape[1], len(faces), *size)
        ctx.save_for_backward(out, positions, indices)
        ctx.place = (clip.device, clip.dtype)
        library().ap3d_mesh_rasterize(_p(positions), _p(indices), *ctx.sizes, _p(out), thread_count())
        return out.to(clip.device)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        raster, positions, indices = ctx.saved_tensors
        incoming, out = _dense(gradients[0]), torch.zeros_like(positions)
        library().ap3d_mesh_rasterize_backward(
            _p(incoming), _p(raster), _p(positions), _p(indices), *ctx.sizes, _p(out), thread_count()
        )
        return out.to(*ctx.place), None, None


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, attributes: Tensor, rast: Tensor, faces: Tensor) -> Tensor:
        table, raster, indices = _dense(attributes), _dense(rast), _dense(faces, torch.int32)
        batch, height, width, _ = raster.shape
        out = _empty(batch, height, width, table.shape[2])
        ctx.sizes = (len(table), batch, table.shape[1], len(indices), height * width, table.shape[2])
        ctx.save_for_backward(table, raster, indices)
        ctx.places = (attributes.device, attributes.dtype), (rast.device, rast.dtype)
        _check(
            library().ap3d_mesh_interpolate(
                _p(table), _p(raster), _p(indices), *ctx.sizes, _p(out), thread_count()
            ),
            len(indices),
        )  # fmt: skip
        return out.to(attributes.device)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        table, raster, indices = ctx.saved_tensors
        incoming, out = _dense(gradients[0]), torch.zeros_like(table)
        to_raster = torch.empty_like(raster) if ctx.needs_input_grad[1] else None
        library().ap3d_mesh_interpolate_backward(
            _p(incoming), _p(table), _p(raster), _p(indices), *ctx.sizes, _p(out), _p(to_raster), thread_count()
        )
        return out.to(*ctx.places[0]), None if to_raster is None else to_raster.to(*ctx.places[1]), None


class _Texture(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, pyramid: Tensor, uv: Tensor, level: Tensor | None, shape: tuple[int, ...], modes: tuple[int, ...]
    ) -> Tensor:
        texels, places = _dense(pyramid), _dense(uv)
        depths = None if level is None else _dense(level)
        batch, height, width, _ = places.shape
        channels = texels.shape[2]
        out = _empty(batch, height, width, channels)
        ctx.sizes = (len(texels), batch, *shape, channels, height * width, *modes)
        ctx.save_for_backward(texels, places, depths)
        ctx.places = tuple(None if t is None else (t.device, t.dtype) for t in (pyramid, uv, level))
        library().ap3d_mesh_texture(_p(texels), _p(places), _p(depths), *ctx.sizes, _p(out), thread_count())
        return out.to(uv.device)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        texels, places, depths = ctx.saved_tensors
        incoming, to_uv = _dense(gradients[0]), torch.empty_like(places)
        to_texels, to_level = torch.zeros_like(texels), None if depths is None else torch.empty_like(depths)
        library().ap3d_mesh_texture_backward(
            _p(incoming), _p(texels), _p(places), _p(depths), *ctx.sizes,
            _p(to_texels), _p(to_uv), _p(to_level), thread_count(),
        )  # fmt: skip
        outputs = (to_texels, to_uv, to_level)
        moved = (None if g is None else g.to(*place) for g, place in zip(outputs, ctx.places, strict=True))
        return (*moved, None, None)


class _Antialias(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, color: Tensor, rast: Tensor, clip: Tensor, faces: Tensor, table: Tensor, boost: float
    ) -> Tensor:
        kept = (_dense(color), _dense(rast), _dense(clip), _dense(faces, torch.int32), _dense(table, torch.int32))
        ctx.sizes = (len(color), clip.shape[1], len(faces), *color.shape[1:])
        ctx.save_for_backward(*kept)
        ctx.boost, ctx.places = boost, ((color.device, color.dtype), (clip.device, clip.dtype))
        out = torch.empty_like(kept[0])
        status = library().ap3d_mesh_antialias(*(_p(t) for t in kept), *ctx.sizes, _p(out), thread_count())
        _check(status, len(faces))
        return out.to(color.device)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Gradients:
        kept, incoming = ctx.saved_tensors, _dense(gradients[0])
        to_color, to_clip = torch.empty_like(kept[0]), torch.zeros_like(kept[2])
        library().ap3d_mesh_antialias_backward(
            _p(incoming), *(_p(t) for t in kept), *ctx.sizes, ctypes.c_float(ctx.boost),
            _p(to_color), _p(to_clip), thread_count(),
        )  # fmt: skip
        return to_color.to(*ctx.places[0]), None, to_clip.to(*ctx.places[1]), None, None, None


def _check(status: int, faces: int) -> None:
    if status == 1:
        raise ValueError(f"rast names triangles that faces, which holds {faces}, does not have: use the same faces")
    if status == 2:
        raise NumericalError("rast holds values that are not finite: pass it on as rasterize_mesh made it")


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device="cpu")  # whatever torch's defaults are


def _dense(tensor: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    return tensor.detach().to("cpu", dtype).contiguous()


def _p(tensor: Tensor | None) -> ctypes.c_void_p | None:
    return None if tensor is None else ctypes.c_void_p(tensor.data_ptr())
