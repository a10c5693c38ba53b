"""Interval score matching.

Source: LucidDreamer (arXiv 2311.11284, section 3.2) in the form of AnimPortrait3D (arXiv 2504.15835), with the
interval and the number of inversion steps as parameters. Works for models that predict noise, velocity or x0.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ap3d.diffusion.control import Conditions
from ap3d.diffusion.models import GuidanceModels


@dataclass(frozen=True)
class IsmSettings:
    """Interval and inversion of interval score matching.

    Attributes:
        guidance_scale: of the classifier-free guidance at the final timestep.
        inversion_steps: DDIM inversion steps up to the start of the interval.
        stride: length of an inversion step in training timesteps.
        first_interval: interval at the first iteration, in training timesteps.
        last_interval: interval once ``settle_iterations`` have passed.
        settle_iterations: over how many iterations the interval shrinks.
    """

    guidance_scale: float = 7.5
    inversion_steps: int = 3
    stride: int = 50
    first_interval: int = 100
    last_interval: int = 50
    settle_iterations: int = 400


def interval(iteration: int, settings: IsmSettings) -> int:
    """Length of the interval at an iteration, in training timesteps."""
    left = max(0.0, 1 - iteration / settings.settle_iterations)
    return settings.last_interval + math.ceil(left * (settings.first_interval - settings.last_interval))


def inversion_timesteps(timestep: int, iteration: int, settings: IsmSettings) -> list[int]:
    """Timesteps from the noisy start of the inversion to the interval's start, ascending, without repeats."""
    start = max(timestep - interval(iteration, settings), 0)
    steps = [max(start - k * settings.stride, 0) for k in range(settings.inversion_steps, -1, -1)]
    return sorted(set(steps))


@torch.no_grad()
def ism_gradient(
    models: GuidanceModels,
    latents: Tensor,
    timestep: int,
    text: Tensor,
    negative_text: Tensor,
    empty_text: Tensor,
    conditions: Conditions,
    iteration: int,
    settings: IsmSettings,
    generator: torch.Generator,
    controlled: Tensor | None = None,
    against: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Gradient of the objective with respect to ``latents [B, C, h, w]``: sqrt((1 - a) / a) (e_t - e_s).

    It is not finite where the network's answer is not: callers drop such a step.

    Args:
        models: resident diffusion models.
        latents: scaled latents of the rendered crops.
        timestep: target timestep t.
        text: ``[B, L, D]`` embeddings of the prompts.
        negative_text: ``[B, L, D]`` embeddings that guidance moves away from.
        empty_text: ``[B, L, D]`` embeddings for the inversion.
        conditions: ``[B, C, H, W]`` or None.
        iteration: index of the optimisation step; shortens the interval.
        settings: see :class:`IsmSettings`.
        generator: draws the noise at the start of the inversion.
        controlled: ``[B]`` bool, which crops the ControlNets see; all where None.
        against: texts and weights of Perp-Neg guidance, as in :meth:`GuidanceModels.predict`.
    """
    latents, conditions = latents.to(models.device), models.embed_conditions(conditions)
    alphas = models.alphas_cumprod
    path = inversion_timesteps(timestep, iteration, settings)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    noisy = alphas[path[0]].sqrt() * latents + (1 - alphas[path[0]]).sqrt() * noise
    source_noise = noise
    for current, following in zip(path, [*path[1:], timestep], strict=True):
        clean, source_noise = models.predict(noisy, current, empty_text, conditions, controlled=controlled)
        noisy = alphas[following].sqrt() * clean + (1 - alphas[following]).sqrt() * source_noise
    _, target_noise = models.predict(
        noisy, timestep, text, conditions, guidance_scale=settings.guidance_scale, negative_text=negative_text,
        controlled=controlled, against=against,
    )  # fmt: skip
    return _weight(alphas[timestep]) * (target_noise - source_noise)


@torch.no_grad()
def sds_gradient(
    models: GuidanceModels,
    latents: Tensor,
    timestep: int,
    text: Tensor,
    negative_text: Tensor,
    conditions: Conditions,
    guidance_scale: float,
    generator: torch.Generator,
    controlled: Tensor | None = None,
    against: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """Gradient of score distillation sampling (DreamFusion, arXiv 2209.14988, equation 3), to compare with.

    The weight is that of :func:`ism_gradient`, so that the two differ in what the guided prediction is held against
    alone: here fresh noise. Arguments are as there.
    """
    latents = latents.to(models.device)
    a = models.alphas_cumprod[timestep]
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    _, predicted = models.predict(
        a.sqrt() * latents + (1 - a).sqrt() * noise, timestep, text, conditions, guidance_scale=guidance_scale,
        negative_text=negative_text, controlled=controlled, against=against,
    )  # fmt: skip
    return _weight(a) * (predicted - noise)


def _weight(alpha: Tensor) -> Tensor:
    """From a difference of noises to one of pictures; unbounded towards the zero-SNR end of a rescaled schedule."""
    return ((1 - alpha) / alpha.clamp(min=1e-8)).sqrt().clamp(max=10.0)
