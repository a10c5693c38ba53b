"""Audio2Face's blendshape export: JSON with ``exportFps``, ``facsNames`` and ``weightMat``."""

from ap3d.motion.schema import Motion
from ap3d.motion.source import Source
from ap3d.motion.weights import motion_from_weights, rate_of


def matches(source: Source) -> bool:
    """Whether the JSON has the weight matrix."""
    return isinstance(source.json, dict) and "weightMat" in source.json and "facsNames" in source.json


def read_audio2face(source: Source) -> Motion:
    """Read an export; head joints, where it has them, are left out with a note.

    Raises:
        DataFileError: rows that do not fit the names, or no frames.
    """
    fps, note = source.rate(rate_of(source.json.get("exportFps")))
    motion = motion_from_weights(source.json["facsNames"], source.json["weightMat"], fps)
    joints = "joint rotations of the export are not read" if source.json.get("rotations") else ""
    return motion.with_notes(note, joints)
