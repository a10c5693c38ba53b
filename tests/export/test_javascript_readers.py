"""Khronos' own validator and three.js on our glTF files.

Skipped unless ``npm install --no-save gltf-validator three`` was run in the checkout (three 0.187 or newer).
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ap3d.export.gaussians import export_gaussians
from ap3d.export.mesh_glb import export_mesh
from ap3d.export.mesh_reader import read_mesh
from ap3d.rig.protocol import RigParams
from ap3d.rig.skinning import axis_angle_matrix
from ap3d.splats.bundle import Bundle
from tests.export.export_helpers import covariances, nodding_motion

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
const data = new Uint8Array(require('fs').readFileSync(process.argv[1]));
require('gltf-validator').validateBytes(data, {maxIssues: 0}).then(r => console.log(JSON.stringify(r.issues)));
"""
THREE_SPLATS = "three/examples/jsm/loaders/GLTFGaussianSplatLoaderExtension.js"


def needs(path: str) -> pytest.MarkDecorator:
    """Skip where node or a file of its packages is absent."""
    absent = shutil.which("node") is None or not (ROOT / "node_modules" / path).exists()
    return pytest.mark.skipif(absent, reason="needs node and `npm install --no-save gltf-validator three`")


needs_validator = needs("gltf-validator")


def issues(data: bytes, folder: Path) -> list[dict[str, Any]]:
    """What the validator has to say, informative notes included."""
    path = folder / "file.glb"
    path.write_bytes(data)
    run = subprocess.run(["node", "-e", PROGRAM, str(path)], cwd=ROOT, capture_output=True, text=True, check=True)
    found: list[dict[str, Any]] = json.loads(run.stdout)["messages"]
    return found


@needs_validator
def test_the_rigged_mesh_has_no_issues(painted: Bundle, tmp_path: Path) -> None:
    motion = nodding_motion(painted, 10, 10.0)
    assert issues(export_mesh(painted, painted.params, motion, texture_size=64), tmp_path) == []


@needs_validator
def test_gaussians_have_no_issues_but_the_extension_that_the_validator_does_not_know(
    painted: Bundle, tmp_path: Path
) -> None:
    """Under names that the base specification allows, every accessor is in order."""
    data = export_gaussians(painted, painted.params, "glb")
    known = {"UNSUPPORTED_EXTENSION", "MESH_PRIMITIVE_INVALID_ATTRIBUTE"}
    found = issues(data, tmp_path)
    assert {i["code"] for i in found} <= known
    assert all("KHR_gaussian_splatting" in i["message"] + i["pointer"] for i in found)
    plain = data.replace(b'"KHR_gaussian_splatting:', b'"_KHR_gaussian_splattin_')
    assert {i["code"] for i in issues(plain, tmp_path)} <= {"UNSUPPORTED_EXTENSION"}


def read_with_three(data: bytes, folder: Path, *arguments: str) -> dict[str, Any]:
    """What three.js holds after loading a file."""
    path = folder / "file.glb"
    path.write_bytes(data)
    command = ["node", str(Path(__file__).with_name("read_with_three.mjs")), str(path), *arguments]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


@needs(THREE_SPLATS)
def test_three_holds_the_same_gaussians(painted: Bundle, posed: RigParams, tmp_path: Path) -> None:
    attributes = read_with_three(export_gaussians(painted, posed, "glb"), tmp_path)["attributes"]
    splats = painted.pose(posed)
    scale = float(posed.scale)
    array = lambda name, width: torch.tensor(attributes[name]).reshape(-1, width)  # noqa: E731
    torch.testing.assert_close(array("position", 3), splats.means / scale, atol=1e-6, rtol=1e-5)
    rows, columns = torch.triu_indices(3, 3)
    expected = covariances(splats)[:, rows, columns] / scale**2
    torch.testing.assert_close(array("covariance", 6), expected, atol=1e-9, rtol=1e-3)
    torch.testing.assert_close(array("color", 4)[:, 3] / 255, splats.opacities, atol=3e-3, rtol=0)
    assert {"sphericalHarmonics1", "sphericalHarmonics2"} <= set(attributes)


@needs(THREE_SPLATS)
def test_three_poses_the_mesh_as_our_reader_does(painted: Bundle, tmp_path: Path) -> None:
    data = export_mesh(painted, painted.params, nodding_motion(painted, 5, 10.0), texture_size=64)
    found, mesh = read_with_three(data, tmp_path, "jawOpen", "0.5"), read_mesh(data)
    assert found["morphs"] == {name: index for index, name in enumerate(mesh.target_names)}
    assert found["tracks"] == [len(mesh.parts) + 1]  # weights of each part, rotation of the head
    weights = np.array([float(name == "jawOpen") for name in mesh.target_names])
    turn = axis_angle_matrix(torch.tensor([0.0, 0.5, 0.0])).numpy()
    for theirs, ours in zip(found["vertices"], mesh.vertices(weights, {"head": turn}), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-6)
