"""Training of a ControlNet for a frozen UNet (Zhang et al. 2023, arXiv 2302.05543) on triples.

Every random draw depends on the seed and the number of samples seen alone, so a training that was killed goes on
exactly, and one of several workers differs from another only in which samples it sees.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ap3d.diffusion.conditions import ConditionSpec
from ap3d.diffusion.loading import load_component, resolve_model_folder
from ap3d.diffusion.models import GuidanceModels
from ap3d.errors import DataFileError, InputError, NumericalError
from ap3d.storage import Store
from ap3d.training.checkpoints import pack_state, unpack_state
from ap3d.training.denoising import (
    FrozenParts,
    denoising_error,
    optimise,
    rate_factor,
    run_training,
    schedule_weights,
    smoothed,
    update_average,
)
from ap3d.training.pool_triples import TripleSource, open_triples

STATE, FOLDER = "state.pt", "controlnet"
MAXIMUM_DROPPED = 20  # steps without finite gradients, after which the training stops


@dataclass(frozen=True)
class ControlNetConfig:
    """Schedule of a training.

    Attributes:
        samples: pictures to train on, repeats counted.
        batch: pictures of one worker's step.
        learning_rate, warmup_steps, decay_from, final_rate: see :func:`ap3d.training.denoising.rate_factor`.
        ema: decay of the averaged weights, which are the result.
        caption_dropout: share of samples without words, so that the condition is read for itself.
        condition_dropout: share of samples whose residuals are left out.
        weight_limit: of the loss weight of models that predict x0.
        gradient_checkpointing: trade time for memory.
        autocast: run the networks in bfloat16.
        seed: of starting values, order, timesteps, noise and dropout.
    """

    samples: int = 500_000
    batch: int = 8
    learning_rate: float = 1e-5
    warmup_steps: int = 500
    decay_from: float = 0.7
    final_rate: float = 0.1
    ema: float = 0.999
    caption_dropout: float = 0.3
    condition_dropout: float = 0.0
    weight_limit: float = 4.0
    gradient_checkpointing: bool = False
    autocast: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Place:
    """Which worker this is; ``average`` replaces tensors by their means over all workers."""

    rank: int = 0
    world: int = 1
    average: Callable[[list[Tensor]], None] = lambda tensors: None


class ControlNetTrainer:
    """One worker's networks, optimiser and place in the data.

    Args:
        config: schedule.
        data: triples.
        models: frozen UNet, text encoder and autoencoder.
        spec: what the conditions show.
        start: a ControlNet to begin from; a copy of the UNet's encoder where None.
        place: of this worker.
    """

    def __init__(
        self, config: ControlNetConfig, data: TripleSource, models: GuidanceModels, spec: ConditionSpec,
        start: Any | None = None, place: Place = Place(),
    ) -> None:  # fmt: skip
        torch.manual_seed(config.seed)  # new layers' starting values
        self.config, self.data, self.models, self.spec, self.place = config, data, models, spec, place
        self.controlnet = (start or fresh_controlnet(models, spec.channels)).to(models.device).float()
        self.controlnet.train().requires_grad_(True)
        if config.gradient_checkpointing:
            self.controlnet.enable_gradient_checkpointing()
            unet: Any = models.unet
            unet.enable_gradient_checkpointing()
        self.parts = FrozenParts(models.text_encoder, models.tokenizer, models.codec.vae, models.codec.linear_decoder)
        self.parameters = list(self.controlnet.parameters())
        self.ema = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(self.parameters, config.learning_rate, weight_decay=1e-2)
        self.step, self.samples, self.dropped = 0, 0, 0
        self.seconds, self.loss = 0.0, float("nan")
        self._epoch: tuple[int, Any] = (-1, None)

    def done(self) -> float:
        """Share of the samples that were seen."""
        return min(1.0, self.samples / self.config.samples)

    def train_step(self) -> float:
        """One optimiser step on this worker's share of the batch; returns its loss.

        Raises:
            NumericalError: too many steps without a finite loss.
        """
        started, config = time.monotonic(), self.config
        rng = np.random.default_rng((config.seed, self.samples, self.place.rank))
        loss = self._loss(rng)
        rate = config.learning_rate * rate_factor(
            self.done(), self.step, config.warmup_steps, config.decay_from, config.final_rate
        )
        optimise(self.optimizer, loss, self.parameters, rate, self._share_gradients)
        self.step, self.samples = self.step + 1, self.samples + config.batch * self.place.world
        update_average(self.ema, self.parameters, config.ema, self.step)
        value = float(loss.detach())
        self.loss = smoothed(self.loss, value) if value == value else self.loss
        self.seconds += time.monotonic() - started
        return value

    def _share_gradients(self) -> None:
        """Means over the workers; a step that is not finite anywhere changes nothing, and is counted."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        self.place.average(gradients)
        if all(bool(g.isfinite().all()) for g in gradients):
            return
        self.dropped += 1
        if self.dropped > MAXIMUM_DROPPED:
            raise NumericalError(f"{self.dropped} steps had gradients that are not finite; lower the learning rate")
        self.optimizer.zero_grad(set_to_none=True)

    def rows(self) -> list[int]:
        """This worker's rows of the next step."""
        first = self.samples + self.place.rank * self.config.batch
        return [self._row(position) for position in range(first, first + self.config.batch)]

    def _row(self, position: int) -> int:
        epoch, index = divmod(position, len(self.data))
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self.data.order(epoch, self.config.seed))
        return int(self._epoch[1][index])

    def _loss(self, rng: np.random.Generator) -> Tensor:
        config, models, device = self.config, self.models, self.models.device
        pictures, conditions, captions = self.data.batch(self.rows())
        captions = ["" if rng.random() < config.caption_dropout else caption for caption in captions]
        kept = torch.from_numpy(rng.random(len(captions)) >= config.condition_dropout).to(device)
        total = len(models.alphas_cumprod)
        spread = (np.arange(len(captions)) + rng.random()) / len(captions)
        steps = torch.from_numpy((total * spread).astype(np.int64).clip(0, total - 1)).to(device)
        generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
        with torch.no_grad():
            latents = self.parts.codec.encode(pictures.to(device, models.dtype)).float()
            text = self.parts.embed(captions).float()
        noise = torch.randn(latents.shape, generator=generator).to(device)
        error = denoising_error(
            models.unet, self.controlnet, models.scheduler, latents, noise, steps, text, conditions.to(device),
            kept[:, None, None, None], config.autocast,
        )  # fmt: skip
        if models.prediction_type == "sample":
            error = error * schedule_weights(models.scheduler, steps, config.weight_limit)
        return error.mean()

    def save(self, store: Store) -> None:
        """Write a checkpoint from which the training goes on exactly; only the first worker does."""
        if self.place.rank:
            return
        state = {
            "step": self.step, "samples": self.samples, "seconds": self.seconds, "loss": self.loss,
            "dropped": self.dropped, "rows": len(self.data), "ema": self.ema,
            "controlnet": self.controlnet.state_dict(), "optimizer": self.optimizer.state_dict(),
        }  # fmt: skip
        store.write_bytes(STATE, pack_state(state))

    def resume(self, store: Store) -> bool:
        """Go on from a checkpoint; False where there is none.

        Raises:
            DataFileError: it is damaged, or of another training.
        """
        if not store.exists(STATE):
            return False
        state = unpack_state(store.read_bytes(STATE), store.path(STATE))
        try:
            if state["rows"] != len(self.data):
                raise InputError(f"the data had {state['rows']} rows and now has {len(self.data)}")
            self.controlnet.load_state_dict(state["controlnet"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.ema = [t.to(p) for t, p in zip(state["ema"], self.parameters, strict=True)]
            self.step, self.samples, self.dropped = (state[k] for k in ("step", "samples", "dropped"))
            self.seconds, self.loss = state["seconds"], state["loss"]
        except (KeyError, RuntimeError, ValueError, InputError) as error:
            reason = str(error).splitlines()[0]
            raise DataFileError(f"{store.path(STATE)} is of another training ({reason}); delete it") from error
        return True

    def export(self, store: Store) -> None:
        """Write the averaged weights in diffusers' format with ``condition.json``; only the first worker does."""
        if self.place.rank:
            return
        kept = [p.detach().clone() for p in self.parameters]
        with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
            for parameter, average in zip(self.parameters, self.ema, strict=True):
                parameter.copy_(average)
            self.controlnet.save_pretrained(folder, safe_serialization=True)
            for parameter, value in zip(self.parameters, kept, strict=True):
                parameter.copy_(value)
            self.spec.write(Path(folder) / "condition.json")
            for path in sorted(Path(folder).iterdir(), key=lambda p: p.suffix == ".json"):
                store.write_bytes(f"{FOLDER}/{path.name}", path.read_bytes())


def fresh_controlnet(models: GuidanceModels, channels: int) -> Any:
    """A ControlNet that starts as a copy of the UNet's encoder and changes nothing yet.

    Args:
        models: with the UNet.
        channels: of the condition image.
    """
    from diffusers.models.controlnets.controlnet import ControlNetModel

    halvings = models.vae_scale.bit_length() - 1  # each width of the embedding but the last halves the picture
    widths = (16, 32, 96, 256)[: halvings + 1]
    return ControlNetModel.from_unet(
        models.unet, conditioning_embedding_out_channels=widths, conditioning_channels=channels
    )


@dataclass(frozen=True)
class ControlNetOptions:
    """A training from its data to its exported weights.

    Attributes:
        data: folder or URI of the shards, or the folder of a pool of portraits.
        out: folder or URI of checkpoint and result.
        model: text-to-image model whose UNet the ControlNet is for, as in :meth:`GuidanceModels.load`.
        condition: ``condition.json`` of the conditions; that of the model's ControlNet where None.
        start: a ControlNet's folder to begin from; a copy of the UNet's encoder where None.
        config: schedule.
        bad_share: refuse the data when more of its shards or rows are unreadable.
        save_seconds: at most this much is lost to a kill.
        export_seconds: between exports of the averaged weights.
    """

    data: str
    out: str
    model: str = "builtin"
    condition: str | None = None
    start: str | None = None
    config: ControlNetConfig = ControlNetConfig()
    bad_share: float = 0.1
    save_seconds: float = 600.0
    export_seconds: float = 3600.0


def train_controlnet(
    options: ControlNetOptions, report: Callable[[dict[str, Any]], None], place: Place = Place(), device: str = "cpu"
) -> ControlNetTrainer:
    """Train to the end, from a checkpoint where there is one; the result is ``out/controlnet``.

    Args:
        options: what to train on what.
        report: called with rows of progress.
        place: of this worker.
        device: where the networks live.

    Raises:
        InputError: data, model or condition are unusable or do not fit each other.
        NumericalError: the training diverged.
    """
    models = GuidanceModels.load(options.model, device=device)
    spec = ConditionSpec.read(Path(options.condition)) if options.condition else models.condition_spec
    start = _start(options.start, spec) if options.start else None
    data = open_triples(options.data, models.image_size, spec.channels, options.bad_share)
    store = Store(options.out)
    trainer = ControlNetTrainer(options.config, data, models, spec, start, place)
    resumed = trainer.resume(store)
    report({"rows": len(data), "bad_shards": len(data.bad_shards), "resumed_at": trainer.samples if resumed else 0})
    for name, reason in data.bad_shards.items():
        report({"skipped shard": name, "reason": reason})
    named: set[int] = set()

    def log(t: ControlNetTrainer) -> None:
        for number in sorted(set(data.bad_rows) - named):
            report({"skipped row": data.place(number), "reason": data.bad_rows[number]})
            named.add(number)
        report({"step": t.step, "samples": t.samples, "seconds": t.seconds, "loss": t.loss, "bad_rows": len(named)})

    hooks = {20.0: log, options.export_seconds: lambda t: t.export(store)}
    run_training(trainer, checkpoint=store, every=hooks, save_seconds=options.save_seconds)
    return trainer


def _start(folder: str, spec: ConditionSpec) -> Any:
    """A ControlNet to begin from.

    Raises:
        InputError: its condition has other channels.
    """
    from diffusers.models.controlnets.controlnet import ControlNetModel

    network = load_component(ControlNetModel, resolve_model_folder(folder), "cpu", torch.float32)
    if network.config.conditioning_channels != spec.channels:
        raise InputError(
            f"{folder} takes {network.config.conditioning_channels} condition channels, the data has {spec.channels}"
        )
    return network
