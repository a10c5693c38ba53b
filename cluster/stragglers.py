"""Which running portrait deserves a second worker while workers are idle."""

import time
from collections.abc import Iterable

from ap3d.portrait_job import PortraitJob
from cluster.executor import Task

MINIMUM_DONE = 5
TIMES_P95 = 3.0


class Stragglers:
    """Compares running tries with what finished ones took.

    Outputs of a copy lie in folders of its own attempt and equal inputs give equal outputs, so a copy costs time on
    a worker and nothing else.
    """

    def __init__(self) -> None:
        self._began: dict[str, float] = {}
        self._seconds: list[float] = []

    def begin(self, task: Task) -> None:
        """A try starts."""
        self._began[_key(task)] = time.monotonic()

    def end(self, task: Task, done: bool) -> None:
        """A try ended; only finished ones tell what is usual."""
        began = self._began.pop(_key(task), None)
        if done and began is not None:
            self._seconds.append(time.monotonic() - began)

    def slowest(self, tasks: Iterable[Task]) -> PortraitJob | None:
        """The job that runs longest, if that is more than three times what 95 % of portraits took."""
        if len(self._seconds) < MINIMUM_DONE:
            return None
        usual = sorted(self._seconds)[int(0.95 * (len(self._seconds) - 1))]
        oldest = min(tasks, key=lambda task: self._began[_key(task)], default=None)
        if oldest is None or time.monotonic() - self._began[_key(oldest)] < TIMES_P95 * usual:
            return None
        return oldest.job


def _key(task: Task) -> str:
    return f"{task.job.face_id}/{task.attempt}"
