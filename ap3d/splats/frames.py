"""Local frames of mesh triangles, to which Gaussians are bound.

Source: GaussianAvatars (arXiv 2312.02069, section 3.1) with the axis order of AnimPortrait3D's files.
"""

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from ap3d.raster.library import library


@dataclass(frozen=True)
class TriangleFrames:
    """Frames of ``F`` triangles: columns of ``rotation`` are the first edge, the normal and their cross axis.

    Attributes:
        rotation: ``[F, 3, 3]`` right-handed, local to world.
        origin: ``[F, 3]`` centroid, world units.
        scale: ``[F]`` mean of base and height, world units.
    """

    rotation: Tensor
    origin: Tensor
    scale: Tensor

    def to(self, device: str | torch.device) -> "TriangleFrames":
        """The same frames on another device."""
        return TriangleFrames(self.rotation.to(device), self.origin.to(device), self.scale.to(device))


def triangle_frames(vertices: Tensor, faces: Tensor) -> TriangleFrames:
    """Frames of the triangles of one posed mesh, ``vertices [V, 3]``, ``faces [F, 3]``.

    A triangle without area keeps a finite frame: its normal falls back to a unit axis. Differentiable by the vertices.

    Raises:
        IndexError: a face names a vertex that is not there.
    """
    plain = vertices.device.type == "cpu" and vertices.dtype == torch.float32 and not vertices.requires_grad
    return _frames_by_kernel(vertices, faces) if plain else frames_reference(vertices, faces)


def _frames_by_kernel(vertices: Tensor, faces: Tensor) -> TriangleFrames:
    if len(faces) and not 0 <= int(faces.min()) <= int(faces.max()) < len(vertices):
        raise IndexError(f"a face names a vertex outside 0..{len(vertices) - 1}")
    count = len(faces)
    given = [vertices.contiguous(), faces.to(torch.int64).contiguous()]
    out = [torch.empty(shape, dtype=torch.float32, device="cpu") for shape in ((count, 3, 3), (count, 3), (count,))]
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in (*given, *out)]
    library().ap3d_triangle_frames(*pointers[:2], count, *pointers[2:])
    return TriangleFrames(*out)


def frames_reference(vertices: Tensor, faces: Tensor) -> TriangleFrames:
    """As :func:`triangle_frames`, in torch on any device."""
    corners = vertices[faces]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    edge = _unit(first, torch.tensor([1.0, 0.0, 0.0]))
    normal = _unit(torch.linalg.cross(edge, second), torch.tensor([0.0, 1.0, 0.0]))
    normal = _unit(normal - (normal * edge).sum(1, keepdim=True) * edge, torch.tensor([0.0, 1.0, 0.0]))
    across = -torch.linalg.cross(normal, edge)
    scale = 0.5 * (first.norm(dim=1) + (across * second).sum(1).abs())
    return TriangleFrames(torch.stack([edge, normal, across], 2), corners.mean(1), scale.clamp(min=1e-6))


def _unit(vector: Tensor, fallback: Tensor) -> Tensor:
    length = vector.norm(dim=1, keepdim=True)
    return torch.where(length > 1e-12, vector / length.clamp(min=1e-12), fallback.to(vector))


def quaternions_from_matrices(matrices: Tensor) -> Tensor:
    """Unit quaternions ``[..., 4]`` (w, x, y, z) of rotation matrices ``[..., 3, 3]``."""
    m = matrices
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    diagonal = torch.stack([trace, m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]], -1)
    largest = diagonal.argmax(-1)
    # Four equivalent formulas; the one with the largest pivot is well conditioned.
    w = torch.stack(
        [1 + trace, m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]], -1
    )
    x = torch.stack(
        [w[..., 1], 1 + 2 * m[..., 0, 0] - trace, m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0]], -1
    )
    y = torch.stack([w[..., 2], x[..., 2], 1 + 2 * m[..., 1, 1] - trace, m[..., 1, 2] + m[..., 2, 1]], -1)
    z = torch.stack([w[..., 3], x[..., 3], y[..., 3], 1 + 2 * m[..., 2, 2] - trace], -1)
    candidates = torch.stack([w, x, y, z], -2)
    index = largest[..., None, None].expand(*largest.shape, 1, 4)
    return torch.nn.functional.normalize(candidates.gather(-2, index)[..., 0, :], dim=-1)


def quaternion_product(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product of quaternions ``[..., 4]`` in w, x, y, z order."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )


def quaternion_conjugate(q: Tensor) -> Tensor:
    """The inverse of unit quaternions ``[..., 4]``."""
    return torch.cat([q[..., :1], -q[..., 1:]], -1)


def matrices_from_quaternions(quaternions: Tensor) -> Tensor:
    """Rotation matrices ``[..., 3, 3]`` of unit quaternions ``[..., 4]``."""
    w, x, y, z = quaternions.unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).reshape(*w.shape, 3, 3)


def rotate_by_quaternions(quaternions: Tensor, vectors: Tensor) -> Tensor:
    """Turn vectors ``[..., 3]`` by quaternions ``[..., 4]``, which need not be normalised."""
    q = torch.nn.functional.normalize(quaternions, dim=-1)
    twice = 2 * torch.linalg.cross(q[..., 1:], vectors)
    return vectors + q[..., :1] * twice + torch.linalg.cross(q[..., 1:], twice)
