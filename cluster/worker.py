"""What runs in a worker: models loaded once, one portrait at a time, plain dicts out, never an exception.

Errors lose their class when they cross processes, and an interpreter may die at any moment; so a worker's answer is
only a hint, and what it wrote to storage is the truth.
"""

import importlib
import json
import os
import resource
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ap3d import __version__
from ap3d.config import Config
from ap3d.errors import Ap3dError, InputError, StorageFullError
from ap3d.portrait_job import PortraitJob
from ap3d.storage import Store
from ap3d.threads import prepare_environment
from cluster.portrait_log import PortraitLog, log_name

DEFAULT_PIPELINE = "cluster.worker:load_pipeline"


class Pipeline(Protocol):
    """Makes one portrait with resident models and returns its row."""

    def __call__(
        self,
        job: PortraitJob,
        store: Store,
        attempt: str,
        *,
        keep_work: bool,
        on_progress: Callable[[Any], None],
        should_stop: Callable[[], bool],
        smaller: bool,
    ) -> Mapping[str, Any]:
        """Write the portrait's bundle and record; see ``ap3d.pipeline.Generator.run``."""
        ...


@dataclass(frozen=True)
class WorkerSpec:
    """Everything a worker needs; travels to other machines.

    Attributes:
        root: the dataset's root, absolute or a URL.
        config: resolved configuration.
        threads: CPU threads of one worker.
        gpus: GPUs of one worker, 0 for CPU workers; a fraction shares a GPU.
        keep_work: keep the outputs of the stages.
        witness: a file below the root that a worker must see; proves that all machines share the storage.
        pipeline: ``module:function`` called with (config, device, threads) once, returning a :class:`Pipeline`.
        recycle_after: portraits after which a worker asks to be replaced; 0 for never.
        recycle_growth_mb: growth of its memory since its first portrait after which it asks for that.
    """

    root: str
    config: Config
    threads: int = 1
    gpus: float = 0.0
    keep_work: bool = False
    witness: str | None = None
    pipeline: str = DEFAULT_PIPELINE
    recycle_after: int = 0
    recycle_growth_mb: float = 8192.0

    @property
    def device(self) -> str:
        """Torch device of the resident models."""
        return "cuda" if self.gpus > 0 else "cpu"


def load_pipeline(config: Config, device: str, threads: int) -> Pipeline:
    """The library's generator with its resident models."""
    from ap3d.pipeline import Generator

    return Generator(config, device, threads).run


