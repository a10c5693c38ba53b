"""What a dataset holds and what its driver is doing, from storage alone."""

from collections import Counter
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ap3d.errors import InputError
from ap3d.storage import Store
from cluster import gallery, lease, manifest
from cluster.progress import duration, error_line

SHOWN_ERRORS = 10
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
    table = manifest.read_all(store)
    rows = table.select(["config_hash", "preset", "status", "wall_s", *_FAILURE]).to_pylist()
    counts = Counter((row["preset"], row["config_hash"], row["status"]) for row in rows)
    seconds = sorted(row["wall_s"] for row in rows if row["status"] == "done" and row["wall_s"])
    return {
        "root": store.shown,
        "portraits": len({row["face_id"] for row in rows}),
        "configurations": [
            {"preset": p, "config_hash": c, "done": counts[p, c, "done"], "failed": counts[p, c, "failed"]}
            for p, c in dict.fromkeys(key[:2] for key in counts)
        ],
        "median_seconds": seconds[len(seconds) // 2] if seconds else None,
        "failures": [{k: row[k] for k in _FAILURE} for row in rows if row["status"] == "failed"],
        "run": _run(newest),
        "gallery": store.uri(gallery.PAGE) if store.exists(gallery.PAGE) else None,
    }


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
    left = run.get("remaining_seconds")
    more = f", about {duration(left)} left" if left and run["state"] == "running" else ""
    console.print(
        f"run {run.get('run_id')} {run['state']} on {run['host']} (process {run['pid']}): {run.get('done', 0)} done,"
        f" {run.get('failed', 0)} failed, {run.get('queued', 0)} queued, {run.get('per_hour', 0):.0f} avatars/h{more}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    for name, worker in run.get("running", {}).items():
        step = f"{worker.get('step', 0)}/{worker['steps']}" if worker.get("steps") else ""
        console.print(f"  {name}  {escape(str(worker.get('face_id') or ''))}  {worker.get('stage', '')} {step}")
