"""nvdiffrast behind the mesh protocol: the same operations on a CUDA device (its licence is non-commercial)."""

import functools
from typing import Any

import torch
from torch import Tensor

from ap3d.errors import MissingDependencyError


def rasterize(clip: Tensor, faces: Tensor, size: tuple[int, int]) -> Tensor:
    """``[B, H, W, 4]``; see :func:`ap3d.raster.mesh.rasterize_mesh`."""
    module, context = _context()
    raster, _ = module.rasterize(context, clip.detach().float().contiguous(), _indices(faces, clip), resolution=size)
    return raster.detach()  # type: ignore[no-any-return]


def interpolate(attributes: Tensor, rast: Tensor, faces: Tensor) -> Tensor:
    """``[B, H, W, C]``; see :func:`ap3d.raster.mesh.interpolate`."""
    module, _ = _context()
    image, _ = module.interpolate(attributes.float().contiguous(), rast.contiguous(), _indices(faces, attributes))
    return image  # type: ignore[no-any-return]


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
