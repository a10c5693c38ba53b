"""Pictures from prompts and conditions: deterministic DDIM, from noise or from a picture (SDEdit)."""

from collections.abc import Sequence

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
    return _denoise(models, noise, prompts, conditions, timesteps, guidance_scale)


def sdedit(
    models: GuidanceModels, images: Tensor, prompts: Sequence[str], conditions: Tensor | None, *, strength: float,
    steps: int = 12, guidance_scale: float = 2.0, generator: torch.Generator, noise: Tensor | None = None,
    negative: str = "",
) -> Tensor:  # fmt: skip
    """Noise pictures ``[B, 3, H, W]`` to ``strength`` of the schedule and denoise them (SDEdit, arXiv 2108.01073).

    Args:
        strength: 0 returns the pictures as the autoencoder sees them, 1 forgets them.
        steps: DDIM steps of a whole schedule; ``strength`` of them are run.
        noise: as in :func:`sample_images`.
        negative: what guidance moves away from.
    """
    latents = models.encode_images(images)
    run = min(steps, max(0, round(steps * strength)))
    if run == 0:
        return models.decode_latents(latents)
    timesteps = trailing_timesteps(len(models.alphas_cumprod), steps)[steps - run :]
    if noise is None:
        noise = torch.randn(latents.shape, generator=generator)
    a = models.alphas_cumprod[timesteps[0]].to(latents)
    noisy = a.sqrt() * latents + (1 - a).sqrt() * noise.to(latents)
    return _denoise(models, noisy, prompts, conditions, timesteps, guidance_scale, negative)


@torch.no_grad()
def _denoise(
    models: GuidanceModels, latents: Tensor, prompts: Sequence[str], conditions: Tensor | None, timesteps: list[int],
    guidance_scale: float, negative: str = "",
) -> Tensor:  # fmt: skip
    """Run DDIM (arXiv 2010.02502, eta 0) over descending timesteps and decode, in chunks that memory holds."""
    text, against = models.encode_prompt(list(prompts)), models.encode_prompt([negative])
    pictures: list[Tensor] = []
    done, chunk = 0, CHUNK
    while done < len(latents):
        part = slice(done, done + chunk)
        condition = None if conditions is None else conditions[part]
        try:
            x, words = latents[part], text[part]
            negatives = against.expand_as(words)
            pictures.append(_denoise_chunk(models, x, words, negatives, condition, timesteps, guidance_scale))
            done += chunk
        except torch.OutOfMemoryError:
            if chunk == 1:
                raise
            chunk //= 2
    return torch.cat(pictures)


def _denoise_chunk(
    models: GuidanceModels, x: Tensor, text: Tensor, negative: Tensor, condition: Tensor | None,
    timesteps: list[int], guidance_scale: float,
) -> Tensor:  # fmt: skip
    embedded = models.embed_conditions(condition)
    for current, following in zip(timesteps, [*timesteps[1:], -1], strict=True):
        clean, noise = models.predict(x, current, text, embedded, guidance_scale=guidance_scale, negative_text=negative)
        a = models.alphas_cumprod[following] if following >= 0 else torch.ones((), device=models.device)
        x = a.sqrt() * clean + (1 - a).sqrt() * noise
    return models.decode_latents(x)
