"""Any motion file to a :class:`Motion`: formats are told by content; a new one is a file and a line here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ap3d.errors import DataFileError, InputError
from ap3d.motion import animportrait3d, arkit_csv, audio2face, lam, native, smplx_npz, vhap
from ap3d.motion.schema import BASES, Motion
from ap3d.motion.source import Source


@dataclass(frozen=True)
class Reader:
    """One format.

    Attributes:
        name: what it is called in messages.
        matches: whether a source is of this format, by its content.
        read: the motion of a source.
    """

    name: str
    matches: Callable[[Source], bool]
    read: Callable[[Source], Motion]


READERS = (
    Reader("ap3d npz", native.matches, native.read_native),
    Reader("VHAP export or tracked npz", vhap.matches, vhap.read_vhap),
    Reader("SMPL-X npz", smplx_npz.matches, smplx_npz.read_smplx_npz),
    Reader("AnimPortrait3D expressions.npy with poses.npy", animportrait3d.matches, animportrait3d.read_animportrait3d),
    Reader("Audio2Face JSON", audio2face.matches, audio2face.read_audio2face),
    Reader("LAM JSON", lam.matches, lam.read_lam),
    Reader("ARKit-52 CSV", arkit_csv.matches, arkit_csv.read_arkit_csv),
)


def read_motion(path: str | Path, *, fps: float | None = None, basis: str | None = None) -> Motion:
    """Read a motion file or folder.

    Args:
        path: of any format in :data:`READERS`.
        fps: frames per second that the file was recorded at, where it does not say or says wrongly.
        basis: expression basis of a FLAME or SMPL-X file, where the tracker used another than is usual.

    Raises:
        DataFileError: unreadable, damaged, of no known format, empty, or holding values that are not finite.
        InputError: ``fps`` or ``basis`` make no sense.
    """
    if fps is not None and not 0 < fps <= 1000:
        raise InputError(f"--motion-fps must be positive and at most 1000, got {fps:g}")
    if basis is not None and basis not in BASES:
        raise InputError(f"unknown expression basis {basis!r}; there are: {', '.join(BASES)}")
    source = Source(Path(path), fps, basis)
    if not source.path.exists():
        raise DataFileError(f"cannot read motion {path}: no such file")
    try:
        return _checked(_reader(source).read(source), basis)
    except InputError as error:
        raise DataFileError(f"motion {path}: {error}") from error


def _reader(source: Source) -> Reader:
    for reader in READERS:
        if reader.matches(source):
            return reader
    if source.path.suffix.lower() == ".csv":
        return READERS[-1]  # which says what the table lacks
    raise DataFileError(f"no known format; there are: {', '.join(r.name for r in READERS)}")


def _checked(motion: Motion, basis: str | None) -> Motion:
    if basis is not None and motion.expression_basis != basis:
        raise InputError(f"its expression is in {motion.expression_basis}, --basis says {basis}")
    return motion
