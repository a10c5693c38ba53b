"""Jobs that wait for a worker: by priority, then the longest expected first, so that no long one starts when all others
are done.
"""

import heapq
import itertools
import time
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from ap3d.portrait_job import PortraitJob


class WorkQueue:
    """A priority queue of jobs, some of them put off to a later time.

    Args:
        jobs: in the order of equals.
        expected: seconds by face_id; jobs without count as ``usual``.
        usual: seconds of a portrait of which nothing is known.
    """

    def __init__(self, jobs: Iterable[PortraitJob], expected: Mapping[str, float], usual: float = 1.0) -> None:
        self._expected, self._usual = expected, usual
        self._numbers = itertools.count()
        self._ready: list[tuple[int, float, int, PortraitJob]] = []
        self._later: list[tuple[float, int, PortraitJob]] = []
        for job in jobs:
            self.put(job)

    def __len__(self) -> int:
        return len(self._ready) + len(self._later)

    def put(self, job: PortraitJob, delay: float = 0.0) -> None:
        """Add a job behind its equals, or when ``delay`` seconds have passed."""
        if delay > 0:
            heapq.heappush(self._later, (time.monotonic() + delay, next(self._numbers), job))
            return
        seconds = self._expected.get(job.face_id, self._usual)
        heapq.heappush(self._ready, (-job.priority, -seconds, next(self._numbers), job))

    def take(self) -> PortraitJob | None:
        """The job to start now; None when there is none."""
        while self._later and self._later[0][0] <= time.monotonic():
            self.put(heapq.heappop(self._later)[2])
        return heapq.heappop(self._ready)[3] if self._ready else None

    def clear(self) -> None:
        """Forget all jobs."""
        self._ready.clear()
        self._later.clear()


def expected_seconds(known: pa.Table, config_hash: str) -> tuple[dict[str, float], float]:
    """What portraits will take, from earlier rows: the usual time less the stages that a failed try left finished.

    Args:
        known: the merged manifest.
        config_hash: rows of other configurations tell only of the usual time, where there are no others.

    Returns:
        Seconds by face_id for those that differ from the usual, and the usual seconds.
    """
    same = known.filter(pc.equal(known["config_hash"], config_hash))
    usual = _median_seconds(same) or _median_seconds(known) or 1.0
    expected = {}
    for row in same.filter(pc.equal(same["status"], "failed")).select(["face_id", "stages", "wall_s"]).to_pylist():
        finished = sum(s["seconds"] or 0.0 for s in row["stages"] or [])
        expected[row["face_id"]] = max(usual - finished, 0.0)
    return expected, usual


def _median_seconds(table: pa.Table) -> float | None:
    seconds = table.filter(pc.equal(table["status"], "done"))["wall_s"].drop_null()
    return float(pc.approximate_median(seconds).as_py()) if len(seconds) else None
