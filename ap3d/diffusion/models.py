"""Resident text-to-image models: loaded once in a process, immutable, borrowed by every stage."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ap3d.diffusion.conditions import ConditionSpec
from ap3d.diffusion.control import Conditions, accept_embedded, embeds, listed, scattered, shared
from ap3d.diffusion.cost import CostMeter
from ap3d.diffusion.latents import LatentCodec, LinearDecoder
from ap3d.diffusion.loading import check_kind, fingerprint, load_component, read_json, resolve_model_folder
from ap3d.diffusion.network_options import NetworkOptions
from ap3d.diffusion.parts import check_parts, condition_spec_of, controlnet_folders, vae_class
from ap3d.diffusion.perp_neg import perpendicular_sum
from ap3d.diffusion.prompts import complete_prompt, unknown_words
from ap3d.errors import DataFileError, InputError, NumericalError


class GuidanceModels:
    """UNet, ControlNets, text encoder and autoencoder behind one small face. Build it with :meth:`load`.

    Attributes:
        alphas_cumprod: ``[T]`` of the noise schedule.
        condition_spec: what the first ControlNet's condition image shows.
        image_size: pixels of a square picture.
        meter: counts what the networks do.
        embed_once: whether :meth:`embed_conditions` embeds.
        branches_together: whether the branches of a guided prediction share one batch.
        latent_shape: ``(C, h, w)``.
        vocabulary: the words that the text encoder was trained on, or None for an open vocabulary.
    """

    def __init__(
        self, folders: list[Path], unet: nn.Module, controlnets: list[nn.Module], text_encoder: nn.Module,
        tokenizer: Any, codec: LatentCodec, scheduler: Any, condition_spec: ConditionSpec, prompt_spec: dict[str, Any],
    ) -> None:  # fmt: skip
        self.folders = folders
        self.unet, self.controlnets, self.text_encoder = unet, controlnets, text_encoder
        self.tokenizer, self.codec, self.scheduler = tokenizer, codec, scheduler
        self.condition_spec, self.prompt_spec = condition_spec, prompt_spec
        parameter = next(unet.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.alphas_cumprod = scheduler.alphas_cumprod.to(self.device)
        self.prediction_type: str = scheduler.config.prediction_type
        self.codec_dtype = next(codec.vae.parameters()).dtype
        self.meter, self.embed_once, self.branches_together = CostMeter(), True, True
        for network in controlnets:
            accept_embedded(network)
        self.options = NetworkOptions()
        self._runners: list[Any] = [unet, *controlnets]
        self._texts: dict[str, Tensor] = {}

    @staticmethod
    def load(
        spec: str | Path = "builtin", *, controlnet: str | Path | Sequence[str | Path] | None = None,
        vae: str | Path | None = None, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32,
        options: NetworkOptions | None = None,
    ) -> "GuidanceModels":  # fmt: skip
        """Load a diffusers folder; safetensors only, nothing is downloaded from a hub.

        Args:
            spec: "builtin", a local folder, an fsspec URI, or the hub id of a fetched model.
            controlnet: other ControlNets, as ``spec``; None takes ``controlnet/`` inside the folder, if it is there.
            vae: another autoencoder's folder, URI or hub id; None takes ``vae/`` inside the folder.
            device: where the networks live.
            dtype: of weights and activations.
            options: memory format, attention kernel, compilation.

        Raises:
            DataFileError: a file is missing, truncated, or of another kind.
            InputError: the model does not exist or its parts do not fit.
        """
        from diffusers.models.controlnets.controlnet import ControlNetModel
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
        from diffusers.schedulers.scheduling_ddim import DDIMScheduler
        from transformers import CLIPTextModel, CLIPTokenizer

        folder = resolve_model_folder(spec)
        check_kind(folder)
        control_folders = controlnet_folders(folder, controlnet)
        scheduler = DDIMScheduler.from_config(read_json(folder / "scheduler" / "scheduler_config.json"))
        try:
            tokenizer = CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
        except (OSError, ValueError, TypeError) as error:
            raise DataFileError(f"{folder / 'tokenizer'} is not a CLIP tokenizer") from error
        vae_folder = folder / "vae" if vae is None else resolve_model_folder(vae)
        # Eight bits of mantissa are too few for colours, and on CPUs the autoencoder is not where the time goes.
        codec_dtype = torch.float32 if dtype == torch.bfloat16 and torch.device(device).type == "cpu" else dtype
        autoencoder = load_component(vae_class(vae_folder), vae_folder, device, codec_dtype)
        prompt_file = folder / "prompts.json"
        controlnets = [load_component(ControlNetModel, f, device, dtype) for f in control_folders]
        models = GuidanceModels(
            [folder, *(f for f in (*control_folders, vae_folder) if f.parent != folder)],
            load_component(UNet2DConditionModel, folder / "unet", device, dtype),
            controlnets,
            load_component(CLIPTextModel, folder / "text_encoder", device, dtype),
            tokenizer,
            LatentCodec(autoencoder, LinearDecoder.load(vae_folder, device, codec_dtype)),
            scheduler,
            condition_spec_of(control_folders, controlnets),
            read_json(prompt_file) if prompt_file.exists() else {},
        )
        check_parts(models.folders[0], models.unet, models.text_encoder, models.codec.vae, models.controlnets)
        models.prepare(options or NetworkOptions())
        return models

    def with_controlnet(self, controlnet: str | Path) -> "GuidanceModels":
        """The same networks under another ControlNet, whose condition is a picture (``tile``); nothing is copied.

        Raises:
            DataFileError, InputError: as :meth:`load`.
        """
        from diffusers.models.controlnets.controlnet import ControlNetModel

        folder = resolve_model_folder(controlnet)
        net = load_component(ControlNetModel, folder, self.device, self.dtype)
        if net.config.conditioning_channels != 3:
            raise InputError(f"{controlnet} takes {net.config.conditioning_channels} condition channels, no picture")
        other = GuidanceModels(
            [*self.folders, folder], self.unet, [net], self.text_encoder, self.tokenizer, self.codec, self.scheduler,
            self.condition_spec, self.prompt_spec,
        )  # fmt: skip
        other.meter = self.meter
        other.embed_once, other.branches_together = self.embed_once, self.branches_together
        check_parts(other.folders[0], other.unet, other.text_encoder, other.codec.vae, other.controlnets)
        other.prepare(self.options)
        return other

    def prepare(self, options: NetworkOptions) -> None:
        """Change how the networks run; what they compute stays the same within rounding."""
        self.options = options
        layout = torch.channels_last if options.channels_last else torch.contiguous_format
        for network in (self.unet, *self.controlnets, self.codec.vae):
            network.to(memory_format=layout)
        self._runners = [options.runner(network) for network in (self.unet, *self.controlnets)]

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of all weights and configurations."""
        return fingerprint(self.folders)

    @property
    def licence(self) -> str:
        """Licence that the model folder states in ``prompts.json``, or where to look for it."""
        return str(self.prompt_spec.get("licence", f"see the model card of {self.folders[0].name}"))

    @property
    def flat_background(self) -> Tensor | None:
        """The one colour ``[3]`` that a model paints behind every head, None for a model of many backgrounds."""
        colour = self.prompt_spec.get("flat_background")
        return None if colour is None else torch.tensor(colour)

    @property
    def vae_scale(self) -> int:
        """Pixels along a latent cell."""
        return int(2 ** (len(self.codec.vae.config.block_out_channels) - 1))

    @property
    def image_size(self) -> int:
        """Pixels of the square picture that the UNet was trained on."""
        return int(self.unet.config.sample_size) * self.vae_scale

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return int(self.unet.config.in_channels)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """``(C, h, w)`` of one picture's latents."""
        size = int(self.unet.config.sample_size)
        return (self.latent_channels, size, size)

    @property
    def condition_channels(self) -> int:
        """Channels of the first ControlNet's condition image, 0 without one."""
        return int(self.controlnets[0].config.conditioning_channels) if self.controlnets else 0

    @property
    def vocabulary(self) -> frozenset[str] | None:
        """Words of a closed vocabulary, None for an open one."""
        listed = self.prompt_spec.get("vocabulary")
        return frozenset(listed) if listed else None

    @property
    def knows_negatives(self) -> bool:
        """Whether negative prompts other than the empty one mean anything to the text encoder."""
        return self.vocabulary is None

    def unknown_words(self, prompt: str) -> list[str]:
        """Words of a prompt that the model never saw; empty for an open vocabulary."""
        return unknown_words(prompt, self.vocabulary) if self.vocabulary else []

    def complete_prompt(self, prompt: str, generator: torch.Generator) -> tuple[str, list[str]]:
        """Words for what a prompt leaves open where the model asks for it: see :func:`prompts.complete_prompt`."""
        return complete_prompt(prompt, generator) if self.prompt_spec.get("complete") else (prompt, [])

    @torch.no_grad()
    def encode_prompt(self, texts: Sequence[str]) -> Tensor:
        """Text embeddings ``[B, L, D]``; remembered, L is the tokenizer's own maximum.

        Each text is encoded by itself, so that its numbers do not depend on what stands beside it.
        """
        for text in dict.fromkeys(texts):
            if text in self._texts:
                continue
            limit = min(self.tokenizer.model_max_length, self.text_encoder.config.max_position_embeddings)
            tokens = self.tokenizer(
                [text], padding="max_length", max_length=limit, truncation=True, return_tensors="pt"
            )
            self._texts[text] = self.text_encoder(tokens.input_ids.to(self.device)).last_hidden_state[0]
        return torch.stack([self._texts[text] for text in texts])

    def forget_prompts(self) -> None:
        """Drop the remembered embeddings; to be called between portraits, or they pile up in a resident worker."""
        self._texts.clear()

    def encode_images(self, pictures: Tensor) -> Tensor:
        """Pictures ``[B, 3, H, W]`` in 0..1 to scaled latents; differentiable."""
        latents: Tensor = self.meter.call("autoencoder", self.codec.encode, pictures.to(self.device, self.codec_dtype))
        return latents

    @torch.no_grad()
    def decode_latents(self, latents: Tensor) -> Tensor:
        """Scaled latents to pictures ``[B, 3, H, W]`` float32 in 0..1."""
        pictures: Tensor = self.meter.call("autoencoder", self.codec.decode, latents.to(self.codec_dtype))
        return pictures.float()

    @torch.no_grad()
    def embed_conditions(self, conditions: Conditions) -> Conditions:
        """Conditions in the form that the ControlNets make of them first, for use in several :meth:`predict` calls.

        The embedding depends on neither latent nor timestep, so it need not be made anew for every evaluation.

        Args:
            conditions: as in :meth:`predict`.
        """
        if not self.embed_once:
            return conditions
        out = []
        for network, condition in zip(self.controlnets, shared(conditions, len(self.controlnets)), strict=False):
            image = condition.to(self.device, self.dtype)
            if embeds(network) and image.shape[1] == network.config.conditioning_channels:
                image = self.meter.call("embedding", network.controlnet_cond_embedding, image)
            out.append(image)
        return out or None

    def predict(
        self, latents: Tensor, timesteps: int | Tensor, text: Tensor, conditions: Conditions = None, *,
        guidance_scale: float = 1.0, negative_text: Tensor | None = None, control_scale: float = 1.0,
        controlled: Tensor | None = None, against: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """What the model thinks of noisy latents: ``(x0, noise)``, each ``[B, C, h, w]``.

        Args:
            latents: ``[B, C, h, w]``, scaled and noisy.
            timesteps: training timesteps, one or ``[B]``.
            text: ``[B, L, D]`` from :meth:`encode_prompt`.
            conditions: ``[B, channels, H, W]`` in 0..1, one for each ControlNet, or None to run without; also what
                :meth:`embed_conditions` made of them.
            guidance_scale: 1 leaves out the second branch; else both share one batch (``branches_together``).
            negative_text: ``[B, L, D]`` of the second branch; the empty prompt where None.
            control_scale: strength of the ControlNets.
            controlled: ``[B]`` bool, which pictures the ControlNets take part in; all where None.
            against: further texts ``[K, B, L, D]`` and their weights ``[K, B]`` for Perp-Neg guidance.
        """
        batch = len(latents)
        steps = torch.as_tensor(timesteps, device=self.device).expand(batch)
        if guidance_scale == 1.0:
            output = self._network(latents, steps, text, conditions, control_scale, controlled)
        else:
            negative = self.encode_prompt([""]).expand_as(text) if negative_text is None else negative_text
            texts = [negative, text, *(() if against is None else against[0])]
            if self.branches_together:
                repeat = lambda t: torch.cat([t] * len(texts))  # noqa: E731
                outputs = self._network(
                    repeat(latents), repeat(steps), torch.cat(texts), [repeat(c) for c in listed(conditions)] or None,
                    control_scale, None if controlled is None else repeat(controlled),
                ).unflatten(0, (len(texts), batch))  # fmt: skip
            else:
                branch = lambda t: self._network(latents, steps, t, conditions, control_scale, controlled)  # noqa: E731
                outputs = torch.stack([branch(words) for words in texts])
            direction = outputs[1] - outputs[0]
            if against is not None:
                direction = perpendicular_sum(direction, outputs[2:] - outputs[0], against[1])
            output = outputs[0] + guidance_scale * direction
        return self.split(latents, steps, output)

    def _network(
        self, latents: Tensor, steps: Tensor, text: Tensor, conditions: Conditions, control_scale: float,
        controlled: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Raw output of UNet plus ControlNets."""
        latents, text = latents.to(self.dtype), text.to(self.dtype)
        chosen = torch.arange(len(latents)) if controlled is None else controlled.nonzero()[:, 0].cpu()
        down: list[Tensor] = []
        middle: Tensor | None = None
        for net, condition in zip(self._runners[1:], shared(conditions, len(self.controlnets)), strict=False):
            if not len(chosen):
                break
            image = condition[chosen].to(self.device, self.dtype)
            some, some_middle = self.meter.call(
                "controlnet", net, latents[chosen], steps[chosen], text[chosen], image, control_scale, return_dict=False
            )
            added = [scattered(a, chosen, len(latents)) for a in some]
            added_middle = scattered(some_middle, chosen, len(latents))
            down = [a + b for a, b in zip(down, added, strict=True)] if down else added
            middle = added_middle if middle is None else middle + added_middle
        output: Tensor = self.meter.call(
            "unet", self._runners[0], latents, steps, text, down_block_additional_residuals=down or None,
            mid_block_additional_residual=middle, return_dict=False,
        )[0]  # fmt: skip
        return output

    def split(self, latents: Tensor, steps: Tensor, output: Tensor) -> tuple[Tensor, Tensor]:
        """``(x0, noise)`` from a raw output, after Salimans & Ho 2022 (arXiv 2202.00512), appendix D."""
        a = self.alphas_cumprod[steps][:, None, None, None].to(latents)
        signal, spread = a.sqrt(), (1 - a).sqrt()
        match self.prediction_type:
            case "sample":
                return output, (latents - signal * output) / spread
            case "v_prediction":
                return signal * latents - spread * output, spread * latents + signal * output
            case "epsilon":
                return (latents - spread * output) / signal.clamp(min=1e-4), output
        raise NumericalError(f"unknown prediction type {self.prediction_type!r}")
