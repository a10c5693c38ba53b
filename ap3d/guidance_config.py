"""The table of guidance: which crops there are, and what each phase of each stage does with them.

Regions say where a crop lies, from where it is seen, how it is worded and what it must leave alone; phases say which
crops they draw, on which faces, and which Gaussians they may change. Source of the paper's numbers:
reference/animportrait3d-avatar-and-guidance.md, sections 6 to 10 (azimuth = yaw - 90 degrees, right to left).
"""

from dataclasses import dataclass, fields

REGION_NAMES = ("full", "face", "mouth", "left_eye", "right_eye")
FACES = ("all", "eyes", "open_mouth")


@dataclass(frozen=True)
class RegionConfig:
    """One crop.

    Attributes:
        side: of the square, in head heights; 0 is the whole frame.
        azimuths: from where it is seen, degrees, the subject's left positive.
        wording: of its prompt; ``{view}`` (phases without view words leave it out), ``{prompt}``, ``{abstract}`` and
            ``{expression}``, what the posed face plainly does ("mouth open"), empty for a quiet one.
        control: whether the ControlNet sees it in the ISM phases.
        protects: regions inside it that its own gradients leave alone while they are seen.
    """

    side: float
    azimuths: tuple[float, ...]
    wording: str
    control: bool = True
    protects: tuple[str, ...] = ()


