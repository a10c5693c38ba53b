"""The ``ap3d`` command as a user types it."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

from ap3d.animation import bundle_camera
from ap3d.cli import main
from ap3d.motion.procedural import PROCEDURAL, talking
from ap3d.splats.bundle import load_bundle


def test_help_and_import_are_quick_and_load_no_heavy_package() -> None:
    code = "import sys, ap3d.cli; print(sorted({'torch', 'ray', 'diffusers', 'transformers'} & sys.modules.keys()))"
    started = time.perf_counter()
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]" and time.perf_counter() - started < 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "", "--out", "x"], "empty"),
        (["generate", " \n ", "--out", "x"], "empty"),
        (["generate", "a" * 10000, "--out", "x"], "10,000 characters"),
        (["generate", "a\0man", "--out", "x"], "control character"),
        (["generate", "a man", "--out", "x", "--preset", "huge"], "unknown preset 'huge'"),
        (["generate", "a man", "--out", "x", "--seed", "-1"], "seed"),
        (["generate", "a man", "--out", "x", "--threads", "0"], "threads"),
        (["generate", "a man", "--out", "x", "--abstract-prompt", " "], "the abstract prompt is empty"),
        (["generate", "a man", "--out", "x", "--set", "nothing=1"], "unknown configuration field"),
        (["generate", "a man", "--out", "x", "--set", "views.steps=many"], "must be a int"),
        (["generate", "a man", "--out", "x", "--set", "models.diffusion=/nowhere"], "does not exist"),
        (["generate", "a man", "--out", "x", "--config", "missing.yaml"], "cannot read configuration"),
        (["generate", "a man", "--out", "/proc/nowhere"], "cannot write"),
        (["generate", "a man", "--out", "x.zip"], "must be a folder"),
        (["animate", "nowhere", "--out", "x.mp4"], "not an avatar bundle"),
        (["animate", "nowhere", "--out", "x.avi"], "must end in .mp4"),
        (["animate", "nowhere", "--out", "x.mp4", "--size", "7"], "--size"),
        (["inspect", "nowhere"], "not an avatar bundle"),
    ],
)
def test_bad_input_is_one_line_with_status_2(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("avatar.json"))


def test_animate_writes_a_video_in_which_mouth_and_eyes_move(
    made: tuple[Path, dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[type-arg]
    """Head and neck are held still, so that only the face can move the pixels of the face."""
    still = lambda *a: (lambda m: replace(m, head=0 * m.head, neck=0 * m.neck))(talking(*a))  # noqa: E731
    monkeypatch.setitem(PROCEDURAL, "talk", still)
    video = tmp_path / "talk.mp4"
    assert main(["animate", str(made[0]), "--out", str(video), "--size", "256", "--seconds", "2"]) == 0
    frames = imageio.imread(video).astype(float)
    assert frames.shape == (50, 256, 256, 3)
    moved = np.abs(frames - frames[:1]).mean((0, 3))
    bundle = load_bundle(str(made[0]))
    pixels, _ = bundle_camera(bundle, 0.0, 2.0, 256).project(bundle.rig.landmarks(bundle.params)[0])
    patch = lambda point: moved[int(point[1]) - 6 : int(point[1]) + 7, int(point[0]) - 8 : int(point[0]) + 9].mean()  # noqa: E731
    forehead = patch(pixels[0, 27] - torch.tensor([0.0, 40.0]))
    for name, index in (("mouth", 66), ("right eye", 68), ("left eye", 69)):
        assert patch(pixels[0, index]) > 20 * forehead + 0.5, name


def test_animate_takes_an_arkit_csv(made: tuple[Path, dict], tmp_path: Path) -> None:  # type: ignore[type-arg]
    capture = tmp_path / "capture.csv"
    capture.write_text("JawOpen,EyeBlinkLeft\n0,0\n0.5,1\n1,0\n")
    video = tmp_path / "capture.mp4"
    assert main(["animate", str(made[0]), "--motion", str(capture), "--out", str(video), "--size", "64"]) == 0
    assert len(imageio.imread(video)) == 3
    capture.write_text("JawOpen\nwide\n")
    assert main(["animate", str(made[0]), "--motion", str(capture), "--out", str(video)]) == 2


def test_inspect_says_what_the_bundle_holds(made: tuple[Path, dict], capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[type-arg]
    assert main(["inspect", str(made[0])]) == 0
    shown = capsys.readouterr().out
    assert "an old man with short gray hair" in shown and "splats.ply" in shown and "CC0" in shown


def test_damaged_bundles_are_refused(
    made: tuple[Path, dict], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # type: ignore[type-arg]
    for name in ("rig.safetensors", "splats.ply", "avatar.json"):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        for file in made[0].iterdir():
            data = file.read_bytes()
            (folder / file.name).write_bytes(data[: len(data) // 2] if file.name == name else data)
        assert main(["inspect", str(folder)]) == 2
        capsys.readouterr()
        assert main(["animate", str(folder), "--out", str(tmp_path / "x.mp4")]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
