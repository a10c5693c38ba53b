"""Interrupts of a running driver: the first drains, the second ends the process at once, the next run continues."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]


def start(tmp_path: Path, *prompts: str) -> subprocess.Popen[str]:
    """A driver that has begun with the last prompt."""
    (tmp_path / "prompts.txt").write_text("\n".join(prompts) + "\n")
    options = {"prompts": str(tmp_path / "prompts.txt"), "out": str(tmp_path / "out")}
    process = subprocess.Popen(
        [sys.executable, "-m", "stand_in_command", json.dumps(options)],
        cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 60
    while not list((tmp_path / "out").glob(f"work/*/{prompts[-1]}*/seen*")) and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    return process


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_interrupt_drains_and_the_next_run_continues(tmp_path: Path, number: int, status: int) -> None:
    process = start(tmp_path, "a man", "slow")
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == status, output
    assert pq.read_table(tmp_path / "out" / "avatars.parquet")["prompt"].to_pylist() == ["a man"]
    beats = sorted((tmp_path / "out" / "manifest" / "_lease").glob("*.beat.json"))
    assert json.loads(beats[-1].read_text())["released"]  # nobody has to wait for this lease


def test_the_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    process = start(tmp_path, "deaf")
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 143
