"""The commands with the library's own pipeline: the executor changes nothing, a stop costs nothing that was done."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, "OMP_NUM_THREADS": "1"}
PROMPTS = "an old man with gray hair\na woman with long red hair, wearing a green shirt\n"


def command(folder: Path, out: str, *more: str) -> list[str]:
    (folder / "prompts.txt").write_text(PROMPTS)
    given = ["--prompts", str(folder / "prompts.txt"), "--out", str(folder / out), "--preset", "smoke"]
    return [sys.executable, "-m", "jobs.generate", *given, "--threads-per-worker", "1", *more]


def generate(folder: Path, out: str, *more: str) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(command(folder, out, *more), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def hashes(folder: Path) -> dict[str, str]:
    """Of every bundle's files; `avatar.json` without its report of seconds and memory."""
    files = (path for path in (folder / "avatars").rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(_lasting(p)).hexdigest() for p in files}


def _lasting(path: Path) -> bytes:
    if path.name != "avatar.json":
        return path.read_bytes()
    facts = json.loads(path.read_bytes())
    assert facts.pop("cost")
    return json.dumps(facts, sort_keys=True).encode()


def rows(folder: Path) -> list[dict[str, Any]]:
    of_the_run = {"run_id", "worker", "wall_s", "started", "finished", "stages", "epoch"}
    of_the_run |= {
        "utilisation",
        "peak_memory_mb",
        "bytes_bundle",
        "metric_bundle_bytes",
    }  # the report's seconds have more digits or fewer
    lasting = lambda k, v: [pair for pair in v if pair[0] != "bundle_bytes"] if k == "metrics" else v  # noqa: E731
    return [
        {k: lasting(k, v) for k, v in row.items() if k not in of_the_run}
        for row in pq.read_table(folder / "avatars.parquet").to_pylist()
    ]


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inline")
    generate(folder, "out")
    return folder


def test_ray_gives_the_same_bundles_and_rows(inline: Path, tmp_path: Path) -> None:
    generate(tmp_path, "out", "--executor", "ray", "--workers", "2")
    assert hashes(tmp_path / "out") == hashes(inline / "out") and len(hashes(tmp_path / "out")) >= 16
    assert rows(tmp_path / "out") == rows(inline / "out")


def test_a_second_run_does_nothing_in_seconds(inline: Path) -> None:
    started = time.monotonic()
    assert "nothing to do" in generate(inline, "out", "--executor", "ray", "--workers", "2").stdout
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_run_goes_on_and_ends_with_the_same_bundles(
    inline: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = subprocess.Popen(command(tmp_path, "out"), cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    while not list((tmp_path / "out").glob("work/*/a-woman*/initialise.json")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(60) == (143 if number == signal.SIGTERM else -9)
    generate(tmp_path, "out")
    assert hashes(tmp_path / "out") == hashes(inline / "out")
    (woman,) = (r for r in pq.read_table(tmp_path / "out" / "avatars.parquet").to_pylist() if "woman" in r["prompt"])
    assert woman["epoch"] == 2 and woman["stages"][0]["skipped"]
