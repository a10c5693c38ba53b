"""Views of one posed head as the table of guidance asks for them: cameras, prompts, conditions, protected pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.config import Config
from ap3d.diffusion.prompts import view_word
from ap3d.errors import InputError
from ap3d.framing import framing_boxes, full_cameras
from ap3d.guidance_config import PhaseConfig, RegionsConfig
from ap3d.motion.expressions import expression_word
from ap3d.resources import Resources
from ap3d.rig.protocol import RigParams


@dataclass(frozen=True)
class Crop:
    """A region seen from an azimuth, degrees."""

    region: str
    azimuth: float
    elevation: float


@dataclass(frozen=True)
class RegionViews:
    """``B`` crops of one posed head with what guidance needs.

    Attributes:
        params: the posed head.
        vertices: ``[V, 3]`` its mesh.
        cameras: ``B`` crop cameras.
        prompts: ``B`` prompts.
        conditions: ``[B, C, H, W]``.
        controlled: ``[B]`` bool, whether the ControlNet takes part.
        free: ``[B, 1, H, W]`` 1 where the crop may change the avatar, 0 in protected boxes.
        crops: what each one shows.
    """

    params: RigParams
    vertices: Tensor
    cameras: Cameras
    prompts: list[str]
    conditions: Tensor
    controlled: Tensor
    free: Tensor
    crops: list[Crop]


def joined_views(views: Sequence[RegionViews]) -> RegionViews:
    """Crops of several heads as one batch for the networks; head and mesh are those of the first."""
    if len(views) == 1:
        return views[0]
    return RegionViews(
        views[0].params, views[0].vertices, Cameras.concatenate([v.cameras for v in views]),
        [prompt for v in views for prompt in v.prompts], torch.cat([v.conditions for v in views]),
        torch.cat([v.controlled for v in views]), torch.cat([v.free for v in views]),
        [crop for v in views for crop in v.crops],
    )  # fmt: skip


@dataclass(frozen=True)
class RegionPrompts:
    """Prompts of one portrait: the whole text, and its age and gender alone."""

    prompt: str
    abstract: str

    @staticmethod
    def of_portrait(notes: dict[str, Any]) -> "RegionPrompts":
        """From the notes of stage `portrait`.

        Raises:
            InputError: the abstract prompt is empty.
        """
        if not notes["abstract_prompt"].strip():
            raise InputError("the abstract prompt is empty; leave it out, or name age and gender ('an old man')")
        return RegionPrompts(notes["completed_prompt"], notes["abstract_prompt"])

    def of(self, wording: str, view: str, expression: str = "") -> str:
        """The prompt of one crop; without a view or an expression at its ends their commas go too."""
        text = wording.format(view=view, prompt=self.prompt, abstract=self.abstract, expression=expression)
        return text.strip(" ,")


def draw_crops(
    regions: RegionsConfig, phase: PhaseConfig, elevations: tuple[float, ...], names: Sequence[str],
    generator: torch.Generator,
) -> list[Crop]:  # fmt: skip
    """The crops of one face.

    Args:
        regions: the table.
        phase: cameras of a phase; with ``one_camera`` every visible one of ``names`` from one place.
        elevations: lowest and highest camera, degrees.
        names: the regions, in order; full frames look from behind with the phase's ``back_share``.
        generator: draws the cameras.
    """
    if phase.one_camera:
        azimuth, elevation = _camera(phase, elevations, generator)
        seen = [n for n in names if regions.of(n).azimuths[0] <= azimuth <= regions.of(n).azimuths[1]]
        return [Crop(name, azimuth, elevation) for name in seen]
    crops = []
    for name in names:
        azimuth, elevation = _camera(phase, elevations, generator)
        if name != "full":
            low, high = regions.of(name).azimuths
            azimuth = low + (high - low) * float(torch.rand((), generator=generator))
        crops.append(Crop(name, azimuth, elevation))
    return crops


def _camera(phase: PhaseConfig, elevations: tuple[float, ...], generator: torch.Generator) -> tuple[float, float]:
    """An azimuth in front, or the same angle round the back, and an elevation; degrees."""
    u, behind, v = torch.rand(3, generator=generator).tolist()
    low, high = phase.azimuths if behind >= phase.back_share else (90.0, 270.0)
    azimuth = (low + u * (high - low) + 180) % 360 - 180
    return azimuth, elevations[0] + v * (elevations[-1] - elevations[0])


def region_views(
    resources: Resources, config: Config, phase: PhaseConfig, params: RigParams, prompts: RegionPrompts,
    crops: list[Crop],
) -> RegionViews:  # fmt: skip
    """Cameras, prompts, condition images and protected boxes of crops of one posed head."""
    rig, regions = resources.rig, config.regions
    vertices, landmarks = rig.vertices(params), rig.landmarks(params)[0]
    standing = RigParams.neutral(rig).replace(shape=params.shape, scale=params.scale, translation=params.translation)
    neutral = rig.vertices(standing)[0]
    size = resources.models.image_size
    wide = full_cameras(rig, neutral, [c.azimuth for c in crops], torch.tensor([c.elevation for c in crops]), size)
    boxes = [_box(regions, wide[i], landmarks, crop.region) for i, crop in enumerate(crops)]
    cameras = Cameras.concatenate([wide[i].crop(box, size) for i, box in enumerate(boxes)])
    free = torch.cat([_free_pixels(regions, crop, wide[i], landmarks, boxes[i]) for i, crop in enumerate(crops)])
    words = [view_word(c.azimuth) if phase.view_words else "" for c in crops]
    wordings = [phase.wording or regions.of(c.region).wording for c in crops]
    doing = expression_word(rig, params)
    return RegionViews(
        params, vertices[0], cameras,
        [prompts.of(said, view, doing) for said, view in zip(wordings, words, strict=True)],
        resources.conditions.render(vertices.expand(len(crops), -1, -1), cameras),
        torch.tensor([regions.of(c.region).control for c in crops]), free, crops,
    )  # fmt: skip


def _box(regions: RegionsConfig, camera: Cameras, landmarks: Tensor, name: str) -> Tensor:
    """Left, top and side ``[1, 3]`` of a region in the full frame, pixels."""
    side = regions.of(name).side
    pixels, _ = camera.project(landmarks)
    return framing_boxes(pixels, name if side > 0 else "full", camera.width, side)


def _free_pixels(regions: RegionsConfig, crop: Crop, camera: Cameras, landmarks: Tensor, box: Tensor) -> Tensor:
    """``[1, 1, H, W]``: 0 inside the boxes that a crop protects and that are seen, else 1."""
    size = camera.width
    free = torch.ones(1, 1, size, size)
    for name in regions.of(crop.region).protects:
        low, high = regions.of(name).azimuths
        if not low <= crop.azimuth <= high:
            continue
        inner = _box(regions, camera, landmarks, name)[0]
        factor = size / box[0, 2]
        left, top = ((inner[:2] - box[0, :2]) * factor).floor().clamp(0, size).int().tolist()
        right, bottom = ((inner[:2] + inner[2] - box[0, :2]) * factor).ceil().clamp(0, size).int().tolist()
        free[..., top:bottom, left:right] = 0
    return free
