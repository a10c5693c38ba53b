"""Configuration: frozen dataclasses, and presets that are values of them.

This module imports neither torch nor diffusers, so that a driver can read a configuration in milliseconds.
"""

import dataclasses
import hashlib
import json
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ap3d import guidance_presets as presets
from ap3d.checksums import read_sums
from ap3d.config_checks import check
from ap3d.config_sections import (
    CameraConfig,
    FitConfig,
    GaussiansConfig,
    ModelsConfig,
    PerceptionConfig,
    Portrait3DConfig,
    PortraitConfig,
    PublishConfig,
    SmallerConfig,
)
from ap3d.config_values import build, merge, parse_overrides, read_yaml
from ap3d.errors import InputError
from ap3d.guidance_config import EditConfig, ExpressionConfig, MatchConfig, MouthConfig, RegionsConfig

__all__ = ["PRESETS", "Config", "load_config", "parse_overrides"]
CONFIG_VERSION = 1  # raised when the same fields come to mean another result


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
        merge(values, read_yaml(Path(file)))
    for name, value in (overrides or {}).items():
        nested: Any = value
        for part in reversed(name.split(".")):
            nested = {part: nested}
        merge(values, nested)
    if values["models"]["rig"] != "builtin" and values["models"]["shape_prior"] == "builtin":
        values["models"]["shape_prior"] = None
    config = typing.cast(Config, build(Config, values))
    check(config)
    return config
