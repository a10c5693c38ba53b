"""Khronos' own validator on our glTF files; skipped unless ``npm install gltf-validator`` was run in the checkout."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from export_helpers import nodding_motion

from ap3d.export.gaussians import export_gaussians
from ap3d.export.mesh_glb import export_mesh
from ap3d.splats.bundle import Bundle

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
const data = new Uint8Array(require('fs').readFileSync(process.argv[1]));
require('gltf-validator').validateBytes(data, {maxIssues: 0}).then(r => console.log(JSON.stringify(r.issues)));
"""
needs_validator = pytest.mark.skipif(
    shutil.which("node") is None or not (ROOT / "node_modules" / "gltf-validator").is_dir(),
    reason="needs node and `npm install gltf-validator`",
)


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
