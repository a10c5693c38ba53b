"""Columns of the manifest, rows as plain dicts, and which of several rows of one portrait counts.

Evolution: add nullable columns at the end and keep the version; renaming or retyping needs a new version.
"""

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

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
KEY = ("face_id", "config_hash")
_TIMES = ("started", "finished")
_FROM_OUTSIDE = ("portrait", "error_message", "error_trace", "extra_json")  # may hold an address with a password


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


def conformed(table: pa.Table) -> pa.Table:
    """A table of an older or newer minor schema with exactly today's columns; absent ones become null."""
    columns = [
        table.column(f.name).cast(f.type) if f.name in table.column_names else pa.nulls(len(table), f.type)
        for f in ROW_SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=ROW_SCHEMA)


def newest_per_key(table: pa.Table) -> pa.Table:
    """One row a (face_id, config_hash): done before failed, then by epoch, attempt and time; sorted by key."""
    if len(table) == 0:
        return table
    done = pc.cast(pc.equal(table["status"], "done"), pa.int8())
    order = [(name, "ascending") for name in KEY]
    order += [(name, "descending") for name in ("_done", "epoch", "attempt", "finished")]
    ordered = table.append_column("_done", done).sort_by(order).drop_columns(["_done"])
    return ordered.filter(_first_of_group(ordered, KEY))


def with_latest(table: pa.Table) -> pa.Table:
    """The table with the column ``latest``: the newest done row of each face_id."""
    if len(table) == 0:
        return table.append_column(LATEST, pa.array([], pa.bool_()))
    done = pc.equal(table["status"], "done")
    indexed = table.select(["face_id", "finished"]).append_column("_row", pa.array(range(len(table)), pa.int64()))
    ordered = indexed.filter(done).sort_by([("face_id", "ascending"), ("finished", "descending")])
    if len(ordered):
        ordered = ordered.filter(_first_of_group(ordered, ("face_id",)))
    latest = pc.is_in(indexed["_row"], value_set=ordered["_row"].combine_chunks())
    return table.append_column(LATEST, latest)


def _first_of_group(ordered: pa.Table, key: tuple[str, ...]) -> pa.Array:
    """True where a sorted table's key differs from that of the row before."""
    changes = [pc.not_equal(ordered[name].slice(1), ordered[name].slice(0, len(ordered) - 1)) for name in key]
    changed = changes[0]
    for other in changes[1:]:
        changed = pc.or_(changed, other)
    return pa.chunked_array([pa.array([True]), *changed.chunks])


def _parsed_attempt(name: str) -> tuple[int | None, int | None]:
    epoch, _, attempt = name.partition("-")
    return (int(epoch), int(attempt)) if epoch.isdigit() and attempt.isdigit() else (None, None)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
