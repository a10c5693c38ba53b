"""Checkpoints and exports that a kill at any moment leaves whole."""

import csv
import io
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ap3d.errors import DataFileError


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint of tensors and plain values; the old one stays until the new one is whole."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    torch.save(state, partial)
    partial.replace(path)


def pack_state(state: dict[str, Any]) -> bytes:
    """A checkpoint as bytes, for a store that is not a local folder."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def unpack_state(data: bytes, name: str) -> dict[str, Any]:
    """The inverse of :func:`pack_state`; ``name`` is for the message.

    Raises:
        DataFileError: the bytes are damaged.
    """
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch has no common error type here
        raise DataFileError(f"checkpoint {name} is damaged; delete it to start anew") from error
    return state


def load_state(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint, None where there is none.

    Raises:
        DataFileError: the file is damaged.
    """
    if not path.exists():
        return None
    return unpack_state(path.read_bytes(), str(path))


def export_folder(folder: Path, write: Callable[[Path], object]) -> None:
    """Replace a folder by what ``write`` puts into a fresh one; readers see the old or the new one, bar an instant."""
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write(partial)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


class Curve:
    """A CSV file of training figures; rows after ``step`` are dropped on resuming."""

    def __init__(self, path: Path, columns: tuple[str, ...], step: int = 0) -> None:
        self.path, self.columns = path, columns
        rows: list[dict[str, str]] = []
        if path.exists() and step:
            with path.open(newline="") as file:
                rows = [r for r in csv.DictReader(file) if (r.get("step") or "").isdigit() and int(r["step"]) <= step]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)

    def add(self, row: Mapping[str, object]) -> None:
        """Append one row; absent columns stay empty."""
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns, extrasaction="ignore").writerow(row)
