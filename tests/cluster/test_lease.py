"""One driver at a time, also when several processes start at the same instant."""

import multiprocessing
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ap3d.errors import RunError
from ap3d.storage import Store
from cluster import lease as lease_module
from cluster.lease import TIME_TO_LIVE, Lease, holder_is_gone, read_progress


def _race(arguments: tuple[str, float]) -> bool:
    root, start = arguments
    while time.time() < start:
        pass
    try:
        Lease.acquire(Store(root), time_to_live=0.0)
    except RunError:
        return False
    return True


def test_one_process_of_four_wins_each_race(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        pool.map(_race, [(str(tmp_path / "warm-up"), 0.0)] * 4, chunksize=1)
        for trial in range(15):
            start = time.time() + 0.02
            wins = pool.map(_race, [(str(tmp_path / str(trial)), start)] * 4, chunksize=1)
            assert sum(wins) == 1


def test_a_living_holder_is_respected_and_a_released_lease_is_free(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    first = Lease.acquire(store, run_id="r1", progress=lambda: {"done": 3})
    with pytest.raises(RunError, match="--takeover"):
        Lease.acquire(store)
    found = read_progress(store)
    assert found is not None and found[0]["run_id"] == "r1" and found[1]["progress"] == {"done": 3}
    first.release()
    second = Lease.acquire(store)
    assert second.epoch == first.epoch + 1
    second.release()


def test_a_superseded_holder_stops(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    first = Lease.acquire(store)
    first.check()
    second = Lease.acquire(store, takeover=True)
    second.check()
    with pytest.raises(RunError, match="took over"):
        first.check()
    first.release()
    second.release()


def test_the_lease_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    code = (
        "import os; from ap3d.storage import Store; from cluster.lease import Lease;"
        f"Lease.acquire(Store({str(tmp_path)!r})); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False)
    started = time.monotonic()
    lease = Lease.acquire(Store(str(tmp_path)))
    assert lease.epoch == 2 and time.monotonic() - started < 1
    lease.release()


def _foreign(store: Store) -> None:
    store.write_json("manifest/_lease/00000001.json", {"host": "elsewhere", "pid": 1, "run_id": "far"})
    store.write_json("manifest/_lease/00000001.beat.json", {"counter": 1})


def test_a_holder_elsewhere_is_dead_when_its_counter_stands_still(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    _foreign(store)
    assert not holder_is_gone(store.read_json("manifest/_lease/00000001.json"))
    lease = Lease.acquire(store, time_to_live=0.3)
    assert lease.epoch == 2
    lease.release()


def test_a_holder_elsewhere_lives_when_its_counter_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    _foreign(store)
    beats = iter(range(1, 100))
    read = lease_module._read
    monkeypatch.setattr(
        lease_module, "_read", lambda s, n: {"counter": next(beats)} if n.endswith(".beat.json") else read(s, n)
    )
    with pytest.raises(RunError, match="elsewhere"):
        Lease.acquire(store, time_to_live=5)


def test_heartbeats_that_cannot_be_written_end_the_run_but_one_missed_beat_does_not(tmp_path: Path) -> None:
    lease = Lease.acquire(Store(str(tmp_path)))
    lease.failure = "the storage is full"
    lease.check()
    lease._last_beat -= TIME_TO_LIVE
    with pytest.raises(RunError, match="the storage is full"):
        lease.check()
    lease.release()
