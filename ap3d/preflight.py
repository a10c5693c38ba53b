"""Checks of a configuration's model files that need no torch, to be made before anything is written."""

from ap3d.config import Config
from ap3d.diffusion.loading import check_kind, check_safetensors, resolve_model_folder
from ap3d.rig import locate_rig


def check_models(config: Config) -> None:
    """Make sure that what a configuration names is there and whole, as far as headers tell.

    Raises:
        InputError: an unknown rig, or a model that is nowhere.
        DataFileError: a truncated weight file.
    """
    locate_rig(config.models.rig)
    models = config.models
    check_kind(resolve_model_folder(models.diffusion))
    for spec in (models.diffusion, *(models.controlnet_list or ()), *([models.vae] if models.vae else ())):
        for file in sorted(resolve_model_folder(spec).rglob("*.safetensors")):
            check_safetensors(file)
