"""Configuration: frozen dataclasses, and presets that are values of them.

This module imports neither torch nor diffusers, so that a driver can read a configuration in milliseconds.
"""

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ap3d import guidance_presets as presets
from ap3d.checksums import read_sums
from ap3d.errors import InputError
from ap3d.guidance_config import (
    FACES,
    REGION_NAMES,
    EditConfig,
    ExpressionConfig,
    MatchConfig,
    MouthConfig,
    OptimizerConfig,
    PhaseConfig,
    RegionsConfig,
    RestraintConfig,
)
from ap3d.perception import FIELDS as PERCEPTION

CONFIG_VERSION = 1  # raised when the same fields come to mean another result


@dataclass(frozen=True)
class ModelsConfig:
    """Which models a preset uses: ``builtin``, a local folder, an fsspec URI or a hub id.

    The rig is ``builtin``, the path of an SMPL-X or FLAME file, or one of the names in ``ap3d.rig``.
    """

    diffusion: str = "builtin"
    controlnet: str | None = None  # several with commas between; None: the ControlNet inside the diffusion folder
    tile_controlnet: str | None = None  # of a kind that takes a picture, for portrait3d.sharpen
    vae: str | None = None  # another autoencoder; None: the one inside the diffusion folder
    rig: str = "builtin"
    shape_prior: str | None = "builtin"  # None: the rig's mean shape; the built-in one is for the built-in rig alone
    dtype: str = "float32"
    channels_last: bool = False  # memory format of the networks
    attention: str = "auto"  # torch's choice, or one kernel: flash, efficient, math
    compile: str = "none"  # torch.compile: "default", or "cuda-graphs" (mode reduce-overhead)
    embed_once: bool = True  # the ControlNets' condition embedding once a crop, not once an evaluation
    ahead: int = 2  # samples whose faces, cameras and conditions a thread makes ahead; 0: none
    branches_together: bool = True  # both branches of classifier-free guidance in one batch
    crops_at_once: int = 0  # crops that pass the networks together; 0: all of a step of ISM, eight of SDEdit

    @property
    def controlnet_list(self) -> list[str] | None:
        """The ControlNets by name, None for the one inside the diffusion folder."""
        return None if self.controlnet is None else [name.strip() for name in self.controlnet.split(",")]


@dataclass(frozen=True)
class PerceptionConfig:
    """Models that read a portrait's pictures: ``NAME``, or ``NAME:PATH`` with the path of the weights.

    The names are the tables of ``ap3d.perception``; ``field`` is what the portrait itself knows.
    """

    segmenter: str = "builtin"  # sapiens:FILE, segformer:FOLDER
    hair: str = "segmenter"  # what the segmenter says; pspnet:FILE
    matting: str = "field"  # modnet:FILE, birefnet:FILE
    normals: str = "field"  # marigold:FOLDER
    landmarks: str = "builtin"  # face-alignment:FILE


@dataclass(frozen=True)
class CameraConfig:
    """The training cameras: full frames round the head (``ap3d.framing``) at these elevations, degrees."""

    elevation_range: tuple[float, float] = (-10.0, 18.0)


@dataclass(frozen=True)
class PortraitConfig:
    """The `text` start: views sampled by the text-to-image model, mattes, and the hull they carve."""

    full_azimuths: tuple[float, ...] = (0, 22, -22, 48, -48, 80, -80, 115, -115, 150, -150, 180)
    face_azimuths: tuple[float, ...] = (0, 20, -20, 45, -45)
    elevation: float = 4.0
    steps: int = 16
    guidance_scale: float = 2.0
    hull_resolution: int = 96
    hull_agreement: float = 0.88  # share of the views that see a voxel and must count it as foreground


@dataclass(frozen=True)
class Portrait3DConfig:
    """The `portrait3d` start: pictures of a tri-grid, and the static fit to them."""

    decoder: str | None = None  # converted networks; None: decoder.safetensors beside the tri-grid
    resolution: int = 256  # nodes a side of the grid that views are marched through
    view_size: int = 256  # pixels
    sharpen: float = 0.0  # SDEdit strength (0.4 in AnimPortrait3D) of the pictures that mattes and normals come from
    more_views: int = 0  # 120: also AnimPortrait3D's 120 views for the static fit
    mesh_faces: int = 60000  # triangles of the fitted mesh
    mesh_steps: int = 60  # of its last pass; the first, coarse one takes two thirds as many
    fit_iterations: int = 480
    densify_at: tuple[int, ...] = (150, 280)


