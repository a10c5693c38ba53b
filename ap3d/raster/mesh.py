"""Triangle meshes to images with nvdiffrast's operations and conventions, in front of every backend.

Laine et al. 2020, "Modular Primitives for High-Performance Differentiable Rendering". Clip positions come from
``Cameras.clip_matrices()``: row 0 of an image is clip y = -1, its top. ``backend`` is "cpu" or "nvdiffrast"; by
default it is the best one for the device of the first argument.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ap3d.errors import NumericalError
from ap3d.raster.backends import mesh_backend

LARGEST_IMAGE = 8192
LARGEST_TEXTURE = 1 << 14
FILTER_MODES = ("auto", "nearest", "linear", "linear-mipmap-nearest", "linear-mipmap-linear")
BOUNDARY_MODES = ("wrap", "clamp", "zero")


def rasterize_mesh(clip: Tensor, faces: Tensor, size: tuple[int, int], *, backend: str | None = None) -> Tensor:
    """Rasterise triangles of both windings; the nearest wins, among equals the one that comes first.

    Args:
        clip: ``[B, V, 4]`` homogeneous clip positions; only -w <= z <= w is seen. Gradients of u and v flow to it.
        faces: ``[F, 3]`` vertex indices.
        size: height and width of the image in pixels.
        backend: see the module.

    Returns:
        ``[B, H, W, 4]`` float32: u and v (perspective-correct barycentrics of vertices 0 and 1), z/w, and the
        triangle's index plus 1 (0: empty). z/w passes no gradient: interpolate a position to differentiate depth.

    Raises:
        ValueError: a shape or an index is wrong.
        NumericalError: a position is not finite.
    """
    if clip.ndim != 3 or clip.shape[2] != 4:
        raise ValueError(f"clip must be [B, V, 4], got {tuple(clip.shape)}")
    if len(size) != 2 or not all(0 < side <= LARGEST_IMAGE for side in size):
        raise ValueError(f"size must be a height and a width of 1 to {LARGEST_IMAGE} pixels, got {tuple(size)}")
    _check_finite(clip, "clip positions")
    _check_faces(faces, clip.shape[1])
    out: Tensor = mesh_backend(backend, clip.device).rasterize(clip, faces, tuple(size))
    return out


def interpolate(attributes: Tensor, rast: Tensor, faces: Tensor, *, backend: str | None = None) -> Tensor:
    """Vertex attributes at each pixel, 0 where nothing was hit.

    Args:
        attributes: ``[B or 1, V, C]``; gradients flow to it.
        rast: ``[B, H, W, 4]`` from :func:`rasterize_mesh`; gradients flow to its u and v.
        faces: ``[F, 3]`` vertex indices, the same as were rasterised.
        backend: see the module.

    Returns:
        ``[B, H, W, C]`` float32.

    Raises:
        ValueError: a shape or an index is wrong.
        NumericalError: an attribute or a barycentric is not finite.
    """
    _check_image(rast, "rast", 4)
    if attributes.ndim != 3 or len(attributes) not in (1, len(rast)):
        raise ValueError(f"attributes must be [{len(rast)} or 1, V, C], got {tuple(attributes.shape)}")
    _check_finite(attributes, "attributes")
    _check_faces(faces, attributes.shape[1])
    out: Tensor = mesh_backend(backend, attributes.device).interpolate(attributes, rast, faces)
    return out


def texture(
    tex: Tensor,
    uv: Tensor,
    uv_da: Tensor | None = None,
    *,
    level: Tensor | None = None,
    filter_mode: str = "auto",
    boundary_mode: str = "wrap",
    max_level: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """Texture values at texture coordinates; gradients flow to all tensors (not through a nearest lookup's place).

    Args:
        tex: ``[B or 1, h, w, C]``; row 0 lies at v = 0, and texel centres at half-integers.
        uv: ``[B, H, W, 2]``; the texture covers 0 to 1.
        uv_da: ``[B, H, W, 4]`` derivatives of uv by pixel (du/dx, du/dy, dv/dx, dv/dy), from which mip levels come.
        level: ``[B, H, W]`` added to that level, or the level itself where ``uv_da`` is None.
        filter_mode: one of ``FILTER_MODES``; "auto" is trilinear where a level is known, else linear.
        boundary_mode: what lies outside 0 to 1: one of ``BOUNDARY_MODES``.
        max_level: coarsest mip level to use; by default down to where both sides are 1.
        backend: see the module.

    Returns:
        ``[B, H, W, C]`` float32.

    Raises:
        ValueError: a shape or a mode is wrong, or a side cannot be halved down to ``max_level``.
        NumericalError: a value is not finite.
    """
    _check_image(uv, "uv", 2)
    _check_image(tex, "tex", None, len(uv))
    if not min(tex.shape[1:3]) > 0 or max(tex.shape[1:3]) > LARGEST_TEXTURE:
        raise ValueError(f"a texture's sides must be 1 to {LARGEST_TEXTURE} texels, got {tuple(tex.shape)}")
    for tensor, name, tail in ((uv_da, "uv_da", (4,)), (level, "level", ())):
        if tensor is not None and tensor.shape != (*uv.shape[:3], *tail):
            raise ValueError(f"{name} must be {[*uv.shape[:3], *tail]}, got {tuple(tensor.shape)}")
    for tensor, name in ((tex, "tex"), (uv, "uv"), (uv_da, "uv_da"), (level, "level")):
        if tensor is not None:
            _check_finite(tensor, name)
    mode = _filter_mode(filter_mode, boundary_mode, uv_da is not None or level is not None)
    module = mesh_backend(backend, tex.device)
    if "mipmap" not in mode:
        return module.texture([tex], uv, None, mode, boundary_mode)  # type: ignore[no-any-return]
    depth = level if uv_da is None else _level_of(uv_da, tex.shape[1], tex.shape[2], level)
    return module.texture(mip_levels(tex, max_level), uv, depth, mode, boundary_mode)  # type: ignore[no-any-return]


def mip_levels(tex: Tensor, max_level: int | None = None) -> list[Tensor]:
    """A texture ``[B, h, w, C]`` and its halves, each texel the mean of the four (or two) it covers."""
    levels = [tex]
    while max(levels[-1].shape[1:3]) > 1 and (max_level is None or len(levels) <= max_level):
        height, width = levels[-1].shape[1:3]
        if any(side > 1 and side % 2 for side in (height, width)):
            raise ValueError(f"a texture of {height} x {width} texels cannot be halved: pass max_level or pad it")
        window = (min(2, height), min(2, width))
        levels.append(torch.nn.functional.avg_pool2d(levels[-1].permute(0, 3, 1, 2), window).permute(0, 2, 3, 1))
    return levels


@dataclass(frozen=True)
class MeshTopology:
    """Which triangles share edges, in the form of one backend; good for as long as the faces stay the same."""

    backend: Any
    table: Any


def mesh_topology(faces: Tensor, *, backend: str | None = None) -> MeshTopology:
    """Made once for faces ``[F, 3]`` that :func:`antialias` sees many times."""
    _check_faces(faces, None)
    module = mesh_backend(backend, faces.device)
    return MeshTopology(module, module.topology(faces))


def antialias(
    color: Tensor,
    rast: Tensor,
    clip: Tensor,
    faces: Tensor,
    *,
    topology: MeshTopology | None = None,
    position_gradient_boost: float = 1.0,
    backend: str | None = None,
) -> Tensor:
    """Blend pixels across silhouette edges by coverage, so that visibility has a gradient (section 3.5 of the paper).

    Args:
        color: ``[B, H, W, C]`` shaded, background included; gradients flow to it.
        rast: ``[B, H, W, 4]`` from :func:`rasterize_mesh`.
        clip: ``[B, V, 4]`` as rasterised; gradients flow to it through the silhouettes.
        faces: ``[F, 3]`` vertex indices as rasterised. Triangles share an edge where they share its two vertices.
        topology: from :func:`mesh_topology`; made anew where it is None.
        position_gradient_boost: factor on the gradient to ``clip``.
        backend: see the module.

    Returns:
        ``[B, H, W, C]`` float32.

    Raises:
        ValueError: a shape or an index is wrong.
        NumericalError: a value is not finite.
    """
    _check_image(rast, "rast", 4)
    _check_image(color, "color", None)
    if color.shape[:3] != rast.shape[:3]:
        raise ValueError(f"color must be {list(rast.shape[:3])} + [C] as rast is, got {tuple(color.shape)}")
    if clip.ndim != 3 or clip.shape[0] != len(rast) or clip.shape[2] != 4:
        raise ValueError(f"clip must be [{len(rast)}, V, 4], got {tuple(clip.shape)}")
    _check_finite(color, "color")
    _check_finite(clip, "clip positions")
    _check_faces(faces, clip.shape[1])
    module = mesh_backend(backend, color.device)
    table = module.topology(faces) if topology is None else topology.table
    if topology is not None and topology.backend is not module:
        raise ValueError("topology was made for another backend: pass mesh_topology the same one")
    out: Tensor = module.antialias(color, rast, clip, faces, table, float(position_gradient_boost))
    return out


def _filter_mode(filter_mode: str, boundary_mode: str, levelled: bool) -> str:
    if filter_mode not in FILTER_MODES:
        raise ValueError(f"filter_mode must be one of {', '.join(FILTER_MODES)}, got {filter_mode!r}")
    if boundary_mode not in BOUNDARY_MODES:
        raise ValueError(f"boundary_mode must be one of {', '.join(BOUNDARY_MODES)}, got {boundary_mode!r}")
    if "mipmap" in filter_mode and not levelled:
        raise ValueError(f"{filter_mode} needs uv_da or level")
    return ("linear-mipmap-linear" if levelled else "linear") if filter_mode == "auto" else filter_mode


def _level_of(uv_da: Tensor, height: int, width: int, bias: Tensor | None) -> Tensor:
    """log2 of the longer axis of a pixel's footprint in texels: the larger singular value of its Jacobian."""
    rows = uv_da.float().unflatten(-1, (2, 2)) * torch.tensor([[width], [height]], device=uv_da.device)
    xx, yy = rows.square().sum(-2).unbind(-1)
    xy = (rows[..., 0] * rows[..., 1]).sum(-1)
    spread = (0.25 * (xx - yy).square() + xy.square()).clamp(min=1e-12).sqrt()
    level = 0.5 * (0.5 * (xx + yy) + spread).clamp(1e-12, 1e30).log2()
    return level if bias is None else level + bias


def _check_image(image: Tensor, name: str, channels: int | None, batch: int | None = None) -> None:
    right_batch = batch is None or len(image) in (1, batch) if image.ndim else False
    if image.ndim != 4 or not right_batch or image.shape[3] != (channels or image.shape[3]):
        first = "B" if batch is None else f"{batch} or 1"
        raise ValueError(f"{name} must be [{first}, H, W, {channels or 'C'}], got {tuple(image.shape)}")
    if max(image.shape[1:3]) > LARGEST_TEXTURE:
        raise ValueError(f"{name} must have sides of at most {LARGEST_TEXTURE}, got {tuple(image.shape)}")


def _check_finite(tensor: Tensor, name: str) -> None:
    """A finite sum proves finite terms in one pass; only a sum that overflows needs a second look."""
    values = tensor.detach()
    if not bool(values.sum().isfinite()) and not bool(values.isfinite().all()):
        raise NumericalError(f"{name} hold values that are not finite")


def _check_faces(faces: Tensor, vertices: int | None) -> None:
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.is_floating_point() or faces.dtype == torch.bool:
        raise ValueError(f"faces must be [F, 3] integers, got {tuple(faces.shape)} {faces.dtype}")
    if len(faces) >= 1 << 24:
        raise ValueError(f"at most {(1 << 24) - 1} triangles fit the float32 index, got {len(faces)}")
    if not faces.numel():
        return
    low, high = (int(end) for end in faces.aminmax())
    if low < 0 or high >= (1 << 31 if vertices is None else vertices):
        raise ValueError(f"faces index vertices {low}..{high}, but there are {vertices}")
