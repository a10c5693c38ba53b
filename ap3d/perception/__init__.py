"""Models that read pictures, as plug-ins: a protocol, a file a model, a table of names."""

from typing import TYPE_CHECKING

from ap3d.errors import InputError

if TYPE_CHECKING:
    from ap3d.perception.protocol import LandmarkDetector

LANDMARK_DETECTORS = ("builtin",)


def load_landmark_detector(name: str = "builtin") -> "LandmarkDetector":
    """A face-landmark detector by name.

    Raises:
        InputError: the name is unknown, or its files are missing.
    """
    if name != "builtin":
        raise InputError(f"unknown landmark detector {name!r}; there are: {', '.join(LANDMARK_DETECTORS)}")
    from ap3d.perception.landmarks_mesh import FaceMeshDetector

    return FaceMeshDetector.load()
