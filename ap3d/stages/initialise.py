"""Stage `initialise`: Gaussians on skin, in hair and clothes, fitted to the portrait's views."""

from typing import Any

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.config import Config
from ap3d.motion.expressions import jaw_opening
from ap3d.raster.splats import rasterize_splats
from ap3d.rig.protocol import RigParams
from ap3d.splats.avatar import GaussianAvatar, Group
from ap3d.splats.carriers import rebound
from ap3d.splats.density import ScreenGradients
from ap3d.splats.fitting import FitSettings, TargetViews, fit
from ap3d.splats.floaters import attached_mask
from ap3d.splats.frames import TriangleFrames, triangle_frames
from ap3d.splats.initial import Seeds, hull_seeds, seeds_avatar, surface_avatar
from ap3d.splats.optimizer import AvatarOptimizer
from ap3d.splats.unseen import fill_unseen
from ap3d.stages.asset_files import asset_seeds
from ap3d.stages.base import STARTS, StageContext, StageResult
from ap3d.stages.view_files import views_from
from ap3d.tensor_files import pack_tensors

HULL_CLEARANCE = 0.018  # world units, about 6 mm
VIEW_WEIGHTS = {"full": 1.0, "face": 1.5, "more": 1.0}
HIDDEN_UNTIL_ANIMATED = (Group.TEETH,)
SHOWS_TEETH = 0.1  # jaw opening from which on the views show the inside of the mouth


class InitialiseStage:
    """Makes the first Gaussians and fits them to the static views."""

    name = "initialise"
    version = 6
    inputs: tuple[str, ...] = ("portrait", "assets", "fit")
    starts: tuple[str, ...] = STARTS

    def settings(self, config: Config) -> Any:
        """Counts, regularisers and the fit."""
        return [config.gaussians, config.initialise, config.portrait3d.fit_iterations, config.portrait3d.densify_at]

    def run(self, context: StageContext) -> StageResult:
        """Output: ``avatar.safetensors``."""
        config, rig = context.config, context.resources.rig
        params = read_params(context)
        vertices = rig.vertices(params)[0]
        device = context.resources.device
        frames = triangle_frames(vertices, rig.faces).to(device)
        target = _static_views(context, frames).to(device)
        saved = context.load_checkpoint()
        rates = config.initialise.optimizer
        optimizer = AvatarOptimizer.from_state(saved[0], device=device, config=rates) if saved else None
        optimizer = optimizer or AvatarOptimizer(first_avatar(context, vertices).to(device), config=rates)
        gradients = ScreenGradients.from_state(saved[0]) if saved else ScreenGradients(len(optimizer.avatar))
        hidden = HIDDEN_UNTIL_ANIMATED if jaw_opening(rig, params) < SHOWS_TEETH else ()
        loss = fit(
            optimizer, [target], frames, config.gaussians, _settings(context), context.generator, context.report,
            hidden, saved[1] if saved else 0,
            lambda step: context.save_checkpoint(optimizer.state() | gradients.state(), step), gradients,
        )  # fmt: skip
        fitted = fill_unseen(optimizer.detached(), [target], frames).to("cpu")
        frames = frames.to("cpu")
        # A painted view may have left its backdrop's colour on hair and cloth; a rendered one has none.
        key = context.resources.models.flat_background if context.start == "text" else None
        fitted = fitted.select(attached_mask(fitted, frames, key))
        metrics = {"fit_loss": loss, "gaussians": float(len(fitted)), **_held_out_metrics(context, fitted, frames)}
        fitted = rebound(fitted, rig, vertices)
        return StageResult({"avatar.safetensors": pack_tensors(fitted.tensors())}, metrics)


def first_avatar(context: StageContext, vertices: Tensor) -> GaussianAvatar:
    """Surface Gaussians of the rig, and seeds on the portrait's hair and clothes or between skin and hull."""
    counts, rig = context.config.gaussians, context.resources.rig
    closed = rig.vertices(read_params(context).replace(eyelids=torch.ones(1, 2)))[0]  # open lids are folded up
    surface = surface_avatar(rig, vertices, counts.skin_count, context.generator, closed)
    wanted = {Group.HAIR: counts.hair_count, Group.CLOTHES: counts.clothes_count}
    parts = [surface]
    if context.start == "text":
        hull = context.read_tensors("portrait", "hull.safetensors")
        skin = surface.pose(triangle_frames(vertices, rig.faces)).means
        seeds = {
            group: Seeds(points, float(hull["voxel"]))
            for group, points in hull_seeds(
                rig, vertices, hull["shell"], skin, surface.binding, HULL_CLEARANCE
            ).items()
        }  # fmt: skip
    else:
        seeds = asset_seeds(context, wanted, context.generator)
    for group, points in seeds.items():
        if len(points.points):
            parts.append(seeds_avatar(rig, vertices, points, wanted[group], group, counts.triangles, context.generator))
    return GaussianAvatar.concatenate(parts).with_sh_degree(counts.sh_degree)


def read_params(context: StageContext) -> RigParams:
    """The rig's parameters, a batch of one: fitted to the portrait, or those that the portrait was painted over."""
    stage = "fit" if "fit" in context.records else "portrait"
    return RigParams(**context.read_tensors(stage, "params.safetensors"))


def read_avatar(context: StageContext, stage: str) -> GaussianAvatar:
    """The avatar that a stage left."""
    return GaussianAvatar(**context.read_tensors(stage, "avatar.safetensors"))


def background_colour(context: StageContext) -> Tensor:
    """The flat colour ``[3]`` behind the portrait's pictures."""
    return torch.tensor(context.notes("portrait")["background"])


def _settings(context: StageContext) -> FitSettings:
    own, start = context.config.initialise, context.config.portrait3d
    from_text = context.start == "text"
    return FitSettings(
        own.iterations if from_text else start.fit_iterations,
        own.views_per_step,
        background_colour(context).to(context.resources.device),
        own.ssim_weight,
        own.alpha_weight,
        densify_at=() if from_text else start.densify_at,
        restraint=own.restraint,
    )


def _static_views(context: StageContext, frames: TriangleFrames) -> TargetViews:
    tensors, background = context.read_tensors("portrait", "views.safetensors"), background_colour(context)
    names = [name for name in VIEW_WEIGHTS if f"{name}.images" in tensors]
    sets = [views_from(tensors, name, background) for name in names]
    weights = [torch.full((len(s.alpha),), VIEW_WEIGHTS[n]) for n, s in zip(names, sets, strict=True)]
    cameras = Cameras.concatenate([s.cameras for s in sets])
    images = torch.cat([tensors[f"{n}.images"] for n in names]).float() / 255
    return TargetViews(frames, cameras, images, torch.cat([s.alpha for s in sets]), torch.cat(weights))


@torch.no_grad()
def _held_out_metrics(context: StageContext, avatar: GaussianAvatar, frames: TriangleFrames) -> dict[str, float]:
    """Mean PSNR in dB over views that the fit has not seen, where the portrait has such."""
    if context.start == "text":
        return {}
    background = background_colour(context)
    views = views_from(context.read_tensors("portrait", "held_out.safetensors"), "held_out", background)
    rendered = rasterize_splats(avatar.pose(frames, frames), views.cameras, sh_degree=avatar.sh_degree)
    squares = (rendered.over(background).clamp(0, 1) - views.opaque()).square().mean((1, 2, 3))
    return {"held_out_psnr": float((-10 * squares.clamp_min(1e-10).log10()).mean())}
