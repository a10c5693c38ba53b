"""One worker in this process: no Ray, no other process."""

import threading
import time
from typing import Any

from cluster.executor import Outcome, Task, load_error, load_note, overdue
from cluster.worker import Worker, WorkerSpec

NAME = "worker 0"
WATCH_SECONDS = 0.1


class InlineExecutor:
    """Runs one task at a time inside ``wait``; a time-out stops it at its next step."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._worker = Worker(spec)
        self._loaded = False
        self._task: Task | None = None
        self._notes: list[str] = []

    def start(self) -> None:
        """Nothing to do: the models are loaded when the first task runs."""

    def free(self) -> int:
        """One while no task is waiting."""
        return 0 if self._task else 1

    def expect(self, tasks: int) -> None:
        """Nothing to let go."""

    def submit(self, task: Task) -> None:
        """Keep the task for the next ``wait``."""
        self._task = task

    def cancel(self, task: Task) -> None:
        """Ask the task to stop at its next step."""
        self._worker.stop(task.attempt)

    def wait(self, timeout: float) -> list[Outcome]:
        """Run the waiting task to its end.

        Raises:
            Ap3dError: the models cannot be loaded.
        """
        if self._task is None:
            time.sleep(timeout)
            return []
        if not self._loaded:
            self._load()
        outcome = self._run(self._task)
        self._task = None
        return [outcome]

    def running(self) -> dict[str, dict[str, Any]]:
        """The one worker, while it has a task."""
        task = self._task
        return {NAME: {**self._worker.progress(), "face_id": task.job.face_id}} if task else {}

    def notes(self) -> list[str]:
        """One line when the models were loaded."""
        notes, self._notes = self._notes, []
        return notes

    def drain(self) -> None:
        """Ask the running task to stop at its next step."""
        self._worker.stop()

    def stop(self) -> None:
        """Nothing to end."""

    def _load(self) -> None:
        loaded = self._worker.load()
        if loaded["error"]:
            raise load_error(loaded)
        self._loaded = True
        self._notes.append(load_note(NAME, loaded))

    def _run(self, task: Task) -> Outcome:
        watch = _Watch(self._worker, task)
        watch.start()
        report = self._worker.run(task.job, task.attempt, task.smaller)
        watch.ended.set()
        if report["status"] == "stopped" and watch.reason:
            return Outcome(task, lost="timeout", reason=watch.reason)
        report.pop("recycle", None)  # this process is the driver's own
        return Outcome(task, {**report, "worker": NAME})


class _Watch(threading.Thread):
    """Stops a task that takes too long."""

    def __init__(self, worker: Worker, task: Task) -> None:
        super().__init__(name="time-out", daemon=True)
        self.worker, self.task = worker, task
        self.ended = threading.Event()
        self.reason: str | None = None

    def run(self) -> None:
        """Look ten times a second until the task ended."""
        started = time.monotonic()
        while not self.reason and not self.ended.wait(WATCH_SECONDS):
            self.reason = overdue(self.task, time.monotonic() - started, self.worker.progress())
        if self.reason:
            self.worker.stop(self.task.attempt)
