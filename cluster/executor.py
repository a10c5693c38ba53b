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


@dataclass(frozen=True)
class Task:
    """One try at one job."""

    job: PortraitJob
    attempt: str
    timeout_s: float


@dataclass(frozen=True)
class Outcome:
    """How a task ended: with the worker's report, or lost."""

    task: Task
    report: Mapping[str, Any] = field(default_factory=dict)
    lost: Loss | None = None
    reason: str = ""


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

    def submit(self, task: Task) -> None:
        """Hand one task to a free worker."""
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
