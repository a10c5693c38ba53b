"""Linear blend skinning that all rigs share (SMPL, Loper et al. 2015, section 3): batched and differentiable."""

from collections.abc import Sequence

import torch
from torch import Tensor


def axis_angle_matrix(vectors: Tensor) -> Tensor:
    """Rotation matrices ``[..., 3, 3]`` of axis-angle vectors ``[..., 3]`` (Rodrigues), smooth at zero."""
    squared = (vectors * vectors).sum(-1)[..., None, None]
    small = squared < 1e-6
    safe = torch.where(small, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    sine = torch.where(small, 1 - squared / 6, angle.sin() / angle)
    cosine = torch.where(small, 0.5 - squared / 24, (1 - angle.cos()) / safe)
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*vectors.shape[:-1], 3, 3)
    return torch.eye(3).to(vectors) + sine * cross + cosine * (cross @ cross)


def joint_transforms(rotations: Tensor, pivots: Tensor, parents: Sequence[int]) -> Tensor:
    """Affine maps from the rest pose to the posed one.

    Args:
        rotations: ``[B, J, 3, 3]`` of each joint in its parent's frame.
        pivots: ``[B, J, 3]`` the joints at rest.
        parents: ``J`` ids; -1 for a joint that hangs on nothing. Parents come first.

    Returns:
        ``[B, J, 3, 4]``.
    """
    shifts = pivots - (rotations @ pivots[..., None])[..., 0]
    local = torch.cat([rotations, shifts[..., None]], -1)
    out: list[Tensor] = []
    for joint, parent in enumerate(parents):
        out.append(local[:, joint] if parent < 0 else compose(out[parent], local[:, joint]))
    return torch.stack(out, 1)


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """Product of affine maps ``[..., 3, 4]``: inner first."""
    rotation = outer[..., :3] @ inner[..., :3]
    return torch.cat([rotation, outer[..., :3] @ inner[..., 3:] + outer[..., 3:]], -1)


def blend_skin(rest: Tensor, weights: Tensor, transforms: Tensor, scale: Tensor, translation: Tensor) -> Tensor:
    """Skinned vertices ``[B, V, 3]``, then scaled and moved.

    Args:
        rest: ``[B, V, 3]``.
        weights: ``[V, J]``, rows summing to 1.
        transforms: ``[B, J, 3, 4]``.
        scale: ``[B, 1]``.
        translation: ``[B, 3]``.
    """
    # Scale and translation go into the J small maps: the V large ones are then touched once.
    world = transforms * scale[..., None, None]
    world = torch.cat([world[..., :3], world[..., 3:] + translation[:, None, :, None]], -1)
    blended = (weights @ world.flatten(2)).unflatten(2, (3, 4))
    return torch.einsum("bvrc,bvc->bvr", blended[..., :3], rest) + blended[..., 3]
