"""Everything that is loaded once in a process and then borrowed by every stage of every portrait."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ap3d.config import Config
from ap3d.diffusion.conditions import ConditionBuilder
from ap3d.diffusion.models import GuidanceModels
from ap3d.diffusion.network_options import NetworkOptions
from ap3d.errors import InputError
from ap3d.rig import load_rig
from ap3d.rig.protocol import Rig

if TYPE_CHECKING:
    from ap3d.training.shape_prior import ShapePrior


@dataclass(frozen=True)
class Resources:
    """Resident models, immutable."""

    rig: Rig
    models: GuidanceModels
    conditions: ConditionBuilder
    shape_prior: "ShapePrior | None"
    device: str
    fingerprints: dict[str, str]
    licences: dict[str, str]
    tile: GuidanceModels | None = None  # sharpens pictures of a starting portrait

    @staticmethod
    def load(config: Config, device: str = "cpu") -> "Resources":
        """Load what a configuration names.

        Raises:
            InputError: a model is absent, damaged, or does not fit the others.
        """
        dtype = getattr(torch, config.models.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise InputError(f"unknown dtype {config.models.dtype!r}; use float32, float16 or bfloat16")
        rig = load_rig(config.models.rig)
        options = NetworkOptions(config.models.channels_last, config.models.attention, config.models.compile)
        models = GuidanceModels.load(
            config.models.diffusion, controlnet=config.models.controlnet_list, vae=config.models.vae, device=device,
            dtype=dtype, options=options,
        )  # fmt: skip
        models.embed_once, models.branches_together = config.models.embed_once, config.models.branches_together
        prior = _load_prior(config.models.shape_prior)
        fingerprints = {"rig": rig.sha256, "diffusion": models.fingerprint, "dtype": config.models.dtype}
        if prior is not None:
            fingerprints["shape_prior"] = prior.fingerprint
        licences = {"rig": rig.licence, "diffusion": models.licence}
        if config.models.controlnet is not None:
            licences["controlnet"] = f"see the model card of {config.models.controlnet}"
        if prior is not None:
            licences["shape_prior"] = "Apache-2.0" if config.models.shape_prior == "builtin" else "of the given file"
        tile = None
        if config.portrait3d.sharpen > 0 and config.models.tile_controlnet is not None:
            tile = models.with_controlnet(config.models.tile_controlnet)
            fingerprints["tile"] = tile.fingerprint
            licences["tile"] = f"see the model card of {config.models.tile_controlnet}"
        builder = ConditionBuilder(rig, models.condition_spec)
        return Resources(rig, models, builder, prior, device, fingerprints, licences, tile)


def _load_prior(spec: str | None) -> "ShapePrior | None":
    if spec is None:
        return None
    from ap3d.training.shape_prior import ShapePrior

    return ShapePrior.load(spec)
