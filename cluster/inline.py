"""One worker in this process: no Ray, no other process."""

import threading
import time
from typing import Any

from cluster.executor import Outcome, Task, load_error
from cluster.worker import Worker, WorkerSpec

NAME = "worker 0"


class InlineExecutor:
    """Runs one task at a time inside ``wait``; a time-out stops it at its next step."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._worker = Worker(spec)
        self._loaded = False
        self._task: Task | None = None
        self._expired = threading.Event()

    def start(self) -> None:
        """Nothing to do: the models are loaded when the first task runs."""

    def free(self) -> int:
        """One while no task is waiting."""
        return 0 if self._task else 1

    def submit(self, task: Task) -> None:
        """Keep the task for the next ``wait``."""
        self._task = task

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

    def _run(self, task: Task) -> Outcome:
        timer = threading.Timer(task.timeout_s, self._expire)
        timer.daemon = True
        timer.start()
        report = self._worker.run(task.job, task.attempt)
        timer.cancel()
        if report["status"] == "stopped" and self._expired.is_set():
            self._expired.clear()
            self._worker.resume()
            return Outcome(task, lost="timeout", reason=f"longer than {task.timeout_s:.0f} s")
        return Outcome(task, {**report, "worker": NAME})

    def _expire(self) -> None:
        self._expired.set()
        self._worker.stop()
