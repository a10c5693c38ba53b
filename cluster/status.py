"""What a dataset holds and what its driver is doing, from storage alone."""

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from ap3d.errors import InputError
from ap3d.storage import Store
from cluster import gallery, lease, manifest
from cluster.progress import duration, error_line

SHOWN_ERRORS = 10
KEPT_ERRORS = 1000
_FAILURE = ("face_id", "error_class", "error_message")


def read_status(store: Store) -> dict[str, Any]:
    """Counts, recent failures and the newest run, as plain values.

    Raises:
        InputError: there is no dataset in the root, or one of another schema version.
    """
    manifest.check_schema(store)
    newest = lease.read_progress(store)
    if newest is None and not manifest.has_parts(store):
        raise InputError(f"{store.shown!r} holds no dataset (no manifest folder)")
    table = manifest.read_all(store, ("preset", "wall_s", *_FAILURE))
    done, failed = (table.filter(pc.equal(table["status"], status)) for status in ("done", "failed"))
    recent = failed.select(list(_FAILURE)).take(pc.sort_indices(failed["finished"])[-KEPT_ERRORS:])
    seconds = done["wall_s"].drop_null()
    return {
        "root": store.shown,
        "portraits": pc.count_distinct(table["face_id"]).as_py(),
        "configurations": _configurations(table),
        "median_seconds": pc.approximate_median(seconds).as_py() if len(seconds) else None,
        "failures": recent.to_pylist(),
        "run": _run(newest),
        "gallery": store.uri(gallery.PAGE) if store.exists(gallery.PAGE) else None,
    }


def _configurations(table: pa.Table) -> list[dict[str, Any]]:
    """Done and failed portraits of each configuration."""
    counted = table.group_by(["preset", "config_hash", "status"]).aggregate([([], "count_all")]).to_pylist()
    counts = Counter({(row["preset"], row["config_hash"], row["status"]): row["count_all"] for row in counted})
    return [
        {"preset": p, "config_hash": c, "done": counts[p, c, "done"], "failed": counts[p, c, "failed"]}
        for p, c in dict.fromkeys(key[:2] for key in sorted(counts, key=str))
    ]


def _run(newest: tuple[dict[str, Any], dict[str, Any]] | None) -> dict[str, Any] | None:
    if newest is None:
        return None
    holder, beat = newest
    state = "gone" if lease.holder_is_gone(holder) else "running"
    if beat.get("released"):
        state = "ended"
    return {**beat.get("progress", {}), "state": state, "host": holder.get("host"), "pid": holder.get("pid")}


def print_status(console: Console, status: dict[str, Any]) -> None:
    """The same for people."""
    console.print(f"{status['root']}: {status['portraits']} portraits", markup=False, highlight=False)
    table = Table("preset", "configuration", "done", "failed", box=None)
    for entry in status["configurations"]:
        table.add_row(entry["preset"], entry["config_hash"], str(entry["done"]), str(entry["failed"]))
    console.print(table)
    if status["median_seconds"]:
        console.print(f"median {duration(status['median_seconds'])} a portrait")
    if run := status["run"]:
        _print_run(console, run)
    for row in status["failures"][-SHOWN_ERRORS:]:
        console.print(f"failed: {row['face_id']}: {error_line(row)}", markup=False, highlight=False, soft_wrap=True)
    if status["gallery"]:
        console.print(f"gallery: {status['gallery']}", markup=False, highlight=False, soft_wrap=True)


def _print_run(console: Console, run: dict[str, Any]) -> None:
    """The newest run; its counts are its own and stand in the lines above as far as they were flushed."""
    running, left = run["state"] == "running", run.get("remaining_seconds")
    parts = [
        f"run {run.get('run_id')} {run['state']} on {run['host']} (process {run['pid']}); of its own "
        f"{run.get('done', 0)} done, {run.get('failed', 0)} failed, {run.get('queued', 0)} queued",
        f"{run.get('per_hour', 0):.0f} avatars/h" if run.get("done") else "",
        f"about {duration(left)} left" if left and running else "",
        "the same command again continues it" if run["state"] == "gone" else "",
    ]
    console.print(", ".join(p for p in parts if p), markup=False, highlight=False, soft_wrap=True)
    for name, worker in run.get("running", {}).items() if running else ():
        step = f"{worker.get('step', 0)}/{worker['steps']}" if worker.get("steps") else ""
        line = f"  {name}  {worker.get('face_id') or ''}  {worker.get('stage', '')} {step}".rstrip()
        console.print(line, markup=False, highlight=False, soft_wrap=True)
