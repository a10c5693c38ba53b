"""From the shipped tri-grid to an animated bundle."""

import json
from pathlib import Path

import pytest

import ap3d
from ap3d.cli import main

EXAMPLE = Path(ap3d.__file__).parent / "builtin" / "portrait3d" / "000.pth"


@pytest.mark.slow
def test_the_example_becomes_an_avatar(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ["generate", "--portrait", str(EXAMPLE), "--preset", "smoke", "--out", str(out), "--threads", "1"]
    assert main(command) == 0
    facts = json.loads((out / "avatar.json").read_text())
    assert facts["prompt"] == (EXAMPLE.parent / "000.txt").read_text().strip()
    assert facts["licences"]["portrait"] and facts["metrics"]["held_out_psnr"] > 20
    assert facts["groups"]["hair"] > 500 and facts["metrics"]["fit_landmarks_mm"] < 6
    assert (out / "talking.mp4").stat().st_size > 1000
    # The same again is done already; another portrait is not written over it.
    assert main(command) == 0
    assert main(["generate", "a bald man", "--preset", "smoke", "--out", str(out)]) == 2
    assert "another avatar" in capsys.readouterr().err


def test_a_portrait_that_is_no_trigrid_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.pth").write_bytes(b"not a portrait")
    out = tmp_path / "out"
    assert main(["generate", "--portrait", str(tmp_path / "a.pth"), "--out", str(out)]) == 2
    assert "a.txt is missing" in capsys.readouterr().err
    assert main(["generate", "--out", str(out)]) == 2
    assert "--portrait" in capsys.readouterr().err and not out.exists()
