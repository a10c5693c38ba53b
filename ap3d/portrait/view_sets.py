"""The cameras that AnimPortrait3D looks at a Portrait3D result with, and their JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ap3d.cameras import Cameras, portrait3d_camera
from ap3d.errors import DataFileError

FOV_DEGREES, RADIUS = 30.0, 2.65
FOCAL = 1.8660254  # over the picture's width
KEY_VIEWS = (8, 9, 10, 11)  # front, left, back and right of the 24, level


@dataclass(frozen=True)
class ViewSet:
    """Named cameras.

    Attributes:
        cameras: ``N`` square cameras in world units.
        names: their pictures' file names.
        yaws: degrees; 90 is the front, 180 the subject's left.
        pitches: degrees as Portrait3D counts them (90 is level; no angle, see ``portrait3d_camera``).
    """

    cameras: Cameras
    names: tuple[str, ...]
    yaws: tuple[float, ...]
    pitches: tuple[float, ...]

    @property
    def directions(self) -> list[str]:
        """What prompts call each view: front, side or back view."""
        return [view_direction(yaw) for yaw in self.yaws]

    def to_json(self) -> str:
        """AnimPortrait3D's ``camera_info.json`` or ``cameras.json``."""
        records = {
            name: {
                "view_direction": direction,
                "camera_params": [cam2world.flatten().tolist()],
                "focal_length": FOCAL,
                "fov": FOV_DEGREES,
                "pitch": float(torch.deg2rad(torch.tensor(pitch))),
                "yaw": float(torch.deg2rad(torch.tensor(yaw))),
            }
            for name, direction, cam2world, pitch, yaw in zip(
                self.names, self.directions, self.cameras.cam2world, self.pitches, self.yaws, strict=True
            )
        }
        return json.dumps(records, indent=1)


def mesh_views(size: int = 512) -> ViewSet:
    """The 24 views of the mesh: from below, level, from above, eight directions each."""
    yaws = (90, 180, 270, 0, 135, 225, 315, 45)
    return _view_set([(yaw, pitch) for pitch in (120, 90, 60) for yaw in yaws], "{:04d}_original.png", size)


def gaussian_views(size: int = 512) -> ViewSet:
    """The 120 views of the static fit: five heights, 24 directions each."""
    yaws = [(90 + 15 * i) % 360 for i in range(24)]
    return _view_set([(yaw, pitch) for pitch in (60, 75, 90, 105, 120) for yaw in yaws], "{:04d}.png", size)


def _view_set(angles: Sequence[tuple[float, float]], pattern: str, size: int) -> ViewSet:
    cameras = [
        portrait3d_camera(yaw, pitch, radius=RADIUS, fov_degrees=FOV_DEGREES, size=size) for yaw, pitch in angles
    ]
    names = tuple(pattern.format(i) for i in range(len(angles)))
    return ViewSet(Cameras.concatenate(cameras), names, tuple(a[0] for a in angles), tuple(a[1] for a in angles))


def view_direction(yaw_degrees: float) -> str:
    """Front up to 30 degrees beside the face, side up to 105, then back."""
    beside = abs((yaw_degrees - 90 + 180) % 360 - 180)
    return "front view" if beside <= 30 else "side view" if beside < 105 else "back view"


def read_views(text: str, size: int, source: str = "cameras.json") -> tuple[list[str], Cameras]:
    """Names and cameras of a JSON text that AnimPortrait3D or :meth:`ViewSet.to_json` wrote, in its order.

    Raises:
        DataFileError: no JSON, or a view without its sixteen numbers or its field of view.
    """
    try:
        records: dict[str, Any] = json.loads(text)
        matrices = torch.tensor([r["camera_params"] for r in records.values()], dtype=torch.float32).reshape(-1, 4, 4)
        fov = torch.tensor([float(r["fov"]) for r in records.values()])
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise DataFileError(f"{source} holds no views of AnimPortrait3D ({type(error).__name__})") from None
    if len(matrices) != len(records) or not len(records) or not bool(torch.isfinite(matrices).all()):
        raise DataFileError(f"{source}: each view needs camera_params of 16 finite numbers")
    focal = 0.5 * size / torch.tan(torch.deg2rad(fov) / 2)
    half = torch.full_like(focal, size / 2)
    return list(records), Cameras(matrices, torch.stack([focal, focal, half, half], 1), size, size)
