"""The same run on Ray actors, and what happens when a worker dies."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from ap3d.config import load_config
from ap3d.errors import InputError
from ap3d.portrait_job import PortraitJob
from cluster.executor import Outcome, Task
from cluster.worker import WorkerSpec

pytestmark = pytest.mark.usefixtures("ray_cluster")
Make = Callable[..., int]
Rows = Callable[[], list[dict[str, Any]]]
_OF_THE_PLACE = ("run_id", "host", "worker", "wall_s", "started", "finished", "error_trace", "log_tail")


def comparable(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k not in _OF_THE_PLACE}


def test_inline_and_ray_give_equal_rows(make: Make, rows: Rows, tmp_path: Path) -> None:
    prompts = ("an old man", "an old man", "broken", "flaky", "invalid", "x" * 3000, "xyzzy man")
    assert make(*prompts, executor="inline") == 1
    inline = rows()
    (tmp_path / "out").rename(tmp_path / "inline")
    assert make(*prompts, executor="ray", workers=2) == 1
    assert [comparable(row) for row in rows()] == [comparable(row) for row in inline]


def test_a_crash_of_the_interpreter_is_retried_elsewhere(make: Make, rows: Rows) -> None:
    assert make("a crash", "a man", executor="ray", workers=2) == 0
    assert {row["prompt"]: row["attempt"] for row in rows()} == {"a crash": 1, "a man": 0}


@pytest.fixture
def executor(tmp_path: Path) -> Any:
    from cluster.ray_executor import RayExecutor

    spec = WorkerSpec(str(tmp_path / "out"), load_config("smoke"), pipeline="stand_in:load")
    made = RayExecutor(spec, workers=1)
    made.start()
    yield made
    made.stop()


def until(executor: Any, condition: Callable[[], Any], seconds: float = 20) -> list[Outcome]:
    outcomes: list[Outcome] = []
    end = time.monotonic() + seconds
    while not condition() and not outcomes:
        assert time.monotonic() < end, "nothing happened"
        outcomes = executor.wait(0.1)
    return outcomes


def test_a_worker_killed_from_outside_is_lost_and_replaced(executor: Any) -> None:
    until(executor, executor.free)
    executor.submit(Task(PortraitJob("one", "slow"), "000001-00", 60))
    until(executor, lambda: executor.running().get("worker 0", {}).get("stage") == "portrait")
    shown = executor.running()["worker 0"]
    assert shown["face_id"] == "one" and shown["steps"] > 0
    psutil.Process(shown["pid"]).kill()
    (outcome,) = until(executor, lambda: False)
    assert outcome.lost == "worker" and outcome.task.job.face_id == "one"
    until(executor, executor.free)
    executor.submit(Task(PortraitJob("one", "slow"), "000001-01", 60))
    (outcome,) = until(executor, lambda: False)
    assert outcome.report["status"] == "done" and outcome.report["worker"] == "worker 1"


def test_stop_reaches_a_running_portrait(executor: Any) -> None:
    until(executor, executor.free)
    executor.submit(Task(PortraitJob("one", "slow"), "000001-00", 60))
    until(executor, lambda: executor.running()["worker 0"].get("stage") == "portrait")
    executor.drain()
    (outcome,) = until(executor, lambda: False, 5)
    assert outcome.report["status"] == "stopped" and outcome.lost is None


def test_a_portrait_past_its_time_is_ended_and_given_back(executor: Any) -> None:
    until(executor, executor.free)
    executor.submit(Task(PortraitJob("one", "slow"), "000001-00", 0.5))
    (outcome,) = until(executor, lambda: False, 5)
    assert outcome.lost == "timeout"


@pytest.mark.parametrize("options", [{"gpus": 1.0}, {"threads": 64}])
def test_what_no_machine_can_hold_ends_with_what_there_is(tmp_path: Path, options: dict[str, Any]) -> None:
    from cluster.ray_executor import RayExecutor

    spec = WorkerSpec(str(tmp_path), load_config("smoke"), pipeline="stand_in:load", **options)
    executor = RayExecutor(spec, workers=1, node_wait=1.0)
    executor.start()
    started = time.monotonic()
    with pytest.raises(InputError, match=r"no machine .* has 1 machine: .*\(2 CPU, 0 GPU\)"):
        while time.monotonic() - started < 10:
            executor.wait(0.2)
    executor.stop()


def test_storage_that_workers_do_not_share_is_named(make: Make, tmp_path: Path) -> None:
    from cluster.worker import Worker

    spec = WorkerSpec(
        str(tmp_path), load_config("smoke"), witness="manifest/_lease/00000001.json", pipeline="stand_in:load"
    )
    assert "is not shared" in Worker(spec).load()["error"]


def test_models_that_cannot_be_loaded_end_the_run_with_the_reason(make: Make) -> None:
    with pytest.raises(InputError, match="weights are missing"):
        make("a man", executor="ray", workers=2, overrides={"models.diffusion": "unloadable"})


def test_usage_statistics_are_off_unless_they_were_turned_on(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray._common.usage.usage_lib import usage_stats_enabled

    from cluster.ray_executor import connect

    started: list[bool] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **_: started.append(usage_stats_enabled()))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for chosen in (None, "1"):
        monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
        if chosen:
            monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", chosen)
        connect()
    assert started == [False, True]


@pytest.mark.slow
def test_figures_of_a_run_reach_prometheus() -> None:
    import urllib.request

    import ray
    from rich.console import Console

    from cluster.progress import LineReporter, Progress
    from cluster.ray_metrics import MeteredReporter

    progress = Progress(5, 1, "run")
    progress.begin()
    reporter = MeteredReporter(LineReporter(progress, Console(quiet=True)), progress)
    stage = {"name": "refine", "seconds": 12.0, "skipped": False}
    reporter.ended({"face_id": "a", "status": "done", "preset": "smoke", "wall_s": 30.0, "stages": [stage]})
    reporter.ended({"face_id": "b", "status": "failed", "preset": "smoke", "error_class": "InputError", "stages": []})
    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    end, wanted = time.monotonic() + 60, ("ray_ap3d_portraits", "ray_ap3d_stage_seconds_sum", "ray_ap3d_run_portraits")
    text = ""
    while not all(name in text for name in wanted):
        assert time.monotonic() < end, text[-2000:]
        reporter.update()
        time.sleep(1)
        text = urllib.request.urlopen(address).read().decode()
    lines = [line for line in text.splitlines() if line.startswith("ray_ap3d_portraits")]
    assert any('status="failed"' in line and 'error_class="InputError"' in line for line in lines)
