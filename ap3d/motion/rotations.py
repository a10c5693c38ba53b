"""Rotations of whole motions: axis-angle, quaternions (w, x, y, z), means and spherical interpolation."""

import torch
from torch import Tensor


def quaternions(axis_angle: Tensor) -> Tensor:
    """Unit quaternions ``[..., 4]`` of axis-angle vectors ``[..., 3]`` in radians."""
    angle = axis_angle.norm(dim=-1, keepdim=True)
    # sin(a/2)/a is 1/2 at a = 0; the series holds where the division does not.
    factor = torch.where(angle > 1e-4, torch.sin(angle / 2) / angle.clamp_min(1e-12), 0.5 - angle.square() / 48)
    return torch.cat([torch.cos(angle / 2), factor * axis_angle], -1)


def axis_angles(unit: Tensor) -> Tensor:
    """Axis-angle vectors ``[..., 3]``, at most pi long, of unit quaternions ``[..., 4]``."""
    unit = torch.where(unit[..., :1] < 0, -unit, unit)
    sine = unit[..., 1:].norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, unit[..., :1])
    return unit[..., 1:] * torch.where(sine > 1e-6, angle / sine.clamp_min(1e-12), torch.full_like(sine, 2.0))


def product(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product ``[..., 4]``: the rotation ``b`` first, then ``a``."""
    w = a[..., :1] * b[..., :1] - (a[..., 1:] * b[..., 1:]).sum(-1, keepdim=True)
    a, b = torch.broadcast_tensors(a, b)
    return torch.cat(
        [w, a[..., :1] * b[..., 1:] + b[..., :1] * a[..., 1:] + torch.linalg.cross(a[..., 1:], b[..., 1:])], -1
    )


def inverse(unit: Tensor) -> Tensor:
    """The opposite rotation of unit quaternions ``[..., 4]``."""
    return torch.cat([unit[..., :1], -unit[..., 1:]], -1)


def continuous(unit: Tensor) -> Tensor:
    """Quaternions ``[T, ..., 4]`` with signs chosen so that neighbours in time lie on the same side."""
    turned = (unit[1:] * unit[:-1]).sum(-1) < 0
    sign = torch.where(turned, -1.0, 1.0).cumprod(0)
    return torch.cat([unit[:1], unit[1:] * sign[..., None]])


def slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Along the shorter arc from ``a`` (share 0) to ``b`` (1), ``[..., 4]`` each; share broadcasts to ``[..., 1]``."""
    cosine = (a * b).sum(-1, keepdim=True)
    b, cosine = torch.where(cosine < 0, -b, b), cosine.abs().clamp_max(1)
    angle = torch.acos(cosine)
    sine = torch.sin(angle)
    near = sine < 1e-4  # there the chord is the arc
    first = torch.where(near, 1 - share, torch.sin((1 - share) * angle) / sine.clamp_min(1e-12))
    second = torch.where(near, share, torch.sin(share * angle) / sine.clamp_min(1e-12))
    return torch.nn.functional.normalize(first * a + second * b, dim=-1)


def mean(unit: Tensor) -> Tensor:
    """The mean rotation ``[4]`` of unit quaternions ``[T, 4]``, independent of their signs.

    Source: Markley et al., "Averaging Quaternions" (2007): the main axis of the sum of their outer products.
    """
    _, vectors = torch.linalg.eigh((unit.T @ unit).double())
    return vectors[:, -1].to(unit)


def without_large_turn(axis_angle: Tensor, limit_degrees: float = 60.0) -> tuple[Tensor, float]:
    """Rotations ``[T, 3]`` relative to their mean where that lies further from rest than a head turns.

    Trackers whose world is not the head's (cameras that look along +z, bodies that walk about) give such files.

    Returns:
        The rotations, and the degrees that were taken out (0: none).
    """
    unit = quaternions(axis_angle)
    centre = mean(unit)
    degrees = float(torch.rad2deg(axis_angles(centre).norm()))
    if degrees <= limit_degrees:
        return axis_angle, 0.0
    return axis_angles(product(inverse(centre)[None], unit)), degrees
