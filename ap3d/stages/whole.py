"""Stage `whole`: interval score matching on crops and full frames of random expressions and views."""

from typing import Any

import torch
from torch import Tensor

from ap3d.config import Config
from ap3d.diffusion.ism import IsmSettings, ism_gradient
from ap3d.motion.expressions import ExpressionSampler, jaw_opening
from ap3d.raster.splats import rasterize_splats
from ap3d.rig.protocol import RigParams
from ap3d.splats.avatar import Group
from ap3d.splats.density import DensityRule, ScreenGradients, control_density
from ap3d.splats.fitting import frozen_mask, penalties
from ap3d.splats.frames import TriangleFrames, triangle_frames
from ap3d.splats.optimizer import AvatarOptimizer
from ap3d.stages.base import STARTS, StageContext, StageResult
from ap3d.stages.initialise import background_colour, read_avatar, read_params
from ap3d.stages.regions import RegionPrompts, RegionViews, draw_azimuth, region_views
from ap3d.tensor_files import pack_tensors

NEGATIVE_PROMPT = "tattoo, blur, lowres, bad anatomy, bad hands, cropped, worst quality"
OPEN_MOUTH = 0.1  # jaw opening below which the inside of the mouth is hidden and must not learn


class WholeStage:
    """Lets the diffusion model correct the avatar in every view and expression."""

    name = "whole"
    version = 2
    inputs: tuple[str, ...] = ("portrait", "fit", "initialise")
    starts: tuple[str, ...] = STARTS

    def settings(self, config: Config) -> Any:
        """The guidance, the regularisers, the cameras and how crops are described."""
        return [config.whole, config.gaussians, config.camera, config.models.region_prompts]

    def run(self, context: StageContext) -> StageResult:
        """Output: ``avatar.safetensors``."""
        run = _ScoreMatching(context)
        run.optimise()
        avatar = run.optimizer.detached()
        metrics = {"ism_gradient": run.last_gradient, "unet_evaluations_whole": float(run.evaluations())}
        return StageResult({"avatar.safetensors": pack_tensors(avatar.tensors())}, metrics)


class _ScoreMatching:
    """The loop's state."""

    def __init__(self, context: StageContext) -> None:
        self.context, self.config = context, context.config.whole
        self.rig, self.models = context.resources.rig, context.resources.models
        self.params = read_params(context)
        self.device = context.resources.device
        self.neutral = triangle_frames(self.rig.vertices(self.params)[0], self.rig.faces).to(self.device)
        self.sampler = ExpressionSampler(self.rig)
        self.prompts = RegionPrompts.of_portrait(context.notes("portrait"), context.config.models)
        self.background = background_colour(context).to(self.device)
        self.settings = IsmSettings(self.config.guidance_scale, self.config.inversion_steps)
        count = self.config.views_per_step
        self.negative = self.models.encode_prompt([NEGATIVE_PROMPT if self.models.knows_negatives else ""] * count)
        self.empty = self.models.encode_prompt([""] * count)
        self.last_gradient, self.first = 0.0, 0
        saved = context.load_checkpoint()
        if saved is not None:
            state, self.first = saved
            self.optimizer = AvatarOptimizer.from_state(state, device=self.device)
            self.gradients = ScreenGradients.from_state(state)
        else:
            self.optimizer = AvatarOptimizer(read_avatar(context, "initialise").to(self.device))
            self.gradients = ScreenGradients(len(self.optimizer.avatar))

    def optimise(self) -> None:
        self.optimizer.set_factor(self.config.learning_rate_factor)
        for iteration in range(self.first, self.config.iterations):
            self._step(iteration)
            done = iteration + 1
            if done in self.config.densify_at:
                self._control_density()
            if done % self.config.checkpoint_every == 0 and done < self.config.iterations:
                self.context.save_checkpoint(self.optimizer.state() | self.gradients.state(), done)
            self.context.report(done, self.config.iterations)

    def evaluations(self) -> int:
        """Crops evaluated by the UNet: the inversion, its last step, and both branches of the guidance."""
        return self.config.iterations * self.config.views_per_step * (self.config.inversion_steps + 3)

    def _step(self, iteration: int) -> None:
        posed = self.sampler.draw(self.params, self.context.generator)
        views = self._draw_views(posed)
        frames = triangle_frames(views.vertices, self.rig.faces).to(self.device)
        splats, cameras = self.optimizer.avatar.pose(frames, self.neutral), views.cameras.to(self.device)
        rendered = rasterize_splats(splats, cameras, sh_degree=self.optimizer.avatar.sh_degree)
        latents = self.models.encode_images(rendered.over(self.background))
        gradient = self._gradient(latents.detach(), views, iteration)
        self.last_gradient = float(gradient.abs().mean())
        # A mean over batch and latent cells, so that neither batch size nor resolution changes the step.
        guidance = self.config.gradient_scale * (latents * gradient).mean(0).sum() / gradient[0, 0].numel()
        (guidance + penalties(self.optimizer.avatar, self.context.config.gaussians)).backward()
        assert rendered.means2d.grad is not None  # retained by the rasteriser
        self.gradients.add(rendered.means2d.grad, rendered.radii, views.cameras.width, views.cameras.height)
        self.optimizer.step(self._hidden(posed))

    def _draw_views(self, posed: RigParams) -> RegionViews:
        generator, pool = self.context.generator, self.config.framings
        picks = torch.randint(len(pool), (self.config.views_per_step,), generator=generator)
        framings = [pool[int(i)] for i in picks]
        azimuths = [draw_azimuth(name, self.config.back_share, generator) for name in framings]
        resources, camera = self.context.resources, self.context.config.camera
        return region_views(resources, posed, self.prompts, framings, azimuths, camera, generator)

    def _gradient(self, latents: Tensor, views: RegionViews, iteration: int) -> Tensor:
        first, last = self.config.start_timestep, self.config.end_timestep
        timestep = round(first + (last - first) * iteration / max(self.config.iterations - 1, 1))
        count = len(views.framings)
        return ism_gradient(
            self.models, latents, timestep, self.models.encode_prompt(views.prompts), self.negative[:count],
            self.empty[:count], views.conditions, iteration, self.settings, self.context.generator,
        )  # fmt: skip

    def _hidden(self, posed: RigParams) -> Tensor | None:
        closed = jaw_opening(self.rig, posed) < OPEN_MOUTH
        return frozen_mask(self.optimizer.avatar, (Group.TEETH,)) if closed else None

    def _control_density(self) -> None:
        frames: TriangleFrames = self.neutral
        rule = DensityRule(maximum_count=self.context.config.gaussians.maximum_count)
        control_density(self.optimizer, self.gradients, frames, rule, self.context.generator)
        self.optimizer.set_factor(self.config.learning_rate_factor)
        self.gradients = ScreenGradients(len(self.optimizer.avatar))
