"""Fits an avatar to pictures of known cameras and expressions by gradient descent on the rasteriser."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.config_sections import GaussiansConfig
from ap3d.errors import NumericalError
from ap3d.guidance_config import RestraintConfig
from ap3d.metrics.perceptual import dissimilarity
from ap3d.raster.splats import SplatImages, rasterize_splats
from ap3d.splats.avatar import GaussianAvatar, Group, position_penalty, scale_penalty, size_penalty
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
        free: ``[B, 1, H, W]`` 0 where a picture says nothing; None: it says something everywhere.
    """

    frames: TriangleFrames
    cameras: Cameras
    images: Tensor
    alpha: Tensor | None
    weights: Tensor
    free: Tensor | None = None

    def to(self, device: str | torch.device) -> "TargetViews":
        """The same pictures on another device."""
        moved = lambda t: None if t is None else t.to(device)  # noqa: E731
        return TargetViews(
            self.frames.to(device), self.cameras.to(device), self.images.to(device), moved(self.alpha),
            self.weights.to(device), moved(self.free),
        )  # fmt: skip


@dataclass(frozen=True)
class FitSettings:
    """Weights of the fit's loss and its length.

    ``ssim_weight`` is the share of the term that ``perceptual`` names (see :mod:`ap3d.metrics.perceptual`), ``loss``
    the kind of the rest (``l1`` or ``l2``).
    """

    iterations: int
    views_per_step: int
    background: Tensor
    ssim_weight: float = 0.2
    alpha_weight: float = 0.3
    first_factor: float = 1.0
    last_factor: float = 0.15
    checkpoint_every: int = 200
    densify_at: tuple[int, ...] = ()  # iterations after which Gaussians multiply and vanish
    loss: str = "l1"
    perceptual: str = "ssim"
    prunes: bool = True
    maximum_radius: float = float("inf")  # see DensityRule
    restraint: RestraintConfig = RestraintConfig()

    def factor(self, step: int) -> float:
        """Of the learning rates at an iteration: geometric from ``first_factor`` to ``last_factor``."""
        progress = step / max(self.iterations - 1, 1)
        return self.first_factor * (self.last_factor / self.first_factor) ** progress


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
    frozen: Callable[[GaussianAvatar], Tensor | None] | None = None,
) -> float:
    """Run the fit in place; learning rates fall geometrically. Returns the mean loss of the last tenth.

    Args:
        optimizer: holds the avatar.
        targets: the pictures, by expression.
        neutral: frames of the neutral pose.
        gaussians: how many there may be.
        settings: loss and length.
        generator: draws views and backgrounds.
        report: told (iteration, iterations).
        frozen_groups: these stay as they are.
        first: iteration to go on from.
        save: asked to keep a checkpoint, with the number of iterations done.
        gradients: screen gradients for ``settings.densify_at``, kept up to date.
        frozen: instead of ``frozen_groups``, the mask ``[N]`` of an avatar's Gaussians that stay as they are.

    Raises:
        NumericalError: the loss is not finite.
    """
    losses: list[float] = []
    frozen = frozen or (lambda avatar: frozen_mask(avatar, frozen_groups))
    fixed = frozen(optimizer.avatar)
    gradients = ScreenGradients(len(optimizer.avatar)) if gradients is None else gradients
    counts = torch.tensor([float(len(t.cameras)) for t in targets])
    for step in range(first, settings.iterations):
        optimizer.set_factor(settings.factor(step))
        target = targets[int(torch.multinomial(counts, 1, generator=generator))]
        counting = gradients if step < max(settings.densify_at, default=0) else None
        losses.append(_descend(optimizer, target, neutral, settings, generator, fixed, counting))
        if not losses[-1] < float("inf"):
            raise NumericalError(f"the fit diverged at iteration {step}: loss {losses[-1]}")
        done = step + 1
        if done in settings.densify_at:
            rule = DensityRule(
                maximum_radius=settings.maximum_radius, maximum_count=gaussians.maximum_count, prunes=settings.prunes
            )
            control_density(optimizer, gradients, neutral, rule, generator, None if fixed is None else ~fixed.cpu())
            gradients.restart(len(optimizer.avatar))
            fixed = frozen(optimizer.avatar)
        if save is not None and done % settings.checkpoint_every == 0 and done < settings.iterations:
            save(done)
        report(done, settings.iterations)
    tail = losses[-max(len(losses) // 10, 1) :]
    return sum(tail) / len(tail) if tail else 0.0


def _descend(
    optimizer: AvatarOptimizer, target: TargetViews, neutral: TriangleFrames, settings: FitSettings,
    generator: torch.Generator, fixed: Tensor | None, gradients: ScreenGradients | None,
) -> float:  # fmt: skip
    """One step on some pictures of a target; its loss without regularisers."""
    chosen = torch.randperm(len(target.cameras), generator=generator)[: settings.views_per_step]
    loss, rendered = _view_loss(optimizer.avatar, target, chosen, neutral, settings, generator)
    (loss + penalties(optimizer.avatar, settings.restraint, (rendered.radii > 0).any(0))).backward()
    if gradients is not None:
        assert rendered.means2d.grad is not None  # retained by the rasteriser
        # The threshold is for the gradient of one picture's own mean, and the loss is a mean over pictures.
        screen = len(chosen) * rendered.means2d.grad
        gradients.add(screen, rendered.radii, target.cameras[chosen])
    optimizer.step(fixed)
    return float(loss.detach())


def frozen_mask(avatar: GaussianAvatar, groups: tuple[Group, ...]) -> Tensor | None:
    """Mask ``[N]`` of the Gaussians of some groups, or None when there are none."""
    if not groups:
        return None
    return torch.isin(avatar.group, torch.tensor([int(g) for g in groups], device=avatar.group.device))


def penalties(avatar: GaussianAvatar, restraint: RestraintConfig, seen: Tensor) -> Tensor:
    """Weighted position and scale regularisers; the mask ``seen [N]`` matters to the paper's form alone."""
    if restraint.form == "paper":
        position = position_penalty(avatar, restraint.position_threshold, seen)
        scale = size_penalty(avatar, restraint.scale_threshold, seen)
    else:
        position = position_penalty(avatar, restraint.position_threshold)
        scale = scale_penalty(avatar, restraint.scale_threshold)
    return restraint.position_weight * position + restraint.scale_weight * scale


def _view_loss(
    avatar: GaussianAvatar,
    target: TargetViews,
    chosen: Tensor,
    neutral: TriangleFrames,
    settings: FitSettings,
    generator: torch.Generator,
) -> tuple[Tensor, SplatImages]:
    """The loss of some pictures, and what was rendered for it."""
    splats = avatar.pose(target.frames, neutral)
    rendered = rasterize_splats(splats, target.cameras[chosen], sh_degree=avatar.sh_degree)
    background, truth = settings.background, target.images[chosen]
    alpha = None if target.alpha is None else target.alpha[chosen]
    if alpha is not None:
        # Another colour behind both at each step: what is background must become transparent, not painted.
        background = torch.rand(3, generator=generator).to(truth)
        truth = truth + (1 - alpha) * (background - settings.background)[:, None, None]
    image = rendered.over(background)
    if target.free is not None:
        free = target.free[chosen] > 0
        truth = torch.where(free, truth, image.detach())
        alpha = None if alpha is None else torch.where(free, alpha, rendered.alpha.detach())
    weights = target.weights[chosen]
    error = (image - truth).square() if settings.loss == "l2" else (image - truth).abs()
    loss = (1 - settings.ssim_weight) * (error.mean((1, 2, 3)) * weights).mean()
    if settings.ssim_weight > 0:
        loss = loss + settings.ssim_weight * weights.mean() * dissimilarity(settings.perceptual, image, truth)
    if alpha is not None:
        error = (rendered.alpha - alpha).abs().mean((1, 2, 3))
        loss = loss + settings.alpha_weight * (error * weights).mean()
    return loss, rendered
