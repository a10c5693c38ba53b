"""What the driver needs from whatever runs portraits: submit, wait, stop.

Guarantees of every executor: at most one job on a worker; each submitted task ends in exactly one outcome; after an
outcome says ``lost`` the worker is gone or is being ended, and outputs it may still write lie in its attempt's folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ap3d.errors import Ap3dError, InputError, RunError
from ap3d.portrait_job import PortraitJob

Loss = Literal["worker", "memory", "timeout"]


@dataclass(frozen=True, eq=False)
class Task:
    """One try at one job.

    Attributes:
        job: what to make.
        attempt: unique name of the try.
        timeout_s: longest time of the try.
        stage_timeout_s: longest time of one of its stages, or None.
        avoid: places (see :class:`Outcome`) where an earlier try was lost; another one is taken where one is free.
        smaller: make the portrait in the form that needs less memory.
    """

    job: PortraitJob
    attempt: str
    timeout_s: float
    stage_timeout_s: float | None = None
    avoid: frozenset[str] = frozenset()
    smaller: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a task ended: with the worker's report, or lost.

    Attributes:
        task: the one that was submitted.
        report: the worker's answer; empty when lost.
        lost: what happened to the worker, if it gave no answer.
        reason: one line about it.
        place: where a worker was lost that may have died of its portrait: the machine, or the worker where the
            cluster has one machine. None when the machine itself was lost.
    """

    task: Task
    report: Mapping[str, Any] = field(default_factory=dict)
    lost: Loss | None = None
    reason: str = ""
    place: str | None = None


class Executor(Protocol):
    """Runs tasks on workers."""

    def start(self) -> None:
        """Make workers; returns before they are ready.

        Raises:
            InputError: no machine can ever hold such a worker.
        """
        ...

    def free(self) -> int:
        """How many tasks may be submitted now."""
        ...

    def expect(self, tasks: int) -> None:
        """How many tasks are running or still to come: workers beyond that are let go."""
        ...

    def submit(self, task: Task) -> None:
        """Hand one task to a free worker."""
        ...

    def cancel(self, task: Task) -> None:
        """Ask one running task to stop at its next step."""
        ...

    def wait(self, timeout: float) -> list[Outcome]:
        """Tasks that ended, after at most ``timeout`` seconds where the executor can wait.

        Raises:
            Ap3dError: no worker can work at all, with the reason.
        """
        ...

    def running(self) -> dict[str, dict[str, Any]]:
        """By worker name: its task's ``face_id``, ``stage``, ``step`` and ``steps``; may be called from any thread."""
        ...

    def notes(self) -> list[str]:
        """Lines about workers that came and went since the last call."""
        ...

    def drain(self) -> None:
        """Ask all running tasks to stop at their next step."""
        ...

    def stop(self) -> None:
        """End all workers; tasks still running are dropped."""
        ...


def load_error(loaded: Mapping[str, Any]) -> Ap3dError:
    """The error of a worker that could not load its models, as one to raise in the driver."""
    message = f"the models cannot be loaded on {loaded['host']}: {loaded['error']}"
    if loaded["error_class"] in ("InputError", *(c.__name__ for c in InputError.__subclasses__())):
        return InputError(message)
    return RunError(f"{message} ({loaded['error_class']})")


def load_note(name: str, loaded: Mapping[str, Any]) -> str:
    """One line about a worker that is ready: seconds and memory."""
    gpu = f", {loaded['gpu_memory_mb']:.0f} MB of GPU memory" if loaded.get("gpu_memory_mb") else ""
    return f"{name} on {loaded['host']}: models loaded in {loaded['seconds']:.1f} s, {loaded['memory_mb']:.0f} MB{gpu}"


def overdue(task: Task, seconds: float, progress: Mapping[str, Any]) -> str | None:
    """Why a task that has run for so long, with this progress, is to be ended; None while it may go on."""
    if seconds > task.timeout_s:
        return f"longer than {task.timeout_s:g} s"
    limit = task.stage_timeout_s
    if limit is not None and progress.get("face_id") == task.job.face_id and progress.get("stage_s", 0.0) > limit:
        return f"stage {progress['stage']} took longer than {limit:g} s"
    return None
