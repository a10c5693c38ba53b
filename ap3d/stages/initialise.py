"""Stage `initialise`: Gaussians on skin, in hair and clothes, fitted to the portrait's views."""

from typing import Any

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.config import Config
from ap3d.rig.protocol import RigParams
from ap3d.splats.avatar import GaussianAvatar, Group
from ap3d.splats.carriers import rebound
from ap3d.splats.fitting import FitSettings, TargetViews, fit
from ap3d.splats.floaters import attached_mask
from ap3d.splats.frames import triangle_frames
from ap3d.splats.initial import hull_seeds, seeds_avatar, surface_avatar
from ap3d.splats.optimizer import AvatarOptimizer
from ap3d.splats.unseen import fill_unseen
from ap3d.stages.base import STARTS, StageContext, StageResult
from ap3d.tensor_files import pack_tensors

HULL_CLEARANCE = 0.018  # world units, about 6 mm
FACE_WEIGHT = 1.5
HIDDEN_UNTIL_ANIMATED = (Group.TEETH,)


class InitialiseStage:
    """Makes the first Gaussians and fits them to the static views."""

    name = "initialise"
    version = 3
    inputs: tuple[str, ...] = ("portrait",)
    starts: tuple[str, ...] = STARTS

    def settings(self, config: Config) -> Any:
        """Counts, regularisers and the fit."""
        return [config.gaussians, config.initialise]

    def run(self, context: StageContext) -> StageResult:
        """Output: ``avatar.safetensors``."""
        config, rig = context.config, context.resources.rig
        params = read_params(context)
        vertices = rig.vertices(params)[0]
        device = context.resources.device
        frames = triangle_frames(vertices, rig.faces).to(device)
        views = context.read_tensors("portrait", "views.safetensors")
        target = _static_views(views, frames).to(device)
        saved = context.load_checkpoint()
        optimizer = AvatarOptimizer.from_state(saved[0], device=device) if saved else None
        optimizer = optimizer or AvatarOptimizer(first_avatar(context, vertices).to(device))
        settings = FitSettings(
            config.initialise.iterations, config.initialise.views_per_step, background_colour(context).to(device),
            config.initialise.ssim_weight, config.initialise.alpha_weight,
        )  # fmt: skip
        loss = fit(
            optimizer, [target], frames, config.gaussians, settings, context.generator, context.report,
            HIDDEN_UNTIL_ANIMATED, saved[1] if saved else 0,
            lambda step: context.save_checkpoint(optimizer.state(), step),
        )  # fmt: skip
        fitted = fill_unseen(optimizer.detached(), [target], frames).to("cpu")
        frames = frames.to("cpu")
        fitted = fitted.select(attached_mask(fitted, frames, context.resources.models.flat_background))
        fitted = rebound(fitted, rig, vertices)
        metrics = {"fit_loss": loss, "gaussians": float(len(fitted))}
        return StageResult({"avatar.safetensors": pack_tensors(fitted.tensors())}, metrics)


def first_avatar(context: StageContext, vertices: Tensor) -> GaussianAvatar:
    """Surface Gaussians of the rig, and seeds between its skin and the hull."""
    counts, rig = context.config.gaussians, context.resources.rig
    hull = context.read_tensors("portrait", "hull.safetensors")
    frames = triangle_frames(vertices, rig.faces)
    surface = surface_avatar(rig, vertices, counts.skin_count, context.generator)
    seeds = hull_seeds(rig, vertices, hull["shell"], surface.pose(frames).means, surface.binding, HULL_CLEARANCE)
    wanted = {Group.HAIR: counts.hair_count, Group.CLOTHES: counts.clothes_count}
    parts = [surface]
    for group, points in seeds.items():
        if len(points):
            parts.append(
                seeds_avatar(
                    rig, vertices, points, float(hull["voxel"]), wanted[group], group, counts.triangles,
                    context.generator,
                )
            )  # fmt: skip
    return GaussianAvatar.concatenate(parts).with_sh_degree(counts.sh_degree)


def read_params(context: StageContext) -> RigParams:
    """The rig's fitted parameters, a batch of one."""
    return RigParams(**context.read_tensors("portrait", "params.safetensors"))


def read_avatar(context: StageContext, stage: str) -> GaussianAvatar:
    """The avatar that a stage left."""
    return GaussianAvatar(**context.read_tensors(stage, "avatar.safetensors"))


def background_colour(context: StageContext) -> Tensor:
    """The flat colour ``[3]`` behind the portrait's pictures."""
    return torch.tensor(context.notes("portrait")["background"])


def _static_views(views: dict[str, Tensor], frames: Any) -> TargetViews:
    size = views["full.images"].shape[-1]
    cameras = Cameras.concatenate(
        [Cameras(views[f"{n}.cam2world"], views[f"{n}.intrinsics"], size, size) for n in ("full", "face")]
    )
    images = torch.cat([views["full.images"], views["face.images"]]).float() / 255
    alpha = torch.cat([views["full.alpha"], views["face.alpha"]]).float() / 255
    weights = torch.cat([torch.ones(len(views["full.images"])), torch.full((len(views["face.images"]),), FACE_WEIGHT)])
    return TargetViews(frames, cameras, images, alpha, weights)
