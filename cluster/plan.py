"""What is left to do: the jobs asked for, less those that are done under the same configuration."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ap3d.config import Config
from ap3d.errors import InputError
from ap3d.portrait_job import PortraitJob
from ap3d.redaction import redacted
from ap3d.storage import Store
from cluster import manifest, records, schema
from cluster.prompts import PromptSet, Rejected

_IDENTITY = ("prompt", "seed", "portrait")
COLUMNS = (*_IDENTITY, "uri_bundle", "preset", "wall_s", "stages")


@dataclass
class Plan:
    """What a run will do.

    Attributes:
        todo: jobs to run, by priority; failed ones of earlier runs are among them.
        done: ids that are finished already.
        rejected: entries that end as failed rows without a worker.
        recovered: rows of records that no flushed part holds.
        known: the merged manifest before this run, of the columns ``COLUMNS`` and those that decide.
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
    known, config_hash = manifest.read_all(store, COLUMNS), config.config_hash
    ids = pa.array([job.face_id for job in prompts.jobs], pa.string())
    recorded = _done(known, config_hash)
    place = _places(ids, recorded)
    missing = ids.filter(place.is_null())
    recovered = _unflushed(store, known, config_hash, missing.to_pylist()) if len(missing) else []
    if recovered:
        rows = schema.conformed(schema.table_from_rows(recovered), known.column_names)
        known = schema.newest_per_key(schema.joined([known, rows]), ordered=False)
        recorded = _done(known, config_hash)
        place = _places(ids, recorded)
    if len(recorded):
        place = pc.if_else(_has_bundle(store, recorded).take(place), place, None)
    _check_same(prompts.jobs, place, recorded)
    unfinished = place.is_null().to_numpy(zero_copy_only=False)
    todo = [prompts.jobs[i] for i in np.flatnonzero(unfinished)]
    todo.sort(key=lambda job: -job.priority)
    done = [prompts.jobs[i].face_id for i in np.flatnonzero(~unfinished)]
    return Plan(todo, done, prompts.rejected, recovered, known)


def _done(table: pa.Table, config_hash: str) -> pa.Table:
    mask = pc.and_(pc.equal(table["status"], "done"), pc.equal(table["config_hash"], config_hash))
    return table.select(["face_id", *_IDENTITY, "uri_bundle"]).filter(mask)


def _unflushed(store: Store, known: pa.Table, config_hash: str, missing: list[str]) -> list[dict[str, Any]]:
    """Rows of records that no part holds; without any part, everything is to be found again."""
    if len(known):
        return records.read_done(store, config_hash, missing)
    return records.read_records(store)


def _places(ids: pa.Array, rows: pa.Table) -> pa.Array:
    """The row of each id, or null."""
    return pc.index_in(ids, rows["face_id"].combine_chunks())


def _has_bundle(store: Store, done: pa.Table) -> pa.Array:
    """Whether the bundle of each row is there, or was deleted by hand."""
    names = pa.array(store.folders("avatars", ordered=False), pa.string())
    return pc.is_in(done["uri_bundle"].combine_chunks(), pc.binary_join_element_wise("avatars", names, "/"))


def _check_same(jobs: list[PortraitJob], place: pa.Array, finished: pa.Table) -> None:
    """Refuse an id that stands for another portrait than the one that is there.

    Raises:
        InputError: which one, and in what they differ.
    """
    mine = pa.array(np.flatnonzero(place.is_valid().to_numpy(zero_copy_only=False)))
    theirs = place.drop_null()
    for name in _IDENTITY if len(mine) else ():
        asked = pa.array([_shown(getattr(job, name)) for job in jobs], finished.schema.field(name).type).take(mine)
        have = finished[name].combine_chunks().take(theirs)
        equal = pc.or_(pc.fill_null(pc.equal(asked, have), False), pc.and_(asked.is_null(), have.is_null()))
        if (wrong := pc.index(equal, False).as_py()) >= 0:
            raise InputError(
                f"id {jobs[mine[wrong].as_py()].face_id!r} is already there with {name} {have[wrong].as_py()!r}, now it"
                f" has {asked[wrong].as_py()!r}; choose another id or another --out"
            )


def _shown(value: Any) -> Any:
    """As rows hold it: a portrait's address without a password."""
    return redacted(value) if isinstance(value, str) and "://" in value else value
