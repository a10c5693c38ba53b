"""Joint training of UNet and ControlNet on the portrait pool (reference/builtin-diffusion.md, part 2).

x0 prediction, high-noise timesteps, region-weighted error, frozen pretrained text encoder, captions drawn anew for
every use of a picture. Every random draw comes from two generators that the checkpoint holds.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ap3d.diffusion.conditions import ConditionSpec
from ap3d.diffusion.models import GuidanceModels
from ap3d.training.attributes import FRAMINGS
from ap3d.training.captions import CaptionWriter
from ap3d.training.checkpoints import load_state, save_state
from ap3d.training.denoiser import (
    DenoiserConfig,
    build_controlnet,
    build_scheduler,
    build_unet,
    scale_condition_embedding,
)
from ap3d.training.denoising import (
    FrozenParts,
    denoising_error,
    optimise,
    rate_factor,
    schedule_weights,
    smoothed,
    to_chw,
    update_average,
)
from ap3d.training.portrait_pool import FRAMING_COLUMN, PortraitPool, Scene
from ap3d.training.weighting import RegionWeights, mirror_condition

CHROMA = slice(4, 6)  # latents that hold colour differences
FINE = slice(6, None)  # latents that hold the finest luma
MIRRORED = {"left_eye": "right_eye", "right_eye": "left_eye"}


@dataclass(frozen=True)
class DiffusionConfig:
    """Schedule of the joint training."""

    samples: int = 100_000
    minutes: float | None = None  # of training, after which it ends too; the learning rate falls towards either end
    batch: int = 8
    learning_rate: float = 2e-3
    final_rate: float = 0.03
    warmup_steps: int = 100
    decay_from: float = 0.5
    ema: float = 0.998
    caption_dropout: float = 0.1
    condition_dropout: float = 0.08
    weight_limit: float = 4.0  # of 1 / (1 - alpha)
    minimum_rows: int = 2048  # rendered before the first step
    framing_shares: tuple[float, ...] = (0.38, 0.26, 0.11, 0.11, 0.14)  # in the order of FRAMINGS
    seed: int = 0
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)


class DiffusionTrainer:
    """Networks, optimiser and random state of one training.

    Args:
        config: schedule.
        pool: pictures to draw from.
        parts: text encoder, tokenizer and autoencoder, trained before.
        spec: what the pool's conditions show.
    """

    def __init__(self, config: DiffusionConfig, pool: PortraitPool, parts: FrozenParts, spec: ConditionSpec) -> None:
        torch.manual_seed(config.seed)  # the networks' starting values
        self.config, self.pool, self.parts, self.spec = config, pool, parts, spec
        self.unet, self.controlnet = build_unet(config.denoiser), build_controlnet(config.denoiser)
        self._use_plain_attention()
        rows = np.arange(min(64, len(pool)))
        scale_condition_embedding(self.controlnet, to_chw(pool.conditions[rows]))
        self.scheduler = build_scheduler()
        self.parameters = [*self.unet.parameters(), *self.controlnet.parameters()]
        self.ema = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(
            self.parameters, config.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3, fused=True
        )
        self.weights = RegionWeights(spec, cell=2 ** (len(parts.vae.config.block_out_channels) - 1))
        self.rng = np.random.default_rng(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        self._by_framing: tuple[int, list[NDArray[np.int64]]] = (0, [])
        self.writer = CaptionWriter(self.rng, noise=0.03)
        self.step, self.samples = 0, 0  # pictures seen, repeats counted
        self.seconds, self.loss = 0.0, float("nan")

    def begin_from(self, models: GuidanceModels) -> None:
        """Start from the weights of a trained model of the same sizes instead of fresh ones."""
        self.unet.load_state_dict(models.unet.state_dict())
        self.controlnet.load_state_dict(models.controlnets[0].state_dict())
        self.ema = [p.detach().clone() for p in self.parameters]

    def train_step(self) -> float:
        """One optimiser step; returns its loss."""
        started = time.monotonic()
        rate = self._learning_rate()
        pictures, conditions, captions = self._batch()
        loss = self._loss(pictures, conditions, captions)
        optimise(self.optimizer, loss, self.parameters, rate)
        self.step, self.samples = self.step + 1, self.samples + self.config.batch
        update_average(self.ema, self.parameters, self.config.ema, self.step)
        value = float(loss.detach())
        self.loss = smoothed(self.loss, value)
        self.seconds += time.monotonic() - started
        return value

    def done(self) -> float:
        """How much of the schedule is over, in samples or in time, whichever is further; 1 at the end."""
        timed = 0.0 if self.config.minutes is None else self.seconds / (60 * self.config.minutes)
        return min(1.0, max(self.samples / self.config.samples, timed))

    def _learning_rate(self) -> float:
        config = self.config
        factor = rate_factor(self.done(), self.step, config.warmup_steps, config.decay_from, config.final_rate)
        return config.learning_rate * factor

    def _batch(self) -> tuple[Tensor, Tensor, list[str]]:
        """Pictures and conditions ``[B, C, H, W]`` in 0..1, half of them mirrored, and captions."""
        size = self.config.batch
        rows = self._rows(size)
        mirrored = torch.from_numpy(self.rng.random(size) < 0.5)
        pictures, conditions = to_chw(self.pool.images[rows]), to_chw(self.pool.conditions[rows])
        choose = mirrored[:, None, None, None]
        pictures = torch.where(choose, pictures.flip(-1), pictures)
        conditions = torch.where(choose, mirror_condition(conditions), conditions)
        captions = [self._caption(self.pool.scene(int(r)), bool(m)) for r, m in zip(rows, mirrored, strict=True)]
        return pictures, conditions, captions

    def _rows(self, count: int) -> NDArray[np.int64]:
        """Rows of the pool, framings by their shares: small parts such as eyes need more than they get in renders."""
        known = len(self.pool)
        if self._by_framing[0] != known:
            framings = self.pool.codes[:known, FRAMING_COLUMN]
            self._by_framing = (known, [np.flatnonzero(framings == k) for k in range(len(FRAMINGS))])
        shares = np.array(
            [s * (len(r) > 0) for s, r in zip(self.config.framing_shares, self._by_framing[1], strict=True)]
        )
        chosen = self.rng.choice(len(FRAMINGS), size=count, p=shares / shares.sum())
        return np.sort([self._by_framing[1][k][self.rng.integers(len(self._by_framing[1][k]))] for k in chosen])

    def _caption(self, scene: Scene, mirrored: bool) -> str:
        if self.rng.random() < self.config.caption_dropout:
            return ""
        framing = MIRRORED.get(scene.framing, scene.framing) if mirrored else scene.framing
        return self.writer.write(scene.person, expression=scene.expression, framing=framing, view=scene.view).text

    def _loss(self, pictures: Tensor, conditions: Tensor, captions: list[str]) -> Tensor:
        """Weighted squared error of x0 in latent space."""
        batch = len(pictures)
        with torch.no_grad():
            latents = self.parts.codec.encode(pictures)
            text = self.parts.embed(captions)
            weight = self.weights(conditions, pictures)
        spread = (torch.arange(batch) + torch.rand(1, generator=self.generator)) / batch
        steps = (1000 * (1 - spread**2)).long().clamp(0, 999)
        noise = torch.randn(latents.shape, generator=self.generator)
        kept = (torch.rand(batch, generator=self.generator) > self.config.condition_dropout)[:, None, None, None]
        error = weight * denoising_error(
            self.unet, self.controlnet, self.scheduler, latents, noise, steps, text, conditions, kept
        )
        error = error * self._channel_weights(latents.shape[1])
        return (error * schedule_weights(self.scheduler, steps, self.config.weight_limit)).mean()

    def _channel_weights(self, channels: int) -> Tensor:
        weights = torch.ones(channels)
        weights[CHROMA], weights[FINE] = 1.5, 0.5
        return weights[:, None, None]

    def _use_plain_attention(self) -> None:
        """At 8x8 cells the fused CPU kernel's backward pass costs more than it saves."""
        from diffusers.models.attention_processor import AttnProcessor

        self.unet.set_attn_processor(AttnProcessor())

    def averaged_models(self) -> GuidanceModels:
        """The averaged weights as resident models (copies; training goes on undisturbed)."""
        unet, controlnet = build_unet(self.config.denoiser), build_controlnet(self.config.denoiser)
        with torch.no_grad():
            for target, value in zip([*unet.parameters(), *controlnet.parameters()], self.ema, strict=True):
                target.copy_(value)
        frozen = [net.eval().requires_grad_(False) for net in (unet, controlnet)]
        parts = self.parts
        return GuidanceModels(
            [], frozen[0], [frozen[1]], parts.text_encoder, parts.tokenizer, parts.codec, self.scheduler, self.spec, {}
        )

    def save(self, path: Path) -> None:
        """Write a checkpoint from which training goes on exactly."""
        state = {
            "step": self.step, "samples": self.samples, "seconds": self.seconds, "loss": self.loss, "ema": self.ema,
            "unet": self.unet.state_dict(), "controlnet": self.controlnet.state_dict(),
            "optimizer": self.optimizer.state_dict(), "torch_rng": self.generator.get_state(),
            "numpy_rng": _plain(self.rng.bit_generator.state),
        }  # fmt: skip
        save_state(path, state)

    def resume(self, path: Path) -> bool:
        """Go on from a checkpoint; False where there is none."""
        state = load_state(path)
        if state is None:
            return False
        self.unet.load_state_dict(state["unet"])
        self.controlnet.load_state_dict(state["controlnet"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema = [t.clone() for t in state["ema"]]
        self.step, self.samples, self.seconds, self.loss = (state[k] for k in ("step", "samples", "seconds", "loss"))
        self.generator.set_state(state["torch_rng"])
        self.rng.bit_generator.state = _unplain(state["numpy_rng"])
        return True


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """A generator state with its 128-bit integers as text, which a checkpoint can hold."""
    return {k: _plain(v) if isinstance(v, dict) else str(v) if isinstance(v, int) else v for k, v in state.items()}


def _unplain(state: dict[str, Any]) -> dict[str, Any]:
    convert = lambda v: _unplain(v) if isinstance(v, dict) else int(v) if isinstance(v, str) and v.isdigit() else v  # noqa: E731
    return {k: convert(v) for k, v in state.items()}
