"""Where bound Gaussians stand on a posed mesh: one triangle carries them, or the blend of up to four.

One triangle is GaussianAvatars' binding (arXiv 2312.02069, section 3.1). Several are blended by their motions since
the neutral pose as dual quaternions (Kavan et al. 2007, "Skinning with dual quaternions"), expressed at the Gaussian:
a head turned against its shoulders keeps long hair at its distance from the neck, which a sum of positions would not.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ap3d.raster.library import library, thread_count
from ap3d.splats.frames import (
    TriangleFrames,
    matrices_from_quaternions,
    quaternion_conjugate,
    quaternion_product,
    quaternions_from_matrices,
)

MAXIMUM_TRIANGLES = 4


@dataclass(frozen=True)
class Binding:
    """The triangles of ``N`` Gaussians.

    Attributes:
        first: ``[N]`` int64, the strongest.
        extra: ``[N, E]`` int64 further ones, E at most 3.
        extra_weights: ``[N, E]``; the rest of 1 belongs to the strongest.
    """

    first: Tensor
    extra: Tensor
    extra_weights: Tensor


@dataclass(frozen=True)
class Placement:
    """Similarities from local to world units.

    Attributes:
        linear: ``[N, 3, 3]`` and shift ``[N, 3]``: a local offset ``x`` stands at ``linear x + shift``.
        scale: ``[N]`` world units per local unit.
        quaternion: ``[N, 4]`` rotation from local to world.
        turn: ``[N, 3, 3]`` rotation since the neutral pose, None without one.
    """

    linear: Tensor
    shift: Tensor
    scale: Tensor
    quaternion: Tensor
    turn: Tensor | None


def place(binding: Binding, frames: TriangleFrames, neutral: TriangleFrames | None) -> Placement:
    """The similarity that carries each Gaussian; differentiable by the frames."""
    rotation, scale = frames.rotation[binding.first], frames.scale[binding.first]
    rigid = Placement(
        scale[:, None, None] * rotation,
        frames.origin[binding.first],
        scale,
        quaternions_from_matrices(frames.rotation)[binding.first],
        None if neutral is None else rotation @ neutral.rotation[binding.first].transpose(1, 2),
    )
    if not binding.extra.shape[1]:
        return rigid
    if neutral is None:
        raise ValueError("Gaussians bound to several triangles need the frames of the neutral pose")
    blend = _blended(binding, frames, neutral)
    assert rigid.turn is not None and blend.turn is not None
    alone = (binding.extra_weights == 0).all(1)
    chosen = lambda a, b: torch.where(alone.view(-1, *[1] * (a.ndim - 1)), a, b)  # noqa: E731
    return Placement(
        chosen(rigid.linear, blend.linear), chosen(rigid.shift, blend.shift), chosen(rigid.scale, blend.scale),
        chosen(rigid.quaternion, blend.quaternion), chosen(rigid.turn, blend.turn),
    )  # fmt: skip


def _blended(binding: Binding, frames: TriangleFrames, neutral: TriangleFrames) -> Placement:
    weights = torch.cat([1 - binding.extra_weights.sum(1, keepdim=True), binding.extra_weights], 1)
    ids = torch.cat([binding.first[:, None], binding.extra], 1)
    rest = quaternions_from_matrices(neutral.rotation)
    motions = quaternion_product(quaternions_from_matrices(frames.rotation), quaternion_conjugate(rest))
    ratio = frames.scale / neutral.scale
    matrices = ratio[:, None, None] * matrices_from_quaternions(motions)
    shifts = frames.origin - (matrices @ neutral.origin[..., None])[..., 0]
    chosen = motions[ids]
    chosen = torch.where((chosen * chosen[:, :1]).sum(-1, keepdim=True) < 0, -chosen, chosen)
    total = (weights[..., None] * chosen).sum(1)
    relative = quaternion_product(chosen, quaternion_conjugate(total)[:, None])
    relative = weights[..., None] * relative / total.square().sum(1)[:, None, None]
    # The vector part of (0, u) times `relative` is m u.
    w, x, y, z = relative.unbind(-1)
    m = torch.stack([w, z, -y, -z, w, x, y, -x, w], -1).reshape(*w.shape, 3, 3)
    eye = torch.eye(3).to(m)
    motion = eye + (m @ (matrices[ids] - eye)).sum(1)
    shift = (m @ shifts[ids][..., None])[..., 0].sum(1)
    total = torch.nn.functional.normalize(total, dim=1)
    scale = neutral.scale[binding.first]
    return Placement(
        scale[:, None, None] * motion @ neutral.rotation[binding.first],
        (motion @ neutral.origin[binding.first][..., None])[..., 0] + shift,
        scale * (weights * ratio[ids]).sum(1),
        quaternion_product(total, rest[binding.first]),
        matrices_from_quaternions(total),
    )


def pose_reference(
    xyz: Tensor, rotation: Tensor, sizes: Tensor, binding: Binding, frames: TriangleFrames,
    neutral: TriangleFrames | None, historic: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """As :func:`pose_gaussians`, in torch on any device, with gradients by the frames as well."""
    at = place(binding, frames, neutral)
    local = torch.nn.functional.normalize(rotation, dim=1)
    quaternions = quaternion_product(local, at.quaternion) if historic else quaternion_product(at.quaternion, local)
    return (at.linear @ xyz[..., None])[..., 0] + at.shift, quaternions, at.scale[:, None] * sizes, at.turn


def pose_gaussians(
    xyz: Tensor, rotation: Tensor, sizes: Tensor, binding: Binding, frames: TriangleFrames,
    neutral: TriangleFrames | None, historic: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:  # fmt: skip
    """World means ``[N, 3]``, quaternions ``[N, 4]``, scales ``[N, 3]`` and turns since neutral ``[N, 3, 3]``.

    Args:
        xyz: ``[N, 3]`` local offsets.
        rotation: ``[N, 4]`` local quaternions, of any length.
        sizes: ``[N, 3]`` local standard deviations.
        binding: the triangles.
        frames: of the posed mesh.
        neutral: of the neutral mesh; without it there are no turns, and one triangle a Gaussian.
        historic: compose local before triangle.

    Raises:
        ValueError: several triangles without ``neutral`` or in the historic order, over 4, or frames of two meshes.
        IndexError: a triangle that the mesh does not have.
    """
    if binding.extra.shape[1] and (neutral is None or historic):
        raise ValueError("Gaussians bound to several triangles need the neutral frames and the order triangle*local")
    if binding.extra.shape[1] > 3 or (neutral is not None and len(neutral.scale) != len(frames.scale)):
        raise ValueError("a Gaussian has at most 3 extra triangles, and the neutral mesh as many as the posed one")
    on_cpu = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in (xyz, frames.origin))
    if not on_cpu or frames.rotation.requires_grad:
        return pose_reference(xyz, rotation, sizes, binding, frames, neutral, historic)
    for ids in (binding.first, binding.extra):
        if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < len(frames.scale):
            raise IndexError(f"a Gaussian is bound to a triangle outside 0..{len(frames.scale) - 1}")
    means, quaternions, scales, turns = _Pose.apply(xyz, rotation, sizes, binding, frames, neutral, historic)
    return means, quaternions, scales, turns


class _Frames(ctypes.Structure):
    _fields_ = [*((n, ctypes.c_void_p) for n in ("rotation", "origin", "scale")), ("count", ctypes.c_int)]


class _Bound(ctypes.Structure):
    _fields_ = [
        *((n, ctypes.c_void_p) for n in ("xyz", "rotation", "sizes", "binding", "extra_binding", "extra_weights")),
        *((n, ctypes.c_int) for n in ("count", "extra", "historic")),
    ]


class _Posed(ctypes.Structure):
    _fields_ = [(n, ctypes.c_void_p) for n in ("means", "quaternions", "scales", "turns")]


class _Call:
    """The C structures of one call, and what keeps their memory alive."""

    def __init__(self, tensors: tuple[Tensor, ...], binding: Binding, frames: TriangleFrames,
                 neutral: TriangleFrames | None, historic: bool) -> None:  # fmt: skip
        extra = binding.extra.shape[1]
        parts = [*tensors, binding.first.long(), binding.extra.long(), binding.extra_weights.float()]
        self._kept = [t.detach().contiguous() for t in parts]
        addresses = [t.data_ptr() for t in self._kept]
        self._bound = _Bound(*addresses, len(tensors[0]), extra, historic)
        self._frames = [None if f is None else self._frame(f) for f in (frames, neutral)]

    def _frame(self, frames: TriangleFrames) -> _Frames:
        parts = [t.detach().contiguous() for t in (frames.rotation, frames.origin, frames.scale)]
        self._kept += parts
        return _Frames(*(t.data_ptr() for t in parts), len(frames.scale))

    def arguments(self) -> list[Any]:
        return [ctypes.byref(self._bound), *(None if f is None else ctypes.byref(f) for f in self._frames)]


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device="cpu")  # whatever torch's defaults are


class _Pose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor | None, ...]:
        xyz, rotation, sizes, binding, frames, neutral, historic = arguments
        call = _Call((xyz, rotation, sizes), binding, frames, neutral, historic)
        count = len(xyz)
        out = [_empty(count, size) for size in (3, 4, 3)]
        turns = None if neutral is None else _empty(count, 3, 3)
        posed = _Posed(*(None if t is None else t.data_ptr() for t in (*out, turns)))
        library().ap3d_splats_pose(*call.arguments(), ctypes.byref(posed), thread_count())
        ctx.save_for_backward(xyz, rotation, sizes)
        ctx.rest = (binding, frames, neutral, historic)
        if turns is not None:
            ctx.mark_non_differentiable(turns)
        return *out, turns

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        incoming = [g.float().contiguous() for g in gradients[:3]]
        call = _Call(tensors, *ctx.rest)
        out = [_empty(len(tensors[0]), size) for size in (3, 4, 3)]
        posed = _Posed(*(t.data_ptr() for t in incoming), None)
        addresses = [ctypes.c_void_p(t.data_ptr()) for t in out]
        library().ap3d_splats_pose_backward(*call.arguments(), ctypes.byref(posed), *addresses, thread_count())
        return *out, None, None, None, None
