"""Pictures from prompts and conditions: deterministic DDIM, from noise or from a picture (SDEdit)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ap3d.diffusion.models import GuidanceModels

CHUNK = 8  # pictures in one batch; larger ones gain nothing on a CPU


def trailing_timesteps(total: int, steps: int) -> list[int]:
    """``steps`` timesteps from ``total - 1`` down ("trailing" of Lin et al. 2023, arXiv 2305.08891, table 2)."""
    return [round(total - k * total / steps) - 1 for k in range(steps)]


def sample_images(
    models: GuidanceModels, prompts: Sequence[str], conditions: Tensor | None, *, steps: int = 12,
    guidance_scale: float = 2.0, generator: torch.Generator, noise: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Pictures ``[B, 3, H, W]`` in 0..1.

    Args:
        models: resident models.
        prompts: B texts, framed already.
        conditions: ``[B, C, H, W]`` in 0..1, or None.
        steps: DDIM steps.
        guidance_scale: of classifier-free guidance.
        generator: draws the noise where none is given.
        noise: ``[B, C, h, w]`` or ``[1, C, h, w]``; one that is shared keeps views of one head alike.
    """
    if noise is None:
        noise = torch.randn(len(prompts), *models.latent_shape, generator=generator)
    noise = noise.to(models.device).expand(len(prompts), *models.latent_shape)
    timesteps = trailing_timesteps(len(models.alphas_cumprod), steps)
    sampler = _Sampler(models, prompts, conditions, timesteps, guidance_scale)
    return in_chunks(lambda part: sampler.pictures(noise[part], part), len(noise), CHUNK)


def sdedit(
    models: GuidanceModels, images: Tensor, prompts: Sequence[str], conditions: Tensor | None, *, strength: float,
    steps: int = 12, guidance_scale: float = 2.0, generator: torch.Generator, noise: Tensor | None = None,
    negative: str = "", chunk: int = CHUNK,
) -> Tensor:  # fmt: skip
    """Noise pictures ``[B, 3, H, W]`` to ``strength`` of the schedule and denoise them (SDEdit, arXiv 2108.01073).

    Args:
        strength: 0 returns the pictures as the autoencoder sees them, 1 forgets them.
        steps: DDIM steps of a whole schedule; ``strength`` of them are run.
        noise: as in :func:`sample_images`.
        negative: what guidance moves away from.
        chunk: pictures that pass the networks together.
    """
    run = min(steps, max(0, round(steps * strength)))
    timesteps = trailing_timesteps(len(models.alphas_cumprod), steps)[steps - run :]
    sampler = _Sampler(models, prompts, conditions, timesteps, guidance_scale, negative)
    if noise is None:
        noise = torch.randn(len(images), *models.latent_shape, generator=generator)
    noise = noise.expand(len(images), -1, -1, -1)

    def edited(part: slice) -> Tensor:
        latents = models.encode_images(images[part])
        if not timesteps:
            return models.decode_latents(latents)
        a = models.alphas_cumprod[timesteps[0]].to(latents)
        return sampler.pictures(a.sqrt() * latents + (1 - a).sqrt() * noise[part].to(latents), part)

    return in_chunks(edited, len(images), chunk)


@torch.no_grad()
def in_chunks(make: Callable[[slice], Tensor], count: int, chunk: int) -> Tensor:
    """``make`` of every part of ``count`` pictures, joined; where memory runs out, of parts half as large."""
    made: list[Tensor] = []
    done = 0
    while done < count:
        try:
            made.append(make(slice(done, done + chunk)))
            done += chunk
        except torch.OutOfMemoryError:
            if chunk == 1:
                raise
            chunk //= 2
    return torch.cat(made)


@dataclass(frozen=True)
class _Sampler:
    """DDIM (arXiv 2010.02502, eta 0) over descending timesteps for ``B`` prompts."""

    models: GuidanceModels
    prompts: Sequence[str]
    conditions: Tensor | None
    timesteps: list[int]
    guidance_scale: float
    negative: str = ""

    def pictures(self, x: Tensor, part: slice) -> Tensor:
        """Noisy latents of a part of the prompts, denoised and decoded."""
        models = self.models
        text = models.encode_prompt(list(self.prompts[part]))
        negative = models.encode_prompt([self.negative]).expand_as(text)
        embedded = models.embed_conditions(None if self.conditions is None else self.conditions[part])
        for current, following in zip(self.timesteps, [*self.timesteps[1:], -1], strict=True):
            clean, noise = models.predict(
                x, current, text, embedded, guidance_scale=self.guidance_scale, negative_text=negative
            )
            a = models.alphas_cumprod[following] if following >= 0 else torch.ones((), device=models.device)
            x = a.sqrt() * clean + (1 - a).sqrt() * noise
        return models.decode_latents(x)
