"""VHAP's FLAME tracking: an export (``flame_param/*.npz``, ``transforms.json``) or ``tracked_flame_params_*.npz``.

Keys of both: ``expr``, ``rotation`` (global), ``neck_pose``, ``jaw_pose``, ``eyes_pose``; the rest is identity and
camera and is not used. VHAP tracks with FLAME 2023 unless it was told otherwise; its files do not say.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ap3d.array_files import read_npz, rows
from ap3d.errors import DataFileError
from ap3d.motion.flame_frames import flame_motion
from ap3d.motion.schema import Motion
from ap3d.motion.source import Source

FOLDER, INDEX = "flame_param", "transforms.json"
BASIS = "flame2023"
MOST_FRAMES = 200_000
_WIDTHS = {"rotation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6}


def matches(source: Source) -> bool:
    """An export's folder, its ``flame_param``, its ``transforms.json``, or an npz with tracked parameters."""
    if source.is_folder or source.name == INDEX:
        return _folder(source) is not None
    return "expr" in source.arrays and "jaw_pose" in source.arrays


def read_vhap(source: Source) -> Motion:
    """Read an export, a timestep a frame, or the npz of a tracking run.

    Raises:
        DataFileError: a frame is missing or differs in shape from the others, or a file is damaged.
    """
    folder = _folder(source)
    if folder is None:
        arrays: Mapping[str, np.ndarray] = source.arrays
        parts = {k: _rows(arrays[k], k, source.name) for k in ("expr", *_WIDTHS) if k in arrays}
    else:
        parts = _frames(source, folder)
    for key, width in _WIDTHS.items():
        if key in parts and parts[key].shape[1] != width:
            raise DataFileError(f"{key} has {parts[key].shape[1]} columns, VHAP writes {width}")
    fps, note = source.rate(None)
    basis = source.basis or BASIS
    motion = flame_motion(
        len(parts["expr"]), fps, basis, expression=parts["expr"], neck=parts.get("rotation"),
        head=parts.get("neck_pose"), jaw=parts.get("jaw_pose"), eyes=parts.get("eyes_pose"),
    )  # fmt: skip
    taken = "" if source.basis else f"VHAP files do not name their FLAME version; {basis} is assumed (--basis)"
    return motion.with_notes(note, taken)


def _folder(source: Source) -> Path | None:
    """The folder with a file a frame, or None."""
    root = source.path.parent if source.name == INDEX else source.path
    candidates = [root / FOLDER] + ([root] if source.is_folder and source.name == FOLDER else [])
    return next((c for c in candidates if c.is_dir()), None)


def _frames(source: Source, folder: Path) -> dict[str, Tensor]:
    files = _listed(source, folder) or sorted(folder.glob("*.npz"), key=lambda p: (_digits(p.stem), p.stem))
    if not files:
        raise DataFileError(f"{folder.name} holds no .npz files: the export has 0 frames")
    if len(files) > MOST_FRAMES:
        raise DataFileError(f"{folder.name} holds {len(files)} frames, more than {MOST_FRAMES}; cut the motion")
    found: dict[str, list[Tensor]] = {}
    for file in files:
        arrays = read_npz(source.bytes_of(file), file.name)
        if "expr" not in arrays:
            raise DataFileError(f"{file.name} lacks expr: it is no frame of a VHAP export")
        for key in ("expr", *_WIDTHS):
            if key in arrays:
                found.setdefault(key, []).append(_rows(arrays[key], key, file.name)[:1])
    for key, values in found.items():
        if len(values) != len(files) or len({v.shape for v in values}) != 1:
            raise DataFileError(f"{key} is missing in some frames of {folder.name}, or differs in its columns")
    return {key: torch.cat(values) for key, values in found.items()}


def _listed(source: Source, folder: Path) -> list[Path]:
    """Files in the order of ``transforms.json``'s timesteps, one each however many cameras saw it."""
    index = folder.parent / INDEX
    if not index.is_file():
        return []
    table = Source(index).json
    frames = table.get("frames") if isinstance(table, dict) else None
    if not isinstance(frames, list) or not all(isinstance(f, dict) for f in frames):
        raise DataFileError(f"{INDEX} holds no list of frames")
    order: dict[int, Path] = {}
    for position, frame in enumerate(frames):
        name = Path(str(frame.get("flame_param_path", ""))).name  # only names: no path leads out of the export
        step = frame.get("timestep_index", position)
        if name and isinstance(step, int):
            order.setdefault(step, folder / name)
    missing = next((p.name for p in order.values() if not p.is_file()), None)
    if missing:
        raise DataFileError(f"{INDEX} names {FOLDER}/{missing}, which is not there")
    return [order[step] for step in sorted(order)]


def _rows(array: np.ndarray, key: str, name: str) -> Tensor:
    return torch.from_numpy(rows(array, f"{key} of {name}"))


def _digits(stem: str) -> int:
    found = re.search(r"\d+", stem)
    return int(found[0]) if found else 0
