"""LAM Audio2Expression's export: JSON with ``names``, ``metadata`` and ``frames`` of weights and times."""

from typing import Any

from ap3d.errors import DataFileError
from ap3d.motion.schema import Motion
from ap3d.motion.source import Source
from ap3d.motion.weights import motion_from_weights, rate_of


def matches(source: Source) -> bool:
    """Whether the JSON has names and frames."""
    return isinstance(source.json, dict) and "names" in source.json and "frames" in source.json


def read_lam(source: Source) -> Motion:
    """Read an export; its frame rate is in the metadata, else in the frames' times.

    Raises:
        DataFileError: rows that do not fit the names, or no frames.
    """
    frames = source.json["frames"]
    if not isinstance(frames, list) or not all(isinstance(f, dict) for f in frames):
        raise DataFileError("frames must be a list of objects with weights")
    metadata = source.json.get("metadata")
    stated = rate_of(metadata.get("fps")) if isinstance(metadata, dict) else None
    fps, note = source.rate(stated or _rate_of_times([f.get("time") for f in frames]))
    motion = motion_from_weights(source.json["names"], [f.get("weights") for f in frames], fps)
    turned = "rotations of the frames are not read" if any(f.get("rotation") for f in frames) else ""
    return motion.with_notes(note, turned)


def _rate_of_times(times: list[Any]) -> float | None:
    if len(times) < 2 or not all(isinstance(t, int | float) for t in times) or times[-1] <= times[0]:
        return None
    return rate_of((len(times) - 1) / (times[-1] - times[0]))
