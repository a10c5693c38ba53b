"""``ap3d animate`` on an avatar whose rig is the user's SMPL-X file."""

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from ap3d.cli import main
from ap3d.rig.body_model import BodyModelRig
from tests.motion import layouts
from tests.tiny_avatar import write_tiny_bundle


def test_all_motion_families_play_on_an_smplx_avatar(
    model_folder: Path, smplx_rig: BodyModelRig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(model_folder / "SMPLX_NEUTRAL_2020.npz")
    bundle = str(write_tiny_bundle(tmp_path / "body", smplx_rig, 1500))
    parts, weights = layouts.flame(4), np.abs(layouts.wave(4, 52))
    weights[:, 17] = np.linspace(0, 1, 4)  # jawOpen
    families = {
        "arkit": (layouts.audio2face(tmp_path / "a.json", weights), [], "jawOpen"),
        "vhap": (layouts.vhap_tracked(tmp_path / "v.npz", parts), ["--basis", "flame2020"], ""),
        "animportrait3d": (layouts.animportrait3d(tmp_path / "pair", parts), [], ""),
        "smplx": (layouts.beat2(tmp_path / "b.npz", parts), [], ""),
    }
    for name, (file, more, note) in families.items():
        out = tmp_path / f"{name}.mp4"
        full = ["animate", bundle, "--rig", model, "--motion", str(file), "--out", str(out), "--size", "64", *more]
        assert main(full) == 0, capsys.readouterr().err
        said, frames = capsys.readouterr().err, imageio.imread(out).astype(float)
        assert len(frames) == 4 and np.abs(frames[3] - frames[0]).max() > 20
        assert note in said and "coefficients were dropped" not in said
    assert main(["animate", bundle, "--rig", model, "--motion", str(families["vhap"][0]), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "flame2023" in error and "flame2020" in error and "--basis" in error
    assert main(["animate", bundle, "--out", str(out)]) == 2 and "--rig" in capsys.readouterr().err
