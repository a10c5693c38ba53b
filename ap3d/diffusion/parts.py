"""Which parts a text-to-image model is put together from, and whether they fit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ap3d.diffusion.conditions import ConditionSpec
from ap3d.diffusion.loading import read_json, resolve_model_folder
from ap3d.errors import DataFileError, InputError


def check_parts(folder: Path, unet: Any, text_encoder: Any, vae: Any, controlnets: Sequence[nn.Module]) -> None:
    """Refuse networks that do not fit together.

    Raises:
        InputError: which they are.
    """
    width, channels = unet.config.cross_attention_dim, unet.config.in_channels
    if width != text_encoder.config.hidden_size:
        raise InputError(f"{folder}: the UNet expects text of width {width}")
    latent = getattr(vae.config, "latent_channels", channels)
    if latent != channels:
        raise InputError(f"{folder}: the autoencoder has {latent} channels, the UNet {channels}")
    for net in controlnets:
        config: Any = net.config
        for name in ("in_channels", "block_out_channels", "cross_attention_dim"):
            if config[name] != unet.config[name]:
                raise InputError(
                    f"a ControlNet does not fit the UNet in {folder}: its {name} is {config[name]}, "
                    f"not {unet.config[name]}"
                )


def controlnet_folders(folder: Path, controlnet: str | Path | Sequence[str | Path] | None) -> list[Path]:
    """Where the ControlNets lie: those that are named, else the one inside the model's folder, if it is there."""
    if controlnet is None:
        return [folder / "controlnet"] if (folder / "controlnet").is_dir() else []
    listed = [controlnet] if isinstance(controlnet, str | Path) else list(controlnet)
    return [resolve_model_folder(one) for one in listed]


def condition_spec_of(folders: list[Path], controlnets: list[Any]) -> ConditionSpec:
    """What the ControlNets' condition image shows, the same for all of them."""
    specs = [
        _spec_of(folder, net.config.conditioning_channels) for folder, net in zip(folders, controlnets, strict=True)
    ]
    for folder, spec in zip(folders, specs, strict=True):
        if spec != specs[0]:
            raise InputError(f"{folder} wants another condition image than {folders[0]}; use ControlNets of one kind")
    return specs[0] if specs else ConditionSpec()


def _spec_of(folder: Path, channels: int) -> ConditionSpec:
    """A ControlNet's ``condition.json``; the published four-channel ControlNet comes without one."""
    production = ConditionSpec.production()
    if (folder / "condition.json").exists():
        spec = ConditionSpec.read(folder)
        if spec.channels != channels:
            raise InputError(f"{folder} takes {channels} condition channels, condition.json describes {spec.channels}")
        return spec
    if channels == production.channels:
        return production
    raise InputError(
        f"{folder} takes {channels} condition channels and has no condition.json that says what they show; "
        f"without one, {production.channels} (normals and one region map) are understood"
    )


def vae_class(folder: Path) -> Any:
    """The class of an autoencoder's folder.

    Raises:
        DataFileError: it is another.
    """
    name = read_json(folder / "config.json").get("_class_name")
    if name == "AutoencoderTiny":
        from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

        return AutoencoderTiny
    if name == "AutoencoderKL":
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        return AutoencoderKL
    raise DataFileError(f"{folder / 'config.json'} names {name!r}; AutoencoderKL and AutoencoderTiny work")
