"""What a worker answers: plain values, whatever its pipeline does."""

import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ap3d.config import load_config
from ap3d.portrait_job import PortraitJob
from cluster.worker import Worker, WorkerSpec, memory_mb

JOB = PortraitJob("one", "a man")


class OddError(Exception):
    """Cannot be unpickled."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


def pipeline_of(action: Any) -> Any:
    return lambda job, store, attempt, **options: action(options)


def worker(root: Path, action: Any, **options: Any) -> Worker:
    made = Worker(WorkerSpec(str(root), load_config("smoke"), pipeline="stand_in:load", **options))
    assert made.load()["error"] is None
    made._pipeline = pipeline_of(action)
    return made


def raise_(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize("error", [OddError(1, 2), SystemExit(3), KeyboardInterrupt(), RecursionError(), MemoryError()])
def test_nothing_is_raised_across_the_wire(tmp_path: Path, error: BaseException) -> None:
    report = worker(tmp_path, lambda options: raise_(error)).run(JOB, "000001-00")
    assert report["status"] == "failed" and report["error_class"] == type(error).__name__
    assert pickle.loads(pickle.dumps(report)) == report


def test_an_odd_value_in_a_row_becomes_text(tmp_path: Path) -> None:
    report = worker(tmp_path, lambda options: {"status": "done", "where": Path("a"), "n": 1.5}).run(JOB, "000001-00")
    assert report["where"] == "a" and report["n"] == 1.5


def test_a_stop_reaches_the_attempt_it_names(tmp_path: Path) -> None:
    made = worker(tmp_path, lambda options: {"status": "stopped" if options["should_stop"]() else "done"})
    made.stop("000001-00")
    assert made.run(JOB, "000001-01")["status"] == "done"
    assert made.run(JOB, "000001-00")["status"] == "stopped"
    made.stop()
    assert made.run(JOB, "000001-02")["status"] == "stopped"


def test_progress_tells_how_long_the_stage_has_run(tmp_path: Path) -> None:
    seen = []

    def action(options: Any) -> dict[str, Any]:
        for stage in ("portrait", "portrait", "whole"):
            options["on_progress"](SimpleNamespace(stage=stage, step=1, steps=2))
            made._stage_began -= 10.0
            seen.append(round(made.progress()["stage_s"]))
        return {"status": "done"}

    made = worker(tmp_path, action)
    made.run(JOB, "000001-00")
    assert seen == [10, 20, 10] and made.progress()["pid"] == os.getpid()


def test_loading_reports_seconds_and_memory(tmp_path: Path) -> None:
    loaded = Worker(WorkerSpec(str(tmp_path), load_config("smoke"), pipeline="stand_in:load")).load()
    assert loaded["seconds"] >= 0 and 10 < loaded["memory_mb"] < 10_000


def test_a_worker_asks_to_be_replaced_after_so_many_portraits_or_so_much_growth(tmp_path: Path) -> None:
    made = worker(tmp_path, lambda options: {"status": "done"}, recycle_after=2)
    assert [made.run(JOB, f"000001-0{i}")["recycle"] for i in range(2)] == [None, "2 portraits made"]
    kept: list[bytes] = []
    made = worker(tmp_path, lambda options: kept.append(os.urandom(40 * 2**20)) or {"status": "done"},
                  recycle_growth_mb=20.0)  # fmt: skip
    assert made.run(JOB, "000001-00")["recycle"] is None
    before = memory_mb()
    assert "memory grew" in made.run(JOB, "000001-01")["recycle"] and memory_mb() - before > 30
