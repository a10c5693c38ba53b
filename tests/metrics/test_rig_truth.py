import pytest
import torch

from ap3d.fitting.triangulation import SpatialLandmarks
from ap3d.metrics.rig_truth import rig_errors
from ap3d.perception.mesh_topology import IBUG
from ap3d.rig import load_rig
from ap3d.rig.protocol import RigParams


def test_a_shifted_rig_is_off_by_the_shift() -> None:
    rig = load_rig()
    truth = RigParams.neutral(rig)
    millimetres = torch.tensor([[5.0, 0.0, 0.0]]) * 0.001 * rig.default_scale
    mesh = torch.zeros(478, 3)
    mesh[list(IBUG)] = rig.landmarks(truth)[0]
    found = SpatialLandmarks(mesh, torch.zeros(478), [0, 1], 0.0)
    errors = rig_errors(rig, truth.replace(translation=truth.translation + millimetres), truth, found)
    assert errors.face_mm == pytest.approx(5, rel=1e-3) and errors.torso_mm == pytest.approx(5, rel=1e-3)
    assert errors.detector_px < 0.01
    # 955.4 pixels of focal length over some 2.4 to 2.6 units to the face.
    assert 5 * 0.00278 * 955.4 / 2.7 < errors.inner_px < 5 * 0.00278 * 955.4 / 2.3
