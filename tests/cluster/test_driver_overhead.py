"""What the driver itself costs: processor time a portrait, with 100,000 planned and workers that answer at once."""

import io
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from ap3d.config import load_config
from ap3d.portrait_job import PortraitJob
from ap3d.storage import Store
from cluster.driver import Driver
from cluster.executor import Outcome, Task
from cluster.lease import Lease
from cluster.plan import make_plan
from cluster.progress import LineReporter, Progress
from cluster.prompts import PromptSet
from cluster.signals import Signals

PLANNED, MADE, WORKERS = 100_000, 3_000, 64
LIMIT_MS = 10.0


class InstantWorkers:
    """Sixty-four workers that are done when asked; after enough portraits they interrupt the run."""

    def __init__(self, signals: Signals, config_hash: str) -> None:
        self.signals, self.config_hash = signals, config_hash
        self.tasks: list[Task] = []
        self.made = 0

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def drain(self) -> None: ...

    def cancel(self, task: Task) -> None: ...

    def expect(self, tasks: int) -> None: ...

    def notes(self) -> list[str]:
        return []

    def running(self) -> dict[str, dict[str, Any]]:
        return {f"worker {i}": {"stage": "whole", "face_id": t.job.face_id} for i, t in enumerate(self.tasks)}

    def free(self) -> int:
        return WORKERS - len(self.tasks)

    def submit(self, task: Task) -> None:
        self.tasks.append(task)

    def wait(self, timeout: float) -> list[Outcome]:
        tasks, self.tasks = self.tasks, []
        self.made += len(tasks)
        if self.made >= MADE:
            self.signals.received = 15
        return [Outcome(task, self._report(task)) for task in tasks]

    def _report(self, task: Task) -> dict[str, Any]:
        stages = [{"name": name, "status": "done", "seconds": 1.0, "skipped": False} for name in "abcdefg"]
        return {"status": "done", "uri_bundle": f"avatars/{task.job.face_id}", "attempt": task.attempt, "wall_s": 7.0,
                "metrics": {f"m{i}": 0.5 for i in range(20)}, "stages": stages, "config_hash": self.config_hash,
                "started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:00:07+00:00"}  # fmt: skip


def test_a_portrait_costs_the_driver_less_than_ten_milliseconds(tmp_path: Path) -> None:
    store, config, signals = Store(str(tmp_path)), load_config("smoke"), Signals()
    plan = make_plan(store, PromptSet([PortraitJob(f"p{i:06d}", f"man {i}") for i in range(PLANNED)]), config)
    lease, progress = Lease.acquire(store), Progress(PLANNED, 0, "run")
    reporter = LineReporter(progress, Console(file=io.StringIO()))
    driver = Driver(store, config, plan, lease, progress, reporter, signals)
    workers = InstantWorkers(signals, config.config_hash)
    began = time.process_time()
    driver.run(workers)
    milliseconds = 1000 * (time.process_time() - began) / workers.made
    driver.finish()
    lease.release()
    print(f"{milliseconds:.2f} ms of driver time a portrait, {PLANNED} planned, {workers.made} made")
    assert MADE <= progress.done <= MADE + WORKERS and milliseconds < LIMIT_MS
