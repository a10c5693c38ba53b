"""Refuses values of a configuration that no run could use."""

from typing import TYPE_CHECKING, Any

from ap3d.config_sections import FitConfig
from ap3d.errors import InputError
from ap3d.guidance_config import FACES, REGION_NAMES, MatchConfig, PhaseConfig, RegionsConfig
from ap3d.perception import FIELDS as PERCEPTION

if TYPE_CHECKING:
    from ap3d.config import Config

CHOICES = {
    "portrait": ("text", "portrait3d"),
    "portrait3d.more_views": (0, 120),
    "models.dtype": ("float32", "float16", "bfloat16"),
    "models.attention": ("auto", "flash", "efficient", "math"),
    "models.compile": ("none", "default", "cuda-graphs"),
    "gaussians.sh_degree": (0, 1, 2, 3),
    "gaussians.triangles": (1, 2, 3, 4),
}
PHASES = ("eyes", "mouth.match", "mouth.edit", "whole", "refine")
_PHASE_CHOICES = {
    "faces": FACES,
    "reference": ("start", "round"),
    "loss": ("l1", "l2"),
    "perceptual": ("ssim", "lpips"),
    "objective": ("ism", "sds"),
}
_FORMS = ("start", "paper")  # fmt: skip
_MAY_BE_ZERO = {
    "iterations", "rounds", "inversion_steps", "end_timestep", "hair_count", "clothes_count", "crops_at_once", "ahead",
    "fit_iterations", "mesh_steps",
}  # fmt: skip
_SHARES = {
    "hull_agreement", "back_share", "strength", "detail_strength", "ssim_weight", "perceptual_weight",
    "closing_share", "one_sided_share", "sharpen",
}  # fmt: skip


def check(config: "Config") -> None:
    """Check every field.

    Raises:
        InputError: the first that no run could use.
    """
    for name, choices in CHOICES.items():
        value = _field(config, name)
        if value not in choices:
            raise InputError(f"configuration field {name!r} must be one of {choices}, got {value!r}")
    for name, names in PERCEPTION.items():
        value = getattr(config.perception, name)
        if value.partition(":")[0] not in names:
            raise InputError(f"configuration field 'perception.{name}' takes {', '.join(names)}, got {value!r}")
    sections = (
        "models", "camera", "views", "portrait3d", "gaussians", "initialise", "expressions", *PHASES, "publish",
        "smaller",
    )  # fmt: skip
    for section in sections:
        for key, value in vars(_field(config, section)).items():
            _check_number(f"{section}.{key}", value)
    for name in ("initialise", *PHASES):
        _check_fitting(name, _field(config, name))
    for name in PHASES:
        _check_phase(name, _field(config, name))
    for name in REGION_NAMES:
        _check_region(name, config.regions)
    if not config.views.full_azimuths:
        raise InputError("'views.full_azimuths' must not be empty")
    if config.publish.size % 2 or config.publish.size < 32:
        raise InputError(f"configuration field 'publish.size' must be even and at least 32, got {config.publish.size}")


def _check_fitting(name: str, section: PhaseConfig | FitConfig) -> None:
    if section.restraint.form not in _FORMS:
        raise InputError(f"configuration field '{name}.restraint.form' must be one of {_FORMS}")
    if any(value < 0 for value in vars(section.optimizer).values()) or section.optimizer.beta2 >= 1:
        raise InputError(f"'{name}.optimizer' takes learning rates from 0 on and a beta2 below 1")


def _check_phase(name: str, phase: PhaseConfig) -> None:
    if not phase.crops or set(phase.crops) - set(REGION_NAMES):
        raise InputError(f"'{name}.crops' must name some of {', '.join(REGION_NAMES)}, got {list(phase.crops)}")
    _check_pair(f"{name}.azimuths", phase.azimuths)
    _check_wording(f"{name}.wording", phase.wording)
    if isinstance(phase, MatchConfig) and phase.start_timestep > 999:
        raise InputError(f"'{name}.start_timestep' must be at most 999, got {phase.start_timestep}")
    for key, choices in _PHASE_CHOICES.items():
        if getattr(phase, key, choices[0]) not in choices:
            raise InputError(f"configuration field '{name}.{key}' must be one of {choices}")


def _check_region(name: str, regions: RegionsConfig) -> None:
    region = regions.of(name)
    _check_pair(f"regions.{name}.azimuths", region.azimuths)
    _check_wording(f"regions.{name}.wording", region.wording)
    if set(region.protects) - set(REGION_NAMES) or not 0 <= region.side <= 4:
        raise InputError(f"'regions.{name}': 'protects' must name regions, and 'side' lie from 0 to 4 head heights")


def _check_wording(name: str, wording: str) -> None:
    try:
        wording.format(view="", prompt="", abstract="", expression="")
    except (KeyError, IndexError, ValueError):
        raise InputError(f"{name!r} may hold {{view}}, {{prompt}}, {{abstract}} and {{expression}} alone") from None


def _check_pair(name: str, values: tuple[float, ...]) -> None:
    if len(values) != 2 or values[0] > values[1]:
        raise InputError(f"configuration field {name!r} must be a low and a high number, got {list(values)}")


def _field(config: "Config", name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _check_number(name: str, value: Any) -> None:
    key = name.rsplit(".", 1)[-1]
    if key in _SHARES and not 0 <= value <= 1:
        raise InputError(f"configuration field {name!r} must lie from 0 to 1, got {value}")
    if isinstance(value, bool) or not isinstance(value, int) or name in CHOICES:
        return
    if value < (least := int(key not in _MAY_BE_ZERO)):
        raise InputError(f"configuration field {name!r} must be at least {least}, got {value}")
