"""Morphable models: parameters in, vertices and landmarks out.

``load_rig("builtin")`` needs no file of the user's. SMPL-X 2020, FLAME 2020 and FLAME 2023 are named by the path of
their file, or by name when the environment variable ``AP3D_RIGS`` lists the folders (or files) where they lie.
"""

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ap3d.errors import InputError

if TYPE_CHECKING:
    from ap3d.rig.protocol import Rig

# The usual file names of each model, in the order in which they are looked for.
MODEL_FILES = {
    "smplx2020": ("SMPLX_NEUTRAL_2020.npz", "SMPLX_NEUTRAL.npz"),
    "flame2020": ("flame2020.pkl", "FLAME2020/generic_model.pkl", "generic_model.pkl"),
    "flame2023": ("flame2023.pkl", "FLAME2023/flame2023.pkl", "flame2023_Open.pkl"),
}
RIGS = ("builtin", *MODEL_FILES)
SEARCH_VARIABLE = "AP3D_RIGS"

__all__ = ["MODEL_FILES", "RIGS", "SEARCH_VARIABLE", "load_rig", "locate_rig"]


def load_rig(spec: str = "builtin") -> "Rig":
    """Load a rig.

    Args:
        spec: ``builtin``; a path to ``.npz`` or ``.pkl``; ``NAME:PATH`` where the file's name does not tell FLAME's
            year; or one of ``smplx2020``, ``flame2020``, ``flame2023``, looked for in ``$AP3D_RIGS``.

    Raises:
        InputError: no such rig, or a file of another model, year or gender.
        DataFileError: its file is missing or damaged.
    """
    located = locate_rig(spec)
    if located is None:
        from ap3d.rig.builtin import BuiltinRig

        return BuiltinRig.load()
    path, expected = located
    state = path.stat()
    return _load_file(path, expected, state.st_mtime_ns, state.st_size)


def locate_rig(spec: str) -> tuple[Path, str | None] | None:
    """The file that ``spec`` names and the model it must hold, or None for the built-in rig; needs no torch.

    Raises:
        InputError: as :func:`load_rig`.
    """
    if spec == "builtin":
        return None
    name, separator, rest = spec.partition(":")
    if separator and name in MODEL_FILES:
        return _existing(Path(rest), name), name
    if spec in MODEL_FILES:
        return _search(spec), spec
    if Path(spec).suffix.lower() in (".npz", ".pkl"):
        return _existing(Path(spec), None), None
    raise InputError(
        f"unknown rig {spec!r}; there is: {', '.join(RIGS)}, or the path of an SMPL-X or FLAME file (.npz, .pkl)"
    )


def _existing(path: Path, name: str | None) -> Path:
    if not path.is_file():
        raise InputError(f"rig file {path} does not exist; give the path of {MODEL_FILES[name or 'smplx2020'][0]}")
    return path


def _search(name: str) -> Path:
    places = [Path(p) for p in os.environ.get(SEARCH_VARIABLE, "").split(os.pathsep) if p]
    for place in places:
        for file in MODEL_FILES[name]:
            for candidate in (place / file, place):
                if candidate.is_file() and candidate.name == Path(file).name:
                    return candidate
    raise InputError(
        f"rig {name} needs the user's own {MODEL_FILES[name][0]}: give its path with --rig, "
        f"or its folder in the environment variable {SEARCH_VARIABLE}"
    )


@lru_cache(maxsize=2)
def _load_file(path: Path, expected: str | None, _changed: int, _size: int) -> "Rig":
    from ap3d.rig.body_model import BodyModelRig

    return BodyModelRig.load(path, expected)
