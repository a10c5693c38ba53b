"""One root folder on any fsspec file system: local paths, ``s3://``, ``gs://``, ``memory://``.

Credentials come from the environment (``AWS_…``, instance profiles, ``FSSPEC_…``); where an address carries a password
all the same, messages and records show it as ``***``.
"""

import contextlib
import errno
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ap3d.errors import Ap3dError, DataFileError, InputError, RunError, StorageFullError
from ap3d.local_files import files_below
from ap3d.redaction import redacted

Names = list[str]
RETRY_SECONDS = (0.2, 0.6, 1.8)  # on top of what the file system's own client does
_FINAL = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
_FINAL_NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EINVAL, errno.ENAMETOOLONG, errno.ELOOP)
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Store:
    """Reads and writes below a root. A write is whole or absent; no operation renames across names.

    Args:
        root: a local path or an fsspec URL. The folder need not exist yet.

    Raises:
        InputError: the URL's protocol is unknown or its package is not installed.
    """

    def __init__(self, root: str) -> None:
        try:
            self._fs, base = fsspec.core.url_to_fs(str(root), use_listings_cache=False)
        except (ValueError, ImportError, TypeError, OSError) as error:
            raise InputError(f"cannot open storage {root!r}: {error}") from error
        self.root = str(root)
        self.is_local = isinstance(self._fs, LocalFileSystem)
        self._base = os.path.abspath(base) if self.is_local else base.rstrip("/")

    @property
    def shown(self) -> str:
        """The root for people and records, without credentials."""
        return redacted(self.root)

    def uri(self, name: str) -> str:
        """The address of a name below the root for people: an absolute path or a URL, without credentials."""
        return self.path(name) if self.is_local else f"{self.shown.rstrip('/')}/{name}"

    def path(self, *parts: str) -> str:
        """The absolute path of a name below the root, in the file system's own form."""
        return "/".join([self._base, *(p.strip("/") for p in parts if p)])

    def read_bytes(self, path: str) -> bytes:
        """The content of one file.

        Raises:
            DataFileError: it does not exist or is no readable file.
            RunError: the storage failed.
        """
        with self._translated("read", path):
            return bytes(_retried(lambda: self._fs.cat_file(self.path(path))))

    def write_bytes(self, path: str, data: bytes) -> None:
        """Replace one file; readers see the old or the new content, never a part."""
        write = self._write_local if self.is_local else self._fs.pipe_file
        with self._translated("write", path):
            _retried(lambda: write(self.path(path), data))

    def exclusive_create(self, path: str, data: bytes) -> bool:
        """Create a file that nobody else has created; False when it exists already.

        Atomic: a hard link on local folders (creation with O_EXCL where there are none), ``If-None-Match: *`` on S3,
        ``ifGenerationMatch=0`` on GCS. Never retried, since an answer that was lost may have been a success.
        """
        with self._translated("create", path):
            try:
                if self.is_local:
                    self._link_local(self.path(path), data)
                else:
                    self._fs.pipe_file(self.path(path), data, mode="create")
            except FileExistsError:
                return False
            return True

    def exists(self, path: str) -> bool:
        """Whether a file or folder is there."""
        with self._translated("look up", path):
            self._fs.invalidate_cache()
            return bool(_retried(lambda: self._fs.exists(self.path(path))))

    def list(self, prefix: str, half_written: bool = False, but: str | None = None) -> Names:
        """Names of all files below a folder, relative to the root, sorted.

        Args:
            prefix: the folder.
            half_written: also those that writers on this machine have not finished, or never will.
            but: leave out files that are called so, in whatever folder.
        """

        def wanted(name: str) -> bool:
            return name != but and (half_written or not _is_half_written(name))

        with self._translated("list", prefix):
            found = self._files_below(self.path(prefix), wanted)
        return sorted(f[len(self._base) + 1 :] for f in found)

    def _files_below(self, folder: str, wanted: Callable[[str], bool]) -> Names:
        if self.is_local and not os.path.isfile(folder):
            return files_below(folder, wanted)
        self._fs.invalidate_cache()
        try:
            found = _retried(lambda: self._fs.find(folder))
        except FileNotFoundError:
            return []
        return [name for name in found if wanted(name.rpartition("/")[2])]

    def folders(self, prefix: str, ordered: bool = True) -> Names:
        """Names of the folders directly below a folder, without their path, sorted if wanted."""
        with self._translated("list", prefix):
            if self.is_local:
                if not os.path.isdir(self.path(prefix)):
                    return []
                with os.scandir(self.path(prefix)) as found:
                    names = [entry.name for entry in found if entry.is_dir()]
                return sorted(names) if ordered else names
            self._fs.invalidate_cache()
            try:
                entries = _retried(lambda: self._fs.ls(self.path(prefix), detail=True))
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(e["name"].rstrip("/").rsplit("/", 1)[-1] for e in entries if e["type"] == "directory")

    def open(self, path: str, mode: str = "rb") -> IO[Any]:
        """A file object for reading, or for writing when no reader can see the file yet."""
        if "w" in mode and self.is_local:
            os.makedirs(os.path.dirname(self.path(path)), exist_ok=True)
        return self._fs.open(self.path(path), mode)

    def delete(self, prefix: str) -> None:
        """Remove a file or a folder with all below it; absent is fine."""
        with self._translated("delete", prefix):
            try:
                _retried(lambda: self._fs.rm(self.path(prefix), recursive=True))
            except FileNotFoundError:
                return

    def delete_files(self, names: Names) -> None:
        """Remove files, many at a time where the storage can; absent ones are fine."""
        with self._translated("delete", names[0] if names else ""):
            if self.is_local:
                for name in names:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(self.path(name))
            else:
                present = [path for path in map(self.path, names) if self._fs.exists(path)]
                if present:
                    _retried(lambda: self._fs.rm(present))

    def read_json(self, path: str) -> Any:
        """The parsed content of a JSON file.

        Raises:
            DataFileError: absent or not JSON.
        """
        try:
            return json.loads(self.read_bytes(path))
        except ValueError as error:
            raise DataFileError(f"{self.uri(path)} is not valid JSON: {error}") from error

    def write_json(self, path: str, value: Any) -> None:
        """Write a value as indented JSON with sorted keys."""
        self.write_bytes(path, (json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())

    def sweep(self, folder: str) -> None:
        """Remove what killed writers left half-written directly below a folder of this machine."""
        if not self.is_local:
            return
        for entry in os.scandir(self.path(folder)) if os.path.isdir(self.path(folder)) else ():
            if _is_half_written(entry.name):
                os.unlink(entry.path)

    def sweep_below(self, folder: str) -> int:
        """The same in a folder and all below it; returns how many files there were."""
        if not self.is_local:
            return 0
        found = files_below(self.path(folder), _is_half_written)
        for name in found:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        return len(found)

    def check_writable(self) -> None:
        """Make sure that files can be written below the root, and that creation is exclusive there.

        Raises:
            InputError: they cannot, with the reason.
        """
        probe = f".tmp-probe-{uuid.uuid4().hex}"
        try:
            first, second = (self.exclusive_create(probe, b"ap3d") for _ in range(2))
            self.delete(probe)
        except (RunError, DataFileError) as error:
            reason = str(error).rpartition(": ")[2]
            raise InputError(f"cannot write to {self.shown!r}: {reason}") from error
        if second or not first:
            raise InputError(
                f"{self.shown!r} does not keep a second writer from creating the same file (no If-None-Match); two"
                " drivers could spoil it: use a storage that does"
            )

    def _write_local(self, target: str, data: bytes) -> None:
        temporary = self._temporary(target, data)
        try:
            os.replace(temporary, target)
        except OSError:
            os.unlink(temporary)
            raise

    def _link_local(self, target: str, data: bytes) -> None:
        temporary = self._temporary(target, data)
        try:
            os.link(temporary, target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with open(target, "xb") as file:
                file.write(data)
        finally:
            os.unlink(temporary)

    @staticmethod
    def _temporary(target: str, data: bytes) -> str:
        folder, name = os.path.split(target)
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f".tmp-{name}-{uuid.uuid4().hex}")
        try:
            with open(temporary, "wb") as file:
                file.write(data)
        except OSError:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise
        return temporary

    @contextmanager
    def _translated(self, verb: str, path: str) -> Iterator[None]:
        """Errors of any file system as one line: a wrong name is the caller's, anything else the storage's."""
        try:
            yield
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            if verb == "read":
                raise DataFileError(f"cannot read {self.uri(path)}: no such file") from error
            raise RunError(f"cannot {verb} {self.uri(path)}: {_reason(error)}") from error
        except PermissionError as error:
            kind = DataFileError if verb == "read" else RunError
            raise kind(f"cannot {verb} {self.uri(path)}: {_reason(error)}") from error
        except Ap3dError:
            raise
        except Exception as error:  # cloud file systems raise classes of their own
            kind = StorageFullError if _is_full(error) else RunError
            raise kind(f"cannot {verb} {self.uri(path)}: {_reason(error)}") from error


def _is_half_written(name: str) -> bool:
    return name.startswith(".tmp-")


def _retried(action: Callable[[], Any]) -> Any:
    """What an action gives, tried again after faults that may pass: resets, time-outs, a server's 5xx."""
    for pause in RETRY_SECONDS:
        try:
            return action()
        except OSError as error:
            if isinstance(error, _FINAL) or error.errno in _FINAL_NUMBERS:
                raise
            time.sleep(pause)
    return action()


def _is_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _reason(error: Exception) -> str:
    if _is_full(error):
        return "the storage is full"
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return " ".join(text.split())
