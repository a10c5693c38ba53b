"""The built-in UNet, ControlNet and noise schedule, untrained, with the starting values that make them learn fast.

Sizes and tricks: reference/builtin-diffusion.md, part 2. Pooled text enters the time embedding (``addition_embed_type``
"text") and scales features ("scale_shift"); the ControlNet starts as half an identity instead of zero, and its
condition embedding is scaled layer by layer to unit variance (LSUV, arXiv 1511.06422): nothing here is pretrained.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ap3d.training.autoencoder import LATENT_CHANNELS


@dataclass(frozen=True)
class DenoiserConfig:
    """Sizes of UNet and ControlNet."""

    latent_size: int = 32
    channels: tuple[int, ...] = (32, 64, 128)
    text_width: int = 128
    condition_channels: int = 6
    condition_widths: tuple[int, ...] = (8, 16, 32)


def build_unet(config: DenoiserConfig) -> Any:
    """UNet2DConditionModel with cross-attention at the lowest resolution only."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    plain = len(config.channels) - 1
    return UNet2DConditionModel(
        sample_size=config.latent_size,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D",) * plain + ("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",) + ("UpBlock2D",) * plain,
        layers_per_block=1,
        **_shared(config),
    )


def build_controlnet(config: DenoiserConfig) -> Any:
    """ControlNetModel without attention whose residuals fit :func:`build_unet`."""
    from diffusers.models.controlnets.controlnet import ControlNetModel

    model = ControlNetModel(
        in_channels=LATENT_CHANNELS,
        conditioning_channels=config.condition_channels,
        down_block_types=("DownBlock2D",) * len(config.channels),
        mid_block_type="UNetMidBlock2D",
        layers_per_block=1,
        conditioning_embedding_out_channels=config.condition_widths,
        **_shared(config),
    )
    with torch.no_grad():
        for layer in [*model.controlnet_down_blocks, model.controlnet_mid_block]:
            layer.weight.copy_(0.5 * torch.eye(len(layer.weight))[:, :, None, None])
    return model


def _shared(config: DenoiserConfig) -> dict[str, object]:
    return {
        "block_out_channels": config.channels,
        "cross_attention_dim": config.text_width,
        "attention_head_dim": [max(1, c // 32) for c in config.channels],  # diffusers reads it as the number of heads
        "norm_num_groups": 16,
        "addition_embed_type": "text",
        "resnet_time_scale_shift": "scale_shift",
    }


@torch.no_grad()
def scale_condition_embedding(controlnet: Any, conditions: Tensor, target: float = 0.7) -> float:
    """Scale every layer's output on ``conditions [B, C, H, W]`` to unit spread and zero mean; the last to ``target``.

    Returns:
        The spread of the embedding afterwards.
    """
    embedding = controlnet.controlnet_cond_embedding
    nn.init.normal_(embedding.conv_out.weight, std=0.05)
    features = conditions
    for layer in [embedding.conv_in, *embedding.blocks, embedding.conv_out]:
        spread = layer(features).std((0, 2, 3)).clamp(min=1e-3)
        factor = (target if layer is embedding.conv_out else 1.0) / spread
        layer.weight.mul_(factor[:, None, None, None])
        layer.bias.mul_(factor)
        layer.bias.sub_(layer(features).mean((0, 2, 3)))
        output = layer(features)
        features = F.silu(output)
    return float(output.std())


def build_scheduler() -> Any:
    """DDIM, x0 prediction, zero terminal signal (arXiv 2305.08891), trailing steps."""
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="sample",
        clip_sample=False,
        set_alpha_to_one=False,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )
