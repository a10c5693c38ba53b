"""The dataset's table: immutable Parquet parts, written by one driver, merged when read.

The write of a part is its commit. Readers merge parts and compacted files and keep one row a portrait, so they are
right at any moment, also while a compaction has written its file and not yet deleted what went into it.
``avatars.parquet`` is derived from that and can be deleted at any time.
"""

import io
import time
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ap3d.errors import DataFileError, InputError
from ap3d.storage import Store
from cluster import schema

FLUSH_ROWS = 100
FLUSH_SECONDS = 30.0
PARTS, COMPACT = "manifest/parts", "manifest/compact"
TABLE = "avatars.parquet"
SCHEMA_FILE = "manifest/_schema.json"
ROWS_PER_COMPACT_FILE = 50_000
ROWS_PER_GROUP = 131_072
PARTS_TO_MERGE = 200  # a driver merges parts when there are more, so that reading stays a matter of few files
READERS = 16  # parts of a bucket that are fetched at a time
_LIGHT = {"stages": "stages.list.element.seconds"}  # where not all columns are asked for


def check_schema(store: Store) -> None:
    """Refuse a root that another version of the schema wrote.

    Raises:
        InputError: it is of another version, or its mark cannot be understood.
    """
    if not store.exists(SCHEMA_FILE):
        return
    try:
        version = store.read_json(SCHEMA_FILE)["schema_version"]
    except (DataFileError, KeyError, TypeError) as error:
        raise InputError(f"{store.shown!r} holds a manifest that cannot be understood: {error}") from error
    if version != schema.SCHEMA_VERSION:
        raise InputError(
            f"{store.shown!r} holds a dataset of schema version {version}, this is version {schema.SCHEMA_VERSION};"
            " choose another --out or the ap3d that wrote it"
        )


def read_all(store: Store, columns: Sequence[str] | None = None) -> pa.Table:
    """The merged table: one row a (face_id, config_hash), without the column ``latest``.

    Args:
        store: the dataset's root.
        columns: read only these (and those that decide which row counts), in no order; None reads all, also newer
            ones, sorted by key.

    Raises:
        DataFileError: a part is damaged.
    """
    wanted = None if columns is None else [n for n in schema.ROW_SCHEMA.names if n in {*columns, *schema.DECIDING}]
    empty = schema.conformed(schema.ROW_SCHEMA.empty_table(), wanted)
    tables: list[pa.Table | None] = [None]
    with ThreadPoolExecutor(READERS) as pool:
        side_by_side = map if store.is_local else pool.map
        while any(table is None for table in tables):  # a compaction deleted what was listed: list again
            tables = list(side_by_side(lambda name: _read_part(store, name, wanted), _part_names(store)))
    merged = schema.joined([empty, *(table for table in tables if table is not None)])
    return schema.newest_per_key(merged, ordered=columns is None)


def has_parts(store: Store) -> bool:
    """Whether any row was ever flushed (and not deleted)."""
    return bool(_part_names(store))


def compact(store: Store) -> tuple[int, int, pa.Table]:
    """Merge all parts into few sorted files; call it only while holding the lease.

    Returns:
        Number of files before and after, and all rows.
    """
    before = _part_names(store)
    table = read_all(store)
    if len(before) <= 1 + len(table) // ROWS_PER_COMPACT_FILE:
        return len(before), len(before), table
    after: list[str] = []
    for start in range(0, len(table), ROWS_PER_COMPACT_FILE):
        chunk = table.slice(start, ROWS_PER_COMPACT_FILE)
        after.append(f"{COMPACT}/{start // ROWS_PER_COMPACT_FILE:06d}-{uuid.uuid4().hex[:12]}.parquet")
        store.write_bytes(after[-1], _encode(chunk))
    store.delete_files(before)
    return len(before), len(after), table


def write_table(store: Store, epoch: int | None, rows: pa.Table | None = None) -> pa.Table:
    """Derive ``avatars.parquet`` from the parts, or from their rows where they were just read; call it only while
    holding the lease."""
    parts = _part_names(store)
    table = schema.with_flat_metrics(schema.with_latest(read_all(store) if rows is None else rows))
    facts = {"ap3d_epoch": str(epoch or 0), "ap3d_parts": str(len(parts))}
    store.write_bytes(TABLE, _encode(table.replace_schema_metadata({**(table.schema.metadata or {}), **facts})))
    return table


class ManifestWriter:
    """Collects rows and flushes them as parts; the driver that holds the lease owns the only one.

    Args:
        store: the dataset's root.
        epoch: the lease's epoch; it is part of each file's name.
    """

    def __init__(self, store: Store, epoch: int) -> None:
        self.store, self.epoch = store, epoch
        self._rows: list[Mapping[str, Any]] = []
        self._sequence = 0
        self._flushed = time.monotonic()
        self._table_written = float("-inf")
        self._table_seconds = 0.0
        if not store.exists(SCHEMA_FILE):
            store.write_json(SCHEMA_FILE, {"schema_version": schema.SCHEMA_VERSION})

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep rows for the next flush."""
        self._rows.extend(rows)

    def flush_due(self) -> bool:
        """Whether enough rows or time have gathered."""
        late = time.monotonic() - self._flushed > FLUSH_SECONDS
        return len(self._rows) >= FLUSH_ROWS or (late and bool(self._rows))

    def flush(self) -> None:
        """Write what has gathered as one part."""
        self._flushed = time.monotonic()
        if not self._rows:
            return
        name = f"{PARTS}/{self.epoch:06d}-{self._sequence:06d}-{uuid.uuid4().hex[:8]}.parquet"
        self.store.write_bytes(name, _encode(schema.table_from_rows(self._rows)))
        self._sequence += 1
        self._rows.clear()

    def table_due(self) -> bool:
        """Whether ``avatars.parquet`` may be rewritten: at most every max(60 s, 20 times what it took)."""
        return time.monotonic() - self._table_written > max(60.0, 20 * self._table_seconds)

    def write_table(self, rows: pa.Table | None = None) -> pa.Table:
        """Rewrite ``avatars.parquet`` from all parts, merging them first when they have become many; or from their rows
        where they were just read."""
        started = time.monotonic()
        if rows is None and len(self.store.list(PARTS)) >= PARTS_TO_MERGE:
            *_, rows = compact(self.store)
        table = write_table(self.store, self.epoch, rows)
        self._table_written = time.monotonic()
        self._table_seconds = self._table_written - started
        return table


def _part_names(store: Store) -> list[str]:
    return [n for folder in (COMPACT, PARTS) for n in store.list(folder) if n.endswith(".parquet")]


def _read_part(store: Store, name: str, columns: list[str] | None) -> pa.Table | None:
    """One part; None when a compaction deleted it since the listing.

    Raises:
        DataFileError: it is damaged.
    """
    try:
        data = store.read_bytes(name)
    except DataFileError:
        if store.exists(name):
            raise
        return None
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        paths = None if columns is None else [_LIGHT.get(name, name) for name in columns]  # absent ones are passed over
        return schema.conformed(file.read(columns=paths, use_threads=False), columns)
    except (pa.ArrowException, OSError) as error:
        cure = "delete it and run jobs.compact --rebuild"
        raise DataFileError(f"{store.uri(name)} is damaged ({str(error).splitlines()[0]}); {cure}") from error


def _encode(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=ROWS_PER_GROUP)
    return sink.getvalue()
