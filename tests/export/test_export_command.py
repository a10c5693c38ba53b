"""``ap3d export`` as a user types it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ap3d.cli import main
from ap3d.export import FORMATS
from ap3d.export.gaussians import export_gaussians, import_gaussians, with_expression
from ap3d.export.mesh_reader import read_mesh
from ap3d.splats.bundle import Bundle
from tests.export.export_helpers import covariances, ply_columns


def test_every_format_is_written(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, chosen in FORMATS.items():
        out = tmp_path / f"x{chosen.suffix}"
        assert main(["export", str(folder), "--format", name, "--out", str(out)]) == 0
        assert len(chosen.load().read(out.read_bytes())) == 6000
        assert "6,000 Gaussians" in capsys.readouterr().out


def test_expression_and_head_reach_the_file(painted: Bundle, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.ply"
    arguments = ["--expression", "smile=0.5,jawOpen", "--head", "10", "30", "0"]
    assert main(["export", str(folder), "--format", "ply", "--out", str(out), *arguments]) == 0
    smiling = with_expression(painted.rig, painted.params, "jawOpen=1, smile=0.5")
    assert float(smiling.expression[0, painted.rig.expression_names.index("mouthSmileLeft")]) == pytest.approx(0.4)
    head = torch.deg2rad(torch.tensor([[10.0, 30.0, 0.0]]))
    expected = painted.pose(smiling.replace(head=head))
    again = import_gaussians(out.read_bytes(), "ply")
    torch.testing.assert_close(again.means, expected.means, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(covariances(again), covariances(expected), atol=1e-6, rtol=1e-3)


def test_one_frame_of_a_motion_reaches_the_file(painted: Bundle, folder: Path, tmp_path: Path) -> None:
    capture, out = tmp_path / "capture.csv", tmp_path / "x.ply"
    capture.write_text("JawOpen,EyeBlinkLeft\n0,0\n0.5,1\n")
    arguments = ["--motion", str(capture), "--frame", "1", "--axes", "y-up"]
    assert main(["export", str(folder), "--format", "ply", "--out", str(out), *arguments]) == 0
    params = with_expression(painted.rig, painted.params, "jawOpen=0.5,eyeBlinkLeft")
    means = torch.from_numpy(ply_columns(out.read_bytes(), "x", "y", "z")).float()
    torch.testing.assert_close(means, painted.pose(params).means, atol=1e-5, rtol=1e-5)


def test_mesh_takes_a_whole_motion(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.glb"
    arguments = ["--motion", "talk", "--texture-size", "64"]
    assert main(["export", str(folder), "--format", "mesh-glb", "--out", str(out), *arguments]) == 0
    assert "100 frames of motion" in capsys.readouterr().out
    assert len(read_mesh(out.read_bytes()).target_names) == 52


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "obj", "--out", "x.obj"], "unknown format 'obj'; there are: ply, splat, spz, glb, mesh-glb"),
        (["--format", "ply", "--out", "x.splat"], "--out must end in .ply"),
        (["--format", "ply", "--out", "x.ply", "--expression", "grimace"], "has no expression 'grimace'"),
        (["--format", "ply", "--out", "x.ply", "--seed", "9" * 20], "seed"),
        (["--format", "ply", "--out", "x.ply", "--expression", "jawOpn"], "like it: jawOpen"),
        (["--format", "ply", "--out", "x.ply", "--expression", "smile=much"], "must be a number"),
        (["--format", "ply", "--out", "x.ply", "--expression", "smile=nan"], "must be a number"),
        (["--format", "ply", "--out", "x.ply", "--axes", "sideways"], "unknown axes"),
        (["--format", "spz", "--out", "x.spz", "--axes", "y-down"], "fixes its axes"),
        (["--format", "mesh-glb", "--out", "x.glb", "--axes", "z-up"], "fixes its axes"),
        (["--format", "mesh-glb", "--out", "x.glb", "--texture-size", "9999"], "--texture-size"),
        (["--format", "ply", "--out", "x.ply", "--frame", "2"], "--frame needs --motion"),
        (["--format", "ply", "--out", "x.ply", "--motion", "talk", "--frame", "9999"], "--frame must lie from 0 to 99"),
        (["--format", "ply", "--out", "x.ply", "--motion", "talk", "--expression", "smile"], "exclude each other"),
        (["--format", "mesh-glb", "--out", "x.glb", "--motion", "talk", "--seconds", "0"], "--seconds"),
        (["--format", "mesh-glb", "--out", "x.glb", "--motion", "wink.csv"], "cannot read motion"),
        (["--format", "ply", "--out", "x.ply", "--head", "0", "200", "0"], "--head"),
        (["--format", "ply", "--out", "/proc/x.ply"], "cannot write"),
    ],
)
def test_bad_options_are_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(folder), *arguments]) in (2, 3)
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1
    assert not list(tmp_path.glob("x.*"))


def test_damaged_bundles_are_one_line(
    painted: Bundle, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ap3d.splats.ply import write_local

    for name in ("splats.ply", "rig.safetensors", "avatar.json", "nan"):
        broken = tmp_path / name.replace(".", "-")
        broken.mkdir()
        for file in folder.iterdir():
            data = file.read_bytes()
            (broken / file.name).write_bytes(data[: len(data) // 2] if file.name == name else data)
        if name == "nan":
            xyz = painted.avatar.xyz.clone()
            xyz[5, 1] = float("nan")
            (broken / "splats.ply").write_bytes(write_local(replace(painted.avatar, xyz=xyz)))
        assert main(["export", str(broken), "--format", "ply", "--out", str(tmp_path / "x.ply")]) in (1, 2)
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert main(["export", str(tmp_path / "none"), "--format", "ply", "--out", str(tmp_path / "x.ply")]) == 2
    assert not (tmp_path / "x.ply").exists()


def test_a_bundles_world_ply_is_the_neutral_export(painted: Bundle) -> None:
    ours, exported = (ply_columns(d, "x", "y", "z", "f_rest_3") for d in
                      (painted.files()["world.ply"], export_gaussians(painted, painted.params, "ply")))  # fmt: skip
    np.testing.assert_allclose(ours, exported, atol=1e-4)
