"""The framings full, face, left_eye, right_eye and mouth: where they lie in the full frame, and the full frame itself.

Sizes are relative to the head's own height, so that a framing shows the same part of every head at any distance. The
proportions follow AnimPortrait3D's crops (512, 200 and 116 pixels of 896 with the head at about half the height); its
face crop is a little wider than ours, which is the head's height.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ap3d.cameras import Cameras, orbit
from ap3d.errors import InputError
from ap3d.rig.protocol import Rig
from ap3d.training.attributes import FRAMINGS

FOV_DEGREES = 20.0
HEAD_FRACTION = 0.66  # of the full frame's height
CENTRE_DROP = 0.085  # the full frame's centre below the head's, in head heights: room for hair and shoulders
EYES_TO_CHIN = 0.5  # in head heights
SIDES = {"face": 1.0, "left_eye": 0.28, "right_eye": 0.28, "mouth": 0.48}  # in head heights
_CENTRES = {"face": (68, 69), "left_eye": (69,), "right_eye": (68,), "mouth": (48, 54)}


def head_camera_target(rig: Rig, neutral_vertices: Tensor) -> tuple[Tensor, float]:
    """Where a full frame looks, and how tall the head is.

    Args:
        rig: its scalp, face and ear regions are the head.
        neutral_vertices: ``[V, 3]`` or ``[1, V, 3]`` in world units, without expression and pose.

    Returns:
        The target ``[3]`` in world units, a little below the head's centre, and the head's height.
    """
    vertices = neutral_vertices.reshape(-1, 3)
    ids = torch.cat([rig.regions[k] for k in ("scalp", "face", "ears")])
    head = vertices[rig.faces[ids].reshape(-1)]
    low, high = head.amin(0), head.amax(0)
    height = float(high[1] - low[1])
    return (low + high) / 2 - torch.tensor([0.0, CENTRE_DROP * height, 0.0]), height


def full_radius(height: float) -> float:
    """Distance of a full-frame camera from its target for a head of ``height`` (about 2.65 for the mean head)."""
    return height / head_tangent()


def head_tangent() -> float:
    """The head's height in a full frame, in focal lengths."""
    return HEAD_FRACTION * 2 * math.tan(math.radians(FOV_DEGREES) / 2)


def full_cameras(
    rig: Rig,
    neutral_vertices: Tensor,
    azimuths: Sequence[float] | Tensor,
    elevations: Sequence[float] | Tensor,
    size: int,
) -> Cameras:
    """Full-frame cameras round a head; angles in degrees as in :func:`ap3d.cameras.orbit`."""
    target, height = head_camera_target(rig, neutral_vertices)
    return orbit(azimuths, elevations, target, full_radius(height), FOV_DEGREES, size)


def framing_boxes(landmarks: Tensor, name: str, size: int, side: float | None = None) -> Tensor:
    """Boxes of a framing in the full frame, for :meth:`Cameras.crop`.

    Args:
        landmarks: ``[B, 70, 2]`` pixels in the full frame.
        name: one of ``FRAMINGS``.
        size: side of the full frame in pixels.
        side: of the box in head heights, by default that of ``SIDES``.

    Returns:
        ``[B, 3]`` left, top, side in pixels; shifted, never shrunk, to lie inside the frame.
    """
    if name not in FRAMINGS:
        raise InputError(f"unknown framing {name!r}; there are: {', '.join(FRAMINGS)}")
    if name == "full":
        return torch.tensor([[0.0, 0.0, float(size)]]).repeat(len(landmarks), 1)
    eyes = landmarks[:, 68:70].mean(1)
    head = torch.linalg.norm(landmarks[:, 8] - eyes, dim=1) / EYES_TO_CHIN
    sides = ((SIDES[name] if side is None else side) * head).clamp(8.0, float(size))
    centre = landmarks[:, list(_CENTRES[name])].mean(1)
    corner = centre - sides[:, None] / 2
    corner = torch.minimum(corner.clamp_min(0), size - sides[:, None])
    return torch.cat([corner, sides[:, None]], 1)
