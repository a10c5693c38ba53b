"""Decisions of the Ray executor that need no cluster: machines that are left out, places that count."""

from collections.abc import Callable
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, OutOfMemoryError

from ap3d.config import load_config
from ap3d.errors import InputError, RunError
from ap3d.portrait_job import PortraitJob
from cluster.executor import Task
from cluster.ray_executor import RayExecutor, _Slot
from cluster.worker import WorkerSpec


@pytest.fixture
def make(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RayExecutor]:
    """An executor of a cluster of machines that exist only in a list."""

    def made(*machines: str, gpus: int = 2) -> RayExecutor:
        nodes = [{"NodeID": name, "Alive": True, "Resources": {"GPU": float(gpus)}} for name in machines]
        monkeypatch.setattr(ray, "nodes", lambda: nodes)
        monkeypatch.setattr(ray, "kill", lambda actor: None)
        monkeypatch.setattr(ray, "get", lambda ref, timeout=None: ref)  # a node_ref is the node's name here
        spec = WorkerSpec(str(tmp_path), load_config("smoke"), gpus=1.0, pipeline="stand_in:load")
        return RayExecutor(spec, workers=4)

    return made


def slot(executor: RayExecutor, machine: str, **more: Any) -> _Slot:
    new = _Slot(f"worker {len(executor._slots)}", actor=None, ref=None, node_ref=machine, **more)
    executor._slots.append(new)
    return new


FAILED = {"error": "weights are missing", "error_class": "InputError", "host": "h"}
READY = {"error": None, "error_class": None, "host": "h", "seconds": 1.0, "memory_mb": 10.0}


def test_a_machine_that_cannot_load_is_left_out_and_the_others_go_on(make: Callable[..., RayExecutor]) -> None:
    executor = make("aaaa", "bbbb")
    executor._loaded(slot(executor, "aaaa"), READY)
    executor._loaded(slot(executor, "bbbb"), FAILED)
    assert executor._unfit == {"bbbb"} and executor.free() == 1
    assert any("machine bbbb is left out" in note and "weights are missing" in note for note in executor.notes())
    with pytest.raises(InputError, match="weights are missing"):
        executor._loaded(slot(executor, "aaaa"), FAILED)  # the last one


def test_three_machines_without_any_success_end_the_run(make: Callable[..., RayExecutor]) -> None:
    executor = make(*(f"node{i}" for i in range(100)))
    for i in range(2):
        executor._loaded(slot(executor, f"node{i}"), FAILED)
    with pytest.raises(InputError, match="weights are missing"):
        executor._loaded(slot(executor, "node2"), FAILED)


def test_interpreters_that_die_while_loading_are_counted_by_machine(make: Callable[..., RayExecutor]) -> None:
    executor = make("aaaa", "bbbb")
    for _ in range(2):
        executor._died_while_loading(slot(executor, "aaaa"), "died")
    executor._died_while_loading(slot(executor, "gone"), "its machine was lost")
    assert not executor._unfit
    executor._died_while_loading(slot(executor, "aaaa"), "died")
    assert executor._unfit == {"aaaa"}
    with pytest.raises(RunError, match="workers die while they load"):
        for _ in range(3):
            executor._died_while_loading(slot(executor, "bbbb"), "died")


def test_only_deaths_on_living_machines_count_against_a_portrait(make: Callable[..., RayExecutor]) -> None:
    executor = make("aaaa", "bbbb")
    died, unavailable = ActorDiedError(), ActorUnavailableError("no answer", None)
    assert executor._place(slot(executor, "aaaa", node="aaaa"), died) == "machine aaaa"
    assert executor._place(slot(executor, "gone", node="gone"), died) is None
    assert executor._place(slot(executor, "aaaa", node="aaaa"), unavailable) is None
    assert executor._place(slot(executor, "aaaa", node="aaaa"), OutOfMemoryError("full")) is None
    alone = make("aaaa")
    assert alone._place(slot(alone, "aaaa", node="aaaa"), died) == "worker 0"


class Actor:
    """Remembers on which machine a job was put."""

    def __init__(self, node: str, log: list[str]) -> None:
        self.run = self
        self.node, self.log = node, log

    def remote(self, *_: Any) -> str:
        self.log.append(self.node)
        return "answer"


def test_a_try_keeps_away_from_where_the_portrait_was_lost(make: Callable[..., RayExecutor]) -> None:
    executor, log = make("aaaa", "bbbb"), []
    for node in ("aaaa", "bbbb", "aaaa"):
        slot(executor, node, node=node, loaded=True).actor = Actor(node, log)
    avoid = frozenset({"machine aaaa"})
    for attempt in ("00", "01"):  # the second has no choice
        executor.submit(Task(PortraitJob("one", "a man"), attempt, 60, avoid=avoid))
    assert log == ["bbbb", "aaaa"]


def test_idle_workers_leave_when_there_are_fewer_tasks(make: Callable[..., RayExecutor]) -> None:
    executor = make("aaaa", "bbbb")
    for node in ("aaaa", "aaaa", "bbbb"):
        slot(executor, node, node=node, loaded=True)
    executor._slots[0].task = Task(PortraitJob("one", "a man"), "00", 60)
    slot(executor, "bbbb")  # still loading: the first to go
    executor.expect(3)
    assert len(executor._slots) == 3 and all(s.loaded for s in executor._slots)
    executor.expect(2)
    assert len(executor._slots) == 2 and executor._slots[0].task is not None
    executor._elastic, executor._grown = True, float("-inf")
    executor._grow()
    assert executor._workers == 4  # two machines with two GPUs
