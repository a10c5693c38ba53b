"""A motion's file as the readers see it: opened once, looked at by each."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ap3d.array_files import LARGEST_BYTES, numbers, read_limited, read_npy, read_npz
from ap3d.errors import DataFileError

DEFAULT_FPS = 25.0  # of formats that store no rate


@dataclass(frozen=True)
class Source:
    """One file or folder, and what the user says about it.

    Attributes:
        path: the file or folder.
        fps: frames per second that the user states; it replaces what the file says.
        basis: expression basis that the user states, for formats that do not store theirs.
    """

    path: Path
    fps: float | None = None
    basis: str | None = None

    @property
    def name(self) -> str:
        """The file's own name, for messages."""
        return self.path.name

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.path.is_dir()

    def bytes_of(self, path: Path) -> bytes:
        """The content of this or a neighbouring file.

        Raises:
            DataFileError: it cannot be read, or is too large.
        """
        return read_limited(path, LARGEST_BYTES, "cut the motion into parts")

    @cached_property
    def data(self) -> bytes:
        """The file's content; empty for a folder."""
        return b"" if self.is_folder else self.bytes_of(self.path)

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays of an npz by key; empty for anything else."""
        return read_npz(self.data, self.name) if self.data[:4] == b"PK\x03\x04" else {}

    @cached_property
    def json(self) -> Any:
        """The parsed JSON, or None where the file does not start like one.

        Raises:
            DataFileError: it starts like JSON and is none.
        """
        if self.data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] not in (b"{", b"["):
            return None
        try:
            return json.loads(self.data.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise DataFileError(f"{self.name} is not valid JSON: {error}") from error

    def array(self, path: Path) -> np.ndarray:
        """The numbers of a ``.npy`` file, float32."""
        return numbers(read_npy(self.bytes_of(path), path.name), path.name)

    def rate(self, stated: float | None, assumed: float = DEFAULT_FPS) -> tuple[float, str]:
        """Frames per second, and a note where it had to be assumed.

        Args:
            stated: what the file says, None where it says nothing.
            assumed: what holds then.
        """
        if self.fps is not None:
            return self.fps, ""
        if stated is not None:
            return stated, ""
        return assumed, f"the file states no frame rate; {assumed:g} a second are assumed (--motion-fps)"
