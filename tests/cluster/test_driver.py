"""What a run leaves behind: rows, records, exit status; without Ray."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ap3d.config import load_config
from ap3d.errors import InputError, RunError
from ap3d.portrait_job import PortraitJob
from ap3d.storage import Store
from cluster import maintenance, manifest
from cluster.driver import Driver
from cluster.executor import Outcome, Task
from cluster.lease import Lease
from cluster.plan import make_plan
from cluster.progress import LineReporter, Progress
from cluster.prompts import PromptSet
from cluster.retry import RetryPolicy
from cluster.signals import Signals
from cluster.sizing import WorkerOptions, size_workers
from cluster.status import read_status

Make = Callable[..., int]
Rows = Callable[[], list[dict[str, Any]]]


def by_prompt(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["prompt"]: row for row in rows}


def attempts(root: Path) -> int:
    return len(list(root.rglob("seen-*.json")))


def test_a_failed_prompt_is_a_row_while_the_rest_goes_on(make: Make, rows: Rows, tmp_path: Path) -> None:
    assert make("an old man", "broken", "invalid", "x" * 3000, "flaky") == 1
    table = by_prompt(rows())
    assert {p: r["status"] for p, r in table.items() if len(p) < 100} == {
        "an old man": "done", "broken": "failed", "invalid": "failed", "flaky": "done",
    }  # fmt: skip
    assert table["broken"]["error_class"] == "ArithmeticError" and "singular" in table["broken"]["error_message"]
    assert "stand_in.py" in table["broken"]["error_trace"] and table["broken"]["attempt"] == 1
    assert table["invalid"]["attempt"] == 0 and table["invalid"]["error_trace"] is None
    too_long = next(r for p, r in table.items() if len(p) > 100)
    assert too_long["error_class"] == "InputError" and "3,000" in too_long["error_message"]
    good = table["an old man"]
    assert good["latest"] and good["uri_preview"] == f"{good['uri_bundle']}/preview.png"
    assert (tmp_path / "out" / good["uri_preview"]).exists()
    assert good["completed_prompt"] == "AN OLD MAN" and dict(good["metrics"]) == {"brightness": 0.5}


def test_resubmission_does_only_what_is_left(make: Make, rows: Rows, tmp_path: Path) -> None:
    assert make("a man", "broken") == 1
    tried = attempts(tmp_path)
    assert make("a man", "broken", "a woman") == 1
    assert attempts(tmp_path) == tried + 3  # broken twice more, the woman once
    assert make("a man", "a woman") == 0
    assert attempts(tmp_path) == tried + 3
    assert len(rows()) == 3


def test_a_finished_portrait_whose_row_was_never_flushed_is_not_made_again(
    make: Make, rows: Rows, tmp_path: Path
) -> None:
    make("a man", "a woman")
    before = rows()
    shutil.rmtree(tmp_path / "out" / "manifest")
    (tmp_path / "out" / "avatars.parquet").unlink()
    tried = attempts(tmp_path)
    assert make("a man", "a woman") == 0
    assert attempts(tmp_path) == tried
    assert [strip(row) for row in rows()] == [strip(row) for row in before]


def strip(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k not in ("run_id", "host", "worker", "device", "ap3d_version")}


def test_rebuild_from_records_alone(make: Make, rows: Rows, tmp_path: Path) -> None:
    make("a man", "broken", "x" * 3000)
    before = rows()
    shutil.rmtree(tmp_path / "out" / "manifest")
    (tmp_path / "out" / "avatars.parquet").unlink()
    assert "3 records" in maintenance.compact(str(tmp_path / "out"))
    assert [strip(row) for row in rows()] == [strip(row) for row in before]


def test_a_deleted_bundle_is_made_again(make: Make, rows: Rows, tmp_path: Path) -> None:
    make("a man", "a woman")
    bundle = tmp_path / "out" / by_prompt(rows())["a man"]["uri_bundle"]
    shutil.rmtree(bundle)
    assert make("a man", "a woman") == 0
    assert bundle.exists() and attempts(tmp_path) == 3


def test_an_id_cannot_change_its_prompt(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "ids.csv"
    file.write_text("id,prompt\nanna,a woman\n")
    from cluster.run import GenerateOptions, generate

    options = {"out": str(tmp_path / "out"), "preset": "smoke", "pipeline": "stand_in:load", "prompts": str(file)}
    assert generate(GenerateOptions(**options)) == 0
    file.write_text("id,prompt\nanna,an old woman\n")
    with pytest.raises(InputError, match="'anna' is already there"):
        generate(GenerateOptions(**options))


def test_storage_that_is_full_ends_the_run_and_keeps_what_is_done(make: Make, rows: Rows) -> None:
    with pytest.raises(RunError, match="the storage is full"):
        make("a man", "full", "a woman")
    assert [row["prompt"] for row in rows()] == ["a man"]


def test_models_that_cannot_be_loaded_end_the_run(make: Make) -> None:
    with pytest.raises(InputError, match="weights are missing"):
        make("a man", overrides={"models.diffusion": "unloadable"})


def test_a_dry_run_writes_nothing(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make("a man", "", "x" * 3000, dry_run=True) == 2
    assert not (tmp_path / "out").exists()
    said = capsys.readouterr().out
    assert "1 to make, 0 done, 1 unusable" in said and "no finished portrait of preset 'smoke'" in said
    assert make("a man", "a woman") == 0
    assert make("a man", "a woman", *(f"man {i}" for i in range(60)), dry_run=True) == 0
    said = capsys.readouterr().out
    assert "60 to make, 2 done, 0 unusable" in said and "and 10 more" in said
    assert "about 1 min 0 s with 1 worker, 0.02 worker hours in all: 1.0 s a portrait, the mean of 2" in said


def test_nothing_a_run_leaves_behind_holds_a_password(make: Make, tmp_path: Path, monkeypatch: Any) -> None:
    secret = "sftp://anna:hunter2@host/1.pth"
    (tmp_path / "p.csv").write_text(f"prompt,portrait\nbroken,{secret}\na man,\n")
    from cluster.run import GenerateOptions, generate

    options = {"out": str(tmp_path / "out"), "preset": "smoke", "pipeline": "stand_in:load"}
    assert generate(GenerateOptions(prompts=str(tmp_path / "p.csv"), **options)) == 1
    assert generate(GenerateOptions(prompts=str(tmp_path / "p.csv"), **options)) == 1
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files and not [path for path in files if b"hunter2" in path.read_bytes()]


def test_a_whole_run_in_a_bucket(make: Make, s3_server: str, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.s3_server import new_bucket

    root = f"{new_bucket()}/faces"
    assert make("a man", "broken", out=root) == 1
    assert f"table:   {root}/avatars.parquet" in capsys.readouterr().out
    store = Store(root)
    before = manifest.read_all(store)
    store.delete("manifest")
    store.delete("avatars.parquet")
    assert "2 records" in maintenance.compact(root)
    assert manifest.read_all(store)["status"].to_pylist() == before["status"].to_pylist()
    assert make("a man", out=root) == 0 and "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "fast"}, "unknown preset 'fast'"),
        ({"workers": 0}, "--workers must be at least 1"),
        ({"workers": 2}, "inline has one worker"),
        ({"seed": -1}, "--seed"),
        ({"timeout_s": 0.0}, "--timeout"),
        ({"overrides": {"nothing": 1}}, "nothing"),
        ({"out": "/proc/nowhere"}, "cannot write"),
        ({"out": "nope://x"}, "nope"),
        ({"portraits": "x"}, "either"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    make: Make, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make("a man", **options)
    assert not (tmp_path / "out").exists()


def test_a_relative_root_is_refused_inside_a_submitted_job(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(InputError, match="absolute"):
        make("a man", out="relative/out")


def test_a_root_of_another_schema_is_refused(make: Make, tmp_path: Path) -> None:
    make("a man")
    Store(str(tmp_path / "out")).write_json(manifest.SCHEMA_FILE, {"schema_version": 2})
    with pytest.raises(InputError, match="schema version 2"):
        make("a man")


def test_a_time_out_is_tried_once_more(make: Make, rows: Rows) -> None:
    assert make("slow", timeout_s=0.4) == 0  # slow on its first try only
    assert rows()[0]["attempt"] == 1


def test_status_tells_counts_and_the_run(make: Make, tmp_path: Path) -> None:
    make("a man", "broken")
    status = read_status(Store(str(tmp_path / "out")))
    assert status["configurations"] == [
        {"preset": "smoke", "config_hash": load_config("smoke").config_hash, "done": 1, "failed": 1}
    ]
    assert status["run"]["state"] == "ended" and status["run"]["done"] == 1
    assert status["failures"][0]["error_class"] == "ArithmeticError"
    json.dumps(status)
    with pytest.raises(InputError, match="no dataset"):
        read_status(Store(str(tmp_path / "elsewhere")))


class ScriptedExecutor:
    """Ends each try as told: a list of outcomes a face_id."""

    def __init__(self, script: dict[str, list[str]]) -> None:
        self.script, self.tasks = script, []

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def drain(self) -> None: ...

    def expect(self, tasks: int) -> None: ...

    def cancel(self, task: Task) -> None: ...

    def notes(self) -> list[str]:
        return []

    def free(self) -> int:
        return 1 if not self.tasks else 0

    def submit(self, task: Task) -> None:
        self.tasks.append(task)

    def running(self) -> dict[str, dict[str, Any]]:
        return {}

    def wait(self, timeout: float) -> list[Outcome]:
        task = self.tasks.pop()
        kind = self.script[task.job.face_id].pop(0)
        if kind == "done":
            bundle = f"avatars/{task.job.face_id}-x"
            return [Outcome(task, {"status": "done", "uri_bundle": bundle, "attempt": task.attempt})]
        if kind in ("worker", "memory", "timeout"):
            return [Outcome(task, lost=kind, reason=f"lost by {kind}")]
        if kind.startswith("machine"):
            return [Outcome(task, lost="worker", reason="lost", place=kind)]
        return [Outcome(task, {"status": "failed", "error_class": kind, "error_message": "no"})]


@pytest.mark.parametrize(
    ("script", "status", "left"),
    [
        (["worker"] * 10 + ["done"], "done", 0),
        (["worker"] * 12, "failed", 1),
        (["memory", "done"], "done", 0),
        (["memory", "memory", "done"], "failed", 1),
        (["MemoryError", "memory", "done"], "failed", 1),
        (["timeout", "done"], "done", 0),
        (["timeout", "timeout", "done"], "failed", 1),
        (["ValueError", "ValueError", "done"], "failed", 1),
        (["InputError", "done"], "failed", 1),
        (["worker", "memory", "timeout", "ValueError", "done"], "done", 0),
    ],
)
def test_budgets_are_kept_apart_by_kind_of_failure(tmp_path: Path, script: list[str], status: str, left: int) -> None:
    store, config = Store(str(tmp_path)), load_config("smoke")
    plan = make_plan(store, PromptSet([PortraitJob("one", "a man")]), config)
    lease = Lease.acquire(store)
    progress = Progress(1, 0, "run")
    from rich.console import Console

    reporter = LineReporter(progress, Console(file=open(os.devnull, "w")))  # noqa: SIM115
    driver = Driver(store, config, plan, lease, progress, reporter, Signals(), policy=RetryPolicy())
    remaining = list(script)
    driver.run(ScriptedExecutor({"one": remaining}))
    driver.finish()
    lease.release()
    (row,) = manifest.read_all(store).to_pylist()
    assert row["status"] == status and len(remaining) == left
    assert row["attempt"] == len(script) - left - 1
    assert (tmp_path / f"work/{config.config_hash}/one/FAILED.json").exists() == (status == "failed")


def test_a_superseded_driver_writes_nothing_more(tmp_path: Path) -> None:
    store, config = Store(str(tmp_path)), load_config("smoke")
    plan = make_plan(store, PromptSet([PortraitJob("one", "a man")]), config)
    lease = Lease.acquire(store)
    from rich.console import Console

    progress = Progress(1, 0, "run")
    reporter = LineReporter(progress, Console(file=open(os.devnull, "w")))  # noqa: SIM115
    driver = Driver(store, config, plan, lease, progress, reporter, Signals())
    driver.run(ScriptedExecutor({"one": ["done"]}))
    Lease.acquire(store, takeover=True).release()
    with pytest.raises(RunError, match="took over"):
        driver.finish()
    assert not manifest.has_parts(store) and not store.exists("avatars.parquet")


@pytest.mark.parametrize(
    ("options", "cpus", "gpus", "jobs", "expected"),
    [
        (WorkerOptions(), 2, 0, 9, (2, 0.0, 1)),
        (WorkerOptions(workers=2), 2, 0, 9, (2, 0.0, 1)),
        (WorkerOptions(), 64, 0, 999, (64, 0.0, 1)),
        (WorkerOptions(), 64, 8, 999, (8, 1.0, 4)),
        (WorkerOptions(gpus_per_worker=0.25), 64, 8, 999, (32, 0.25, 4)),
        (WorkerOptions(workers=8), 64, 0, 3, (3, 0.0, 1)),
        (WorkerOptions(threads_per_worker=1), 4, 0, 9, (4, 0.0, 1)),
    ],
)
def test_worker_sizes(options: WorkerOptions, cpus: float, gpus: float, jobs: int, expected: tuple[Any, ...]) -> None:
    sizes = size_workers(options, cpus, gpus, jobs)
    assert (sizes.workers, sizes.gpus, sizes.threads) == expected


def test_a_preset_for_gpus_asks_for_them_where_none_has_appeared_yet() -> None:
    sizes = size_workers(WorkerOptions(workers=8), 0, 0, 100, wants_gpu=True)
    assert (sizes.workers, sizes.gpus) == (8, 1.0)
    assert load_config("paper").needs_gpu and not load_config("builtin").needs_gpu
