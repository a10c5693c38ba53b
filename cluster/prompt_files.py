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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import fsspec

from ap3d.errors import InputError
from ap3d.storage import Store

NETWORKS = "decoder.safetensors"  # lies beside tri-grids and is none
READERS = 32  # prompts of a bucket that are fetched at a time
GALLERY_SUFFIX = "_pyramid_trigrid"
FIELDS = ("face_id", "prompt", "seed", "abstract_prompt", "portrait", "priority")
_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(slots=True)
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


def read_records(uri: str) -> Iterator[Record]:
    """The entries of a prompt file on any fsspec file system, one by one; the file's name tells the format.

    Raises:
        InputError: unknown format, unreadable, empty, or without a prompt column; at the first entry or, for a CSV
            that breaks further down, there.
    """
    suffix = uri.partition("?")[0].rsplit(".", 1)[-1].lower()
    if suffix not in _READERS:
        raise InputError(f"cannot tell the format of prompt file {uri!r}; name it .txt, .csv, .jsonl or .parquet")
    records = (_resolved(r, uri) for r in _READERS[suffix](_read(uri), uri))
    first = next(records, None)
    if first is None:
        raise InputError(f"prompt file {uri!r} holds no prompts")
    return chain([first], records)


def read_portrait_folder(uri: str) -> list[Record]:
    """Portrait3D results ``ID.pth`` with their prompt in ``ID.txt``, or ``ID_pyramid_trigrid.pth`` and
    ``ID_prompt.txt`` as its gallery names them; ``.safetensors`` in place of ``.pth`` too.

    Raises:
        InputError: no such file there.
    """
    store = Store(uri)
    names = {n for n in store.list("") if "/" not in n}
    found = sorted(filter(_is_trigrid, names))
    if not found:
        raise InputError(f"no Portrait3D results (*.pth) in {uri!r}")
    with ThreadPoolExecutor(1 if store.is_local else READERS) as pool:
        return list(pool.map(lambda name: _portrait_record(store, uri, name, names), found))


def _is_trigrid(name: str) -> bool:
    return name.endswith(".pth") or (name.endswith(".safetensors") and name != NETWORKS)


def _portrait_record(store: Store, uri: str, name: str, names: set[str]) -> Record:
    stem = name.rsplit(".", 1)[0]
    face_id = stem.removesuffix(GALLERY_SUFFIX)
    text_file = f"{stem}.txt" if face_id == stem else f"{face_id}_prompt.txt"
    values = {"face_id": face_id, "portrait": _join(uri, name)}
    if text_file not in names:
        return Record(name, values, f"there is no {text_file} with the prompt beside it")
    try:
        return Record(name, {**values, "prompt": _decode(store.read_bytes(text_file), text_file)})
    except InputError as error:
        return Record(name, values, str(error))


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
    _refuse_utf16(data, uri)
    return data.decode("utf-8-sig", errors="surrogateescape")


def _refuse_utf16(data: bytes, uri: str) -> None:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"prompt file {uri!r} is UTF-16; save it as UTF-8")


def _read_txt(data: bytes, uri: str) -> Iterator[Record]:
    for number, line in enumerate(_LINE_END.split(_decode(data, uri)), 1):
        if line.strip():
            yield Record(f"line {number}", {"prompt": line})


def _read_csv(data: bytes, uri: str) -> Iterator[Record]:
    _refuse_utf16(data, uri)
    lines = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(lines, strict=True)
    try:
        header = _columns(next(reader, []), uri)
        known = [(place, name) for place, name in enumerate(header) if name in FIELDS]
        for row in reader:
            where, width = f"line {reader.line_num}", len(row)
            if width > len(header):
                reason = f"{width} fields under {len(header)} columns; put prompts with commas in quotes"
                yield Record(where, error=reason)
            elif row:
                cells = ((name, row[place]) for place, name in known if place < width)
                yield Record(where, {"prompt": "", **{name: cell for name, cell in cells if cell.strip()}})
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
    number = 0
    for batch in table.select([n for n in FIELDS if n in table.column_names]).to_batches(max_chunksize=8192):
        for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            number += 1
            yield Record(f"row {number}", _values(dict(zip(batch.schema.names, values, strict=True))))


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
    if "portrait" in record.values and isinstance(portrait := record.values["portrait"], str):
        folder = uri.rsplit("/", 1)[0] if "/" in uri else ""
        record.values["portrait"] = _join(folder, portrait.strip())
    return record


def _join(folder: str, name: str) -> str:
    if not folder or name.startswith("/") or "://" in name:
        return name
    return f"{folder.rstrip('/')}/{name}"
