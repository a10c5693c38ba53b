"""The small form of :mod:`tests.cluster.chaos`, and its arithmetic."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.chaos import BAD, write_prompts
from tests.cluster.chaos_events import Events

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_nothing_is_lost_on_three_machines_that_fail() -> None:
    run("tests.cluster.chaos", "--seed", "3", "--nodes", "3", "--portraits", "40", "--kill-node", "40", "--unfit", "1",
        "--limit", "240")  # fmt: skip


@pytest.mark.slow
def test_workers_join_when_a_machine_appears(tmp_path: Path) -> None:
    run("tests.cluster.growth", str(tmp_path))


def run(*command: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "PYTHONPATH")}
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=420
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]


def test_one_prompt_in_twenty_is_bad_and_each_kind_is_there(tmp_path: Path) -> None:
    expected = write_prompts(tmp_path / "p.csv", 600, random.Random(0))
    bad = [classes for classes in expected.values() if classes]
    assert len(expected) == 600 and len(bad) == 30 and set(bad) == {classes for _, classes in BAD.values()}


def test_events_tell_what_died_and_what_was_made_twice(tmp_path: Path) -> None:
    def tell(event: str, attempt: str, pid: int, **more: str) -> None:
        with (tmp_path / "events").open("a") as file:
            file.write(json.dumps({"event": event, "face": "a", "attempt": attempt, "pid": pid, **more}) + "\n")

    events = Events(tmp_path / "events")
    tell("begin", "0", 2**22 + 1)
    tell("stage", "0", 2**22 + 1, stage="portrait")
    tell("committed", "0", 2**22 + 1, stage="portrait")
    tell("stage", "0", 2**22 + 1, stage="whole")
    events.read()
    assert not events.died
    events.prune()  # no such process
    assert events.died == {("a", "0")} and events.died_share == 1
    tell("begin", "1", os.getpid())
    tell("stage", "1", os.getpid(), stage="whole")
    events.read()
    assert events.redone() == 1 and events.remade == 0
    tell("stage", "1", os.getpid(), stage="portrait")
    tell("end", "1", os.getpid(), status="done")
    events.read()
    assert events.remade == 1 and events.died_share == 0.5 and events.done == {"a"}
