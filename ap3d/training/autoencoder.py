"""The built-in autoencoder: an exact linear encoder inside a stock AutoencoderTiny (f = 4, 18 latent channels).

A 4x4 cell keeps all 16 Haar coefficients of its luma and the means of two chroma channels, YCbCr after ITU-R BT.601
(reference/builtin-diffusion.md, part 2). The encoder needs no training, adds no noise to gradients and is exact; a
least squares linear decoder inverts it, and the stock decoder is trained for plain diffusers pipelines.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ap3d.diffusion.latents import LinearDecoder

LATENT_CHANNELS, SCALE = 18, 4
LUMA = torch.tensor([0.299, 0.587, 0.114])
CHROMA = torch.tensor([[-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
HAAR = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 4
COARSE_GAIN = torch.tensor([1.6, 5.0, 5.0, 5.0, 4.0, 4.0])  # brings the coarse latents nearer to unit spread
FINE_GAIN = 5.0
LUMA_SHIFT = -0.3


def coarse_kernel() -> Tensor:
    """``[6, 3, 2, 2]``: four luma Haar coefficients and two chroma means of a 2x2 block."""
    kernel = torch.zeros(6, 3, 2, 2)
    for band in range(4):
        kernel[band] = LUMA[:, None, None] * HAAR[band].view(2, 2)
    for channel in range(2):
        kernel[4 + channel] = CHROMA[channel][:, None, None] / 4
    return kernel * COARSE_GAIN[:, None, None, None]


def build_autoencoder() -> Any:
    """AutoencoderTiny with the exact encoder set by hand and a fresh decoder.

    The first convolution passes colour on, the second halves the size (means and fine luma bands), the third halves it
    again (coarse Haar; the fine bands' 2x2 neighbours become channels).
    """
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    model = AutoencoderTiny(
        encoder_block_out_channels=(LATENT_CHANNELS,) * 3,
        decoder_block_out_channels=(32, 32, 32),
        num_encoder_blocks=(0, 0, 0),
        num_decoder_blocks=(1, 1, 1),
        latent_channels=LATENT_CHANNELS,
    )
    first, second, third, last = model.encoder.layers
    with torch.no_grad():
        for layer in (first, second, third, last):
            layer.weight.zero_()
            if layer.bias is not None:
                layer.bias.zero_()
        for colour in range(3):
            first.weight[colour, colour, 1, 1] = 2.0  # undoes (x + 1) / 2; the offset goes into the last bias
            second.weight[colour, colour, 1:, 1:] = 0.25
            second.weight[3 + colour, :3, 1:, 1:] = FINE_GAIN * LUMA[:, None, None] * HAAR[1 + colour].view(2, 2)
        third.weight[:6, :3, 1:, 1:] = coarse_kernel()
        for band in range(3):
            for j in range(4):
                third.weight[6 + 4 * band + j, 3 + band, 1 + j // 2, 1 + j % 2] = 1.0
        for channel in range(LATENT_CHANNELS):
            last.weight[channel, channel, 1, 1] = 1.0
        last.bias[:6] = -coarse_kernel().sum((1, 2, 3))
        last.bias[0] += LUMA_SHIFT
    model.encoder.requires_grad_(False)
    return model


def fit_linear_decoder(model: Any, pictures: Tensor) -> tuple[LinearDecoder, float]:
    """Fit on pictures ``[B, 3, H, W]`` in 0..1, the last eighth held out; returns it and its held-out PSNR in dB."""
    signed = pictures * 2 - 1
    with torch.no_grad():
        latents = model.encode(signed).latents
    held_out = max(1, len(pictures) // 8)
    decoder = LinearDecoder.fit(latents[:-held_out], signed[:-held_out])
    return decoder, psnr(decoder(latents[-held_out:]) / 2 + 0.5, pictures[-held_out:])


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in 0..1."""
    return float(-10 * torch.log10((a.clamp(0, 1) - b).square().mean()))


def train_decoder(
    model: Any,
    sample: Callable[[int], Tensor],
    steps: int,
    *,
    batch: int = 4,
    report: Callable[[dict[str, float]], None] = lambda row: None,
) -> float:
    """Train the stock decoder on ``sample(batch) -> [B, 3, H, W]`` in 0..1; returns the PSNR of the last batches."""
    optimizer = torch.optim.AdamW(model.decoder.parameters(), 2e-3, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.1)
    generator, started, recent = torch.Generator().manual_seed(0), time.monotonic(), 0.0
    for step in range(steps):
        pictures = sample(batch) * 2 - 1
        with torch.no_grad():
            latents = model.encode(pictures).latents
        noisy = latents + 0.05 * torch.randn(latents.shape, generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            decoded = model.decode(noisy).sample
        difference = decoded.float() - pictures
        loss = difference.abs().mean() + difference.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        value = psnr(decoded.detach().float() / 2 + 0.5, pictures / 2 + 0.5)
        recent = value if step == 0 else 0.95 * recent + 0.05 * value
        if step % 50 == 0 or step == steps - 1:
            report({"step": step, "psnr": recent, "seconds": time.monotonic() - started})
    return recent
