"""Columns of the manifest, rows as plain dicts, and which of several rows of one portrait counts.

Evolution: add nullable columns at the end and keep the version; renaming or retyping needs a new version.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ap3d.redaction import redacted

SCHEMA_VERSION = 1

_TIME = pa.timestamp("us", tz="UTC")
_STAGE = pa.struct(
    [
        ("name", pa.string()),
        ("status", pa.string()),
        ("seconds", pa.float64()),
        ("skipped", pa.bool_()),
        ("peak_memory_mb", pa.float64()),
        ("fingerprint", pa.string()),
        ("peak_gpu_memory_mb", pa.float64()),
        ("unet_evaluations", pa.int64()),
        ("controlnet_evaluations", pa.int64()),
        ("flops", pa.float64()),
        ("utilisation", pa.float64()),  # of the device's measured peak
    ]
)

ROW_SCHEMA = pa.schema(
    [
        pa.field("face_id", pa.string(), nullable=False),
        pa.field("config_hash", pa.string(), nullable=False),
        ("prompt", pa.string()),
        ("completed_prompt", pa.string()),
        ("abstract_prompt", pa.string()),
        ("portrait", pa.string()),
        ("seed", pa.int64()),
        ("preset", pa.string()),
        pa.field("status", pa.string(), nullable=False),  # done | failed
        ("error_class", pa.string()),
        ("error_message", pa.string()),
        ("error_trace", pa.string()),
        ("uri_bundle", pa.string()),  # relative to the root, so that a dataset may move
        ("uri_preview", pa.string()),
        ("unknown_words", pa.list_(pa.string())),
        ("metrics", pa.map_(pa.string(), pa.float64())),
        ("stages", pa.list_(_STAGE)),
        ("wall_s", pa.float64()),
        ("epoch", pa.int32()),
        ("attempt", pa.int32()),
        ("run_id", pa.string()),
        ("worker", pa.string()),
        ("host", pa.string()),
        ("device", pa.string()),
        ("ap3d_version", pa.string()),
        ("started", _TIME),
        ("finished", _TIME),
        ("extra_json", pa.string()),  # what a newer worker reported beyond these columns
        ("bytes_bundle", pa.int64()),
        ("bytes_checkpoint", pa.int64()),  # of the largest checkpoint of a stage
        ("uri_log", pa.string()),
        ("log_tail", pa.string()),  # of failed portraits: the end of their log
        ("unet_evaluations", pa.int64()),
        ("controlnet_evaluations", pa.int64()),
        ("flops", pa.float64()),
        ("utilisation", pa.float64()),  # of the phases that use networks
        ("peak_memory_mb", pa.float64()),
        ("peak_gpu_memory_mb", pa.float64()),
    ],
    metadata={"ap3d_schema_version": str(SCHEMA_VERSION)},
)
LATEST = pa.field("latest", pa.bool_(), nullable=False)
STAGE_SECONDS = pa.field("stages", pa.list_(pa.struct([("seconds", pa.float64())])))
KEY = ("face_id", "config_hash")
DECIDING = (*KEY, "status", "epoch", "attempt", "finished")  # which of several rows of one portrait counts
_TIMES = ("started", "finished")
_FROM_OUTSIDE = (
    "portrait",
    "error_message",
    "error_trace",
    "extra_json",
    "log_tail",
)  # may hold an address with a password


def attempt_name(epoch: int, attempt: int) -> str:
    """The folder name of one try: unique because an epoch has one driver and a driver counts its tries."""
    return f"{epoch:06d}-{attempt:02d}"


def row_from_report(report: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A manifest row from what a worker reported or recorded; unknown keys go to ``extra_json``."""
    merged = {**report, **more}
    row = {name: merged.pop(name, None) for name in ROW_SCHEMA.names}
    if isinstance(row["attempt"], str):
        row["epoch"], row["attempt"] = _parsed_attempt(row["attempt"])
    row["metrics"] = {str(k): float(v) for k, v in dict(row["metrics"] or {}).items()}
    row["stages"] = [{name: stage.get(name) for name in _STAGE.names} for stage in row["stages"] or []]
    row["unknown_words"] = list(row["unknown_words"] or [])
    for name in _TIMES:
        if isinstance(row[name], str):
            row[name] = datetime.fromisoformat(row[name])
    merged.pop("latest", None)
    if merged:
        row["extra_json"] = json.dumps(merged, sort_keys=True, default=str)
    for name in _FROM_OUTSIDE:
        if isinstance(row[name], str):
            row[name] = redacted(row[name])
    return row


def without_credentials(value: Any) -> Any:
    """Plain values with passwords and keys in their texts shown as ``***``."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {k: without_credentials(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_credentials(v) for v in value]
    return value


def record_from_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row as JSON values, for a record beside the portrait."""
    return {k: _plain(v) for k, v in row.items() if v is not None}


def now() -> datetime:
    """The time for ``started`` and ``finished``."""
    return datetime.now(UTC)


