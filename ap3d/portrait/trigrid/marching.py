"""March rays through a field as Portrait3D does: stratified, then importance samples, midpoint compositing."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.portrait.trigrid.field import CROP

Field = Callable[[Tensor], Tensor]
NEAR, FAR = 0.35, 0.4  # before and behind the origin, SMPL metres
SAMPLES = 96  # coarse, and as many fine ones
NORMAL_STEP = 0.01  # of the central differences, world units
CROPPED = -1000.0  # raw density outside the crop
_CHUNK = 4096


@dataclass(frozen=True)
class Marched:
    """What rays saw: ``colour [R, 3]`` from 0 to 1 times alpha, ``alpha [R]``, ``depth [R]`` along the unit rays
    (0 where nothing was hit), ``normals [R, 3]`` in the world (unit length, or zero)."""

    colour: Tensor
    alpha: Tensor
    depth: Tensor
    normals: Tensor


def camera_rays(cameras: Cameras) -> tuple[Tensor, Tensor, Tensor]:
    """Origins ``[B, 3]``, unit directions ``[B, H * W, 3]`` and their cosines with the view axis ``[B, H * W]``."""
    rows, columns = torch.meshgrid(torch.arange(cameras.height), torch.arange(cameras.width), indexing="ij")
    pixels = torch.stack([columns, rows], -1).reshape(-1, 2).to(cameras.cam2world) + 0.5
    flat = (pixels - cameras.intrinsics[:, None, 2:]) / cameras.intrinsics[:, None, :2]
    local = torch.nn.functional.normalize(torch.nn.functional.pad(flat, (0, 1), value=1.0), dim=-1)
    return cameras.positions, local @ cameras.cam2world[:, :3, :3].transpose(1, 2), local[..., 2]


def march_exact(
    field: Field,
    origin: Tensor,
    directions: Tensor,
    scale: float,
    *,
    generator: torch.Generator | None = None,
    samples: int = SAMPLES,
    with_normals: bool = True,
) -> Marched:
    """Rays from one point.

    Args:
        field: points ``[N, 3]`` in SMPL metres to raw density and colour ``[N, 4]``.
        origin: ``[3]`` world units.
        directions: ``[R, 3]`` unit length.
        scale: world units in a SMPL metre.
        generator: jitters the samples; None takes the middle of each interval.
        samples: of each of the two passes.
        with_normals: costs six more evaluations of the field a sample.
    """
    distance = float(origin.norm())
    near, far = max(distance - NEAR * scale, 1e-3), distance + FAR * scale
    cropped = lambda points: _cropped(field, points / scale)  # noqa: E731
    parts = [
        _march(cropped, origin, part, near, far, samples, generator, with_normals) for part in directions.split(_CHUNK)
    ]
    return join(parts)


def join(parts: list[Marched]) -> Marched:
    """The rays of several parts in one."""
    return Marched(*(torch.cat([getattr(p, name) for p in parts]) for name in Marched.__dataclass_fields__))


def _cropped(field: Field, points: Tensor) -> Tensor:
    values = field(points)
    outside = (points[:, [0, 2]].abs() > CROP).any(1)
    return torch.cat([values[:, :1].masked_fill(outside[:, None], CROPPED), values[:, 1:]], 1)


def _march(
    field: Field, origin: Tensor, directions: Tensor, near: float, far: float, samples: int,
    generator: torch.Generator | None, with_normals: bool,
) -> Marched:  # fmt: skip
    count = len(directions)
    evaluate = lambda t: field((origin + directions[:, None] * t[..., None]).reshape(-1, 3)).reshape(*t.shape, 4)  # noqa: E731
    step = (far - near) / (samples - 1)
    t = torch.linspace(near, far, samples).expand(count, -1) + _uniform(count, samples, generator) * step
    values = evaluate(t)
    fine = importance_samples(t, composite_weights(t, values[..., 0]), _uniform(count, samples, generator, True))
    t, order = torch.cat([t, fine], 1).sort(dim=1)
    values = torch.cat([values, evaluate(fine)], 1).gather(1, order[..., None].expand(-1, -1, 4))
    weights = composite_weights(t, values[..., 0])
    middle = (t[:, 1:] + t[:, :-1]) / 2
    colours = (values[:, 1:, 1:] + values[:, :-1, 1:]) / 4 + 0.5
    alpha = weights.sum(1)
    depth = (weights * middle).sum(1) / alpha.clamp(min=1e-8)
    normals = torch.zeros(count, 3)
    if with_normals:
        normals = _normals(field, origin, directions, middle, weights)
    return Marched((weights[..., None] * colours).sum(1), alpha, torch.where(alpha > 1e-4, depth, 0.0), normals)


def _uniform(rays: int, samples: int, generator: torch.Generator | None, spread: bool = False) -> Tensor:
    """Numbers in [0, 1) ``[rays, samples]``; without a generator 1/2, or, to ``spread``, evenly laid out."""
    if generator is not None:
        return torch.rand(rays, samples, generator=generator)
    even = (torch.arange(samples) + 0.5) / samples if spread else torch.full((samples,), 0.5)
    return even.expand(rays, samples)


def composite_weights(t: Tensor, raw: Tensor) -> Tensor:
    """Weights ``[R, S - 1]`` of the intervals between samples at ``t [R, S]`` of raw density ``raw [R, S]``."""
    density = torch.nn.functional.softplus((raw[:, 1:] + raw[:, :-1]) / 2 - 1)
    opacity = 1 - torch.exp(-density * (t[:, 1:] - t[:, :-1]))
    passed = torch.cumprod(torch.nn.functional.pad(1 - opacity + 1e-10, (1, 0), value=1.0), 1)
    return opacity * passed[:, :-1]


def importance_samples(t: Tensor, weights: Tensor, u: Tensor) -> Tensor:
    """Places drawn where the coarse weights are: inverse of their smoothed distribution at ``u`` (EG3D's rule).

    As there, the last interval is never drawn from and the distribution lies half a step beside its bins.
    """
    pooled = torch.nn.functional.max_pool1d(weights[:, None], 2, 1, padding=1)
    smooth = torch.nn.functional.avg_pool1d(pooled, 2, 1)[:, 0] + 0.01
    bins = (t[:, 1:] + t[:, :-1]) / 2
    density = smooth[:, 1:-1] + 1e-5
    cdf = torch.nn.functional.pad((density / density.sum(1, keepdim=True)).cumsum(1), (1, 0))
    above = torch.searchsorted(cdf, u.contiguous(), right=True)
    below, above = (above - 1).clamp(min=0), above.clamp(max=cdf.shape[1] - 1)
    low, high = cdf.gather(1, below), cdf.gather(1, above)
    width = torch.where(high - low < 1e-5, torch.ones_like(low), high - low)
    first, last = bins.gather(1, below), bins.gather(1, above)
    return first + (u - low) / width * (last - first)


def _normals(field: Field, origin: Tensor, directions: Tensor, t: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of the directions in which raw density falls, unit length."""
    ray, place = (weights > 1e-3).nonzero(as_tuple=True)
    points = origin + directions[ray] * t[ray, place, None]
    shifts = torch.eye(3) * NORMAL_STEP
    values = field((points[:, None, None] + torch.stack([shifts, -shifts], 1)).reshape(-1, 3))[:, 0].reshape(-1, 3, 2)
    falls = torch.nn.functional.normalize(values[..., 1] - values[..., 0], dim=1)
    total = torch.zeros(len(directions), 3).index_add(0, ray, falls * weights[ray, place, None])
    return torch.nn.functional.normalize(total, dim=1)
