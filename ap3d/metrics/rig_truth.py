"""How far a fitted rig, and the landmarks that it was fitted to, lie from a known truth."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ap3d.cameras import portrait3d_camera
from ap3d.fitting.landmarks import INNER
from ap3d.fitting.triangulation import SpatialLandmarks
from ap3d.perception.mesh_topology import ibug_points
from ap3d.rig.protocol import Rig, RigParams

FACE = ("face", "lips")
PIXELS = 512


@dataclass(frozen=True)
class RigErrors:
    """Means over vertices or landmarks.

    Attributes:
        face_mm: distance of corresponding vertices of the face, millimetres (world units over the truth's scale).
        scalp_mm, torso_mm: the same where hair and clothes hide the rig.
        landmarks_px: distance of the rig's 68 landmarks in Portrait3D's front view of 512 pixels.
        inner_px: of the 51 without the jaw line.
        detector_px: of the triangulated detections from the truth's 51 landmarks.
    """

    face_mm: float
    scalp_mm: float
    torso_mm: float
    landmarks_px: float
    inner_px: float
    detector_px: float


def rig_errors(rig: Rig, fitted: RigParams, truth: RigParams, landmarks: SpatialLandmarks) -> RigErrors:
    """Compare a fit with the parameters that the portrait was made from (batches of one)."""
    ours, theirs = rig.vertices(fitted)[0], rig.vertices(truth)[0]
    distance = (ours - theirs).norm(dim=1) / float(truth.scale[0, 0]) * 1000
    wanted = rig.landmarks(truth)[0]
    pixels = _pixel_distance(rig.landmarks(fitted)[0], wanted)
    found = _pixel_distance(ibug_points(landmarks.points), wanted)
    inner = slice(INNER.start, INNER.stop)
    return RigErrors(
        _mean(rig, distance, FACE), _mean(rig, distance, ("scalp",)), _mean(rig, distance, ("torso",)),
        float(pixels[:68].mean()), float(pixels[inner].mean()), float(found[inner].mean()),
    )  # fmt: skip


def _mean(rig: Rig, values: Tensor, regions: tuple[str, ...]) -> float:
    ids = torch.unique(rig.faces[torch.cat([rig.regions[name] for name in regions])])
    return float(values[ids].mean())


def _pixel_distance(points: Tensor, others: Tensor) -> Tensor:
    camera = portrait3d_camera(90, 90, size=PIXELS)
    return (camera.project(points)[0] - camera.project(others)[0]).norm(dim=-1)[0]
