"""What every training of a denoiser shares: frozen parts, the error in latent space, averages, rates and the loop."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ap3d.diffusion.latents import LatentCodec, LinearDecoder
from ap3d.errors import NumericalError
from ap3d.training.text_pretraining import token_ids

Target = TypeVar("Target", contravariant=True)


class FrozenParts:
    """Text encoder, tokenizer and autoencoder; they do not change while a denoiser trains."""

    def __init__(self, text_encoder: nn.Module, tokenizer: Any, vae: nn.Module, decoder: LinearDecoder | None) -> None:
        self.text_encoder, self.tokenizer, self.vae = text_encoder, tokenizer, vae
        self.codec = LatentCodec(vae, decoder)

    @staticmethod
    def load(folder: Path) -> "FrozenParts":
        """Read ``text_encoder``, ``tokenizer`` and ``vae`` below ``folder``."""
        from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
        from transformers import CLIPTextModel, CLIPTokenizer

        from ap3d.diffusion.loading import load_component

        text_encoder = load_component(CLIPTextModel, folder / "text_encoder", "cpu", torch.float32)
        vae = load_component(AutoencoderTiny, folder / "vae", "cpu", torch.float32)
        tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
        return FrozenParts(text_encoder, tokenizer, vae, LinearDecoder.load(folder / "vae"))

    @torch.no_grad()
    def embed(self, texts: list[str]) -> Tensor:
        """Text embeddings ``[B, L, D]``."""
        ids = token_ids(self.tokenizer, texts).to(next(self.text_encoder.parameters()).device)
        embedded: Tensor = self.text_encoder(ids).last_hidden_state
        return embedded


def to_chw(rows: np.ndarray[Any, Any]) -> Tensor:
    """Bytes ``[B, H, W, C]`` as float32 ``[B, C, H, W]`` in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(rows)).permute(0, 3, 1, 2).float() / 255


def denoising_error(
    unet: Any, controlnet: Any, scheduler: Any, latents: Tensor, noise: Tensor, steps: Tensor, text: Tensor,
    conditions: Tensor, kept: Tensor, autocast: bool = True,
) -> Tensor:  # fmt: skip
    """Squared error ``[B, C, h, w]`` of what the networks predict: x0, noise or velocity, as the schedule says.

    Args:
        unet: UNet2DConditionModel.
        controlnet: ControlNetModel.
        scheduler: adds the noise and names the prediction.
        latents: ``[B, C, h, w]``, scaled.
        noise: as ``latents``.
        steps: timesteps ``[B]``.
        text: ``[B, L, D]``.
        conditions: ``[B, channels, H, W]`` in 0..1.
        kept: ``[B, 1, 1, 1]``, 0 where the condition is dropped.
        autocast: run the networks in bfloat16.

    Raises:
        NumericalError: an unknown prediction.
    """
    noisy = scheduler.add_noise(latents, noise, steps)
    with torch.autocast(latents.device.type, torch.bfloat16, enabled=autocast):
        down, middle = controlnet(noisy, steps, text, conditions, return_dict=False)
        output = unet(
            noisy, steps, text, down_block_additional_residuals=[d * kept for d in down],
            mid_block_additional_residual=middle * kept, return_dict=False,
        )[0]  # fmt: skip
    match scheduler.config.prediction_type:
        case "sample":
            target = latents
        case "epsilon":
            target = noise
        case "v_prediction":
            target = scheduler.get_velocity(latents, noise, steps)
        case other:
            raise NumericalError(f"unknown prediction type {other!r}")
    return (output.float() - target).square()


def schedule_weights(scheduler: Any, steps: Tensor, limit: float) -> Tensor:
    """Loss weights ``[B, 1, 1, 1]`` of x0 errors: 1 / (1 - alpha), at most ``limit``."""
    return (1 / (1 - scheduler.alphas_cumprod[steps])).clamp(max=limit)[:, None, None, None]


def rate_factor(done: float, step: int, warmup_steps: int, decay_from: float, final: float) -> float:
    """Factor of the learning rate: a rise over ``warmup_steps``, then flat, then a straight fall to ``final``.

    Args:
        done: share of the training that is over.
        step: optimiser steps so far.
        warmup_steps: length of the rise.
        decay_from: share of the training from which the rate falls.
        final: factor that it does not fall below.
    """
    fall = 1.0 if done < decay_from else max(final, (1 - done) / (1 - decay_from))
    return min(1.0, (step + 1) / warmup_steps) * fall


def optimise(
    optimizer: torch.optim.Optimizer, loss: Tensor, parameters: list[nn.Parameter], rate: float,
    before_step: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """One step at a learning rate, with gradients clipped to norm 1; ``before_step`` may change them first."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    before_step()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
    optimizer.step()


def update_average(average: Sequence[Tensor], parameters: Sequence[Tensor], decay: float, step: int) -> None:
    """Move the averaged weights towards the present ones; the first steps of a training count more."""
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average), [p.data for p in parameters], 1 - decay)


def smoothed(loss: float, value: float) -> float:
    """The running mean of a loss; NaN before the first value."""
    return value if loss != loss else 0.99 * loss + 0.01 * value


class Trainer(Protocol[Target]):
    """A training that a kill may interrupt."""

    seconds: float

    def train_step(self) -> float:
        """One optimiser step; returns its loss."""
        ...

    def done(self) -> float:
        """Share of the training that is over."""
        ...

    def save(self, path: Target) -> None:
        """Write a checkpoint."""
        ...


AnyTrainer = TypeVar("AnyTrainer", bound=Trainer[Any])


def run_training(
    trainer: AnyTrainer, *, checkpoint: Any, every: Mapping[float, Callable[[AnyTrainer], None]],
    save_seconds: float = 120.0,
) -> None:  # fmt: skip
    """Train to the end with a checkpoint every ``save_seconds``.

    Args:
        trainer: fresh or resumed.
        checkpoint: where its state goes.
        every: hooks by their period in seconds of training; each also runs once at the end.
        save_seconds: at most this much training is lost to a kill.
    """
    due = {period: trainer.seconds + period for period in every}
    save_due = trainer.seconds + save_seconds
    while trainer.done() < 1:
        trainer.train_step()
        if trainer.seconds >= save_due:
            trainer.save(checkpoint)
            save_due = trainer.seconds + save_seconds
        for period, hook in every.items():
            if trainer.seconds >= due[period]:
                hook(trainer)
                due[period] = trainer.seconds + period
    trainer.save(checkpoint)
    for hook in every.values():
        hook(trainer)
