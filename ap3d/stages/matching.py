"""A phase of interval score matching: crops of random faces and views, each step against the diffusion model."""

import itertools

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.diffusion.ism import IsmSettings, ism_gradient, sds_gradient
from ap3d.diffusion.perp_neg import view_blend
from ap3d.diffusion.vocabulary import VIEWS
from ap3d.guidance_config import MatchConfig
from ap3d.motion.expressions import expression_word, jaw_opening
from ap3d.raster.splats import SplatImages, rasterize_splats
from ap3d.rig.protocol import RigParams
from ap3d.splats.avatar import Group
from ap3d.splats.fitting import penalties
from ap3d.splats.frames import triangle_frames
from ap3d.splats.selection import with_fixed
from ap3d.stages.ahead import made_ahead
from ap3d.stages.guided import GuidedRun
from ap3d.stages.regions import RegionViews, joined_views

OPEN_MOUTH = 0.1  # of ARKit's jawOpen; below, the inside of the mouth is hidden and must not learn


def run_matching(run: GuidedRun, phase: MatchConfig) -> None:
    """Run the phase from ``run.done``.

    Raises:
        NumericalError: the networks' answers were not finite too often.
    """
    run.optimizer.set_factor(phase.learning_rate_factor)
    samples = phase.views_per_step if phase.one_camera else 1
    numbers = range(run.done * samples, phase.iterations * samples)
    drawn = made_ahead(lambda number: _drawn(run, phase, number), numbers, run.config.models.ahead)
    for iteration in range(run.done, phase.iterations):
        _step(run, phase, iteration, list(itertools.islice(drawn, samples)))
        done = iteration + 1
        if done in phase.densify_at:
            run.control_density(phase)
            run.optimizer.set_factor(phase.learning_rate_factor)
        if done % phase.checkpoint_every == 0 and done < phase.iterations:
            run.save(done)
        run.report(done / phase.iterations)
    run.metrics["dropped_steps"] = float(run.dropped)


def timestep(phase: MatchConfig, iteration: int) -> int:
    """The target timestep, falling in a line."""
    first, last = phase.start_timestep, phase.end_timestep
    return round(first + (last - first) * iteration / max(phase.iterations - 1, 1))


def _step(run: GuidedRun, phase: MatchConfig, iteration: int, drawn: list[RegionViews]) -> None:
    """One optimiser step over one sample of several crops, or over several samples of all crops of a camera."""
    masks = [_fixed(run, phase, views.params) for views in drawn]
    rendered = [_rendered(run, views, mask) for views, mask in zip(drawn, masks, strict=True)]
    images = [r.over(run.background) for r in rendered]
    found = picture_gradient(run, phase, torch.cat(images).detach(), joined_views(drawn), iteration)
    run.metrics["ism_gradient"] = float(found.abs().mean())
    whole = bool(found.isfinite().all())
    parts = found.split([len(i) for i in images])
    for views, r, pictures, gradient in zip(drawn, rendered, images, parts, strict=True):
        if whole:
            _add(run, r, pictures, gradient, views.cameras, _weight(phase, len(drawn), len(pictures)))
    if not whole:
        run.optimizer.forget_gradients()
        run.drop(phase.iterations)
        return
    seen = torch.stack([(r.radii > 0).any(0) for r in rendered]).any(0)
    penalties(run.optimizer.avatar, phase.restraint, seen).backward()
    fixed = torch.stack(masks).all(0)
    run.optimizer.step(fixed if bool(fixed.any()) else None)


def _drawn(run: GuidedRun, phase: MatchConfig, number: int) -> RegionViews:
    """Face, cameras and conditions of a sample; its number alone decides, so it may be made at any time."""
    generator = run.sample_generator(number)
    posed = run.draw_face(phase, generator)
    return run.draw_views(phase, posed, crop_names(phase, generator), generator)


def crop_names(phase: MatchConfig, generator: torch.Generator) -> list[str]:
    """The crops of a sample: all of them for one camera, else some from the pool."""
    if phase.one_camera:
        return list(phase.crops)
    picks = torch.randint(len(phase.crops), (phase.views_per_step,), generator=generator)
    return [phase.crops[int(i)] for i in picks]


def _fixed(run: GuidedRun, phase: MatchConfig, posed: RigParams) -> Tensor:
    """Mask ``[N]`` of what a sample must not change: what the phase may not, and teeth behind closed lips."""
    fixed = ~run.movable(phase)
    if jaw_opening(run.rig, posed) < OPEN_MOUTH:
        fixed |= run.optimizer.avatar.group == Group.TEETH
    return fixed


