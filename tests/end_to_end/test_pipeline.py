"""The pipeline on the shipped models: what comes out, what is skipped, what survives a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ap3d.cli import main
from ap3d.config import load_config
from ap3d.pipeline import Generator, PortraitJob, ProgressEvent
from ap3d.splats.bundle import load_bundle
from ap3d.stages.counting import counted_evaluations
from ap3d.storage import Store
from ap3d.workspace import Locations, Workspace
from cluster import schema

BUNDLE_FILES = {
    "avatar.json", "splats.ply", "rig.safetensors", "world.ply", "preview.png", "sheet.png", "turntable.mp4",
    "talking.mp4", "binding.safetensors",
}  # fmt: skip
STAGES = ["portrait", "initialise", "eyes", "mouth", "whole", "refine", "publish"]


def test_a_prompt_becomes_a_whole_bundle(made: tuple[Path, dict]) -> None:  # type: ignore[type-arg]
    folder, row = made
    assert {p.name for p in folder.iterdir()} == BUNDLE_FILES
    assert row["status"] == "done" and [s["name"] for s in row["stages"]] == STAGES
    assert row["abstract_prompt"] == "an old man" and row["unknown_words"] == []
    facts = json.loads((folder / "avatar.json").read_text())
    assert facts["prompt"] == row["prompt"] and facts["groups"]["skin"] > 1000
    assert row["bytes_bundle"] == sum(p.stat().st_size for p in folder.iterdir())
    assert row["bytes_checkpoint"] > 0  # one is kept at each stop, and after each round
    work = folder.parents[1] / "work" / row["config_hash"] / "old-man"
    assert {p.name for p in work.iterdir()} == {"DONE.json"}


def test_rows_and_bundles_say_what_every_phase_cost(made: tuple[Path, dict], capsys: pytest.CaptureFixture) -> None:  # type: ignore[type-arg]
    folder, row = made
    phases = {stage["name"]: stage for stage in row["stages"]}
    config = load_config("smoke")
    full, face = len(config.views.full_azimuths), len(config.views.face_azimuths)
    assert phases["portrait"]["unet_evaluations"] == 2 * config.views.steps * (full + face)
    assert phases["portrait"]["controlnet_evaluations"] == phases["portrait"]["unet_evaluations"]
    assert phases["publish"]["unet_evaluations"] == phases["initialise"]["flops"] == 0
    assert row["unet_evaluations"] == sum(stage["unet_evaluations"] for stage in row["stages"])
    counted = counted_evaluations(config)
    assert {n: (c.unet, c.controlnet) for n, c in counted.items()} == {
        n: (phases[n]["unet_evaluations"], phases[n]["controlnet_evaluations"]) for n in counted
    }
    assert row["flops"] > 0.9e9 * row["unet_evaluations"] and 0 < row["utilisation"] < 1
    assert row["peak_memory_mb"] == max(stage["peak_memory_mb"] for stage in row["stages"])
    again = schema.table_from_rows([schema.row_from_report(row)]).to_pylist()[0]
    assert again["stages"][0]["flops"] == phases["portrait"]["flops"] and again["flops"] == row["flops"]
    assert main(["inspect", str(folder)]) == 0
    assert f"{phases['portrait']['unet_evaluations']} UNet" in capsys.readouterr().out


def test_the_bundle_moves_with_its_rig(made: tuple[Path, dict]) -> None:  # type: ignore[type-arg]
    bundle = load_bundle(str(made[0]))
    closed = bundle.pose(bundle.params)
    expression = bundle.params.expression.clone()
    expression[0, bundle.rig.expression_names.index("jawOpen")] = 1.0
    opened = bundle.pose(bundle.params.replace(expression=expression))
    moved = (opened.means - closed.means).norm(dim=1)
    chin = torch.isin(bundle.avatar.binding, bundle.rig.regions["lips"])
    scalp = torch.isin(bundle.avatar.binding, bundle.rig.regions["scalp"])
    assert float(moved[chin].max()) > 0.03 > 10 * float(moved[scalp].median())


def test_a_finished_portrait_is_not_made_again(generator: Generator, made: tuple[Path, dict]) -> None:  # type: ignore[type-arg]
    folder, row = made
    started = time.perf_counter()
    again = generator.run(PortraitJob("old-man", row["prompt"], 1), Store(str(folder.parents[1])), "second")
    assert again == row and time.perf_counter() - started < 1


def test_stopping_and_changing_the_config_reruns_only_what_depends_on_it(generator: Generator, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    seen: list[str] = []

    def stop() -> bool:
        return bool(seen) and seen[-1] == "eyes"

    job = PortraitJob("x", "a man", 0)
    row = generator.run(job, store, "a", on_progress=lambda e: seen.append(e.stage), should_stop=stop)
    assert row["status"] == "stopped" and [s["name"] for s in row["stages"]] == ["portrait", "initialise"]
    where = Locations.in_dataset("x", generator.config.config_hash)
    assert Workspace(store, where, "b").done_row() is None
    other = Generator.__new__(Generator)
    other.config, other.resources = load_config("smoke", {"initialise.iterations": 5}), generator.resources
    seen.clear()
    row = other.run(job, store, "b", on_progress=lambda e: seen.append(e.stage), should_stop=stop)
    assert [(s["name"], s["skipped"]) for s in row["stages"]] == [("portrait", True), ("initialise", False)]


def test_a_portrait_that_cannot_be_made_is_a_failed_row(generator: Generator, tmp_path: Path) -> None:
    job = PortraitJob("x", "a man", 0, portrait=str(tmp_path / "000.pth"))
    row = generator.run(job, Store(str(tmp_path)), "a")
    assert row["status"] == "failed" and row["error_class"] == "InputError" and "not exist" in row["error_message"]
    assert not (tmp_path / "avatars").exists()


def test_kill_anywhere_and_run_again(tmp_path: Path) -> None:
    """SIGKILL in the middle of a stage; the next run skips what was finished and ends with a whole bundle."""
    out = tmp_path / "bundle"
    command = [sys.executable, "-m", "ap3d.cli", "generate", "a bald man", "--preset", "smoke", "--out", str(out),
               "--threads", "1"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        if "eyes" in line:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "avatar.json").exists()
    records = {p.name: p.stat().st_mtime_ns for p in out.rglob("*.json") if p.stem in STAGES}
    assert set(records) == {"portrait.json", "initialise.json"}
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert finished.returncode == 0, finished.stderr
    assert {p.name for p in out.iterdir() if not p.name.startswith(".")} == BUNDLE_FILES
    assert "stage initialise" not in finished.stdout and "stage eyes" in finished.stdout


def test_a_stopped_run_ends_as_an_unbroken_one_does(generator: Generator, tmp_path: Path) -> None:
    """Checkpoints hold optimiser, statistics and random state, so a stop changes nothing of the result."""
    small = Generator.__new__(Generator)
    steps_of = {
        "initialise.iterations": 3, "refine.iterations": 2, "refine.rounds": 2, "whole.iterations": 5,
        "eyes.iterations": 2, "eyes.rounds": 2, "mouth.match.iterations": 3, "mouth.match.checkpoint_every": 2,
    }  # fmt: skip
    small.config = load_config("smoke", {**steps_of, "whole.densify_at": [4]})
    small.resources = generator.resources
    job, unbroken, stopped = PortraitJob("x", "a girl", 3), Store(str(tmp_path / "a")), Store(str(tmp_path / "b"))
    row = small.run(job, unbroken, "1")
    events: list[ProgressEvent] = []
    for attempt, (stage, step) in enumerate([("eyes", 130), ("mouth", 3), ("whole", 3), ("refine", 130)]):
        at = lambda: events[-1].stage == stage and events[-1].step >= step  # noqa: E731, B023
        assert small.run(job, stopped, str(attempt), on_progress=events.append, should_stop=at)["status"] == "stopped"
    assert small.run(job, stopped, "last")["status"] == "done"
    resumed = small.run(job, stopped, "again")
    assert [s["unet_evaluations"] for s in resumed["stages"]] == [s["unet_evaluations"] for s in row["stages"]]
    files = [Path(s.path(row["uri_bundle"], "splats.ply")).read_bytes() for s in (unbroken, stopped)]
    assert files[0] == files[1]


def test_progress_is_reported_for_every_stage(generator: Generator, tmp_path: Path) -> None:
    events: list[ProgressEvent] = []
    small = Generator.__new__(Generator)
    small.config = load_config("smoke", {"initialise.iterations": 3, "whole.iterations": 1, "refine.iterations": 2})
    small.resources = generator.resources
    small.run(PortraitJob("x", "a girl", 0), Store(str(tmp_path)), "a", on_progress=events.append)
    assert list(dict.fromkeys(e.stage for e in events)) == STAGES
    assert all(0 <= e.step <= e.steps for e in events)


@pytest.mark.slow
def test_equal_seeds_give_equal_avatars(generator: Generator, tmp_path: Path) -> None:
    rows = [
        generator.run(PortraitJob("x", "a girl with a bun", 5), Store(str(tmp_path / str(i))), "a") for i in range(2)
    ]
    first, second = ((tmp_path / str(i) / r["uri_bundle"] / "splats.ply").read_bytes() for i, r in enumerate(rows))
    assert first == second
