"""Fits an avatar to pictures of known cameras and expressions by gradient descent on the rasteriser."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.config import GaussiansConfig
from ap3d.errors import NumericalError
from ap3d.metrics.ssim import ssim
from ap3d.raster.splats import SplatImages, rasterize_splats
from ap3d.splats.avatar import GaussianAvatar, Group, position_penalty, scale_penalty
from ap3d.splats.density import DensityRule, ScreenGradients, control_density
from ap3d.splats.frames import TriangleFrames
from ap3d.splats.optimizer import AvatarOptimizer


@dataclass(frozen=True)
class TargetViews:
    """Pictures of one expression.

    Attributes:
        frames: triangle frames of the posed mesh.
        cameras: ``B`` cameras of one size.
        images: ``[B, 3, H, W]`` over the background.
        alpha: ``[B, 1, H, W]``, or None where it is unknown.
        weights: ``[B]`` importance of each picture.
    """

    frames: TriangleFrames
    cameras: Cameras
    images: Tensor
    alpha: Tensor | None
    weights: Tensor

    def to(self, device: str | torch.device) -> "TargetViews":
        """The same pictures on another device."""
        alpha = None if self.alpha is None else self.alpha.to(device)
        return TargetViews(
            self.frames.to(device), self.cameras.to(device), self.images.to(device), alpha, self.weights.to(device)
        )


@dataclass(frozen=True)
class FitSettings:
    """Weights of the fit's loss and its length."""

    iterations: int
    views_per_step: int
    background: Tensor
    ssim_weight: float = 0.2
    alpha_weight: float = 0.3
    first_factor: float = 1.0
    last_factor: float = 0.15
    checkpoint_every: int = 200
    densify_at: tuple[int, ...] = ()  # iterations after which Gaussians multiply and vanish


def fit(
    optimizer: AvatarOptimizer,
    targets: Sequence[TargetViews],
    neutral: TriangleFrames,
    gaussians: GaussiansConfig,
    settings: FitSettings,
    generator: torch.Generator,
    report: Callable[[int, int], None],
    frozen_groups: tuple[Group, ...] = (),
    first: int = 0,
    save: Callable[[int], None] | None = None,
    gradients: ScreenGradients | None = None,
) -> float:
    """Run the fit in place; learning rates fall geometrically. Returns the mean loss of the last tenth.

    Args:
        optimizer: holds the avatar.
        targets: the pictures, by expression.
        neutral: frames of the neutral pose.
        gaussians: weights of the regularisers.
        settings: loss and length.
        generator: draws views and backgrounds.
        report: told (iteration, iterations).
        frozen_groups: these stay as they are.
        first: iteration to go on from.
        save: asked to keep a checkpoint, with the number of iterations done.
        gradients: screen gradients for ``settings.densify_at``, kept up to date.

    Raises:
        NumericalError: the loss is not finite.
    """
    losses: list[float] = []
    frozen = frozen_mask(optimizer.avatar, frozen_groups)
    gradients = ScreenGradients(len(optimizer.avatar)) if gradients is None else gradients
    counts = torch.tensor([float(len(t.cameras)) for t in targets])
    for step in range(first, settings.iterations):
        progress = step / max(settings.iterations - 1, 1)
        optimizer.set_factor(settings.first_factor * (settings.last_factor / settings.first_factor) ** progress)
        target = targets[int(torch.multinomial(counts, 1, generator=generator))]
        chosen = torch.randperm(len(target.cameras), generator=generator)[: settings.views_per_step]
        loss, rendered = _view_loss(optimizer.avatar, target, chosen, neutral, settings, generator)
        penalty = penalties(optimizer.avatar, gaussians)
        (loss + penalty).backward()
        if step < max(settings.densify_at, default=0):
            assert rendered.means2d.grad is not None  # retained by the rasteriser
            gradients.add(rendered.means2d.grad, rendered.radii, target.cameras.width, target.cameras.height)
        optimizer.step(frozen)
        losses.append(float(loss.detach()))
        if not losses[-1] < float("inf"):
            raise NumericalError(f"the fit diverged at iteration {step}: loss {losses[-1]}")
        done = step + 1
        if done in settings.densify_at:
            rule = DensityRule(maximum_count=gaussians.maximum_count)
            control_density(optimizer, gradients, neutral, rule, generator)
            gradients.restart(len(optimizer.avatar))
            frozen = frozen_mask(optimizer.avatar, frozen_groups)
        if save is not None and done % settings.checkpoint_every == 0 and done < settings.iterations:
            save(done)
        report(done, settings.iterations)
    tail = losses[-max(len(losses) // 10, 1) :]
    return sum(tail) / len(tail) if tail else 0.0


def frozen_mask(avatar: GaussianAvatar, groups: tuple[Group, ...]) -> Tensor | None:
    """Mask ``[N]`` of the Gaussians of some groups, or None when there are none."""
    if not groups:
        return None
    return torch.isin(avatar.group, torch.tensor([int(g) for g in groups], device=avatar.group.device))


def penalties(avatar: GaussianAvatar, gaussians: GaussiansConfig) -> Tensor:
    """Weighted position and scale regularisers."""
    return gaussians.position_weight * position_penalty(
        avatar, gaussians.position_threshold
    ) + gaussians.scale_weight * scale_penalty(avatar, gaussians.scale_threshold)


def _view_loss(
    avatar: GaussianAvatar,
    target: TargetViews,
    chosen: Tensor,
    neutral: TriangleFrames,
    settings: FitSettings,
    generator: torch.Generator,
) -> tuple[Tensor, SplatImages]:
    splats = avatar.pose(target.frames, neutral)
    rendered = rasterize_splats(splats, target.cameras[chosen], sh_degree=avatar.sh_degree)
    background, truth = settings.background, target.images[chosen]
    if target.alpha is not None:
        # Another colour behind both at each step: what is background must become transparent, not painted.
        background = torch.rand(3, generator=generator).to(truth)
        truth = truth + (1 - target.alpha[chosen]) * (background - settings.background)[:, None, None]
    image = rendered.over(background)
    weights = target.weights[chosen]
    difference = (image - truth).abs().mean((1, 2, 3))
    loss = (1 - settings.ssim_weight) * (difference * weights).mean()
    loss = loss + settings.ssim_weight * weights.mean() * (1 - ssim(image, truth))
    if target.alpha is not None:
        error = (rendered.alpha - target.alpha[chosen]).abs().mean((1, 2, 3))
        loss = loss + settings.alpha_weight * (error * weights).mean()
    return loss, rendered
