"""A motion by what the user calls it: the name of a built-in one, or a file."""

from pathlib import Path

from ap3d.errors import InputError
from ap3d.motion.procedural import PROCEDURAL, procedural
from ap3d.motion.reading import read_motion
from ap3d.motion.schema import Motion

DEFAULT_SECONDS, DEFAULT_FPS = 4.0, 25.0  # of built-in motions


def load_motion(
    name: str,
    *,
    seconds: float | None = None,
    fps: float | None = None,
    seed: int = 0,
    file_fps: float | None = None,
    basis: str | None = None,
) -> Motion:
    """A built-in motion or a file of any known format.

    Args:
        name: one of :data:`~ap3d.motion.procedural.PROCEDURAL`, or a path.
        seconds, fps, seed: of a built-in motion.
        file_fps, basis: what the user knows about a file, see :func:`~ap3d.motion.reading.read_motion`.

    Raises:
        InputError: neither a built-in motion nor a file that can be read.
    """
    if name in PROCEDURAL:
        return procedural(name, seconds or DEFAULT_SECONDS, fps or DEFAULT_FPS, seed)
    if "." not in name and "/" not in name and not Path(name).exists():
        raise InputError(f"a motion is a file or one of {', '.join(PROCEDURAL)}, got {name!r}")
    return read_motion(name, fps=file_fps, basis=basis)
