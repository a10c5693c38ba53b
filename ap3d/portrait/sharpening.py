"""Sharper pictures of a portrait, for the networks that read them: SDEdit under a tile ControlNet.

AnimPortrait3D (section 3.1) does so before mattes, normals and labels are estimated. Each view is painted by itself, so
the details do not agree from view to view; colours are fitted to the plain views.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from ap3d.diffusion.models import GuidanceModels
from ap3d.diffusion.sampling import sdedit
from ap3d.errors import InputError
from ap3d.portrait.protocol import PortraitViews

STEPS, GUIDANCE = 32, 7.5
NEGATIVE = "tattoo, blur, lowres, bad anatomy, bad hands, cropped, worst quality"


def sharpen_views(
    models: GuidanceModels, views: PortraitViews, prompts: Sequence[str], *, strength: float = 0.4, steps: int = STEPS,
    guidance_scale: float = GUIDANCE, seed: int = 0,
) -> PortraitViews:  # fmt: skip
    """The views painted over, with the same alpha and the same noise for every view.

    Args:
        models: with one ControlNet that takes the picture itself.
        views: of the models' picture size, or any multiple of 8 pixels.
        prompts: one a view.
        strength: of SDEdit; 0.4 in AnimPortrait3D.
        steps: of a whole schedule.
        guidance_scale: of classifier-free guidance.
        seed: of the noise.

    Raises:
        InputError: the pictures' size does not suit the autoencoder.
    """
    size = (views.cameras.height, views.cameras.width)
    if any(side % models.vae_scale for side in size):
        raise InputError(f"views of {size} pixels cannot be sharpened: use a multiple of {models.vae_scale}")
    pictures = views.opaque().clamp(0, 1)
    shape = (1, models.latent_channels, *(side // models.vae_scale for side in size))
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).expand(len(pictures), -1, -1, -1)
    painted = sdedit(
        models, pictures, prompts, pictures, strength=strength, steps=steps, guidance_scale=guidance_scale,
        generator=torch.Generator().manual_seed(seed), noise=noise,
        negative=NEGATIVE if models.knows_negatives else "",
    ).cpu()  # fmt: skip
    # The matte is the portrait's own: what was painted beyond it belongs to the background.
    visible = painted - (1 - views.alpha) * views.background[:, None, None]
    return replace(views, color=torch.minimum(visible.clamp(min=0), views.alpha))
