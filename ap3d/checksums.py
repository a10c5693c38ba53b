"""Checksums of the shipped model files: one small text file stands for all of them in a configuration's hash."""

import hashlib
from pathlib import Path

from ap3d.errors import DataFileError

BUILTIN = Path(__file__).resolve().parent / "builtin"
SUMS = BUILTIN / "SHA256SUMS"
_SUFFIXES = (".npz", ".safetensors", ".pth", ".json", ".txt")


def shipped_files() -> list[Path]:
    """The model files below ``ap3d/builtin``, sorted; cards are left out."""
    return sorted(p for p in BUILTIN.rglob("*") if p.suffix in _SUFFIXES and p.is_file())


def compute_sums() -> str:
    """Lines of ``sha256sum`` over the shipped files."""
    lines = (f"{_digest(p)}  {p.relative_to(BUILTIN).as_posix()}" for p in shipped_files())
    return "\n".join(lines) + "\n"


def write_sums() -> None:
    """Bring ``SHA256SUMS`` up to date after a model was remade."""
    SUMS.write_text(compute_sums(), encoding="utf-8")


def read_sums() -> str:
    """The recorded checksums.

    Raises:
        DataFileError: the file is missing.
    """
    try:
        return SUMS.read_text(encoding="utf-8")
    except OSError as error:
        raise DataFileError(f"{SUMS} is missing; reinstall ap3d") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
