"""A job submitted to a Ray head from a checkout without build products, stopped and submitted again."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
Submit = Callable[..., subprocess.CompletedProcess[str]]


def free_port() -> int:
    """A port outside the range that Ray gives to its workers."""
    for port in range(28200, 28400):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("no free port")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked and new files of the working tree, without what git ignores."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, text=True)
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def submit(checkout: Path) -> Iterator[Submit]:
    """Runs ``ray`` commands against a head of our own, with token authentication."""
    temporary = tempfile.mkdtemp(prefix="ray")  # short: the paths of Ray's sockets are limited
    ray = str(Path(sys.executable).with_name("ray"))
    port = free_port()
    environment = {
        **{k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "RAY_ADDRESS")},
        "RAY_TMPDIR": temporary, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{port}", "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }  # fmt: skip
    start = [ray, "start", "--head", "--port=0", "--num-cpus=2", "--num-gpus=0", f"--dashboard-port={port}",
             "--ray-client-server-port=28199", "--object-store-memory=100000000"]  # fmt: skip
    subprocess.run(start, env=environment, check=True, stdout=subprocess.DEVNULL, timeout=90)

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ray, "job", *command], cwd=checkout, env=environment, capture_output=True, text=True, timeout=300
        )

    yield run
    for process in psutil.process_iter():
        try:
            if process.environ().get("RAY_TMPDIR") == temporary:
                process.kill()
        except psutil.Error:
            continue
    shutil.rmtree(temporary, ignore_errors=True)


def stand_in(out: Path) -> list[str]:
    options = {"prompts": "prompts.txt", "out": str(out), "executor": "ray", "pipeline": "tests.cluster.stand_in:load"}
    return ["python", "-m", "tests.cluster.stand_in_command", json.dumps(options)]


def test_submitted_job_runs_from_the_uploaded_folder(checkout: Path, submit: Submit, tmp_path: Path) -> None:
    (checkout / "prompts.txt").write_text("a man\nbroken\na woman\n")
    result = submit("submit", "--working-dir", ".", "--", *stand_in(tmp_path / "out"))
    assert "1 ray worker" in result.stdout or "2 ray workers" in result.stdout, result.stdout + result.stderr
    assert "exit code 1" in result.stdout  # one failed portrait
    rows = {r["prompt"]: r["status"] for r in pq.read_table(tmp_path / "out" / "avatars.parquet").to_pylist()}
    assert rows == {"a man": "done", "broken": "failed", "a woman": "done"}


def test_a_stopped_job_drains_and_the_same_command_makes_the_rest(
    checkout: Path, submit: Submit, tmp_path: Path
) -> None:
    """The library itself, kernels included: what the first job finished is not made again."""
    out = tmp_path / "out"
    (checkout / "prompts.csv").write_text("id,prompt\none,an old man\ntwo,a woman with red hair\nthree,a girl\n")
    generate = ["python", "-m", "jobs.generate", "--prompts", "prompts.csv", "--out", str(out), "--preset", "smoke",
                "--workers", "1"]  # fmt: skip
    wait = json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "30"}})
    command = ["submit", "--working-dir", ".", "--runtime-env-json", wait]
    name = f"job-{secrets.token_hex(4)}"
    assert submit(*command, "--no-wait", "--submission-id", name, "--", *generate).returncode == 0
    until(lambda: list(out.glob("work/*/two/initialise.json")), lambda: submit("logs", name).stdout)
    assert submit("stop", name).returncode == 0
    assert "stopping at the next step" in submit("logs", name).stdout
    assert rows(out).keys() == {"one"}
    result = submit(*command, "--", *generate)
    assert result.returncode == 0 and "2 portraits to make, 1 done before" in result.stdout, result.stdout
    made = rows(out)
    assert {face: (row["status"], row["epoch"]) for face, row in made.items()} == {
        "one": ("done", 1), "two": ("done", 2), "three": ("done", 2),
    }  # fmt: skip
    skipped = {stage["name"] for stage in made["two"]["stages"] if stage["skipped"]}
    assert skipped >= {"portrait", "initialise"}
    assert all((out / row["uri_preview"]).exists() for row in made.values())


def rows(out: Path) -> dict[str, dict[str, Any]]:
    return {row["face_id"]: row for row in pq.read_table(out / "avatars.parquet").to_pylist()}


def until(happened: Callable[[], Any], log: Callable[[], str], seconds: float = 240) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, log()
        time.sleep(0.1)