def _rendered(run: GuidedRun, views: RegionViews, fixed: Tensor) -> SplatImages:
    """A sample's crops; what is fixed gets no gradient."""
    avatar = run.optimizer.avatar
    frames = triangle_frames(views.vertices, run.rig.faces).to(run.device)
    splats, cameras = with_fixed(avatar, fixed).pose(frames, run.neutral), views.cameras.to(run.device)
    return rasterize_splats(splats, cameras, sh_degree=avatar.sh_degree)


def _weight(phase: MatchConfig, samples: int, crops: int) -> float:
    """Of one crop of a step: neither how many samples nor how many crops there are changes the step.

    A camera that sees some of a phase's crops alone leaves out the shares of the others, so that a crop weighs the
    same wherever it is seen from.
    """
    return phase.gradient_scale / (samples * (len(phase.crops) if phase.one_camera else crops))


def _add(
    run: GuidedRun, rendered: SplatImages, images: Tensor, gradient: Tensor, cameras: Cameras, scale: float
) -> None:
    """Add a sample's gradients to the avatar's and to the statistics of density control."""
    (images * (scale * gradient)).sum().backward()
    assert rendered.means2d.grad is not None  # retained by the rasteriser
    # Densification's threshold is for the gradient of one picture's own mean, whatever its weight in the step.
    run.gradients.add(rendered.means2d.grad / scale, rendered.radii, cameras)


def picture_gradient(run: GuidedRun, phase: MatchConfig, images: Tensor, views: RegionViews, iteration: int) -> Tensor:
    """Gradient ``[B, 3, H, W]`` of each crop's mean over latent cells, in parts that share the networks' memory."""
    at_once = run.config.models.crops_at_once or len(images)
    parts = torch.arange(len(images)).split(at_once)
    return torch.cat([_part_gradient(run, phase, images, views, iteration, part) for part in parts])


def _part_gradient(
    run: GuidedRun, phase: MatchConfig, images: Tensor, views: RegionViews, iteration: int, part: Tensor
) -> Tensor:
    models = run.models
    pictures = images[part].clone().requires_grad_()
    latents = models.encode_images(pictures)
    text, against = _texts(run, phase, views, part)
    repeated = lambda words: models.encode_prompt([words]).expand(len(part), -1, -1)  # noqa: E731
    step, negative = timestep(phase, iteration), repeated(run.negative(phase))
    conditions = views.conditions[part] if models.controlnets else None
    if phase.objective == "sds":
        gradient = sds_gradient(
            models, latents.detach(), step, text, negative, conditions, phase.guidance_scale, run.generator,
            _controlled(views, part), against,
        )  # fmt: skip
    else:
        gradient = ism_gradient(
            models, latents.detach(), step, text, negative, repeated(""), conditions, iteration, ism_settings(phase),
            run.generator, _controlled(views, part), against,
        )  # fmt: skip
    height, width = latents.shape[-2:]
    free = torch.nn.functional.adaptive_avg_pool2d(views.free[part], (height, width)) >= 1
    gradient = gradient * free.to(gradient)
    # In float32, and scaled after the autoencoder's backward pass: half precision would round small numbers to zero.
    (found,) = torch.autograd.grad(latents, pictures, gradient.to(latents))
    return found.to(images) / gradient[0, 0].numel()


def ism_settings(phase: MatchConfig) -> IsmSettings:
    """The schedule of a phase."""
    return IsmSettings(
        phase.guidance_scale, phase.inversion_steps, phase.inversion_stride, phase.first_interval,
        phase.last_interval, phase.interval_iterations,
    )  # fmt: skip


def _controlled(views: RegionViews, part: Tensor) -> Tensor | None:
    controlled = views.controlled[part]
    return None if bool(controlled.all()) else controlled


def _texts(
    run: GuidedRun, phase: MatchConfig, views: RegionViews, part: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    """Embeddings ``[B, L, D]`` of the crops' prompts; with Perp-Neg blended by azimuth, and what to guide against."""
    if not phase.perpendicular:
        return run.models.encode_prompt([views.prompts[int(i)] for i in part]), None
    wordings = [phase.wording or run.config.regions.of(views.crops[int(i)].region).wording for i in part]
    doing = expression_word(run.rig, views.params)
    texts = torch.stack([run.models.encode_prompt([run.prompts.of(w, v, doing) for w in wordings]) for v in VIEWS])
    blends = [view_blend(views.crops[int(i)].azimuth) for i in part]
    positive, negative = (torch.stack(weights, 1).to(texts) for weights in zip(*blends, strict=True))
    return (positive[..., None, None] * texts).sum(0), (texts, negative)
