"""Stage `portrait`: words to a shape, sampled views, mattes and the hull that they carve."""

from typing import Any

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.config import Config
from ap3d.diffusion.prompts import abstract_prompt
from ap3d.framing import framing_boxes, full_cameras, head_camera_target
from ap3d.pictures import contact_sheet, png_bytes
from ap3d.portrait.hull import carve_hull
from ap3d.portrait.protocol import PortraitViews
from ap3d.portrait.text import TextPortrait
from ap3d.resources import Resources
from ap3d.rig.protocol import RigParams
from ap3d.stages.base import STARTS, StageContext, StageResult, seeded_generator
from ap3d.stages.portrait3d import trigrid_portrait
from ap3d.stages.view_files import view_tensors
from ap3d.tensor_files import pack_tensors

HULL_EXTENT = 1.25  # world units; holds head, long hair and the shoulders that a view shows


class PortraitStage:
    """Makes pictures of the starting portrait: sampled for the `text` start, rendered from a tri-grid otherwise."""

    name = "portrait"
    version = 1
    inputs: tuple[str, ...] = ()
    starts: tuple[str, ...] = STARTS

    def settings(self, config: Config) -> Any:
        """Views, cameras and the kind of start."""
        own = config.portrait3d
        return [config.portrait, config.views, own.decoder, own.resolution, own.view_size, own.more_views,
                own.sharpen, config.perception.landmarks]  # fmt: skip

    def run(self, context: StageContext) -> StageResult:
        """Outputs: ``params.safetensors``, ``views.safetensors``, ``hull.safetensors``, ``views.png``.

        For the `portrait3d` start see :func:`ap3d.stages.portrait3d.trigrid_portrait`.
        """
        if context.start == "portrait3d":
            return trigrid_portrait(context)
        resources, config = context.resources, context.config
        unstated = seeded_generator(context.job, "unstated attributes")
        prompt, added = resources.models.complete_prompt(context.job.prompt, unstated)
        params = sample_params(resources, prompt, context.generator)
        vertices = resources.rig.vertices(params)
        portrait = TextPortrait(
            resources, prompt, vertices, config.views.steps, config.views.guidance_scale, context.generator
        )
        full_cameras, face_cameras = training_cameras(resources, config, params)
        full = self._render(portrait, full_cameras, "full", context, 0)
        face = self._render(portrait, face_cameras, "face", context, len(full_cameras))
        centre, _ = head_camera_target(resources.rig, vertices[0])
        hull = carve_hull(
            full.alpha, full.cameras, centre, HULL_EXTENT, config.views.hull_resolution, config.views.hull_agreement
        )
        outputs = {
            "params.safetensors": pack_tensors(params.tensors()),
            "views.safetensors": pack_tensors(view_tensors(full, "full") | view_tensors(face, "face")),
            "hull.safetensors": pack_tensors({"shell": hull.shell(), "voxel": torch.tensor(hull.voxel)}),
            "views.png": png_bytes(contact_sheet(torch.cat([full.opaque(), face.opaque()]))),
        }
        notes = {
            "completed_prompt": prompt,
            "added_phrases": added,
            "abstract_prompt": context.job.abstract_prompt or abstract_prompt(prompt),
            "unknown_words": resources.models.unknown_words(context.job.prompt),
            "background": [float(c) for c in full.background],
        }
        return StageResult(outputs, {"hull_voxels": float(hull.occupied.sum())}, notes)

    @staticmethod
    def _render(
        portrait: TextPortrait, cameras: Cameras, framing: str, context: StageContext, done: int
    ) -> PortraitViews:
        views = context.config.views
        total = len(views.full_azimuths) + len(views.face_azimuths)
        rendered = portrait.render(cameras, framing)
        context.report(done + len(cameras), total)
        return rendered


def sample_params(resources: Resources, prompt: str, generator: torch.Generator) -> RigParams:
    """Neutral parameters whose shape the text-conditioned prior draws (the mean shape without a prior)."""
    params = RigParams.neutral(resources.rig)
    if resources.shape_prior is None:
        return params
    return params.replace(shape=resources.shape_prior.sample(prompt, generator))


def training_cameras(resources: Resources, config: Config, params: RigParams) -> tuple[Cameras, Cameras]:
    """The full-frame cameras and the face crops of the configured azimuths, at the models' image size."""
    views, size = config.views, resources.models.image_size
    vertices = resources.rig.vertices(params)[0]
    full = full_cameras(resources.rig, vertices, views.full_azimuths, [views.elevation], size)
    wide = full_cameras(resources.rig, vertices, views.face_azimuths, [views.elevation], size)
    return full, crop_to(wide, resources.rig.landmarks(params)[0], "face")


def crop_to(cameras: Cameras, landmarks: Tensor, framing: str) -> Cameras:
    """Cameras of one framing, at the same picture size."""
    if framing == "full":
        return cameras
    pixels, _ = cameras.project(landmarks)
    return cameras.crop(framing_boxes(pixels, framing, cameras.width), cameras.width)
