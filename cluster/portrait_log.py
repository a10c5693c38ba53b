"""One log file a portrait: stages with their times, and all that its worker's process wrote to standard error.

Standard error is redirected as a file descriptor, so that compiled code and a dying interpreter are heard too. Tries
follow one another in the same file. In a bucket, which knows no appending, the file is put anew at every stage.
"""

import contextlib
import os
import sys
import tempfile
import time
from typing import Any

from ap3d.errors import Ap3dError
from ap3d.redaction import redacted
from ap3d.storage import Store

FOLDER = "logs"
TAIL_CHARACTERS = 4000
_STDERR = 2


def log_name(face_id: str, config_hash: str) -> str:
    """Where a portrait's log lies below the root."""
    return f"{FOLDER}/{config_hash}/{face_id}.txt"


def read_tail(store: Store, name: str) -> str | None:
    """The end of a log; None when there is none."""
    try:
        data = store.read_bytes(name)
    except Ap3dError:
        return None
    return redacted(data[-TAIL_CHARACTERS:].decode(errors="replace")) or None


class PortraitLog:
    """While entered, standard error of this process goes into the portrait's log.

    Args:
        store: the dataset's root.
        name: of the log.
        title: first line of this try.
    """

    def __init__(self, store: Store, name: str, title: str) -> None:
        self._store, self.name, self._title = store, name, title
        self._path = store.path(name)
        self._before = b""

    def __enter__(self) -> "PortraitLog":
        if self._store.is_local:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
        else:
            with contextlib.suppress(Ap3dError):
                self._before = self._store.read_bytes(self.name)
            number, self._path = tempfile.mkstemp(prefix="ap3d-log-")
            os.close(number)
        sys.stderr.flush()
        self._own = os.dup(_STDERR)
        number = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(number, _STDERR)
        os.close(number)
        self.say(self._title)
        return self

    def __exit__(self, *error: Any) -> None:
        sys.stderr.flush()
        os.dup2(self._own, _STDERR)
        os.close(self._own)
        self._put()
        if not self._store.is_local:
            os.unlink(self._path)

    def say(self, line: str) -> None:
        """A line with the time."""
        os.write(_STDERR, f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {redacted(line)}\n".encode())

    def stage(self, name: str) -> None:
        """A stage begins."""
        self.say(name)
        self._put()

    def tail(self) -> str:
        """The end of what this try wrote so far."""
        sys.stderr.flush()
        with open(self._path, "rb") as file:
            file.seek(max(0, os.path.getsize(self._path) - TAIL_CHARACTERS))
            return redacted(file.read().decode(errors="replace"))

    def _put(self) -> None:
        if self._store.is_local:
            return
        with open(self._path, "rb") as file, contextlib.suppress(Ap3dError):  # a log is never worth a portrait
            text = redacted(file.read().decode(errors="replace"))
            self._store.write_bytes(self.name, self._before + text.encode())
