"""Synthetic body models for imported avatars."""

from pathlib import Path

import pytest

from tests.rig.synthetic_models import write_flame, write_smplx


@pytest.fixture(scope="session")
def flame_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flame(tmp_path_factory.mktemp("flame") / "flame2023.pkl", 2023)


@pytest.fixture(scope="session")
def smplx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_smplx(tmp_path_factory.mktemp("smplx") / "SMPLX_NEUTRAL_2020.npz")


@pytest.fixture(scope="session")
def flame(flame_file: Path):  # type: ignore[no-untyped-def]
    from ap3d.rig import load_rig

    return load_rig(str(flame_file))


@pytest.fixture(scope="session")
def smplx(smplx_file: Path):  # type: ignore[no-untyped-def]
    from ap3d.rig import load_rig

    return load_rig(str(smplx_file))
