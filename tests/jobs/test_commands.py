"""The commands as a user runs them: help without heavy imports, one line for bad input, signals, status."""

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

ROOT = Path(__file__).parents[2]
STAND_IN = ROOT / "tests" / "cluster"
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{STAND_IN}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1", "COLUMNS": "120"}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )


def stand_in(tmp_path: Path, *prompts: str, **options: Any) -> list[str]:
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(prompts) + "\n")
    values = {"prompts": str(file), "out": str(tmp_path / "out"), **options}
    return ["stand_in_command", json.dumps(values)]


@pytest.mark.parametrize("name", ["generate", "status", "gallery", "compact", "evaluate", "train_controlnet"])
def test_help_is_quick_and_imports_nothing_heavy(name: str) -> None:
    started = time.perf_counter()
    result = run(f"jobs.{name}", "--help")
    assert result.returncode == 0 and "usage" in result.stdout
    assert time.perf_counter() - started < 2  # 0.05 s on an idle machine
    heavy = f"import jobs.{name}, cluster.run, sys; print({{'torch', 'ray', 'diffusers'}} & set(sys.modules))"
    code = subprocess.run([sys.executable, "-c", heavy], cwd=ROOT, capture_output=True, text=True, check=True)
    assert code.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (b"", [], "holds no prompts"),
        (b"a\0b\n", [], "control character"),
        (b"\xff\xfe\n", [], "UTF-16"),
        (b"a man\n", ["--preset", "fast"], "unknown preset 'fast'"),
        (b"a man\n", ["--seed", "-1"], "--seed"),
        (b"a man\n", ["--seed", "x"], "--seed"),
        (b"a man\n", ["--workers", "0"], "--workers"),
        (b"a man\n", ["--executor", "slurm"], "--executor"),
        (b"a man\n", ["--set", "novalue"], "FIELD=VALUE"),
        (b"a man\n", ["--set", "refine.turns=3"], "refine.turns"),
        (b"a man\n", ["--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (b"a man\n", ["--portraits", "x"], "--portraits"),
        (b"a man\n", ["--out", "/dev/null/x"], "cannot write"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path: Path, content: bytes, arguments: list[str], message: str) -> None:
    file, out = tmp_path / "p.txt", tmp_path / "out"
    file.write_bytes(content)
    result = run("jobs.generate", "--prompts", str(file), "--out", str(out), *arguments)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr and len(result.stderr.splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize("name", ["status", "gallery", "compact"])
def test_a_root_without_a_dataset_is_refused(tmp_path: Path, name: str) -> None:
    result = run(f"jobs.{name}", str(tmp_path))
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_second_run_does_nothing_and_loads_nothing(tmp_path: Path) -> None:
    command = stand_in(tmp_path, "a man", "a woman")
    assert run(*command).returncode == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    result = run(*command)
    assert result.returncode == 0 and "nothing to do" in result.stdout and "heavy: []" in result.stdout
    assert f"gallery: file://{tmp_path}/out/index.html" in result.stdout
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_status_gallery_and_compact(tmp_path: Path) -> None:
    assert run(*stand_in(tmp_path, "a man", "broken")).returncode == 1
    root = str(tmp_path / "out")
    shown = run("jobs.status", root)
    assert shown.returncode == 0 and "singular" in shown.stdout
    status = json.loads(run("jobs.status", root, "--json").stdout)
    assert status["configurations"][0]["done"] == 1 and status["run"]["state"] == "ended"
    (tmp_path / "out" / "index.html").unlink()
    assert run("jobs.gallery", root).returncode == 0 and (tmp_path / "out" / "index.html").exists()
    assert "2 rows" in run("jobs.compact", root).stdout


def started(tmp_path: Path, **options: Any) -> "subprocess.Popen[str]":
    """A run whose second portrait is being made."""
    command = [sys.executable, "-m", *stand_in(tmp_path, "a man", "slow", "a woman", **options)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    end = time.monotonic() + 60
    while not list((tmp_path / "out").glob("work/*/slow*/seen*")):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    return process


@pytest.mark.parametrize(
    ("number", "status", "executor"),
    [(signal.SIGINT, 130, "inline"), (signal.SIGTERM, 143, "inline"), (signal.SIGTERM, 143, "ray")],
)
def test_the_first_signal_drains_and_the_next_run_goes_on(
    tmp_path: Path, number: signal.Signals, status: int, executor: str
) -> None:
    process = started(tmp_path, executor=executor, workers=1)  # one, so that the third portrait never begins
    begun = time.monotonic()
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == status, output
    assert time.monotonic() - begun < 10 and "stopping at the next step" in output
    assert pq.read_table(tmp_path / "out" / "avatars.parquet")["prompt"].to_pylist() == ["a man"]
    assert json.loads(run("jobs.status", str(tmp_path / "out"), "--json").stdout)["run"]["state"] == "ended"


def test_the_second_signal_ends_at_once(tmp_path: Path) -> None:
    process = started(tmp_path)
    process.send_signal(signal.SIGSTOP)  # so that both signals are there before the first can have an effect
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=10)
    assert process.returncode in (130, 143)


def test_a_killed_driver_leaves_a_dataset_that_the_next_run_completes(tmp_path: Path) -> None:
    process = started(tmp_path)
    assert json.loads(run("jobs.status", str(tmp_path / "out"), "--json").stdout)["run"]["state"] == "running"
    busy = run(*stand_in(tmp_path, "a man", "slow", "a woman"))
    assert busy.returncode == 3 and "--takeover" in busy.stderr
    process.kill()
    process.communicate(timeout=10)
    command = stand_in(tmp_path, "a man", "a woman")
    result = run(*command)
    assert result.returncode == 0 and "1 done before" in result.stdout
    assert sorted(pq.read_table(tmp_path / "out" / "avatars.parquet")["prompt"].to_pylist()) == ["a man", "a woman"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("models.rig=flame", "unknown rig 'flame'"),
        ("models.diffusion=/nowhere/model", "does not exist"),
        ("models.diffusion={cut}", "is truncated"),
    ],
)
def test_unusable_models_are_refused_before_anything_is_written(tmp_path: Path, setting: str, message: str) -> None:
    cut = tmp_path / "cut"
    (cut / "unet").mkdir(parents=True)
    (cut / "unet" / "config.json").write_text('{"_class_name": "UNet2DConditionModel", "cross_attention_dim": 768}')
    (cut / "unet" / "diffusion_pytorch_model.safetensors").write_bytes((1 << 20).to_bytes(8, "little") + b"{}")
    (tmp_path / "prompts.txt").write_text("a man\n")
    out = tmp_path / "out"
    given = ["--prompts", str(tmp_path / "prompts.txt"), "--out", str(out), "--set", setting.format(cut=cut)]
    result = run("jobs.generate", *given)
    assert result.returncode == 2 and message in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert not out.exists()


def test_training_data_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    result = run("jobs.train_controlnet", "--data", str(tmp_path), "--out", str(tmp_path / "out"))
    assert result.returncode == 2 and len(result.stderr.strip().splitlines()) == 1
    assert "no *.parquet or *.tar" in result.stderr and not (tmp_path / "out").exists()