class Worker:
    """One resident pipeline. ``load`` and ``run`` come one after another; ``progress`` and ``stop`` at any time."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec = spec
        self._store = Store(spec.root)
        self._pipeline: Pipeline | None = None
        self._stopped: set[str | None] = set()  # attempts; None: all of them
        self._progress: dict[str, Any] = {"stage": "loading", "step": 0, "steps": 0}
        self._stage_began = time.monotonic()
        self._face_id: str | None = None
        self._jobs = 0
        self._first_memory_mb = 0.0

    def load(self) -> dict[str, Any]:
        """Load the models; the answer holds ``error`` and ``error_class`` when that failed."""
        started = time.perf_counter()
        try:
            if self.spec.witness and not self._store.exists(self.spec.witness):
                machine = socket.gethostname()
                raise InputError(f"{self.spec.root!r} is not shared with {machine}; use storage that all machines see")
            prepare_environment()
            module, _, name = self.spec.pipeline.partition(":")
            self._pipeline = getattr(importlib.import_module(module), name)(
                self.spec.config, self.spec.device, self.spec.threads
            )
        except BaseException as error:  # also SystemExit: whatever it is, the driver is to hear of it
            return {**self._place(), **_described(error)}
        self._enter("idle")
        seconds = time.perf_counter() - started
        return {**self._place(), "error": None, "seconds": seconds, "memory_mb": memory_mb(), **_gpu_memory()}

    def run(self, job: PortraitJob, attempt: str, smaller: bool = False) -> dict[str, Any]:
        """Make one portrait; status ``done``, ``failed``, ``stopped``, or ``broken`` when no other could succeed."""
        assert self._pipeline is not None, "load() comes first"
        self._face_id = job.face_id
        self._enter("starting")
        started = time.time()
        name = log_name(job.face_id, self.spec.config.config_hash)
        try:
            with PortraitLog(self._store, name, f"attempt {attempt} of {job.face_id} on {socket.gethostname()}") as log:
                report = self._report(job, attempt, smaller, log)
        except OSError as error:  # the log itself cannot be written
            report = {"status": "failed", "error_message": str(error), "error_class": type(error).__name__}
        finally:
            self._face_id = None
            self._enter("idle")
        return {**self._place(), "wall_s": time.time() - started, **report, "recycle": self._recycle()}

    def _report(self, job: PortraitJob, attempt: str, smaller: bool, log: PortraitLog) -> dict[str, Any]:
        assert self._pipeline is not None
        try:
            report = _portable(
                self._pipeline(
                    job,
                    self._store,
                    attempt,
                    keep_work=self.spec.keep_work,
                    on_progress=lambda event: self._on_progress(event, log),
                    should_stop=lambda: bool({None, attempt} & self._stopped),
                    smaller=smaller,
                )
            )
        except BaseException as error:  # an actor that exits would look like a lost machine
            status = "broken" if isinstance(error, StorageFullError) else "failed"
            described = _described(error)
            report = {"status": status, "error_message": described.pop("error"), **described}
        reason = f": {report.get('error_class')}: {report.get('error_message')}" if report.get("error_class") else ""
        log.say(f"{report.get('status')}{reason}")
        return {"uri_log": log.name, **report, **({"log_tail": log.tail()} if report.get("status") == "failed" else {})}

    def progress(self) -> dict[str, Any]:
        """What the worker does just now, and for how many seconds its stage has run."""
        seconds = time.monotonic() - self._stage_began
        return {**self._progress, "stage_s": seconds, "face_id": self._face_id, "pid": os.getpid()}

    def stop(self, attempt: str | None = None) -> None:
        """Ask one attempt, or whatever comes, to stop at its next step; its work stays resumable."""
        self._stopped.add(attempt)

    def _on_progress(self, event: Any, log: PortraitLog) -> None:
        if event.stage != self._progress["stage"]:
            self._stage_began = time.monotonic()
            log.stage(event.stage)
        self._progress = {"stage": event.stage, "step": event.step, "steps": event.steps}

    def _enter(self, stage: str) -> None:
        self._progress, self._stage_began = {"stage": stage, "step": 0, "steps": 0}, time.monotonic()

    def _recycle(self) -> str | None:
        """Why this worker is to be replaced by a fresh one, or None."""
        self._jobs += 1
        if self._jobs == 1:
            self._first_memory_mb = memory_mb()
        if self.spec.recycle_after and self._jobs >= self.spec.recycle_after:
            return f"{self._jobs} portraits made"
        growth = memory_mb() - self._first_memory_mb
        return f"memory grew by {growth:.0f} MB" if growth > self.spec.recycle_growth_mb else None

    def _place(self) -> dict[str, Any]:
        return {"host": socket.gethostname(), "device": self.spec.device, "ap3d_version": __version__}


def memory_mb() -> float:
    """Resident memory of this process; its maximum where the system does not tell the present value."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _gpu_memory() -> dict[str, float]:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    return {"gpu_memory_mb": torch.cuda.memory_reserved() / 2**20}


def _portable(report: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values that any process can read, whatever a pipeline put into its row."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(report), default=str))
    return plain


def _described(error: BaseException) -> dict[str, Any]:
    own = isinstance(error, Ap3dError)
    return {
        "error": " ".join(str(error).split())[:2000] or type(error).__name__,
        "error_class": type(error).__name__,
        "error_trace": None if own else "".join(traceback.format_exception(error))[-8000:],
    }