def table_from_rows(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of the manifest's schema."""
    return pa.Table.from_pylist([dict(r) for r in rows], schema=ROW_SCHEMA)


def conformed(table: pa.Table, columns: Sequence[str] | None = None) -> pa.Table:
    """A table of an older or newer minor schema with today's columns; absent ones become null.

    Args:
        table: rows as they were written.
        columns: only these, of stages their seconds; None keeps all, also those of a newer version, behind today's.
    """
    if columns is None:
        wanted = list(ROW_SCHEMA)
    else:
        wanted = [STAGE_SECONDS if f.name == "stages" else f for f in ROW_SCHEMA if f.name in columns]
    if [(f.name, f.type) for f in wanted] == [(f.name, f.type) for f in table.schema]:
        return table
    arrays = [
        _cast(table.column(f.name), f.type) if f.name in table.column_names else pa.nulls(len(table), f.type)
        for f in wanted
    ]
    newer = [f for f in table.schema if columns is None and f.name not in (*ROW_SCHEMA.names, LATEST.name)]
    arrays += [table.column(f.name) for f in newer]
    return pa.Table.from_arrays(arrays, schema=pa.schema([*wanted, *newer], ROW_SCHEMA.metadata))


def _cast(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    """A column in today's type; fields that a struct lacks become null, those it has beyond are dropped."""
    if column.type == wanted:
        return column
    try:
        return column.cast(wanted)
    except (pa.ArrowException, TypeError):
        return pa.chunked_array([pa.array(column.to_pylist(), wanted)])


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables of :func:`conformed` behind one another; columns that one lacks are null there."""
    return pa.concat_tables(tables, promote_options="permissive").replace_schema_metadata(ROW_SCHEMA.metadata)


def newest_per_key(table: pa.Table, ordered: bool = True) -> pa.Table:
    """One row a (face_id, config_hash): done before failed, then by epoch, attempt and time.

    Args:
        table: rows in any order.
        ordered: sort the result by key; without, rows stay where they are, which is faster and copies less.
    """
    if len(table) == 0:
        return table
    config, configs = _ranks(table["config_hash"])
    key = _ranks(table["face_id"], ordered)[0] * configs + config
    keep = _deciding_rows(table, key)
    if not ordered:
        return table if keep.all() else table.filter(pa.array(keep))
    rows = np.flatnonzero(keep)
    rows = rows[np.argsort(key[rows], kind="stable")]
    return table if len(rows) == len(table) and np.all(rows[1:] > rows[:-1]) else table.combine_chunks().take(rows)


def _deciding_rows(table: pa.Table, key: np.ndarray) -> np.ndarray:
    """True for the one row of each key that counts."""
    order = np.argsort(key, kind="stable")
    same = np.append(False, key[order][1:] == key[order][:-1])
    several = order[same | np.append(same[1:], False)]  # rows whose key others have too: few
    few = table.select(list(DECIDING)).take(several)
    done = pc.equal(few["status"], "done").to_numpy()
    later = [-_numbers(few[name]) for name in ("finished", "attempt", "epoch")]
    best = np.lexsort((*later, ~done, key[several]))
    first = np.append(True, key[several][best][1:] != key[several][best][:-1])[: len(best)]
    keep = np.ones(len(table), bool)
    keep[several] = False
    keep[several[best[first]]] = True
    return keep


def with_latest(table: pa.Table) -> pa.Table:
    """The table with the column ``latest``: the newest done row of each face_id."""
    latest = np.zeros(len(table), bool)
    rows = np.flatnonzero(pc.equal(table["status"], "done").to_numpy())
    if len(rows):
        face = _ranks(table["face_id"])[0][rows]
        order = np.lexsort((-_numbers(table["finished"])[rows], face))
        latest[rows[order[np.append(True, face[order][1:] != face[order][:-1])]]] = True
    return table.append_column(LATEST, pa.array(latest))


def with_flat_metrics(table: pa.Table) -> pa.Table:
    """The table with a column ``metric_NAME`` for each metric: engines sort those a hundred times faster than a map."""
    chunks = table["metrics"].chunks
    metrics = pa.concat_arrays(chunks) if chunks else pa.array([], ROW_SCHEMA.field("metrics").type)
    ends = metrics.offsets.to_numpy()
    rows = np.repeat(np.arange(len(table)), np.diff(ends))
    names = metrics.keys[ends[0] : ends[-1]].dictionary_encode()
    codes = names.indices.to_numpy()
    values = metrics.items[ends[0] : ends[-1]].to_numpy(zero_copy_only=False)
    for code, name in sorted(enumerate(names.dictionary.to_pylist()), key=lambda item: item[1]):
        column, chosen = np.full(len(table), np.nan), codes == code
        column[rows[chosen]] = values[chosen]
        table = table.append_column(f"metric_{name}", pa.array(column, mask=np.isnan(column)))
    return table


def _ranks(column: pa.ChunkedArray, ordered: bool = True) -> tuple[np.ndarray, int]:
    """A whole number for each different text, in their order if wanted, and how many there are."""
    encoded = pa.concat_arrays(column.chunks).dictionary_encode()
    codes, count = encoded.indices.to_numpy().astype(np.int64), len(encoded.dictionary)
    if not ordered:
        return codes, count
    rank = np.empty(count, np.int64)
    rank[pc.sort_indices(encoded.dictionary).to_numpy()] = np.arange(count)
    return rank[codes], count


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Whole numbers or times as int64, the smallest where there is none."""
    return pc.fill_null(column.cast(pa.int64()), -(2**62)).to_numpy()


def _parsed_attempt(name: str) -> tuple[int | None, int | None]:
    epoch, _, attempt = name.partition("-")
    return (int(epoch), int(attempt)) if epoch.isdigit() and attempt.isdigit() else (None, None)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
