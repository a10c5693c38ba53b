"""A phase of SDEdit: rounds of renders that the diffusion model improves, and a fit to those cached targets."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ap3d.diffusion.sampling import CHUNK, sdedit
from ap3d.errors import NumericalError
from ap3d.guidance_config import EditConfig
from ap3d.motion.expression_bank import with_gaze_and_lids
from ap3d.motion.expressions import COMBINATIONS, ExpressionSampler
from ap3d.perception.matte import flat_background_matte
from ap3d.portrait.silhouettes import rig_silhouettes
from ap3d.raster.splats import rasterize_splats
from ap3d.rig.protocol import RigParams
from ap3d.splats.avatar import GaussianAvatar
from ap3d.splats.fitting import FitSettings, TargetViews, fit
from ap3d.splats.frames import TriangleFrames, triangle_frames
from ap3d.splats.selection import selected_points
from ap3d.stages.ahead import made_ahead
from ap3d.stages.guided import GuidedRun, maximum_radius
from ap3d.stages.regions import RegionViews, joined_views

# The first faces of a round in this order, so that every round sees them; the rest are drawn.
FIRST_FACES = {
    "all": ("neutral", "open", "blink", "smile", "aa", "surprise"),
    "eyes": ("neutral", "blink", "surprise"),
    "open_mouth": ("open", "grin", "aa", "oh"),
}
AT_ONCE = 48  # crops of a round that are edited together, so that batches are full
COARSE = ("full", "face")  # regions edited with ``strength``, the others with ``detail_strength``


def run_editing(run: GuidedRun, phase: EditConfig) -> None:
    """Run the phase from round ``run.done``.

    Raises:
        NumericalError: pictures of a round, or many of all rounds, are not finite, or the fit diverged.
    """
    reference = phase_reference(run)
    for index in range(run.done, phase.rounds):
        source = run.optimizer.detached() if phase.reference == "round" else reference
        targets = _targets(run, phase, source, index)
        run.pictures = torch.cat([t.images for t in targets])
        run.metrics["loss"] = _refit(run, phase, targets, index)
        if index + 1 < phase.rounds:
            own = reference.tensors() if phase.reference == "start" else {}
            run.save(index + 1, own)
    run.metrics["dropped_targets"] = float(run.dropped)


def phase_reference(run: GuidedRun) -> GaussianAvatar:
    """A copy of the avatar as the phase found it, from the checkpoint when it goes on with one."""
    tensors = run.saved or run.optimizer.detached().tensors()
    return GaussianAvatar(**{name: tensor.clone().to(run.device) for name, tensor in tensors.items()})


@dataclass(frozen=True)
class _Sample:
    """Crops of one camera, or of one face, and the noise that all of them share.

    One noise for all, so that the views of an eye or of the hair tell the same story.
    """

    views: RegionViews
    noise: Tensor


def _targets(run: GuidedRun, phase: EditConfig, source: GaussianAvatar, index: int) -> list[TargetViews]:
    """Edited views of each face of a round.

    Raises:
        NumericalError: none of them is finite.
    """
    out, dealt, waiting = [], dealt_crops(phase), list[_Sample]()
    drawn = made_ahead(
        lambda number: _drawn(run, phase, index, number, dealt[number]), range(len(dealt)), run.config.models.ahead
    )
    for number, samples in enumerate(drawn):
        waiting += samples
        if number + 1 == len(dealt) or sum(len(sample.views.crops) for sample in waiting) >= AT_ONCE:
            out += _edited(run, phase, source, waiting)
            waiting = []
            run.report((index + 0.5 * (number + 1) / len(dealt)) / phase.rounds)
    if not out:
        raise NumericalError("every edited picture holds values that are not finite; try another 'models.dtype'")
    return out


def _drawn(run: GuidedRun, phase: EditConfig, index: int, number: int, names: list[list[str]]) -> list[_Sample]:
    """Face, cameras, conditions and noise of a face of a round; the two numbers alone decide."""
    generator = run.sample_generator(index * phase.expressions + number)
    posed = _face(run, phase, number, generator)
    return [
        _Sample(
            run.draw_views(phase, posed, part, generator),
            torch.randn(1, *run.models.latent_shape, generator=generator),
        )
        for part in names
    ]


def dealt_crops(phase: EditConfig) -> list[list[list[str]]]:
    """The views of a round for each face: lists of regions, one a camera with ``one_camera``, else one a face."""
    if phase.one_camera:
        counts = [len(range(k, phase.views, phase.expressions)) for k in range(phase.expressions)]
        return [[list(phase.crops)] * count for count in counts if count]
    crops = sorted((phase.crops[i % len(phase.crops)] for i in range(phase.views)), key=phase.crops.index)
    dealt = [crops[k :: phase.expressions] for k in range(phase.expressions)]
    return [[names] for names in dealt if names]


def _face(run: GuidedRun, phase: EditConfig, number: int, generator: torch.Generator) -> RigParams:
    """The named faces first, then drawn ones; the very first looks straight ahead."""
    names = FIRST_FACES[phase.faces] if phase.reference == "round" else ()
    if number >= len(names):
        return run.draw_face(phase, generator)
    looking = with_gaze_and_lids(run.params, run.config.expressions, generator)
    params = run.params if number == 0 else looking.replace(eyelids=looking.eyelids.clamp(min=0))
    return ExpressionSampler(run.rig).posed(params, COMBINATIONS[names[number]])


@torch.no_grad()
def _edited(run: GuidedRun, phase: EditConfig, source: GaussianAvatar, samples: list[_Sample]) -> list[TargetViews]:
    """The source's renders after SDEdit, with mattes; samples whose values are not finite are left out, and counted."""
    frames = [triangle_frames(s.views.vertices, run.rig.faces).to(run.device) for s in samples]
    rendered = []
    for sample, posed in zip(samples, frames, strict=True):
        splats, cameras = source.pose(posed, run.neutral), sample.views.cameras.to(run.device)
        rendered.append(rasterize_splats(splats, cameras, sh_degree=source.sh_degree).over(run.background))
    edited = _edit(run, phase, torch.cat(rendered).clamp(0, 1), samples).cpu()
    out = []
    for sample, posed, images in zip(samples, frames, edited.split([len(r) for r in rendered]), strict=True):
        if bool(images.isfinite().all()):
            out.append(_target(run, phase, sample.views, posed, images))
        else:
            run.drop(phase.rounds * sum(len(face) for face in dealt_crops(phase)))
    return out


