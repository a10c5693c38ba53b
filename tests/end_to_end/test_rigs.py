"""An avatar on a body model of the user's, here a synthetic SMPL-X."""

import json
from pathlib import Path

import pytest
import torch

from ap3d.cli import main
from ap3d.config import load_config
from ap3d.errors import InputError
from ap3d.preflight import check_models
from ap3d.splats.bundle import load_bundle
from tests.rig import synthetic_models as synthetic


def test_a_rig_of_the_users_has_no_shape_prior() -> None:
    assert load_config("smoke", {"models.rig": "flame2023"}).models.shape_prior is None
    assert load_config("smoke").models.shape_prior == "builtin"


def test_a_missing_rig_is_named_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="does not exist"):
        check_models(load_config("smoke", {"models.rig": "none/SMPLX_NEUTRAL_2020.npz"}))
    out = tmp_path / "bundle"
    assert main(["generate", "a woman", "--preset", "smoke", "--rig", "none.npz", "--out", str(out)]) == 2
    assert "none.npz does not exist" in capsys.readouterr().err and not out.exists()


@pytest.mark.slow
def test_an_smplx_avatar_is_made_and_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = synthetic.write_smplx(tmp_path / "SMPLX_NEUTRAL_2020.npz")
    out = tmp_path / "bundle"
    assert main(["generate", "an old man", "--preset", "smoke", "--rig", str(model), "--out", str(out)]) == 0
    facts = json.loads((out / "avatar.json").read_text())
    assert (facts["rig"], facts["expression_basis"]) == ("smplx2020", "flame2020")
    assert min(facts["groups"][name] for name in ("skin", "hair", "eyes", "teeth", "clothes")) > 100
    monkeypatch.setenv("AP3D_RIGS", str(tmp_path))
    bundle = load_bundle(str(out))
    still = bundle.pose(bundle.params).means
    opened = bundle.pose(bundle.params.replace(jaw=torch.tensor([[0.35, 0.0, 0.0]]))).means
    assert 0.03 < float((opened - still).norm(dim=1).max()) < 0.3
    assert main(["inspect", str(out)]) == 0
