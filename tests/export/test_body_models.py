"""Exports of an avatar on SMPL-X, from a synthetic model file of the true shape."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from ap3d.animation import bundle_camera, render
from ap3d.cli import main
from ap3d.export.gaussians import export_gaussians, import_gaussians, with_expression
from ap3d.export.mesh_glb import export_mesh
from ap3d.export.mesh_reader import RiggedMesh, read_mesh
from ap3d.rig import load_rig
from ap3d.rig.protocol import RigParams
from ap3d.rig.skinning import axis_angle_matrix
from ap3d.splats.avatar import Group
from ap3d.splats.bundle import Bundle
from tests.export.export_helpers import painted_bundle, psnr
from tests.rig.synthetic_models import write_smplx


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of SMPL-X 2020's shapes."""
    return write_smplx(tmp_path_factory.mktemp("model") / "SMPLX_NEUTRAL_2020.npz")


@pytest.fixture(scope="module")
def bundle(model_file: Path) -> Bundle:
    """SMPL-X 2020 in colours."""
    return painted_bundle(load_rig(str(model_file)), 5000, 1)


def test_the_command_takes_the_users_model_file(
    bundle: Bundle, model_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle.save(str(tmp_path / "bundle"))
    command = ["export", str(tmp_path / "bundle"), "--format", "ply", "--out", str(tmp_path / "x.ply")]
    assert main([*command, "--rig", str(model_file), "--expression", "smile,expression_003=0.5"]) == 0
    expected = bundle.pose(with_expression(bundle.rig, bundle.params, "smile,expression_003=0.5")).means
    means = import_gaussians((tmp_path / "x.ply").read_bytes(), "ply").means
    torch.testing.assert_close(means, expected, atol=1e-5, rtol=1e-5)
    (tmp_path / "x.ply").unlink()
    glb = ["export", str(tmp_path / "bundle"), "--format", "mesh-glb", "--out", str(tmp_path / "x.glb")]
    assert main([*glb, "--rig", str(model_file), "--texture-size", "64"]) == 0
    assert "with 154 morph targets" in capsys.readouterr().out  # 52 of ARKit, 100 coefficients, two lids
    assert main(command) == 2 and not (tmp_path / "x.ply").exists()
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def posed(bundle: Bundle) -> RigParams:
    expression = 0.5 * torch.randn(1, 100, generator=torch.Generator().manual_seed(1))
    turns = {"jaw": (0.25, 0.0, 0.0), "head": (0.1, 0.5, 0.0), "eyes": (0.0, 0.2, 0.0, 0.0, 0.2, 0.0)}
    pose = {name: torch.tensor([turn]) for name, turn in turns.items()}
    return bundle.params.replace(expression=expression, eyelids=torch.tensor([[1.0, 0.0]]), **pose)


def test_posed_gaussians_look_the_same_after_reloading(bundle: Bundle, posed: RigParams) -> None:
    camera = bundle_camera(bundle, 20.0, 5.0, 160)
    expected = render(bundle.pose(posed), camera, bundle.background, 1)
    for name, least in (("ply", 60), ("glb", 60), ("spz", 30)):
        data = export_gaussians(bundle, posed, name)
        again = import_gaussians(data, name, units_per_metre=float(posed.scale))
        assert psnr(render(again, camera, bundle.background, 1), expected) >= least


@pytest.fixture(scope="module")
def mesh(bundle: Bundle, posed: RigParams) -> RiggedMesh:
    """Without the shirt, which would lie above the rig's surface."""
    avatar = bundle.avatar.select(bundle.avatar.group != Group.CLOTHES)
    return read_mesh(export_mesh(replace(bundle, avatar=avatar), posed, texture_size=64))


def _turns(params: RigParams) -> dict[str, np.ndarray]:
    turns = {name: axis_angle_matrix(getattr(params, name))[0].numpy() for name in ("neck", "head", "jaw")}
    left, right = axis_angle_matrix(params.eyes.reshape(2, 3)).numpy()
    return turns | {"left_eye": left, "right_eye": right}


@pytest.mark.parametrize(("names", "millimetres"), [(["expression", "eyes"], 0.1), (["eyelids"], 0.1), (["jaw"], 5)])
def test_skinned_as_gltf_prescribes_the_mesh_is_the_rig(
    bundle: Bundle, mesh: RiggedMesh, posed: RigParams, names: list[str], millimetres: float
) -> None:
    """A turning jaw or head misses SMPL-X' pose correctives, which glTF cannot express."""
    params = bundle.params.replace(**{name: getattr(posed, name) for name in names})
    weights = torch.cat([torch.zeros(1, 52), params.expression, params.eyelids], 1)[0].numpy()
    expected = cKDTree(bundle.rig.vertices(params)[0].numpy() / float(params.scale))
    for vertices in mesh.vertices(weights, _turns(params)):
        assert 1000 * expected.query(vertices)[0].max() < millimetres


def test_arkit_actions_are_morph_targets_of_every_rig(bundle: Bundle, mesh: RiggedMesh) -> None:
    """At full strength a target is the rig's own shape for that action: the jaw opens, a lid closes, a smile."""
    params = with_expression(bundle.rig, bundle.params, "jawOpen,eyeBlinkLeft,mouthSmileRight")
    assert float(params.jaw[0, 0]) > 0.2 and float(params.eyelids[0, 0]) == 1 and bool(params.expression.any())
    for name in ("jawOpen", "eyeBlinkLeft", "mouthSmileRight"):
        posed = bundle.rig.vertices(with_expression(bundle.rig, bundle.params, name))[0].numpy()
        weights = np.array([float(target == name) for target in mesh.target_names])
        expected = cKDTree(posed / float(bundle.params.scale))
        assert max(expected.query(vertices)[0].max() for vertices in mesh.vertices(weights, {})) < 1e-4, name


def test_jaw_and_eyes_are_joints_and_lids_are_morph_targets(mesh: RiggedMesh, posed: RigParams) -> None:
    assert mesh.joint_names == ["root", "neck", "head", "jaw", "left_eye", "right_eye"]
    assert len(mesh.target_names) == 154 and mesh.target_names[-2:] == ["eyelid_left", "eyelid_right"]
    assert mesh.default_weights[-2:].tolist() == [1.0, 0.0]
    for name, turn in _turns(posed).items():
        w = mesh.default_rotations.get(name, np.array([0.0, 0, 0, 1]))[3]
        assert np.trace(turn) == pytest.approx(4 * w * w - 1, abs=1e-5), name
