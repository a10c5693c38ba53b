"""Prompt files as raw records: txt, csv, jsonl, parquet, and a folder of Portrait3D results.

A file that cannot be read as a whole raises; one record that is broken is returned with the reason, so that the
other portraits of the file can go on.
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import fsspec

from ap3d.errors import InputError
from ap3d.storage import Store

NETWORKS = "decoder.safetensors"  # lies beside tri-grids and is none
GALLERY_SUFFIX = "_pyramid_trigrid"
FIELDS = ("face_id", "prompt", "seed", "abstract_prompt", "portrait")
_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True)
class Record:
    """One entry of a prompt file before validation.

    Attributes:
        where: place for messages, such as ``line 3``.
        values: known columns that are present and not empty, as text or numbers.
        error: why the entry cannot be used, if it was already broken as a record.
    """

    where: str
    values: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


def read_records(uri: str) -> list[Record]:
    """All entries of a prompt file on any fsspec file system; the file's name tells the format.

    Raises:
        InputError: unknown format, unreadable, empty, or without a prompt column.
    """
    suffix = uri.rsplit(".", 1)[-1].lower()
    if suffix not in _READERS:
        raise InputError(f"cannot tell the format of prompt file {uri!r}; name it .txt, .csv, .jsonl or .parquet")
    records = [_resolved(r, uri) for r in _READERS[suffix](_read(uri), uri)]
    if not records:
        raise InputError(f"prompt file {uri!r} holds no prompts")
    return records


def read_portrait_folder(uri: str) -> list[Record]:
    """Portrait3D results ``ID.pth`` with their prompt in ``ID.txt``, or ``ID_pyramid_trigrid.pth`` and
    ``ID_prompt.txt`` as its gallery names them; ``.safetensors`` in place of ``.pth`` too.

    Raises:
        InputError: no such file there.
    """
    store = Store(uri)
    names = [n for n in store.list("") if "/" not in n]
    records = [_portrait_record(store, uri, name, names) for name in names if _is_trigrid(name)]
    if not records:
        raise InputError(f"no Portrait3D results (*.pth) in {uri!r}")
    return records


def _is_trigrid(name: str) -> bool:
    return name.endswith(".pth") or (name.endswith(".safetensors") and name != NETWORKS)


def _portrait_record(store: Store, uri: str, name: str, names: list[str]) -> Record:
    stem = name.rsplit(".", 1)[0]
    face_id = stem.removesuffix(GALLERY_SUFFIX)
    text_file = f"{stem}.txt" if face_id == stem else f"{face_id}_prompt.txt"
    values = {"face_id": face_id, "portrait": _join(uri, name)}
    if text_file not in names:
        return Record(name, values, f"there is no {text_file} with the prompt beside it")
    return Record(name, {**values, "prompt": _decode(store.read_bytes(text_file), text_file)})


def _read(uri: str) -> bytes:
    try:
        with fsspec.open(uri, "rb") as file:
            return bytes(file.read())
    except FileNotFoundError as error:
        raise InputError(f"prompt file {uri!r} does not exist") from error
    except IsADirectoryError as error:
        raise InputError(f"{uri!r} is a folder; for a folder of Portrait3D results use --portraits") from error
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"cannot read prompt file {uri!r}: {' '.join(str(error).split())}") from error


def _decode(data: bytes, uri: str) -> str:
    """UTF-8 text; bytes that are not stay as surrogates so that only their own entry fails."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"prompt file {uri!r} is UTF-16; save it as UTF-8")
    return data.decode("utf-8-sig", errors="surrogateescape")


def _read_txt(data: bytes, uri: str) -> Iterator[Record]:
    for number, line in enumerate(_LINE_END.split(_decode(data, uri)), 1):
        if line.strip():
            yield Record(f"line {number}", {"prompt": line})


def _read_csv(data: bytes, uri: str) -> Iterator[Record]:
    reader = csv.reader(io.StringIO(_decode(data, uri), newline=""), strict=True)
    try:
        header = _columns(next(reader, []), uri)
        for row in reader:
            where = f"line {reader.line_num}"
            if not row:
                continue
            if len(row) > len(header):
                reason = f"{len(row)} fields under {len(header)} columns; put prompts with commas in quotes"
                yield Record(where, error=reason)
            else:
                yield Record(where, _values(dict(zip(header, row, strict=False))))
    except csv.Error as error:
        raise InputError(f"prompt file {uri!r}, line {reader.line_num}: {error}") from error


def _read_jsonl(data: bytes, uri: str) -> Iterator[Record]:
    for number, line in enumerate(_LINE_END.split(_decode(data, uri)), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            yield Record(f"line {number}", error="not valid JSON")
            continue
        if isinstance(value, str):
            value = {"prompt": value}
        if isinstance(value, dict):
            yield Record(f"line {number}", _values({_column(str(k)): v for k, v in value.items()}))
        else:
            yield Record(f"line {number}", error="neither a JSON object nor a string")


def _read_parquet(data: bytes, uri: str) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"prompt file {uri!r} is not a whole Parquet file: {str(error).splitlines()[0]}") from error
    table = table.rename_columns(_columns(table.column_names, uri))
    for number, row in enumerate(table.select([n for n in FIELDS if n in table.column_names]).to_pylist(), 1):
        yield Record(f"row {number}", _values(row))


_READERS: Mapping[str, Callable[[bytes, str], Iterator[Record]]] = {
    "txt": _read_txt,
    "csv": _read_csv,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
}


def _columns(names: list[str], uri: str) -> list[str]:
    columns = [_column(name) for name in names]
    if "prompt" not in columns:
        found = ", ".join(repr(n) for n in names) or "none"
        raise InputError(f"prompt file {uri!r} has no column 'prompt'; its columns: {found}")
    for name in FIELDS:
        if columns.count(name) > 1:
            raise InputError(f"prompt file {uri!r} has more than one column {name!r}")
    return columns


def _column(name: str) -> str:
    name = name.strip().lower()
    return "face_id" if name == "id" else name


def _values(row: Mapping[str, Any]) -> dict[str, Any]:
    """The known columns that hold something; an empty prompt stays, so that it is reported."""
    present = {k: v for k, v in row.items() if k in FIELDS and not _absent(v)}
    return {"prompt": "", **present}


def _absent(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def _resolved(record: Record, uri: str) -> Record:
    """The record with a relative portrait path taken from the prompt file's folder."""
    portrait = record.values.get("portrait")
    if isinstance(portrait, str):
        folder = uri.rsplit("/", 1)[0] if "/" in uri else ""
        record.values["portrait"] = _join(folder, portrait.strip())
    return record


def _join(folder: str, name: str) -> str:
    if not folder or name.startswith("/") or "://" in name:
        return name
    return f"{folder.rstrip('/')}/{name}"
