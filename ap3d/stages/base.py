"""What a stage is: declared inputs, a fingerprint, and a function from a context to output files."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, Protocol

import fsspec
import torch
from torch import Tensor

from ap3d.config import Config
from ap3d.diffusion.cost import Cost
from ap3d.errors import DataFileError, InputError
from ap3d.portrait_job import PortraitJob
from ap3d.resources import Resources
from ap3d.tensor_files import pack_tensors, unpack_tensors
from ap3d.workspace import Workspace

STARTS: tuple[str, ...] = ("text", "portrait3d")  # every kind of starting portrait


class StopRequested(BaseException):
    """Somebody asked the run to stop; not an error, so no ``except Exception`` may swallow it."""


@dataclass(frozen=True)
class StageResult:
    """Output files by name, measured numbers, and facts for the row and the bundle."""

    outputs: Mapping[str, bytes]
    metrics: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class StageContext:
    """What a running stage may use."""

    job: PortraitJob
    config: Config
    resources: Resources
    workspace: Workspace
    records: dict[str, dict[str, Any]]
    stage: str
    fingerprint: str
    report: Callable[[int, int], None]
    generator: torch.Generator = field(init=False)
    earlier: Cost = field(default=Cost(), init=False)  # of the interrupted run that this one goes on from
    earlier_seconds: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.generator = seeded_generator(self.job, self.stage)
        self._begun, self._metered = time.perf_counter(), self.resources.models.meter.total

    @property
    def cost(self) -> Cost:
        """What the stage spent in networks so far, interrupted runs included."""
        return self.earlier + (self.resources.models.meter.total - self._metered)

    @property
    def seconds(self) -> float:
        """How long the stage has run, interrupted runs included."""
        return self.earlier_seconds + time.perf_counter() - self._begun

    @property
    def start(self) -> str:
        """The kind of starting portrait, one of :data:`STARTS`."""
        return start_of(self.config, self.job)

    def read(self, stage: str, name: str) -> bytes:
        """An output of an earlier stage."""
        return self.workspace.read(self.records[stage], name)

    def read_tensors(self, stage: str, name: str) -> dict[str, Tensor]:
        """A safetensors output of an earlier stage."""
        return unpack_tensors(self.read(stage, name), f"{stage}/{name}")

    def notes(self, stage: str) -> dict[str, Any]:
        """What an earlier stage noted."""
        return dict(self.records[stage]["notes"])

    def save_checkpoint(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Keep tensors, the step and the generator's state."""
        spent = torch.cat([self.cost.tensor(), torch.tensor([self.seconds], dtype=torch.float64)])
        state = {**tensors, "step": torch.tensor(step), "generator": self.generator.get_state(), "spent": spent}
        self.workspace.save_checkpoint(self.stage, self.fingerprint, pack_tensors(state))

    def load_checkpoint(self) -> tuple[dict[str, Tensor], int] | None:
        """What an interrupted run saved; also restores the generator. A damaged checkpoint counts as absent."""
        data = self.workspace.load_checkpoint(self.stage, self.fingerprint)
        if data is None:
            return None
        try:
            state = unpack_tensors(data, "checkpoint")
        except DataFileError:
            return None
        self.generator.set_state(state.pop("generator"))
        if (spent := state.pop("spent", None)) is not None:
            self.earlier, self.earlier_seconds = Cost.from_tensor(spent[:3]), float(spent[3])
        return state, int(state.pop("step"))


class Stage(Protocol):
    """One step of making a portrait; a new one is a file and a line in ``STAGES``."""

    name: str
    version: int  # raised when the output changes for the same inputs
    inputs: tuple[str, ...]  # earlier stages whose outputs are read, where this start has them
    starts: tuple[str, ...]  # the kinds of starting portrait that it is for; it is skipped for the others

    def settings(self, config: Config) -> Any:
        """The configuration fields that the output depends on."""
        ...

    def run(self, context: StageContext) -> StageResult:
        """Make the outputs."""
        ...


def start_of(config: Config, job: PortraitJob) -> str:
    """The kind of starting portrait: a job that brings a portrait starts from that, whatever the configuration says.

    Raises:
        InputError: the configuration wants a portrait, and the job has none.
    """
    if job.portrait is None and config.portrait == "portrait3d":
        raise InputError("the start 'portrait3d' needs a Portrait3D result: give --portrait FILE.pth")
    return "portrait3d" if job.portrait is not None else config.portrait


LARGEST_PORTRAIT = 1 << 29  # bytes; a result of Portrait3D has 151 million


def portrait_digest(job: PortraitJob) -> str | None:
    """Sha256 of the starting portrait's file, None without one.

    Raises:
        InputError: it cannot be read, or no portrait is as large.
    """
    if job.portrait is None:
        return None
    try:
        filesystem, inner = fsspec.core.url_to_fs(job.portrait)
        if (size := filesystem.size(inner) or 0) > LARGEST_PORTRAIT:  # before it is read whole
            raise InputError(f"{job.portrait} has {size:,} bytes, more than a portrait may have ({LARGEST_PORTRAIT:,})")
        with filesystem.open(inner, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError, ImportError) as error:
        reason = "it does not exist" if isinstance(error, FileNotFoundError) else " ".join(str(error).split())
        raise InputError(f"cannot read the starting portrait {job.portrait!r}: {reason}") from error


def stage_fingerprint(
    stage: Stage,
    config: Config,
    job: PortraitJob,
    resources: Resources,
    records: Mapping[str, Mapping[str, Any]],
    portrait: str | None = None,
) -> str:
    """Sha256 over all that the stage's output depends on, and over nothing else.

    Args:
        stage: the stage.
        config: resolved configuration.
        job: what to make.
        resources: resident models.
        records: of the stages before.
        portrait: hash of the starting portrait's content.
    """
    settings = stage.settings(config)
    parts = {
        "name": stage.name,
        "version": stage.version,
        "settings": _plain(settings),
        "models": resources.fingerprints,
        "job": [job.prompt, job.seed, job.abstract_prompt, portrait],
        "inputs": {
            name: {n: out["sha256"] for n, out in records[name]["outputs"].items()}
            for name in stage.inputs
            if name in records
        },
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def seeded_generator(job: PortraitJob, purpose: str) -> torch.Generator:
    """An independent random stream for each purpose of a portrait.

    The prompt is part of it, so that a batch with one seed does not give every open prompt the same head.
    """
    digest = hashlib.sha256(f"{job.seed}:{purpose}:{job.prompt}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
