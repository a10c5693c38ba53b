"""One driver at a time writes a dataset: a lease with an epoch, taken by exclusive creation, kept by a heartbeat.

A lease is stale when its holder released it, when its process on this machine is gone, or when its heartbeat's
counter stood still for the time to live on the observer's own clock: clocks of different machines are never compared.
A superseded holder notices before its next flush and stops; a late part of it changes nothing, since rows are
idempotent and a higher epoch wins.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ap3d.errors import DataFileError, RunError
from ap3d.storage import Store

FOLDER = "manifest/_lease"
BEAT_SECONDS = 5.0
TIME_TO_LIVE = 45.0


class Lease:
    """The right to write a dataset's manifest; make one with :meth:`acquire`."""

    def __init__(self, store: Store, epoch: int, progress: Callable[[], dict[str, Any]] = dict) -> None:
        self.store, self.epoch = store, epoch
        self.progress = progress
        self.failure: str | None = None
        self._counter = 0
        self._last_beat = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    @classmethod
    def acquire(
        cls,
        store: Store,
        *,
        takeover: bool = False,
        time_to_live: float = TIME_TO_LIVE,
        run_id: str = "",
        progress: Callable[[], dict[str, Any]] = dict,
    ) -> "Lease":
        """Take the lease, waiting up to its time to live for a holder that may be gone.

        Args:
            store: the dataset's root.
            takeover: do not ask whether a holder lives.
            time_to_live: seconds after which a heartbeat that stands still counts as dead.
            run_id: for the record.
            progress: called for each heartbeat; its values are what ``jobs.status`` shows.

        Raises:
            RunError: another driver holds it and lives, or took it at the same moment.
        """
        last = _newest_epoch(store)
        if last and not takeover and not _is_over(store, last):
            _await_stale(store, last, time_to_live)
        lease = cls(store, last + 1, progress)
        holder = {"run_id": run_id, **_identity()}
        if not store.exclusive_create(_name(lease.epoch), _json(holder)):
            raise RunError(f"another driver has just begun to write {store.shown!r}; run jobs.status to watch it")
        lease.beat()
        lease._thread.start()
        return lease

    @property
    def witness(self) -> str:
        """The lease's file: whoever sees it works on the same storage."""
        return _name(self.epoch)

    def beat(self) -> None:
        """Show that the holder lives, with its progress for ``jobs.status``."""
        self._counter += 1
        beat = {"counter": self._counter, "released": self._ended.is_set(), "progress": self.progress()}
        self.store.write_json(_beat_name(self.epoch), beat)
        self._last_beat = time.monotonic()

    def check(self) -> None:
        """Make sure that this is still the newest lease.

        Raises:
            RunError: another driver took over, or no heartbeat could be written for half the time to live.
        """
        if self.failure and time.monotonic() - self._last_beat > TIME_TO_LIVE / 2:
            raise RunError(f"the lease of {self.store.shown!r} could not be kept: {self.failure}")
        if _newest_epoch(self.store) != self.epoch:
            raise RunError(f"another driver took over {self.store.shown!r}; this one stops and leaves the rest to it")

    def release(self) -> None:
        """Give the lease back; the last heartbeat says so."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=BEAT_SECONDS)
        self.beat()

    def _keep(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                self.beat()
                self.failure = None
            except Exception as error:  # kept for check(): a thread has nobody to raise to
                self.failure = str(error)


def read_progress(store: Store) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Holder and last heartbeat of the newest lease, or None when there never was one."""
    epoch = _newest_epoch(store)
    if not epoch:
        return None
    try:
        return store.read_json(_name(epoch)), store.read_json(_beat_name(epoch))
    except DataFileError:
        return None


def holder_is_gone(holder: dict[str, Any]) -> bool:
    """Whether the holder is a process of this machine that no longer runs."""
    if _may_be_elsewhere(holder):
        return False
    return _process_start(int(holder.get("pid", 0))) != holder.get("process_start")


def _newest_epoch(store: Store) -> int:
    names = (n.rsplit("/", 1)[-1] for n in store.list(FOLDER))
    stems = (n.removesuffix(".json") for n in names if n.endswith(".json") and not n.endswith(".beat.json"))
    return max((int(s) for s in stems if s.isdigit()), default=0)


def _is_over(store: Store, epoch: int) -> bool:
    holder, beat = _read(store, _name(epoch)), _read(store, _beat_name(epoch))
    return bool(beat.get("released")) or holder_is_gone(holder)


def _await_stale(store: Store, epoch: int, time_to_live: float) -> None:
    """Return when the heartbeat stood still for the time to live; raise as soon as it moves."""
    holder = _read(store, _name(epoch))
    where = f"process {holder.get('pid')} on {holder.get('host')}"
    busy = RunError(f"{store.shown!r} is being written by {where}; wait for it, or take it over with --takeover")
    if holder and not _may_be_elsewhere(holder):
        raise busy
    first = _read(store, _beat_name(epoch)).get("counter")
    until = time.monotonic() + time_to_live
    while time.monotonic() < until:
        time.sleep(min(1.0, time_to_live / 10))
        beat = _read(store, _beat_name(epoch))
        if beat.get("released"):
            return
        if beat.get("counter") != first:
            raise busy


def _may_be_elsewhere(holder: dict[str, Any]) -> bool:
    mine = _identity()
    return any(holder.get(k) != mine[k] for k in ("host", "boot", "pid_space"))


def _read(store: Store, name: str) -> dict[str, Any]:
    try:
        value = store.read_json(name)
    except DataFileError:
        return {}
    return value if isinstance(value, dict) else {}


def _identity() -> dict[str, Any]:
    """Tells this process from any other, also from a later one with the same number."""
    return {
        "host": socket.gethostname(),
        "boot": _first_line("/proc/sys/kernel/random/boot_id"),
        "pid_space": _link("/proc/self/ns/pid"),
        "pid": os.getpid(),
        "process_start": _process_start(os.getpid()),
    }


def _process_start(pid: int) -> str | None:
    """The start time of a running process in clock ticks (Linux), ``running`` elsewhere, None when it is gone."""
    if os.path.exists("/proc/self/stat"):
        fields = _first_line(f"/proc/{pid}/stat").rpartition(")")[2].split()
        return fields[19] if len(fields) > 19 and fields[0] != "Z" else None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return "running"


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().partition("\n")[0]
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _name(epoch: int) -> str:
    return f"{FOLDER}/{epoch:08d}.json"


def _beat_name(epoch: int) -> str:
    return f"{FOLDER}/{epoch:08d}.beat.json"


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, sort_keys=True) + "\n").encode()
