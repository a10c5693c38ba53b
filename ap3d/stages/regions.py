"""Random views of an expression: which crop, from where, with which words."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.config import CameraConfig, ModelsConfig
from ap3d.diffusion.prompts import framed_prompt, view_word
from ap3d.framing import full_cameras
from ap3d.resources import Resources
from ap3d.rig.protocol import RigParams
from ap3d.stages.portrait import crop_to

# Largest azimuth (degrees, subject's left positive) from which a crop still shows its subject.
VISIBLE_AZIMUTHS = {"face": (-65, 65), "mouth": (-55, 55), "left_eye": (-25, 60), "right_eye": (-60, 25)}


@dataclass(frozen=True)
class RegionViews:
    """``B`` crops of one posed head with what guidance needs.

    Attributes:
        vertices: ``[V, 3]`` posed mesh.
        cameras: ``B`` crop cameras.
        prompts: ``B`` prompts with framing and view words.
        conditions: ``[B, C, H, W]``.
        framings: names of the crops.
    """

    vertices: Tensor
    cameras: Cameras
    prompts: list[str]
    conditions: Tensor
    framings: list[str]


@dataclass(frozen=True)
class RegionPrompts:
    """Prompts of one portrait: the whole text for full and face, and what eyes and mouth are described by."""

    prompt: str
    detail: str

    @staticmethod
    def of_portrait(notes: dict[str, Any], models: ModelsConfig) -> "RegionPrompts":
        """From the notes of stage `portrait`; SD's ControlNet wants the abstract prompt for small crops."""
        prompt = notes["completed_prompt"]
        return RegionPrompts(prompt, notes["abstract_prompt"] if models.region_prompts == "abstract" else prompt)

    def of(self, framing: str, azimuth: float) -> str:
        """The prompt of one crop."""
        return framed_prompt(self.prompt if framing in ("full", "face") else self.detail, framing, view_word(azimuth))


def draw_azimuth(framing: str, back_share: float, generator: torch.Generator) -> float:
    """A random azimuth from which the crop is visible; full frames look from behind with ``back_share``."""
    u = float(torch.rand((), generator=generator))
    if framing != "full":
        low, high = VISIBLE_AZIMUTHS[framing]
        return low + u * (high - low)
    behind = float(torch.rand((), generator=generator)) < back_share
    return (90 + 180 * u) if behind else (-90 + 180 * u)


def region_views(
    resources: Resources,
    params: RigParams,
    prompts: RegionPrompts,
    framings: list[str],
    azimuths: list[float],
    camera: CameraConfig,
    generator: torch.Generator,
) -> RegionViews:
    """Cameras, prompts and condition images of crops of one posed head at random elevations."""
    vertices = resources.rig.vertices(params)
    landmarks = resources.rig.landmarks(params)[0]
    standing = RigParams.neutral(resources.rig).replace(
        shape=params.shape, scale=params.scale, translation=params.translation
    )
    neutral = resources.rig.vertices(standing)[0]
    low, high = camera.elevation_range
    elevations = low + (high - low) * torch.rand(len(azimuths), generator=generator)
    wide = full_cameras(resources.rig, neutral, azimuths, elevations, resources.models.image_size)
    cameras = Cameras.concatenate([crop_to(wide[i], landmarks, name) for i, name in enumerate(framings)])
    return RegionViews(
        vertices[0],
        cameras,
        [prompts.of(name, azimuth) for name, azimuth in zip(framings, azimuths, strict=True)],
        resources.conditions.render(vertices.expand(len(framings), -1, -1), cameras),
        framings,
    )
