"""What is left to do: the jobs asked for, less those that are done under the same configuration."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ap3d.config import Config
from ap3d.errors import InputError
from ap3d.portrait_job import PortraitJob
from ap3d.redaction import redacted
from ap3d.storage import Store
from cluster import manifest, records, schema
from cluster.prompts import PromptSet, Rejected


@dataclass
class Plan:
    """What a run will do.

    Attributes:
        todo: jobs to run; failed ones of earlier runs are among them.
        done: ids that are finished already.
        rejected: entries that end as failed rows without a worker.
        recovered: rows of records that no flushed part holds.
        known: the merged manifest before this run.
    """

    todo: list[PortraitJob]
    done: list[str]
    rejected: list[Rejected]
    recovered: list[dict[str, Any]] = field(default_factory=list)
    known: pa.Table = field(default_factory=schema.ROW_SCHEMA.empty_table)


def make_plan(store: Store, prompts: PromptSet, config: Config) -> Plan:
    """Compare what is asked for with the manifest and with records that never reached it.

    Raises:
        InputError: an id is taken by another portrait, or the root is of another schema version.
    """
    manifest.check_schema(store)
    known = manifest.read_all(store)
    recovered: list[dict[str, Any]] = []
    wanted = {job.face_id for job in prompts.jobs}
    if not wanted <= _done_rows(known, config.config_hash).keys():
        scope = config.config_hash if len(known) else None  # without any part, everything is to be found again
        recovered = _unknown_rows(known, records.read_records(store, scope))
        known = schema.newest_per_key(pa.concat_tables([known, schema.table_from_rows(recovered)]))
    finished = _present(store, config, _done_rows(known, config.config_hash))
    for job in prompts.jobs:
        _check_same(job, finished.get(job.face_id))
    todo = [job for job in prompts.jobs if job.face_id not in finished]
    done = [job.face_id for job in prompts.jobs if job.face_id in finished]
    return Plan(todo, done, prompts.rejected, recovered, known)


def _done_rows(table: pa.Table, config_hash: str) -> dict[str, dict[str, Any]]:
    mask = pc.and_(pc.equal(table["status"], "done"), pc.equal(table["config_hash"], config_hash))
    rows = table.filter(mask).select(["face_id", "prompt", "seed", "portrait", "uri_bundle"]).to_pylist()
    return {row["face_id"]: row for row in rows}


def _unknown_rows(known: pa.Table, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    columns = (known[name].to_pylist() for name in (*schema.KEY, "status"))
    have = set(zip(*columns, strict=True))
    done = {key[:2] for key in have if key[2] == "done"}
    keys = [(row["face_id"], row["config_hash"]) for row in rows]
    return [r for k, r in zip(keys, rows, strict=True) if k not in done and (*k, r["status"]) not in have]


def _present(store: Store, config: Config, rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Only the rows whose bundle was not deleted by hand."""
    folders = set(store.folders("avatars")) if rows else set()
    return {k: row for k, row in rows.items() if str(row["uri_bundle"]).rsplit("/", 1)[-1] in folders}


def _check_same(job: PortraitJob, row: dict[str, Any] | None) -> None:
    if row is None:
        return
    for name in ("prompt", "seed", "portrait"):
        asked = getattr(job, name)
        if row[name] != (redacted(asked) if isinstance(asked, str) else asked):
            raise InputError(
                f"id {job.face_id!r} is already there with {name} {row[name]!r}, now it has {asked!r};"
                " choose another id or another --out"
            )