@dataclass(frozen=True)
class GaussiansConfig:
    """How many Gaussians there are and what they are made of."""

    skin_count: int = 15000
    hair_count: int = 9000
    clothes_count: int = 2500
    maximum_count: int = 30000
    sh_degree: int = 0
    triangles: int = 4  # that carry a Gaussian of hair or clothes; 1: one alone, as in AnimPortrait3D


@dataclass(frozen=True)
class FitConfig:
    """The static fit of stage `initialise`."""

    iterations: int = 320
    views_per_step: int = 2
    ssim_weight: float = 0.2
    alpha_weight: float = 0.3
    optimizer: OptimizerConfig = OptimizerConfig()
    restraint: RestraintConfig = RestraintConfig()


@dataclass(frozen=True)
class PublishConfig:
    """Pictures and videos of a finished avatar."""

    size: int = 320
    fps: int = 25
    turntable_frames: int = 48
    talking_seconds: float = 4.0


@dataclass(frozen=True)
class SmallerConfig:
    """The form in which a stage is run again that ran out of memory."""

    views_per_step: int = 1  # of every stage that has such a field, at most


@dataclass(frozen=True)
class Config:
    """Everything that changes what comes out; executor, workers and threads are not part of it."""

    preset: str = "builtin"
    portrait: str = "text"
    models: ModelsConfig = field(default_factory=ModelsConfig)
    perception: PerceptionConfig = field(default_factory=PerceptionConfig)
    camera: CameraConfig = field(default_factory=CameraConfig)
    views: PortraitConfig = field(default_factory=PortraitConfig)
    portrait3d: Portrait3DConfig = field(default_factory=Portrait3DConfig)
    gaussians: GaussiansConfig = field(default_factory=GaussiansConfig)
    initialise: FitConfig = field(default_factory=FitConfig)
    regions: RegionsConfig = RegionsConfig()
    expressions: ExpressionConfig = ExpressionConfig()
    eyes: EditConfig = presets.EYES
    mouth: MouthConfig = presets.MOUTH
    whole: MatchConfig = presets.WHOLE
    refine: EditConfig = presets.REFINE
    publish: PublishConfig = field(default_factory=PublishConfig)
    smaller: SmallerConfig = field(default_factory=SmallerConfig)

    def smaller_form(self) -> "Config":
        """The same portrait from less memory."""
        return typing.cast(Config, _fewer_views(self, self.smaller.views_per_step))

    def to_dict(self) -> dict[str, Any]:
        """Plain nested values, ready for JSON or YAML."""
        return typing.cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(self))))

    @property
    def needs_gpu(self) -> bool:
        """Whether the models are meant for a GPU: CPUs compute in float32, and the newer ones in bfloat16."""
        return self.models.dtype == "float16"

    @property
    def config_hash(self) -> str:
        """Twelve hex digits over every field, and over the shipped models where they are used."""
        uses_builtin = "builtin" in (self.models.diffusion, self.models.rig, self.models.shape_prior)
        sums = read_sums() if uses_builtin else ""
        text = json.dumps([CONFIG_VERSION, self.to_dict(), sums], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


_SD = "SG161222/Realistic_Vision_V5.1_noVAE"
_CONTROLNET = "onethousand/AnimPortrait3D_controlnet"
_VAE = "stabilityai/sd-vae-ft-ema"
_SD_MODELS = ModelsConfig(diffusion=_SD, controlnet=_CONTROLNET, vae=_VAE, dtype="float16")

PRESETS: dict[str, Config] = {
    "builtin": Config(),
    "smoke": Config(
        preset="smoke",
        views=PortraitConfig(
            full_azimuths=(0, 60, -60, 120, -120, 180), face_azimuths=(0,), steps=4, hull_resolution=48
        ),
        portrait3d=Portrait3DConfig(
            resolution=128, view_size=128, mesh_faces=12000, mesh_steps=9, fit_iterations=120, densify_at=()
        ),
        gaussians=GaussiansConfig(skin_count=5000, hair_count=2500, clothes_count=800, maximum_count=9000),
        initialise=FitConfig(iterations=120),
        eyes=presets.SMOKE_EYES,
        mouth=presets.SMOKE_MOUTH,
        whole=presets.SMOKE_WHOLE,
        refine=presets.SMOKE_REFINE,
        publish=PublishConfig(size=128, turntable_frames=8, talking_seconds=0.5),
    ),
    "draft": Config(
        preset="draft",
        models=_SD_MODELS,
        views=PortraitConfig(steps=20, guidance_scale=6.0, hull_resolution=128),
        portrait3d=Portrait3DConfig(view_size=512, mesh_steps=120, fit_iterations=1500, densify_at=(400, 800)),
        gaussians=GaussiansConfig(
            skin_count=90000, hair_count=60000, clothes_count=20000, maximum_count=300000, sh_degree=1
        ),
        initialise=FitConfig(iterations=1500, views_per_step=4),
        regions=presets.PAPER_REGIONS,
        eyes=presets.DRAFT_EYES,
        mouth=presets.DRAFT_MOUTH,
        whole=presets.DRAFT_WHOLE,
        refine=presets.DRAFT_REFINE,
        publish=PublishConfig(size=800, turntable_frames=120),
    ),
    "paper": Config(
        preset="paper",
        models=_SD_MODELS,
        views=PortraitConfig(steps=30, guidance_scale=6.0, hull_resolution=160),
        portrait3d=Portrait3DConfig(
            view_size=512, more_views=120, mesh_faces=120000, mesh_steps=200, fit_iterations=3000,
            densify_at=(600, 900, 1200, 1500),
        ),
        gaussians=GaussiansConfig(
            skin_count=400000, hair_count=150000, clothes_count=80000, maximum_count=2000000, sh_degree=3
        ),
        initialise=FitConfig(iterations=3000, views_per_step=1, optimizer=presets.PAPER_STATIC_RATES),
        camera=CameraConfig(presets.PAPER_ELEVATIONS),
        regions=presets.PAPER_REGIONS,
        expressions=presets.PAPER_EXPRESSIONS,
        eyes=presets.PAPER_EYES,
        mouth=presets.PAPER_MOUTH,
        whole=presets.PAPER_WHOLE,
        refine=presets.PAPER_REFINE,
        publish=PublishConfig(size=800, turntable_frames=240),
    ),
}  # fmt: skip


def _fewer_views(section: Any, most: int) -> Any:
    """A configuration, or a part of one, whose optimiser steps take no more views than that."""
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(section):
        value = getattr(section, item.name)
        if item.name == "views_per_step":
            changes[item.name] = min(value, most)
        elif dataclasses.is_dataclass(value):
            changes[item.name] = _fewer_views(value, most)
    return dataclasses.replace(section, **changes)


def load_config(
    preset: str = "builtin", overrides: dict[str, Any] | None = None, file: str | Path | None = None
) -> Config:
    """Resolve a preset, then a YAML file, then dotted overrides such as ``{"refine.rounds": 1}``.

    Raises:
        InputError: unknown preset or field, a value of the wrong type, or an unreadable file.
    """
    if preset not in PRESETS:
        raise InputError(f"unknown preset {preset!r}; choose one of {', '.join(PRESETS)}")
    values: dict[str, Any] = PRESETS[preset].to_dict()
    if file is not None:
        _merge(values, _read_yaml(Path(file)), "")
    for name, value in (overrides or {}).items():
        nested: Any = value
        for part in reversed(name.split(".")):
            nested = {part: nested}
        _merge(values, nested, "")
    if values["models"]["rig"] != "builtin" and values["models"]["shape_prior"] == "builtin":
        values["models"]["shape_prior"] = None
    config = typing.cast(Config, _build(Config, values, ""))
    _check(config)
    return config


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """``FIELD=VALUE`` pairs of a command line, the values read as YAML.

    Raises:
        InputError: a pair without ``=`` or an unreadable value.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        import yaml

        name, separator, text = pair.partition("=")
        if not separator or not name.strip():
            raise InputError(f"--set takes FIELD=VALUE, got {pair!r}")
        try:
            values[name.strip()] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"--set {name}: cannot read the value {text!r}") from error
    return values


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"cannot read configuration {path}: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict):
        raise InputError(f"configuration {path} must hold a mapping of fields")
    return loaded


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


def _check(config: Config) -> None:
    """Refuse values that no run could use."""
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
    for name in PHASES:
        _check_phase(name, _field(config, name))
    for name in REGION_NAMES:
        _check_region(name, config.regions)
    if not config.views.full_azimuths:
        raise InputError("'views.full_azimuths' must not be empty")
    if config.publish.size % 2 or config.publish.size < 32:
        raise InputError(f"configuration field 'publish.size' must be even and at least 32, got {config.publish.size}")


def _check_phase(name: str, phase: PhaseConfig) -> None:
    if not phase.crops or set(phase.crops) - set(REGION_NAMES):
        raise InputError(f"'{name}.crops' must name some of {', '.join(REGION_NAMES)}, got {list(phase.crops)}")
    _check_pair(f"{name}.azimuths", phase.azimuths)
    if isinstance(phase, MatchConfig) and phase.start_timestep > 999:
        raise InputError(f"'{name}.start_timestep' must be at most 999, got {phase.start_timestep}")
    if phase.restraint.form not in _FORMS:
        raise InputError(f"configuration field '{name}.restraint.form' must be one of {_FORMS}")
    for key, choices in _PHASE_CHOICES.items():
        if getattr(phase, key, choices[0]) not in choices:
            raise InputError(f"configuration field '{name}.{key}' must be one of {choices}")


def _check_region(name: str, regions: RegionsConfig) -> None:
    region = regions.of(name)
    _check_pair(f"regions.{name}.azimuths", region.azimuths)
    try:
        region.wording.format(view="", prompt="", abstract="")
    except (KeyError, IndexError, ValueError):
        raise InputError(f"'regions.{name}.wording' may hold {{view}}, {{prompt}} and {{abstract}} alone") from None
    if set(region.protects) - set(REGION_NAMES) or not 0 <= region.side <= 4:
        raise InputError(f"'regions.{name}': 'protects' must name regions, and 'side' lie from 0 to 4 head heights")


def _check_pair(name: str, values: tuple[float, ...]) -> None:
    if len(values) != 2 or values[0] > values[1]:
        raise InputError(f"configuration field {name!r} must be a low and a high number, got {list(values)}")


def _field(config: Config, name: str) -> Any:
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


def _merge(values: dict[str, Any], changes: dict[str, Any], prefix: str) -> None:
    for key, value in changes.items():
        if key not in values:
            raise InputError(f"unknown configuration field {prefix + str(key)!r}; known: {', '.join(values)}")
        if isinstance(values[key], dict):
            if not isinstance(value, dict):
                raise InputError(f"configuration field {prefix + key!r} has fields of its own; set one of them")
            _merge(values[key], value, f"{prefix}{key}.")
        else:
            values[key] = value


def _build(kind: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{k: _build(hints[k], v, f"{name}.{k}".strip(".")) for k, v in value.items()})  # type: ignore[operator]
    return _convert(kind, value, name)


def _convert(kind: Any, value: Any, name: str) -> Any:
    if isinstance(kind, types.UnionType):
        if value is None or value == "none":
            return None
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if typing.get_origin(kind) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise InputError(f"configuration field {name!r} must be a list, got {value!r}")
        item_kind = typing.get_args(kind)[0]
        return tuple(_convert(item_kind, item, name) for item in items)
    if kind is bool:
        if not isinstance(value, bool):
            raise InputError(f"configuration field {name!r} must be true or false, got {value!r}")
        return value
    if isinstance(value, bool) or (kind is int and isinstance(value, float) and not value.is_integer()):
        raise InputError(f"configuration field {name!r} must be a {kind.__name__}, got {value!r}")
    try:
        converted = kind(value)
        if kind is float and not math.isfinite(converted):
            raise ValueError("not finite")
        return converted
    except (TypeError, ValueError) as error:
        raise InputError(f"configuration field {name!r} must be a {kind.__name__}, got {value!r}") from error
