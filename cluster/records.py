"""Records beside the portraits, from which the whole manifest can be made again.

``DONE.json`` is written by the worker as its last act; ``FAILED.json`` by the driver when it gives a portrait up.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ap3d.errors import DataFileError
from ap3d.storage import Store
from cluster.portrait_log import log_name
from cluster.schema import record_from_row, row_from_report

DONE, FAILED = "DONE.json", "FAILED.json"
LOOKED_UP_SINGLY = 100  # portraits; for more, one listing of all is cheaper
READERS = 32  # records of a bucket that are fetched at a time


def write_failed(store: Store, row: Mapping[str, Any]) -> None:
    """Record why a portrait was given up."""
    store.write_json(f"work/{row['config_hash']}/{row['face_id']}/{FAILED}", record_from_row(row))


def read_done(store: Store, config_hash: str, face_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of those portraits that have a record of being done; looks into no other folders."""
    folder = f"work/{config_hash}"
    if len(face_ids) > LOOKED_UP_SINGLY:
        present = set(store.folders(folder))
        face_ids = [face_id for face_id in face_ids if face_id in present]
    rows = _read_many(store, [f"{folder}/{face_id}/{DONE}" for face_id in face_ids])
    return [row for row in rows if row is not None]


def read_records(store: Store, config_hash: str | None = None) -> list[dict[str, Any]]:
    """Rows of all recorded portraits, of one configuration or of all; a record that is not whole counts as absent."""
    folder = f"work/{config_hash}" if config_hash else "work"
    names = [n for n in store.list(folder) if n.count("/") == 3 and n.endswith((f"/{DONE}", f"/{FAILED}"))]
    return [row for row in _read_many(store, names) if row is not None]


def _read_many(store: Store, names: list[str]) -> list[dict[str, Any] | None]:
    with ThreadPoolExecutor(1 if store.is_local else READERS) as pool:
        return list(pool.map(lambda name: _read(store, name), names))


def _read(store: Store, name: str) -> dict[str, Any] | None:
    _, config_hash, face_id, kind = name.split("/")
    try:
        record = store.read_json(name)
        if record["status"] != ("done" if kind == DONE else "failed"):
            return None
        if kind == DONE:
            record.setdefault("uri_log", log_name(face_id, config_hash))
        return row_from_report(record, config_hash=config_hash, face_id=face_id)
    except (DataFileError, ValueError, KeyError, TypeError, AttributeError):
        return None
