"""Stage `refine`: rounds of render, SDEdit and refit against targets that are made once a round."""

from typing import Any

import torch
from torch import Tensor

from ap3d.config import Config, RefineConfig
from ap3d.diffusion.sampling import sdedit
from ap3d.motion.expressions import COMBINATIONS, ExpressionSampler
from ap3d.perception.matte import flat_background_matte
from ap3d.pictures import contact_sheet, png_bytes
from ap3d.portrait.silhouettes import rig_silhouettes
from ap3d.raster.splats import rasterize_splats
from ap3d.splats.carriers import rebound
from ap3d.splats.fitting import FitSettings, TargetViews, fit
from ap3d.splats.floaters import attached_mask
from ap3d.splats.frames import triangle_frames
from ap3d.splats.optimizer import AvatarOptimizer
from ap3d.stages.base import STARTS, StageContext, StageResult
from ap3d.stages.initialise import background_colour, read_avatar, read_params
from ap3d.stages.regions import RegionPrompts, RegionViews, draw_azimuth, region_views
from ap3d.tensor_files import pack_tensors

# The first expressions of a round in this order; the rest are drawn.
EXPRESSIONS = ("neutral", "open", "blink", "smile", "aa", "surprise")


class RefineStage:
    """Sharpens the avatar with pictures that the diffusion model improved."""

    name = "refine"
    version = 3
    inputs: tuple[str, ...] = ("portrait", "fit", "whole")
    starts: tuple[str, ...] = STARTS

    def settings(self, config: Config) -> Any:
        """The rounds, the regularisers, the cameras and how crops are described."""
        return [config.refine, config.gaussians, config.camera, config.models.region_prompts]

    def run(self, context: StageContext) -> StageResult:
        """Outputs: ``avatar.safetensors``; ``targets.png``, the pictures of the last round."""
        run = _Refinement(context)
        losses = run.optimise()
        avatar = run.optimizer.detached().to("cpu")
        avatar = avatar.select(attached_mask(avatar, run.neutral.to("cpu"), run.models.flat_background))
        avatar = rebound(avatar, run.rig, run.rig.vertices(run.params)[0])
        metrics = {"refine_loss": losses[-1]} if losses else {}
        outputs = {"avatar.safetensors": pack_tensors(avatar.tensors())}
        if run.targets:
            outputs["targets.png"] = png_bytes(contact_sheet(torch.cat([t.images for t in run.targets]).cpu(), 9))
        return StageResult(outputs, metrics | {"gaussians": float(len(avatar))})


class _Refinement:
    """The rounds' state; a checkpoint is kept after each round."""

    def __init__(self, context: StageContext) -> None:
        self.context, self.config = context, context.config.refine
        self.rig, self.models = context.resources.rig, context.resources.models
        self.params = read_params(context)
        self.device = context.resources.device
        self.neutral = triangle_frames(self.rig.vertices(self.params)[0], self.rig.faces).to(self.device)
        self.prompts = RegionPrompts.of_portrait(context.notes("portrait"), context.config.models)
        self.background = background_colour(context).to(self.device)
        saved = context.load_checkpoint()
        self.first = saved[1] if saved else 0
        self.targets: list[TargetViews] = []
        self.optimizer = (
            AvatarOptimizer.from_state(saved[0], device=self.device)
            if saved
            else AvatarOptimizer(read_avatar(context, "whole").to(self.device))
        )

    def optimise(self) -> list[float]:
        losses = []
        for index in range(self.first, self.config.rounds):
            self.targets = self._targets(index)
            losses.append(self._refit(self.targets, index))
            if index + 1 < self.config.rounds:
                self.context.save_checkpoint(self.optimizer.state(), index + 1)
        return losses

    def _targets(self, index: int) -> list[TargetViews]:
        sampler, generator = ExpressionSampler(self.rig), self.context.generator
        names = [n for n in EXPRESSIONS if n in COMBINATIONS]
        out = []
        for number, framings in enumerate(_framings_by_expression(self.config)):
            posed = (
                sampler.apply(self.params, names[number], generator, gaze=number > 0)
                if number < len(names)
                else sampler.draw(self.params, generator)
            )
            azimuths = [draw_azimuth(name, 0.35, generator) for name in framings]
            views = region_views(
                self.context.resources, posed, self.prompts, framings, azimuths, self.context.config.camera, generator
            )
            out.append(self._target(views))
            self._report(index, 0.5 * (number + 1) / self.config.expressions)
        return out

    @torch.no_grad()
    def _target(self, views: RegionViews) -> TargetViews:
        avatar = self.optimizer.avatar
        frames = triangle_frames(views.vertices, self.rig.faces).to(self.device)
        cameras = views.cameras.to(self.device)
        rendered = rasterize_splats(avatar.pose(frames, self.neutral), cameras, sh_degree=avatar.sh_degree)
        images = self._edit(rendered.over(self.background).clamp(0, 1), views).cpu()
        solid = rig_silhouettes(self.rig, views.vertices[None], views.cameras)
        alpha = flat_background_matte(images, self.background.cpu(), solid)
        return TargetViews(frames, cameras, images, alpha, torch.ones(len(images))).to(self.device)

    def _edit(self, images: Tensor, views: RegionViews) -> Tensor:
        """SDEdit, stronger on the crops of eyes and mouth."""
        edited = images.clone()
        # One noise for all crops, so that the views of an eye or of the hair tell the same story.
        noise = torch.randn(1, *self.models.latent_shape, generator=self.context.generator)
        coarse = torch.tensor([name in ("full", "face") for name in views.framings])
        for chosen, strength in ((coarse, self.config.strength), (~coarse, self.config.detail_strength)):
            index = chosen.nonzero()[:, 0]
            if not len(index):
                continue
            edited[index] = sdedit(
                self.models,
                images[index],
                [views.prompts[int(i)] for i in index],
                views.conditions[index],
                strength=strength,
                steps=self.config.steps,
                guidance_scale=self.config.guidance_scale,
                generator=self.context.generator,
                noise=noise.expand(len(index), -1, -1, -1),
            ).to(images)
        return edited

    def _refit(self, targets: list[TargetViews], index: int) -> float:
        settings = FitSettings(
            self.config.iterations, self.config.views_per_step, self.background,
            first_factor=self.config.learning_rate_factor, last_factor=0.15 * self.config.learning_rate_factor,
        )  # fmt: skip
        report = lambda step, steps: self._report(index, 0.5 + 0.5 * step / steps)  # noqa: E731
        gaussians, generator = self.context.config.gaussians, self.context.generator
        return fit(self.optimizer, targets, self.neutral, gaussians, settings, generator, report)

    def _report(self, index: int, share: float) -> None:
        self.context.report(round(100 * (index + share)), 100 * self.config.rounds)


def _framings_by_expression(config: RefineConfig) -> list[list[str]]:
    """Deal the crops of a round out to its expressions in turn, so that each expression gets some of all."""
    crops = (
        ["full"] * config.full_views
        + ["face"] * config.face_views
        + ["mouth"] * config.mouth_views
        + ["left_eye"] * config.eye_views
        + ["right_eye"] * config.eye_views
    )
    dealt = [crops[i :: config.expressions] for i in range(config.expressions)]
    return [framings for framings in dealt if framings]
