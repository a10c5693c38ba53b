"""Triangle meshes to images with nvdiffrast's operations and conventions, in front of every backend.

Clip positions come from ``Cameras.clip_matrices()``: row 0 of an image is clip y = -1, its top.
"""

from torch import Tensor

from ap3d.errors import NumericalError
from ap3d.raster.backends import mesh_backend

LARGEST_IMAGE = 8192


def rasterize_mesh(clip: Tensor, faces: Tensor, size: tuple[int, int], *, backend: str | None = None) -> Tensor:
    """Rasterise triangles of both windings, nearest first.

    Args:
        clip: ``[B, V, 4]`` homogeneous clip positions; only -w <= z <= w is seen.
        faces: ``[F, 3]`` vertex indices.
        size: height and width of the image in pixels.
        backend: "cpu" or "nvdiffrast"; by default the best one for the device of ``clip``.

    Returns:
        ``[B, H, W, 4]`` float32: u and v (perspective-correct barycentrics of vertices 0 and 1), z/w, and the
        triangle's index plus 1 (0: empty). Not differentiable.

    Raises:
        ValueError: a shape or an index is wrong.
        NumericalError: a position is not finite.
    """
    if clip.ndim != 3 or clip.shape[2] != 4:
        raise ValueError(f"clip must be [B, V, 4], got {tuple(clip.shape)}")
    if not all(0 < side <= LARGEST_IMAGE for side in size):
        raise ValueError(f"size must be between 1 and {LARGEST_IMAGE} pixels, got {size}")
    if not bool(clip.detach().isfinite().all()):
        raise NumericalError("clip positions hold values that are not finite")
    _check_faces(faces, clip.shape[1])
    out: Tensor = mesh_backend(backend, clip.device).rasterize(clip, faces, size)
    return out


def interpolate(attributes: Tensor, rast: Tensor, faces: Tensor, *, backend: str | None = None) -> Tensor:
    """Vertex attributes at each pixel, 0 where nothing was hit.

    Args:
        attributes: ``[B or 1, V, C]``; gradients flow to it.
        rast: ``[B, H, W, 4]`` from :func:`rasterize_mesh`.
        faces: ``[F, 3]`` vertex indices, the same as were rasterised.
        backend: as for :func:`rasterize_mesh`.

    Returns:
        ``[B, H, W, C]`` float32.
    """
    if rast.ndim != 4 or rast.shape[3] != 4:
        raise ValueError(f"rast must be [B, H, W, 4], got {tuple(rast.shape)}")
    if attributes.ndim != 3 or len(attributes) not in (1, len(rast)):
        raise ValueError(f"attributes must be [{len(rast)} or 1, V, C], got {tuple(attributes.shape)}")
    _check_faces(faces, attributes.shape[1])
    if rast.numel() and int(rast[..., 3].max()) > len(faces):
        raise ValueError(f"rast names triangle {int(rast[..., 3].max())}, but faces holds {len(faces)}")
    out: Tensor = mesh_backend(backend, attributes.device).interpolate(attributes, rast, faces)
    return out


def _check_faces(faces: Tensor, vertices: int) -> None:
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.is_floating_point():
        raise ValueError(f"faces must be [F, 3] integers, got {tuple(faces.shape)} {faces.dtype}")
    if faces.numel() and not (int(faces.min()) >= 0 and int(faces.max()) < vertices):
        raise ValueError(f"faces index vertices {int(faces.min())}..{int(faces.max())}, but there are {vertices}")
    if len(faces) >= 1 << 24:
        raise ValueError(f"at most {(1 << 24) - 1} triangles fit the float32 index, got {len(faces)}")
