"""Synthetic body models, written and loaded once."""

from pathlib import Path

import pytest

from ap3d.rig.body_model import BodyModelRig
from tests.rig import synthetic_models as synthetic


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SMPL-X 2020, FLAME 2020 with chumpy objects, FLAME 2023 without."""
    path = tmp_path_factory.mktemp("models")
    synthetic.write_smplx(path / "SMPLX_NEUTRAL_2020.npz")
    synthetic.write_flame(path / "generic_model.pkl")
    synthetic.write_flame(path / "flame2023.pkl", 2023, chumpy=False)
    return path


@pytest.fixture(scope="session")
def smplx_rig(model_folder: Path) -> BodyModelRig:
    """SMPL-X 2020."""
    return BodyModelRig.load(model_folder / "SMPLX_NEUTRAL_2020.npz")


@pytest.fixture(scope="session")
def flame_rig(model_folder: Path) -> BodyModelRig:
    """FLAME 2020, without companions."""
    return BodyModelRig.load(model_folder / "generic_model.pkl")