def _target(
    run: GuidedRun, phase: EditConfig, views: RegionViews, frames: TriangleFrames, images: Tensor
) -> TargetViews:
    """What the fit takes of one sample."""
    alpha = None
    if phase.alpha_weight > 0:
        solid = rig_silhouettes(run.rig, views.vertices[None], views.cameras)
        alpha = flat_background_matte(images, run.background.cpu(), solid)
    free = None if bool((views.free > 0).all()) else views.free
    return TargetViews(frames, views.cameras, images, alpha, torch.ones(len(images)), free).to(run.device)


def _edit(run: GuidedRun, phase: EditConfig, images: Tensor, samples: list[_Sample]) -> Tensor:
    """SDEdit of all crops of some samples, with a strength of its own for those of eyes and mouth."""
    views = joined_views([sample.views for sample in samples])
    noise = torch.cat([s.noise.expand(len(s.views.crops), -1, -1, -1) for s in samples])
    edited = images.clone()
    coarse = torch.tensor([crop.region in COARSE for crop in views.crops])
    for chosen, strength in ((coarse, phase.strength), (~coarse, phase.detail_strength)):
        index = chosen.nonzero()[:, 0]
        if not len(index):
            continue
        edited[index] = sdedit(
            run.models, images[index], [views.prompts[int(i)] for i in index],
            views.conditions[index] if phase.control else None, strength=strength, steps=phase.steps,
            guidance_scale=phase.guidance_scale, generator=run.generator, noise=noise[index],
            negative=run.negative(phase), chunk=run.config.models.crops_at_once or CHUNK,
        ).to(images)  # fmt: skip
    return edited


def _refit(run: GuidedRun, phase: EditConfig, targets: list[TargetViews], index: int) -> float:
    """Fit the avatar to a round's targets; learning rates fall within a round, unless rounds share a reference."""
    factor = phase.learning_rate_factor
    begun = index * phase.iterations
    settings = FitSettings(
        phase.iterations, phase.views_per_step, run.background, phase.perceptual_weight, phase.alpha_weight,
        factor, factor * (0.15 if phase.reference == "round" else 1.0), densify_at=_within(phase, begun),
        loss=phase.loss, perceptual=phase.perceptual, prunes=phase.prune, maximum_radius=maximum_radius(phase),
        restraint=phase.restraint,
    )  # fmt: skip
    report = lambda step, steps: run.report((index + 0.5 + 0.5 * step / steps) / phase.rounds)  # noqa: E731
    return fit(
        run.optimizer, targets, run.neutral, run.config.gaussians, settings, run.generator, report,
        gradients=run.gradients, frozen=lambda avatar: _fixed(run, phase, avatar),
    )  # fmt: skip


def _within(phase: EditConfig, begun: int) -> tuple[int, ...]:
    """The density steps to come, counted from a round's first iteration, which ``begun`` others lie before.

    Those beyond its end are there too: screen gradients add up across rounds.
    """
    return tuple(at - begun for at in phase.densify_at if at > begun)


def _fixed(run: GuidedRun, phase: EditConfig, avatar: GaussianAvatar) -> Tensor | None:
    """Mask ``[N]`` of the Gaussians that the phase may not change, None where it may change all."""
    fixed = ~selected_points(avatar, run.rig, phase.points)
    return fixed if bool(fixed.any()) else None
