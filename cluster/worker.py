"""What runs in a worker: models loaded once, one portrait at a time, plain dicts out, never an exception.

Errors lose their class when they cross processes, and an interpreter may die at any moment; so a worker's answer is
only a hint, and what it wrote to storage is the truth.
"""

import importlib
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ap3d import __version__
from ap3d.config import Config
from ap3d.errors import Ap3dError, InputError, RunError
from ap3d.portrait_job import PortraitJob
from ap3d.storage import Store
from ap3d.threads import prepare_environment

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
    """

    root: str
    config: Config
    threads: int = 1
    gpus: float = 0.0
    keep_work: bool = False
    witness: str | None = None
    pipeline: str = DEFAULT_PIPELINE

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
        self._stop = threading.Event()
        self._progress: dict[str, Any] = {"stage": "loading", "step": 0, "steps": 0}
        self._face_id: str | None = None

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
        except Exception as error:
            return {**self._place(), **_described(error)}
        self._progress = {"stage": "idle", "step": 0, "steps": 0}
        return {**self._place(), "error": None, "seconds": time.perf_counter() - started}

    def run(self, job: PortraitJob, attempt: str) -> dict[str, Any]:
        """Make one portrait; status ``done``, ``failed``, ``stopped``, or ``broken`` when no other could succeed."""
        assert self._pipeline is not None, "load() comes first"
        self._face_id = job.face_id
        started = time.time()
        try:
            report = dict(
                self._pipeline(
                    job,
                    self._store,
                    attempt,
                    keep_work=self.spec.keep_work,
                    on_progress=self._on_progress,
                    should_stop=self._stop.is_set,
                )
            )
        except Exception as error:
            status = "broken" if isinstance(error, RunError) else "failed"
            described = _described(error)
            report = {"status": status, "error_message": described.pop("error"), **described}
        finally:
            self._face_id, self._progress = None, {"stage": "idle", "step": 0, "steps": 0}
        return {**self._place(), "wall_s": time.time() - started, **report}

    def progress(self) -> dict[str, Any]:
        """What the worker does just now."""
        return {**self._progress, "face_id": self._face_id, "pid": os.getpid()}

    def stop(self) -> None:
        """Ask the running portrait to stop at its next step; its work stays resumable."""
        self._stop.set()

    def resume(self) -> None:
        """Take back a :meth:`stop`."""
        self._stop.clear()

    def _on_progress(self, event: Any) -> None:
        self._progress = {"stage": event.stage, "step": event.step, "steps": event.steps}

    def _place(self) -> dict[str, Any]:
        return {"host": socket.gethostname(), "device": self.spec.device, "ap3d_version": __version__}


def _described(error: Exception) -> dict[str, Any]:
    own = isinstance(error, Ap3dError)
    return {
        "error": " ".join(str(error).split())[:2000] or type(error).__name__,
        "error_class": type(error).__name__,
        "error_trace": None if own else "".join(traceback.format_exception(error))[-8000:],
    }