@dataclass(frozen=True)
class RegionsConfig:
    """The five crops, worded as the built-in model was trained: its captions nearly always name the expression, so a
    prompt without one speaks of closed lips and open eyes, whatever the condition image shows.
    """

    full: RegionConfig = RegionConfig(0.0, (-180, 180), "{view}, {prompt}, {expression}")
    face: RegionConfig = RegionConfig(1.0, (-65, 65), "{view}, face close-up, {prompt}, {expression}")
    mouth: RegionConfig = RegionConfig(0.48, (-55, 55), "mouth region, {prompt}, {expression}")
    left_eye: RegionConfig = RegionConfig(0.28, (-25, 60), "left eye region, {prompt}, {expression}")
    right_eye: RegionConfig = RegionConfig(0.28, (-60, 25), "right eye region, {prompt}, {expression}")

    def of(self, name: str) -> RegionConfig:
        """The region of a name in :data:`REGION_NAMES`."""
        return {f.name: getattr(self, f.name) for f in fields(self)}[name]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ExpressionConfig:
    """Which faces guidance sees.

    Attributes:
        bank: for FLAME and SMPL-X rigs, a motion (or the folder of a pair ``expressions.npy (N, 100)``,
            ``poses.npy (N, 15)``) whose frames are drawn; None: seeded coefficients. The built-in rig needs none.
        gaze_pitch: largest angle of the eyes up and down, radians.
        gaze_yaw: largest angle of the eyes to a side, radians.
        closing_share: share of faces whose lids close.
        closing: range of lids that close, 1 closed.
        opening: range of all others.
        one_sided_share: share of procedural faces whose one side does less.
    """

    bank: str | None = None
    gaze_pitch: float = 0.3
    gaze_yaw: float = 0.4
    closing_share: float = 0.3
    closing: tuple[float, ...] = (0.5, 1.1)
    opening: tuple[float, ...] = (-1.0, 0.5)
    one_sided_share: float = 0.2


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam's learning rates a step, in the units of the parameters, and how long it remembers.

    The defaults lie above those of 3DGS, because schedules here have hundreds of steps.

    Attributes:
        xyz: of local offsets, triangle units.
        rotation: of quaternions.
        scaling: of logarithms.
        opacity: of logits.
        f_dc: of constant colours.
        f_rest: of the other harmonics.
        beta2: decay of the mean of squared gradients.
    """

    xyz: float = 0.006
    rotation: float = 0.004
    scaling: float = 0.01
    opacity: float = 0.04
    f_dc: float = 0.025
    f_rest: float = 0.00125
    beta2: float = 0.99


@dataclass(frozen=True)
class RestraintConfig:
    """What keeps Gaussians in place.

    Attributes:
        position_threshold: how far a local offset may grow beyond its start, triangle units.
        position_weight: of the mean excess.
        scale_threshold: times the start; in the paper's form, triangle units.
        scale_weight: of the excess.
        form: ``start``: means over all Gaussians of scales against their start, in logarithms; ``paper``: scales in
            triangle units, summed over the Gaussians that a step sees, as the positions' mean is taken over those.
    """

    position_threshold: float = 1.0
    position_weight: float = 0.01
    scale_threshold: float = 1.6
    scale_weight: float = 1.0
    form: str = "start"


@dataclass(frozen=True)
class PhaseConfig:
    """What every phase of guidance has.

    Attributes:
        crops: drawn with a camera each, as often as they are listed; with ``one_camera`` all that a camera sees.
        one_camera: one camera a sample for all its crops, as in the paper.
        azimuths: of full frames and of shared cameras in front, degrees.
        back_share: share of those cameras that look from behind instead.
        points: Gaussians that may change: groups (skin, hair, clothes, teeth, eyes) and rig regions, those with a
            minus before them excepted; empty: all.
        pinned: of those, the ones whose colour alone changes, by the same names; empty: none.
        faces: ``all``, ``eyes`` (mild faces, gaze and lids) or ``open_mouth``.
        head_moves: whether recorded faces keep the turns of neck and head.
        view_words: whether prompts begin with the view.
        wording: of the prompts of all crops, instead of their regions'; empty: theirs.
        negative_prompt: what guidance moves away from, for models that know negatives.
        guidance_scale: of classifier-free guidance.
        learning_rate_factor: multiplies every learning rate.
        densify_at: iterations after which Gaussians multiply.
        prune: whether the same iterations also remove Gaussians.
        maximum_radius: pruned above this radius on the screen, head heights; 0: any may stay.
        optimizer: learning rates.
        restraint: regularisers.
    """

    crops: tuple[str, ...] = REGION_NAMES
    one_camera: bool = False
    azimuths: tuple[float, ...] = (-90, 90)
    back_share: float = 0.25
    points: tuple[str, ...] = ()
    pinned: tuple[str, ...] = ()
    faces: str = "all"
    head_moves: bool = True
    view_words: bool = True
    wording: str = ""
    negative_prompt: str = ""
    guidance_scale: float = 3.0
    learning_rate_factor: float = 0.35
    densify_at: tuple[int, ...] = ()
    prune: bool = True
    maximum_radius: float = 0.0
    optimizer: OptimizerConfig = OptimizerConfig()
    restraint: RestraintConfig = RestraintConfig()


@dataclass(frozen=True)
class MatchConfig(PhaseConfig):
    """Interval score matching.

    Attributes:
        objective: ``ism``, or ``sds`` (score distillation sampling) to compare with.
        iterations: optimiser steps; 0 skips the phase.
        views_per_step: crops of one face, or with ``one_camera`` accumulated samples of a face and a camera each.
        start_timestep, end_timestep: the target timestep falls between them in a line.
        inversion_steps: DDIM steps from the noise to the interval's start.
        inversion_stride: their length, training timesteps.
        first_interval, last_interval: the interval shrinks from one to the other, training timesteps
        interval_iterations: over so many iterations.
        perpendicular: Perp-Neg guidance by the camera's azimuth on crops whose wording has a view.
        gradient_scale: weight of the guidance, a mean over crops and latent cells, against the regularisers.
        checkpoint_every: iterations.
    """

    objective: str = "ism"
    iterations: int = 60
    views_per_step: int = 4
    start_timestep: int = 600
    end_timestep: int = 60
    inversion_steps: int = 2
    inversion_stride: int = 50
    first_interval: int = 100
    last_interval: int = 50
    interval_iterations: int = 400
    perpendicular: bool = False
    gradient_scale: float = 0.1
    checkpoint_every: int = 20


@dataclass(frozen=True)
class EditConfig(PhaseConfig):
    """SDEdit of renders to cached targets, and a fit to them, in rounds.

    Attributes:
        rounds: of editing and fitting; 0 skips the phase.
        views: crops a round; with ``one_camera`` it counts cameras.
        expressions: faces a round that the views are dealt out to.
        reference: rounds edit renders of the avatar as the phase (``start``) or the round (``round``) found it.
        strength: of SDEdit on full frames and faces, share of the schedule.
        detail_strength: on mouth and eyes.
        steps: of a whole schedule.
        control: whether the ControlNet takes part.
        iterations: of the fit of a round.
        views_per_step: targets a step.
        loss: ``l1`` or ``l2``.
        perceptual: ``ssim``, or ``lpips`` (an extra with weights of its own) beside it.
        perceptual_weight: its share.
        alpha_weight: weight of the silhouette.
    """

    rounds: int = 2
    views: int = 42
    expressions: int = 6
    reference: str = "round"
    strength: float = 0.5
    detail_strength: float = 0.65
    steps: int = 12
    control: bool = True
    iterations: int = 160
    views_per_step: int = 2
    loss: str = "l1"
    perceptual: str = "ssim"
    perceptual_weight: float = 0.2
    alpha_weight: float = 0.3
    guidance_scale: float = 2.0
    learning_rate_factor: float = 0.5
    back_share: float = 0.35


@dataclass(frozen=True)
class MouthConfig:
    """The two phases of stage `mouth`."""

    match: MatchConfig
    edit: EditConfig


EYE_POINTS = ("eyes", "lids", "sockets")
