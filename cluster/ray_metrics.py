"""Figures of a run at Ray's Prometheus endpoints, as ``ray_ap3d_…``: what a dashboard or an alarm asks for.

Series are few: no tag holds an id of a portrait.
"""

from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from cluster.progress import Progress, Reporter

STAGE_SECONDS = [1.0, 5.0, 20.0, 60.0, 180.0, 600.0, 1800.0, 7200.0]


class MeteredReporter:
    """Passes everything on to another reporter and counts it.

    Args:
        reporter: shows the run to its user.
        progress: counts of the run.
    """

    def __init__(self, reporter: Reporter, progress: Progress) -> None:
        self._reporter, self._progress = reporter, progress
        self._ended = Counter("ap3d_portraits", "portraits that got their row", ("status", "preset", "error_class"))
        self._stages = Histogram("ap3d_stage_seconds", "seconds of a stage", STAGE_SECONDS, ("stage", "preset"))
        self._wall = Histogram("ap3d_portrait_seconds", "seconds of a portrait", STAGE_SECONDS, ("preset",))
        self._state = Gauge("ap3d_run_portraits", "portraits of the run by state", ("state",))
        self._pace = Gauge("ap3d_run_avatars_per_hour", "pace of the run")
        self._left = Gauge("ap3d_run_remaining_seconds", "estimate of the time left")

    def ended(self, row: Mapping[str, Any]) -> None:
        """A portrait got its row."""
        preset = {"preset": str(row.get("preset") or "")}
        self._ended.inc(1.0, {**preset, "status": row["status"], "error_class": str(row.get("error_class") or "")})
        for stage in row.get("stages") or []:
            if not stage["skipped"] and stage["seconds"] is not None:
                self._stages.observe(stage["seconds"], {**preset, "stage": stage["name"]})
        if row["status"] == "done" and row.get("wall_s"):
            self._wall.observe(row["wall_s"], preset)
        self._reporter.ended(row)

    def say(self, message: str) -> None:
        """Something worth a line happened."""
        self._reporter.say(message)

    def update(self) -> None:
        """The gauges, about once a second."""
        progress = self._progress
        busy = sum(1 for worker in progress.running.values() if worker.get("face_id"))
        states = {"done": progress.already_done + progress.done, "failed": progress.failed, "running": busy}
        for state, count in {**states, "queued": progress.queued}.items():
            self._state.set(count, {"state": state})
        self._pace.set(progress.per_hour)
        self._left.set(progress.remaining_seconds or 0.0)
        self._reporter.update()

    def close(self) -> None:
        """The run is over."""
        self._reporter.close()
