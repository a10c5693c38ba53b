"""Pictures to latents and back, for any diffusers autoencoder."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from ap3d.errors import DataFileError

LINEAR_DECODER_FILE = "linear_decoder.safetensors"


class LinearDecoder:
    """Decoder of a linear encoder: one convolution and a pixel shuffle, fitted by least squares.

    A stock decoder upsamples by repetition and cannot tell the pixels of a cell apart where latents are constant; this
    one can, costs nothing and is differentiable. It lies beside the autoencoder's own files.

    Args:
        weight: ``[3 f^2, C, k, k]``; channels as ``pixel_shuffle`` expects them.
        bias: ``[3 f^2]``.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight, bias
        self.scale = round((len(weight) / 3) ** 0.5)

    def __call__(self, latents: Tensor) -> Tensor:
        """``[B, C, h, w]`` to pictures ``[B, 3, f h, f w]`` in -1..1 (not clamped)."""
        pad = self.weight.shape[-1] // 2
        padded = F.pad(latents, (pad,) * 4, mode="replicate")
        return F.pixel_shuffle(F.conv2d(padded, self.weight, self.bias), self.scale)

    def save(self, folder: Path) -> None:
        """Write ``linear_decoder.safetensors`` into the autoencoder's folder."""
        save_file({"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}, folder / LINEAR_DECODER_FILE)

    @staticmethod
    def load(
        folder: Path, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> "LinearDecoder | None":
        """Read it, or None where the autoencoder has none."""
        path = folder / LINEAR_DECODER_FILE
        if not path.exists():
            return None
        try:
            tensors = load_file(path)
            return LinearDecoder(tensors["weight"].to(device, dtype), tensors["bias"].to(device, dtype))
        except Exception as error:  # safetensors raises its own types
            raise DataFileError(f"{path} is truncated or not a linear decoder: {error}") from error

    @staticmethod
    def fit(latents: Tensor, pictures: Tensor, kernel: int = 3, ridge: float = 1e-5) -> "LinearDecoder":
        """Least squares over all cells of ``latents [B, C, h, w]`` and ``pictures [B, 3, f h, f w]`` in -1..1."""
        scale, pad = pictures.shape[-1] // latents.shape[-1], kernel // 2
        columns = F.unfold(F.pad(latents, (pad,) * 4, mode="replicate"), kernel).transpose(1, 2).flatten(0, 1)
        columns = torch.cat([columns, torch.ones(len(columns), 1)], 1).double()
        targets = F.pixel_unshuffle(pictures, scale).flatten(2).transpose(1, 2).flatten(0, 1).double()
        gram = columns.T @ columns
        gram += ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        solution = torch.linalg.solve(gram, columns.T @ targets).T.float()
        weight = solution[:, :-1].reshape(len(solution), latents.shape[1], kernel, kernel)
        return LinearDecoder(weight.contiguous(), solution[:, -1].contiguous())


class LatentCodec:
    """One face for AutoencoderKL (a distribution, a shift) and AutoencoderTiny (plain latents).

    Args:
        vae: a diffusers autoencoder.
        linear_decoder: preferred for decoding where there is one.
    """

    def __init__(self, vae: Any, linear_decoder: LinearDecoder | None = None) -> None:
        self.vae, self.linear_decoder = vae, linear_decoder
        self.scaling = float(vae.config.scaling_factor)
        self.shift = float(getattr(vae.config, "shift_factor", None) or 0.0)

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures ``[B, 3, H, W]`` in 0..1 to scaled latents, differentiable; the mode of a distribution."""
        encoded = self.vae.encode(pictures * 2 - 1)
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
        return (latents - self.shift) * self.scaling

    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents to pictures ``[B, 3, H, W]`` in 0..1."""
        latents = latents / self.scaling + self.shift
        pictures = self.linear_decoder(latents) if self.linear_decoder else self.vae.decode(latents).sample
        return (pictures / 2 + 0.5).clamp(0, 1)
