"""The stages of guidance, `eyes`, `mouth`, `whole` and `refine`: one trainer that runs the phases of a table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ap3d.config import Config
from ap3d.errors import NumericalError
from ap3d.framing import head_tangent
from ap3d.guidance_config import EditConfig, MatchConfig, PhaseConfig
from ap3d.motion.expression_bank import expression_bank
from ap3d.pictures import contact_sheet, png_bytes
from ap3d.rig.protocol import RigParams
from ap3d.splats.carriers import rebound
from ap3d.splats.density import DensityRule, ScreenGradients, control_density
from ap3d.splats.floaters import attached_mask
from ap3d.splats.frames import triangle_frames
from ap3d.splats.optimizer import AvatarOptimizer
from ap3d.splats.selection import selected_points
from ap3d.stages.base import STARTS, StageContext, StageResult, seeded_generator
from ap3d.stages.initialise import background_colour, read_avatar, read_params
from ap3d.stages.regions import Crop, RegionPrompts, RegionViews, draw_crops, region_views
from ap3d.tensor_files import pack_tensors

MOST_DROPPED = 0.1  # share of a phase's answers that may be not finite
FEW = 5  # that are always forgiven


@dataclass
class GuidedStage:
    """One stage: phases that change the avatar one after another.

    Attributes:
        name: of the stage.
        version: raised when its output changes.
        before: the stage whose avatar it takes.
        phases: configuration sections of its phases.
        tidies: whether it ends with removing floating Gaussians and choosing carriers anew.
        starts: kinds of starting portrait.
    """

    name: str
    version: int
    before: str
    phases: tuple[str, ...]
    tidies: bool = False
    starts: tuple[str, ...] = STARTS
    inputs: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.inputs = ("portrait", "fit", self.before)

    def settings(self, config: Config) -> Any:
        """The phases, and what all of them share."""
        shared = [config.gaussians, config.camera, config.regions, config.expressions]
        return [*(phase_config(config, name) for name in self.phases), *shared]

    def run(self, context: StageContext) -> StageResult:
        """Outputs: ``avatar.safetensors``; where the stage edits, ``targets.png``, the pictures of its last round."""
        from ap3d.stages.editing import run_editing
        from ap3d.stages.matching import run_matching

        run = GuidedRun.start(context, self)
        for index in range(run.phase, len(self.phases)):
            phase = phase_config(context.config, self.phases[index])
            run.begin(index, phase)
            if isinstance(phase, MatchConfig):
                run_matching(run, phase)
            elif isinstance(phase, EditConfig):
                run_editing(run, phase)
        return run.result(self)


GUIDED_STAGES = (
    GuidedStage("eyes", 2, "initialise", ("eyes",)),
    GuidedStage("mouth", 4, "eyes", ("mouth.match", "mouth.edit")),
    GuidedStage("whole", 5, "mouth", ("whole",)),
    GuidedStage("refine", 5, "whole", ("refine",), tidies=True),
)


def phase_config(config: Config, name: str) -> PhaseConfig:
    """The configuration of a phase, by the dotted name of its section."""
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    assert isinstance(value, PhaseConfig)
    return value


class GuidedRun:
    """What the phases of a stage share: the avatar under its optimiser, prompts, faces, statistics, checkpoints."""

    def __init__(self, context: StageContext, optimizer: AvatarOptimizer, units: list[int]) -> None:
        self.context, self.config, self.optimizer, self.units = context, context.config, optimizer, units
        self.resources, self.generator = context.resources, context.generator
        self.rig, self.models = context.resources.rig, context.resources.models
        self.device = torch.device(context.resources.device)
        self.params = read_params(context)
        self.neutral = triangle_frames(self.rig.vertices(self.params)[0], self.rig.faces).to(self.device)
        self.bank = expression_bank(self.rig, context.config.expressions)
        self.prompts = RegionPrompts.of_portrait(context.notes("portrait"))
        self.background = background_colour(context).to(self.device)
        self.gradients = ScreenGradients(len(optimizer.avatar))
        self.metrics: dict[str, float] = {}
        self.pictures: Tensor | None = None
        self.saved: dict[str, Tensor] = {}
        self.phase, self.done, self.dropped = 0, 0, 0

    @staticmethod
    def start(context: StageContext, stage: GuidedStage) -> "GuidedRun":
        """From the checkpoint of an interrupted run, or from the stage before."""
        units = [_units(phase_config(context.config, name)) for name in stage.phases]
        device, checkpoint = context.resources.device, context.load_checkpoint()
        rates = [phase_config(context.config, name).optimizer for name in stage.phases]
        if checkpoint is None:
            avatar = read_avatar(context, stage.before).to(device)
            return GuidedRun(context, AvatarOptimizer(avatar, config=rates[0]), units)
        state, done = checkpoint
        optimizer = AvatarOptimizer.from_state(state, device=device, config=rates[int(state["phase"])])
        run = GuidedRun(context, optimizer, units)
        run.gradients = ScreenGradients.from_state(state)
        run.phase, run.dropped, run.done = int(state["phase"]), int(state["dropped"]), done
        run.saved = {n.removeprefix("own."): t for n, t in state.items() if n.startswith("own.")}
        return run

    def begin(self, phase: int, config: PhaseConfig) -> None:
        """Enter a phase; everything that belongs to the one before is forgotten."""
        if phase != self.phase:
            self.phase, self.done, self.dropped, self.saved = phase, 0, 0, {}
            self.optimizer = AvatarOptimizer(self.optimizer.detached(), config=config.optimizer)
            self.gradients = ScreenGradients(len(self.optimizer.avatar))
        if config.pinned:
            self.optimizer.pin(lambda avatar: selected_points(avatar, self.rig, config.pinned))

    def save(self, done: int, own: Mapping[str, Tensor] | None = None) -> None:
        """Keep a checkpoint after ``done`` iterations or rounds of this phase, with tensors of the phase's own."""
        numbers = {"phase": torch.tensor(self.phase), "dropped": torch.tensor(self.dropped)}
        tensors = {f"own.{name}": tensor for name, tensor in (own or {}).items()}
        self.context.save_checkpoint(self.optimizer.state() | self.gradients.state() | numbers | tensors, done)

    def drop(self, planned: int) -> None:
        """Count an answer of the networks that is not finite, of so many planned in this phase.

        Raises:
            NumericalError: there were many.
        """
        self.dropped += 1
        if self.dropped > max(FEW, MOST_DROPPED * planned):
            raise NumericalError(
                f"{self.dropped} answers of the networks were not finite, of {planned} planned in stage "
                f"{self.context.stage}; 'models.dtype' {self.config.models.dtype} may be too narrow for this model, "
                f"try bfloat16 or float32"
            )

    def report(self, share: float) -> None:
        """Say how much of this phase is done."""
        before = sum(self.units[: self.phase])
        self.context.report(before + round(share * self.units[self.phase]), max(sum(self.units), 1))

    def sample_generator(self, number: int) -> torch.Generator:
        """The random stream of one sample of this phase."""
        return seeded_generator(self.context.job, f"{self.context.stage}:{self.phase}:{number}")

    def draw_face(self, phase: PhaseConfig, generator: torch.Generator | None = None) -> RigParams:
        """A posed head of the phase's kind; the stage's own generator draws where none is given."""
        return self.bank.draw(self.params, phase.faces, generator or self.generator, head=phase.head_moves)

    def draw_views(
        self, phase: PhaseConfig, params: RigParams, names: tuple[str, ...] | list[str],
        generator: torch.Generator | None = None,
    ) -> RegionViews:  # fmt: skip
        """Crops of a head; with ``one_camera`` a camera is drawn until it sees one of them."""
        elevations = self.config.camera.elevation_range
        crops: list[Crop] = []
        while not crops:
            crops = draw_crops(self.config.regions, phase, elevations, names, generator or self.generator)
        return region_views(self.resources, self.config, phase, params, self.prompts, crops)

    def negative(self, phase: PhaseConfig) -> str:
        """The negative prompt, empty for models that know none."""
        return phase.negative_prompt if self.models.knows_negatives else ""

    def movable(self, phase: PhaseConfig) -> Tensor:
        """Mask ``[N]`` of the Gaussians that a phase may change."""
        return selected_points(self.optimizer.avatar, self.rig, phase.points)

    def control_density(self, phase: PhaseConfig) -> None:
        """Multiply, and where the phase says so remove, Gaussians that it may change; statistics start anew."""
        rule = DensityRule(
            maximum_radius=maximum_radius(phase), maximum_count=self.config.gaussians.maximum_count, prunes=phase.prune
        )
        movable = self.movable(phase).cpu()
        control_density(self.optimizer, self.gradients, self.neutral, rule, self.generator, movable)
        self.gradients = ScreenGradients(len(self.optimizer.avatar))

    def result(self, stage: GuidedStage) -> StageResult:
        """The avatar and its pictures."""
        avatar = self.optimizer.detached().to("cpu")
        if stage.tidies:
            avatar = avatar.select(attached_mask(avatar, self.neutral.to("cpu"), self.models.flat_background))
            avatar = rebound(avatar, self.rig, self.rig.vertices(self.params)[0])
        outputs = {"avatar.safetensors": pack_tensors(avatar.tensors())}
        if self.pictures is not None:
            outputs["targets.png"] = png_bytes(contact_sheet(self.pictures.cpu(), 9))
        metrics = {f"{stage.name}_{name}": value for name, value in self.metrics.items()}
        return StageResult(outputs, metrics | {"gaussians": float(len(avatar))})


def maximum_radius(phase: PhaseConfig) -> float:
    """The largest radius that pruning leaves, in focal lengths of a full frame's camera."""
    return phase.maximum_radius * head_tangent() if phase.maximum_radius > 0 else float("inf")


def _units(phase: PhaseConfig) -> int:
    """How much of the progress bar a phase takes."""
    if isinstance(phase, MatchConfig):
        return phase.iterations
    assert isinstance(phase, EditConfig)
    return 100 * phase.rounds
