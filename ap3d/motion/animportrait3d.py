"""AnimPortrait3D's pair of arrays: ``expressions.npy (T, 100)`` and ``poses.npy (T, 15)``.

Columns of a pose, axis-angle: FLAME global rotation (our neck), FLAME neck (our head), jaw, left eye, right eye. The
coefficients drive SMPL-X 2020 as they are, so they count as FLAME 2020's.
"""

from pathlib import Path

import torch
from torch import Tensor

from ap3d.errors import DataFileError
from ap3d.motion.flame_frames import LARGEST_EXPRESSION, flame_motion
from ap3d.motion.schema import Motion
from ap3d.motion.source import Source

BASIS = "flame2020"
POSE_COLUMNS = 15
_WORDS = (("expressions", "poses"), ("expression", "pose"), ("exp", "pose"))
_MAGIC = b"\x93NUMPY"


def matches(source: Source) -> bool:
    """A folder with such a pair, or one of the two files."""
    if source.is_folder:
        return _pair(source) != (None, None)
    return source.data[:6] == _MAGIC


def read_animportrait3d(source: Source) -> Motion:
    """Read the pair; given one file, the other is looked for beside it, and rests where it is not there.

    Raises:
        DataFileError: wrong column counts, or different numbers of frames.
    """
    expressions, poses = _pair(source)
    expression = _table(source, expressions) if expressions else None
    pose = _table(source, poses) if poses else None
    if expression is not None and not 0 < expression.shape[1] <= LARGEST_EXPRESSION:
        raise DataFileError(f"{_name(expressions)} has {expression.shape[1]} columns; expressions have up to 100")
    if pose is not None and pose.shape[1] != POSE_COLUMNS:
        raise DataFileError(f"{_name(poses)} has {pose.shape[1]} columns; poses have {POSE_COLUMNS}")
    if expression is not None and pose is not None and len(expression) != len(pose):
        raise DataFileError(f"{len(expression)} frames of expressions, but {len(pose)} of poses")
    fps, note = source.rate(None)
    part = lambda start, end: None if pose is None else pose[:, start:end]  # noqa: E731
    motion = flame_motion(
        max(len(t) for t in (expression, pose) if t is not None), fps, source.basis or BASIS, expression=expression,
        neck=part(0, 3), head=part(3, 6), jaw=part(6, 9), eyes=part(9, 15),
    )  # fmt: skip
    absent = "no expressions" if expression is None else "no poses" if pose is None else ""
    return motion.with_notes(note, f"there are {absent} beside {source.name}; they stay at rest" if absent else "")


def _pair(source: Source) -> tuple[Path | None, Path | None]:
    """The files of expressions and of poses."""
    if source.is_folder:
        names = [(source.path / f"{a}.npy", source.path / f"{b}.npy") for a, b in _WORDS]
        found = next((pair for pair in names if pair[0].is_file() or pair[1].is_file()), None)
    else:
        found = _siblings(source.path)
        if found is None:
            raise DataFileError(f"{source.name}: name the arrays expressions.npy and poses.npy, so that each is known")
    return (None, None) if found is None else tuple(p if p.is_file() else None for p in found)  # type: ignore[return-value]


def _siblings(path: Path) -> tuple[Path, Path] | None:
    """The pair that a file belongs to by its name (``speak_expressions.npy`` with ``speak_poses.npy``)."""
    for a, b in _WORDS:
        if b in path.stem and a not in path.stem:
            return path.with_name(path.name.replace(b, a)), path
        if a in path.stem:
            return path, path.with_name(path.name.replace(a, b))
    return None


def _table(source: Source, path: Path) -> Tensor:
    array = source.array(path)
    if array.ndim != 2:
        raise DataFileError(f"{path.name} must have frames and columns, got the shape {list(array.shape)}")
    return torch.from_numpy(array)


def _name(path: Path | None) -> str:
    return path.name if path else ""
