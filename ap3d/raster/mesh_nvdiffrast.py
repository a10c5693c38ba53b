"""nvdiffrast behind the mesh protocol: the same operations on a CUDA device (its licence is non-commercial)."""

import functools
from typing import Any

import torch
from torch import Tensor

from ap3d.errors import MissingDependencyError


def rasterize(clip: Tensor, faces: Tensor, size: tuple[int, int]) -> Tensor:
    """``[B, H, W, 4]``; see :func:`ap3d.raster.mesh.rasterize_mesh`."""
    module, context = _context()
    raster, _ = module.rasterize(context, _dense(clip), _indices(faces, clip), resolution=list(size))
    return raster  # type: ignore[no-any-return]


def interpolate(attributes: Tensor, rast: Tensor, faces: Tensor) -> Tensor:
    """``[B, H, W, C]``; see :func:`ap3d.raster.mesh.interpolate`."""
    module, _ = _context()
    image, _ = module.interpolate(_dense(attributes), _dense(rast), _indices(faces, attributes))
    return image  # type: ignore[no-any-return]


def texture(levels: list[Tensor], uv: Tensor, level: Tensor | None, filter_mode: str, boundary_mode: str) -> Tensor:
    """``[B, H, W, C]``; a level without uv_da is nvdiffrast's mip_level_bias, and the pyramid is passed as it is."""
    module, _ = _context()
    stack = [_dense(texels) for texels in levels[1:]] if level is not None else None
    image = module.texture(
        _dense(levels[0]), _dense(uv), None, None if level is None else _dense(level), mip=stack,
        filter_mode=filter_mode, boundary_mode=boundary_mode,
    )  # fmt: skip
    return image  # type: ignore[no-any-return]


def topology(faces: Tensor) -> Any:
    """nvdiffrast's hash of the edges."""
    module, _ = _context()
    return module.antialias_construct_topology_hash(faces.to("cuda", torch.int32).contiguous())


def antialias(color: Tensor, rast: Tensor, clip: Tensor, faces: Tensor, table: Any, boost: float) -> Tensor:
    """``[B, H, W, C]``; see :func:`ap3d.raster.mesh.antialias`."""
    module, _ = _context()
    image = module.antialias(
        _dense(color), _dense(rast), _dense(clip), _indices(faces, color),
        topology_hash=table, pos_gradient_boost=boost,
    )  # fmt: skip
    return image  # type: ignore[no-any-return]


def _dense(tensor: Tensor) -> Tensor:
    return tensor.float().contiguous()


def _indices(faces: Tensor, like: Tensor) -> Tensor:
    return faces.to(like.device, torch.int32).contiguous()


@functools.cache
def _context() -> tuple[Any, Any]:
    try:
        import nvdiffrast.torch as module  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise MissingDependencyError(
            "the mesh rasteriser 'nvdiffrast' is not installed: pip install nvdiffrast, or use the backend 'cpu'"
        ) from None
    if not torch.cuda.is_available():
        raise MissingDependencyError("the mesh rasteriser 'nvdiffrast' needs a CUDA device; use the backend 'cpu'")
    return module, module.RasterizeCudaContext()
