"""One small avatar for all exports."""

import json
from pathlib import Path

import pytest
import torch

from ap3d.rig.protocol import RigParams
from ap3d.splats.bundle import Bundle
from ap3d.splats.ply import write_local
from ap3d.tensor_files import pack_tensors
from tests.export.export_helpers import painted_bundle


@pytest.fixture(scope="session")
def painted(rig) -> Bundle:  # type: ignore[no-untyped-def]
    """6000 Gaussians with harmonics of degree 2."""
    return painted_bundle(rig, 6000, 2)


@pytest.fixture(scope="session")
def posed(painted: Bundle) -> RigParams:
    """Mouth open, one eye closed, head turned by 35 degrees."""
    expression = torch.zeros(1, 52)
    for name, value in (("jawOpen", 0.7), ("eyeBlinkLeft", 1.0)):
        expression[0, painted.rig.expression_names.index(name)] = value
    return painted.params.replace(expression=expression, head=torch.tensor([[0.1, 0.6, 0.1]]))


@pytest.fixture(scope="session")
def folder(painted: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same bundle on disk."""
    path = tmp_path_factory.mktemp("bundle")
    (path / "splats.ply").write_bytes(write_local(painted.avatar))
    (path / "rig.safetensors").write_bytes(pack_tensors(painted.params.tensors()))
    (path / "avatar.json").write_text(json.dumps(dict(painted.facts)))
    return path
