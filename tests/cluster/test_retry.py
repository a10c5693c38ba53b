"""Which portraits are tried again, in which order, and which are said to kill their workers."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ap3d.config import load_config
from ap3d.errors import RunError
from ap3d.portrait_job import PortraitJob
from ap3d.storage import Store
from cluster import driver as driver_module
from cluster import manifest
from cluster.driver import Driver
from cluster.executor import Outcome, Task
from cluster.lease import Lease
from cluster.plan import make_plan
from cluster.progress import LineReporter, Progress
from cluster.prompts import PromptSet
from cluster.retry import Losses, RetryPolicy, Tries
from cluster.schema import row_from_report, table_from_rows
from cluster.signals import Signals
from cluster.work_queue import WorkQueue, expected_seconds


class Workers:
    """An executor whose workers end the tries of a portrait as a script says: ``done``, an error's class, ``copy``
    (runs until it is cancelled) or ``@machine`` (the worker dies there)."""

    def __init__(self, count: int, script: dict[str, list[str]]) -> None:
        self.count, self.script = count, script
        self.tasks: dict[str, Task] = {}
        self.order: list[str] = []
        self.avoided: list[set[str]] = []
        self.cancelled: set[str] = set()
        self.most_expected = 0

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def drain(self) -> None: ...

    def expect(self, tasks: int) -> None:
        self.most_expected = max(self.most_expected, tasks)

    def notes(self) -> list[str]:
        return []

    def running(self) -> dict[str, dict[str, Any]]:
        return {}

    def cancel(self, task: Task) -> None:
        self.cancelled.add(task.attempt)

    def free(self) -> int:
        return self.count - len(self.tasks)

    def submit(self, task: Task) -> None:
        self.tasks[task.attempt + task.job.face_id] = task
        self.order.append(task.job.face_id)
        self.avoided.append(set(task.avoid))

    def wait(self, timeout: float) -> list[Outcome]:
        time.sleep(0.002)
        outcomes = [self._outcome(t, self.script.get(t.job.face_id, [])) for t in self.tasks.values()]
        ended = [o for o in outcomes if o is not None]
        for outcome in ended:
            del self.tasks[outcome.task.attempt + outcome.task.job.face_id]
        return ended

    def _outcome(self, task: Task, script: list[str]) -> Outcome | None:
        if script and script[0] == "copy":
            if task.attempt.endswith("-00"):  # the first one hangs until it is cancelled
                return Outcome(task, {"status": "stopped"}) if task.attempt in self.cancelled else None
            return self._done(task)
        kind = script.pop(0) if script else "done"
        if kind == "done":
            return self._done(task)
        if kind.startswith("@"):
            return Outcome(task, lost="worker", reason="lost", place=kind)
        return Outcome(task, {"status": "failed", "error_class": kind, "error_message": "no"})

    @staticmethod
    def _done(task: Task) -> Outcome:
        return Outcome(task, {"status": "done", "uri_bundle": f"avatars/{task.job.face_id}", "attempt": task.attempt})


def run(root: Path, workers: Workers, faces: list[str], **options: Any) -> dict[str, dict[str, Any]]:
    store, config = Store(str(root)), load_config("smoke")
    plan = make_plan(store, PromptSet([PortraitJob(name, "a man") for name in faces]), config)
    lease, progress = Lease.acquire(store), Progress(len(faces), 0, "run")
    reporter = LineReporter(progress, Console(file=open(os.devnull, "w")))  # noqa: SIM115
    driver = Driver(store, config, plan, lease, progress, reporter, Signals(), **options)
    try:
        driver.run(workers)
    finally:
        driver.finish()
        lease.release()
    return {row["face_id"]: row for row in manifest.read_all(store).to_pylist()}


def test_a_portrait_that_ends_its_workers_in_two_places_is_given_up(tmp_path: Path) -> None:
    others = [f"other-{i}" for i in range(20)]
    workers = Workers(2, {"bad": ["@machine 1", "@machine 2", "done"]})
    rows = run(tmp_path, workers, ["bad", *others])
    assert rows["bad"]["error_class"] == "Poison" and "machine 1 and @machine 2" in rows["bad"]["error_message"]
    assert all(rows[name]["status"] == "done" for name in others)
    assert set().union(*workers.avoided) == {"@machine 1"}  # the second try was kept away from there


def test_one_bad_machine_is_no_proof_against_a_portrait(tmp_path: Path) -> None:
    rows = run(tmp_path, Workers(2, {"unlucky": ["@machine 1"] * 5}), ["unlucky", "a", "b"])
    assert rows["unlucky"]["status"] == "done" and rows["unlucky"]["attempt"] == 5


def test_where_workers_die_of_other_causes_two_losses_are_no_proof() -> None:
    portrait = Tries(attempts=2, lost_at={"a", "b"})
    policy = RetryPolicy()
    assert Losses(tries=500, died=2).is_poison(portrait, 600, policy)
    # Every seventh try dies: 600 / 7**2 = 12 portraits of 600 lose two workers in a row without being at fault.
    assert not Losses(tries=500, died=71).is_poison(portrait, 600, policy)
    six = Tries(attempts=6, lost_at=set("abcdef"))
    assert policy.innocent > 600 * (65 / 495) ** 6 and Losses(tries=500, died=71).is_poison(six, 600, policy)


def test_storage_errors_are_tried_later_and_end_the_run_when_nothing_else_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tries, "storage_delay", 0.01)
    rows = run(tmp_path / "a", Workers(1, {"one": ["RunError"] * 4}), ["one", "two"])
    assert rows["one"]["status"] == "done" and rows["one"]["attempt"] == 4
    rows = run(tmp_path / "b", Workers(1, {"one": ["RunError"] * 5}), ["one", "two"])
    assert rows["one"]["error_class"] == "RunError"
    monkeypatch.setattr(driver_module, "STORAGE_FAILURES_IN_A_ROW", 4)
    with pytest.raises(RunError, match="4 tries in a row could not use the storage"):
        run(tmp_path / "c", Workers(2, {name: ["RunError"] * 9 for name in "abc"}), list("abc"))


def test_a_straggler_is_copied_once_and_counts_once(tmp_path: Path) -> None:
    workers = Workers(2, {"slow": ["copy"]})
    faces = ["slow", *(f"quick-{i}" for i in range(8))]
    rows = run(tmp_path, workers, faces, speculate=True)
    assert workers.order.count("slow") == 2 and len(workers.order) == len(faces) + 1
    assert rows["slow"]["status"] == "done" and rows["slow"]["attempt"] == 1
    assert len(manifest.read_all(Store(str(tmp_path)))) == len(faces) and len(workers.cancelled) == 1


def test_without_speculation_workers_are_told_how_many_tasks_are_left(tmp_path: Path) -> None:
    workers = Workers(2, {})
    run(tmp_path, workers, list("abcde"))
    assert workers.most_expected == 5 and workers.order == list("abcde")


def test_the_longest_expected_portrait_starts_first() -> None:
    done = [row("a", "done", 100.0), row("b", "done", 60.0), row("c", "done", 80.0)]
    half = row("half", "failed", 30.0, stages=[{"name": "portrait", "seconds": 50.0}])
    expected, usual = expected_seconds(table_from_rows([*done, half]), "h")
    assert usual == pytest.approx(80, abs=15) and expected == {"half": pytest.approx(usual - 50)}
    jobs = [PortraitJob(name, "a man") for name in ("half", "new", "also-new")]
    queue = WorkQueue(jobs, expected, usual)
    queue.put(PortraitJob("later", "a man"), delay=60.0)
    taken = [queue.take() for _ in range(4)]
    assert [job.face_id if job else None for job in taken] == ["new", "also-new", "half", None] and len(queue) == 1


def row(face_id: str, status: str, wall_s: float, **more: Any) -> dict[str, Any]:
    report = {"status": status, "wall_s": wall_s, "attempt": "000001-00", **more}
    return row_from_report(report, face_id=face_id, config_hash="h")


def test_clocks_an_hour_apart_change_neither_row_nor_attempt_that_counts(tmp_path: Path) -> None:
    from cluster.schema import newest_per_key

    ahead = {"finished": "2026-01-01T11:00:00+00:00", "attempt": "000001-00"}
    behind = {"finished": "2026-01-01T10:00:00+00:00", "attempt": "000001-01"}
    reports = [{"status": "failed", **ahead}, {"status": "failed", **behind}]
    rows = [row_from_report(report, face_id="a", config_hash="h") for report in reports]
    assert newest_per_key(table_from_rows(rows))["attempt"].to_pylist() == [1]
