"""Our skinning against the `smplx` package's, on the same synthetic files."""

from pathlib import Path

import pytest
import torch

from ap3d.rig import load_rig
from ap3d.rig.body_model import BodyModelRig
from ap3d.rig.protocol import Rig, RigParams
from tests.rig import synthetic_models as synthetic
from tests.rig.test_body_model import random_params

smplx = pytest.importorskip("smplx")


def unscaled(rig: Rig, params: RigParams, count: int) -> torch.Tensor:
    """Our vertices in metres, without the mouth's parts."""
    return (rig.vertices(params)[:, :count] - params.translation[:, None]) / params.scale[:, None]


def test_flame(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "FLAME_NEUTRAL.pkl").symlink_to(model_folder / "flame2023.pkl")
    synthetic.write_companions(tmp_path)
    model = smplx.FLAME(str(tmp_path), num_betas=300, num_expression_coeffs=100, batch_size=2, ext="pkl")
    rig = load_rig(str(model_folder / "flame2023.pkl"))
    params = random_params(rig)
    expected = model(
        betas=params.shape, expression=params.expression, global_orient=params.neck, neck_pose=params.head,
        jaw_pose=params.jaw, leye_pose=params.eyes[:, :3], reye_pose=params.eyes[:, 3:],
    ).vertices  # fmt: skip
    assert torch.allclose(unscaled(rig, params, 5023), expected, atol=2e-6)


def test_smplx(model_folder: Path, tmp_path: Path, smplx_rig: BodyModelRig) -> None:
    (tmp_path / "SMPLX_NEUTRAL.npz").symlink_to(model_folder / "SMPLX_NEUTRAL_2020.npz")
    model = smplx.SMPLX(
        str(tmp_path), num_betas=300, num_expression_coeffs=100, batch_size=2, use_pca=False, flat_hand_mean=True
    )
    params = random_params(smplx_rig)
    body = torch.zeros(2, 21, 3)
    body[:, 11], body[:, 14] = params.neck, params.head
    body[:, 15, 2], body[:, 16, 2] = -torch.pi / 3, torch.pi / 3
    expected = model(
        betas=params.shape, expression=params.expression, body_pose=body.flatten(1), jaw_pose=params.jaw,
        leye_pose=params.eyes[:, :3], reye_pose=params.eyes[:, 3:],
    ).vertices  # fmt: skip
    kept = smplx_rig.crop.vertices
    assert torch.allclose(unscaled(smplx_rig, params, len(kept)), expected[:, kept], atol=2e-6)
