"""Where a bundle's files lie: a folder, or one zip of the same names that is read without being unpacked."""

import io
import json
import posixpath
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, Protocol

from ap3d.errors import DataFileError
from ap3d.storage import Store

MAXIMUM_ENTRIES = 1000
MAXIMUM_BYTES = 8 << 30  # unpacked, in all
MAXIMUM_RATIO = 100  # unpacked over packed, above which a large zip is refused
LARGE = 64 << 20


class BundleFiles(Protocol):
    """What reading a bundle takes."""

    root: str

    def exists(self, path: str) -> bool:
        """Whether a file is there."""
        ...

    def list(self, prefix: str) -> list[str]:
        """Names of all files below a prefix, sorted."""
        ...

    def read_bytes(self, path: str) -> bytes:
        """The content of one file."""
        ...

    def read_json(self, path: str) -> Any:
        """The parsed content of a JSON file."""
        ...


class ZipFiles:
    """The files of a zip; one folder around them all is looked through.

    Args:
        root: path or fsspec URL of the zip.

    Raises:
        DataFileError: absent, not a zip, with names that lead elsewhere, or too large unpacked.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        folder, name = _split(root)
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(Store(folder).read_bytes(name)))
        except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
            raise DataFileError(f"{root} is not a whole zip file: {error}") from error
        entries = [e for e in self._zip.infolist() if not e.is_dir()]
        _check_entries(root, entries)
        names = {e.filename: e for e in entries}
        tops = {n.split("/", 1)[0] for n in names if "/" in n}
        prefix = f"{tops.pop()}/" if len(tops) == 1 and all("/" in n for n in names) else ""
        self._entries = {n[len(prefix) :]: e for n, e in names.items()}

    def exists(self, path: str) -> bool:
        """Whether a file is there."""
        return path in self._entries

    def list(self, prefix: str) -> list[str]:
        """Names of all files below a prefix, sorted."""
        return sorted(n for n in self._entries if n.startswith(prefix))

    def read_bytes(self, path: str) -> bytes:
        """The content of one file.

        Raises:
            DataFileError: absent or damaged.
        """
        if path not in self._entries:
            raise DataFileError(f"{self.root} holds no {path}")
        try:
            return self._zip.read(self._entries[path])
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise DataFileError(f"{path} in {self.root} is damaged: {error}") from error

    def read_json(self, path: str) -> Any:
        """The parsed content of a JSON file.

        Raises:
            DataFileError: absent or not JSON.
        """
        try:
            return json.loads(self.read_bytes(path))
        except (ValueError, RecursionError) as error:
            raise DataFileError(f"{path} in {self.root} is not valid JSON: {error}") from error


def open_files(path: str) -> BundleFiles:
    """The files of a bundle's folder or zip."""
    path = str(path)
    return ZipFiles(path) if path.lower().endswith(".zip") else Store(path)


def write_files(path: str, files: Mapping[str, bytes]) -> None:
    """Write files in their order into a folder, or as one zip without compression, which hardly helps here."""
    if not str(path).lower().endswith(".zip"):
        store = Store(path)
        for name, data in files.items():
            store.write_bytes(name, data)
        return
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    folder, name = _split(str(path))
    Store(folder).write_bytes(name, out.getvalue())


def _split(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return (folder or ("/" if path.startswith("/") else ".")), name


def _check_entries(root: str, entries: list[zipfile.ZipInfo]) -> None:
    if len(entries) > MAXIMUM_ENTRIES:
        raise DataFileError(f"{root} holds {len(entries)} files; a bundle has at most {MAXIMUM_ENTRIES}")
    names = [e.filename for e in entries]
    for name in names:
        outside = name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/")
        if outside or posixpath.normpath(name) != name or not name.isprintable():
            raise DataFileError(f"{root} is refused: its entry {name!r} leads out of the bundle")
    if len(set(names)) != len(names):
        raise DataFileError(f"{root} is refused: a name occurs twice in it")
    unpacked, packed = sum(e.file_size for e in entries), sum(e.compress_size for e in entries)
    if unpacked > MAXIMUM_BYTES or (unpacked > LARGE and unpacked > MAXIMUM_RATIO * max(packed, 1)):
        raise DataFileError(f"{root} is refused: {packed:,} bytes would unpack to {unpacked:,}")
