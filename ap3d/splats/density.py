"""Density control of bound Gaussians: clone, split and prune by screen-space gradients.

Source: 3DGS (arXiv 2308.04079, section 5); children keep binding, group and their parent's offset.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.splats.avatar import GaussianAvatar
from ap3d.splats.frames import TriangleFrames, rotate_by_quaternions
from ap3d.splats.optimizer import AvatarOptimizer

SPLIT_SHRINK = 1.6


@dataclass(frozen=True)
class DensityRule:
    """Thresholds of one density step.

    Attributes:
        gradient: mean screen gradient in normalised device units above which a Gaussian multiplies.
        split_scale: world sigma above which it is split instead of cloned.
        minimum_opacity: below it a Gaussian is removed.
        maximum_scale: world sigma above which it is removed.
        maximum_radius: radius on the screen above which it is removed, in focal lengths.
        maximum_count: no growth beyond this number.
        prunes: whether Gaussians are removed at all.
    """

    gradient: float = 2e-4
    split_scale: float = 0.03
    minimum_opacity: float = 0.005
    maximum_scale: float = 0.3
    maximum_radius: float = float("inf")
    maximum_count: int = 30000
    prunes: bool = True


class ScreenGradients:
    """Running mean of screen-space gradient norms of the Gaussians that were seen, and their largest radii."""

    def __init__(self, count: int) -> None:
        self.restart(count)

    def restart(self, count: int) -> None:
        """Forget everything; from now on there are ``count`` Gaussians."""
        self.total = torch.zeros(count)
        self.seen = torch.zeros(count)
        self.largest = torch.zeros(count)

    def add(self, gradients: Tensor, radii: Tensor, cameras: Cameras) -> None:
        """Add one rendered batch: pixel gradients ``[B, N, 2]`` and radii ``[B, N]`` (0 means unseen), pixels."""
        ndc = gradients.detach().cpu() * torch.tensor([cameras.width / 2, cameras.height / 2])
        radii = radii.detach().cpu()
        visible = radii > 0
        self.total += (ndc.norm(dim=2) * visible).sum(0)
        self.seen += visible.sum(0)
        self.largest = torch.maximum(self.largest, (radii / cameras.intrinsics[:, :1].cpu()).amax(0))

    def state(self) -> dict[str, Tensor]:
        """Sums for a checkpoint."""
        return {"screen.total": self.total, "screen.seen": self.seen, "screen.largest": self.largest}

    @staticmethod
    def from_state(state: Mapping[str, Tensor]) -> "ScreenGradients":
        """Go on from what :meth:`state` returned."""
        gradients = ScreenGradients(0)
        gradients.total, gradients.seen = state["screen.total"].cpu(), state["screen.seen"].cpu()
        gradients.largest = state["screen.largest"].cpu()
        return gradients

    def mean(self) -> Tensor:
        """Mean gradient norm ``[N]`` of each Gaussian over the views that saw it."""
        return self.total / self.seen.clamp(min=1)


def control_density(
    optimizer: AvatarOptimizer,
    gradients: ScreenGradients,
    frames: TriangleFrames,
    rule: DensityRule,
    generator: torch.Generator,
    movable: Tensor | None = None,
) -> tuple[int, int]:
    """Prune, then clone or split where gradients are large; only what the mask ``movable [N]`` holds, if given.

    A triangle that owned Gaussians keeps its most opaque one. Returns how many were added and removed.
    """
    device = optimizer.avatar.xyz.device
    avatar, frames = optimizer.detached().to("cpu"), frames.to("cpu")
    scale = frames.scale[avatar.binding]
    world = scale[:, None] * avatar.scaling.exp()
    alpha = torch.sigmoid(avatar.opacity[:, 0])
    large = (world.amax(1) > rule.maximum_scale) | (gradients.largest > rule.maximum_radius)
    keep = ~((alpha < rule.minimum_opacity) | large)
    keep |= _strongest_of_each_triangle(avatar.binding, alpha)
    movable = torch.ones_like(keep) if movable is None else movable
    if optimizer.pinned is not None:
        movable = movable & ~optimizer.pinned.cpu()
    keep |= ~movable if rule.prunes else torch.ones_like(keep)
    means = gradients.mean()
    hot = keep & movable & (means > rule.gradient)
    room = max(rule.maximum_count - int(keep.sum()), 0)
    if int(hot.sum()) > room:
        order = means.masked_fill(~hot, -1).argsort(descending=True)
        hot = torch.zeros_like(hot).index_fill_(0, order[:room], True)
    split = hot & (world.amax(1) > rule.split_scale)
    kept, extra = keep.nonzero()[:, 0], hot.nonzero()[:, 0]
    source = torch.cat([kept, extra])
    is_new = torch.cat([split[kept], torch.ones(len(extra), dtype=torch.bool)])
    children = _scattered_children(avatar, source, split[source], generator)
    optimizer.rebuild(source.to(device), is_new.to(device), {n: t.to(device) for n, t in children.items()})
    return len(extra), int((~keep).sum())


def _strongest_of_each_triangle(binding: Tensor, alpha: Tensor) -> Tensor:
    rank = alpha.argsort().argsort()  # unique, so that ties keep one as well
    best = torch.full((int(binding.max()) + 1,), -1).scatter_reduce(0, binding, rank, "amax")
    return rank == best[binding]


def _scattered_children(
    avatar: GaussianAvatar, source: Tensor, is_child: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    xyz, scaling = avatar.xyz[source].clone(), avatar.scaling[source].clone()
    noise = torch.randn(len(source), 3, generator=generator) * scaling.exp()
    offsets = rotate_by_quaternions(avatar.rotation[source], noise)
    xyz[is_child] += offsets[is_child]
    scaling[is_child] -= torch.log(torch.tensor(SPLIT_SHRINK))
    return {"xyz": xyz, "scaling": scaling}
