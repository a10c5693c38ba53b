"""Workers as Ray actors. The driver owns retries, so Ray restarts nothing by itself.

An actor holds one task at a time. Progress and stop go through a second concurrency group and are answered while a
portrait is being made. Whatever Ray reports as lost is killed before its task is given back: a machine that only
seemed dead must not go on writing for longer than needed.
"""

import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayError

from ap3d.errors import Ap3dError, InputError, RunError
from cluster.executor import Loss, Outcome, Task, load_error, load_note, overdue
from cluster.worker import Worker, WorkerSpec

PROGRESS_SECONDS = 2.0
GROW_SECONDS = 10.0
STOP_GRACE_SECONDS = 5.0  # for a portrait past its time: a worker that stops by itself keeps its models
MAX_DEATHS_WHILE_LOADING = 3  # on one machine
MAX_UNFIT_MACHINES = 3  # before any worker was ready
NODE_WAIT_SECONDS = 8.0
AUTOSCALED_NODE_WAIT_SECONDS = 1200.0
_CONTROL = "control"


def connect() -> dict[str, float]:
    """Join the cluster named by ``RAY_ADDRESS``, or start Ray inside this process; returns the total resources.

    A submitted job has brought its code along; any other driver of a cluster sends this checkout to the workers.
    Usage statistics of a Ray that starts here are off unless the environment turns them on.

    Raises:
        RunError: the cluster cannot be reached.
    """
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            if address := os.environ.get("RAY_ADDRESS"):
                if not os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
                    options["runtime_env"] = {"working_dir": str(Path(__file__).parents[1])}
                ray.init(address=address, **options)
            else:
                ray.init(address="local", include_dashboard=False, object_store_memory=128 * 2**20, **options)
        except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise RunError(f"cannot reach the Ray cluster: {' '.join(str(error).split())[:500]}") from error
    return dict(ray.cluster_resources())


def autoscales() -> bool:
    """Whether this is the head of a cluster that ``ray up`` made, where machines appear on demand."""
    return Path("~/ray_bootstrap_config.yaml").expanduser().exists()


class RayWorker(Worker):
    """A worker that knows its machine."""

    def node(self) -> str:
        """Ray's id of the machine."""
        return str(ray.get_runtime_context().get_node_id())


@dataclass
class _Slot:
    """One actor and what it is asked for at present."""

    name: str
    actor: Any
    ref: Any  # the answer awaited: that of load() or run(); None when idle
    node_ref: Any  # answered before load() begins
    node: str = ""
    task: Task | None = None
    submitted: float = 0.0
    overdue: str | None = None  # why its task was asked to stop
    kill_at: float = float("inf")
    loaded: bool = False
    progress: dict[str, Any] = field(default_factory=dict)
    progress_ref: Any = None


class RayExecutor:
    """Runs tasks on Ray actors; call :func:`connect` first.

    Args:
        spec: what a worker loads.
        workers: how many actors to keep.
        node_wait: seconds to wait for a machine that can hold a worker; None decides by whether the cluster autoscales.
        elastic: keep more actors when more machines appear.
    """

    def __init__(
        self, spec: WorkerSpec, workers: int, node_wait: float | None = None, *, elastic: bool = False
    ) -> None:
        self._spec, self._workers, self._elastic = spec, workers, elastic
        self._expected = workers
        default = AUTOSCALED_NODE_WAIT_SECONDS if autoscales() else NODE_WAIT_SECONDS
        self._node_wait = default if node_wait is None else node_wait
        needs = {"num_gpus": spec.gpus, "num_cpus": 0} if spec.gpus else {"num_cpus": spec.threads}
        self._actor_class = ray.remote(**needs, max_restarts=0, max_task_retries=0, concurrency_groups={_CONTROL: 1})(
            RayWorker
        )
        self._slots: list[_Slot] = []
        self._unfit: set[str] = set()  # machines where the models cannot be loaded
        self._notes: list[str] = []
        self._made = self._ever_loaded = 0
        self._deaths_while_loading: Counter[str] = Counter()  # by machine
        self._draining = False
        self._started = self._polled = self._grown = time.monotonic()

    def start(self) -> None:
        """Ask for all workers; they become ready one after another."""
        self._started = time.monotonic()
        self._top_up()

    def free(self) -> int:
        """Workers that are loaded and idle."""
        return len(self._idle())

    def expect(self, tasks: int) -> None:
        """Keep no more workers than tasks; others leave, those still loading first, so that their machines can."""
        self._expected = tasks
        spare = [slot for slot in self._slots if not slot.loaded] + self._idle()
        for slot in spare[: max(0, len(self._slots) - tasks)]:
            self._drop(slot)

    def submit(self, task: Task) -> None:
        """Hand the task to an idle worker, away from where it was lost if there is one."""
        idle = self._idle()
        slot = next((s for s in idle if not {s.name, _machine(s.node)} & task.avoid), idle[0])
        slot.ref = slot.actor.run.remote(task.job, task.attempt, task.smaller)
        slot.task, slot.submitted = task, time.monotonic()

    def cancel(self, task: Task) -> None:
        """Ask the worker that has the task to stop at its next step."""
        for slot in self._slots:
            if slot.task is task:
                self._control(slot, "stop").remote(task.attempt)

    def wait(self, timeout: float) -> list[Outcome]:
        """Tasks that ended or were lost.

        Raises:
            InputError: no machine can hold a worker, or the models are not there.
            RunError: workers die while they load.
        """
        self._grow()
        self._top_up()
        awaited = {slot.ref: slot for slot in self._slots if slot.ref is not None}
        if not awaited:
            time.sleep(timeout)
            return []
        ray.wait(list(awaited), num_returns=1, timeout=timeout)
        ready, _ = ray.wait(list(awaited), num_returns=len(awaited), timeout=0)
        outcomes = [self._settle(awaited[ref]) for ref in ready]
        self._poll_progress()
        outcomes += [self._expire(slot) for slot in list(self._slots) if slot.task is not None]
        self._check_room()
        return [o for o in outcomes if o is not None]

    def running(self) -> dict[str, dict[str, Any]]:
        """Workers with a task, and those that are still loading."""
        shown = {}
        for slot in list(self._slots):
            if task := slot.task:
                shown[slot.name] = {"stage": "starting", **slot.progress, "face_id": task.job.face_id}
            elif not slot.loaded:
                shown[slot.name] = {"stage": "loading", "face_id": None}
        return shown

    def notes(self) -> list[str]:
        """Workers that became ready, were lost or replaced, and machines that are left out."""
        notes, self._notes = self._notes, []
        return notes

    def drain(self) -> None:
        """Ask all running tasks to stop at their next step; no worker is replaced from now on."""
        self._draining = True
        for slot in self._slots:
            self._control(slot, "stop").remote()

    def stop(self) -> None:
        """End all workers."""
        for slot in list(self._slots):
            self._drop(slot)

    def _idle(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.loaded and slot.task is None]

    def _top_up(self) -> None:
        while len(self._slots) < min(self._workers, self._expected) and not self._draining:
            elsewhere = {"label_selector": {"ray.io/node-id": f"!in({','.join(sorted(self._unfit))})"}}
            actor = self._actor_class.options(**(elsewhere if self._unfit else {})).remote(self._spec)
            node, loaded = actor.node.remote(), actor.load.remote()
            self._slots.append(_Slot(f"worker {self._made}", actor, loaded, node))
            self._made += 1

    def _grow(self) -> None:
        """Take up machines that appeared since the start."""
        if not self._elastic or time.monotonic() - self._grown < GROW_SECONDS:
            return
        self._grown = time.monotonic()
        self._workers = max(self._workers, sum(self._room(node) for node in self._machines()))

    def _machines(self) -> list[dict[str, Any]]:
        return [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in self._unfit]

    def _need(self) -> tuple[str, float]:
        return ("GPU", self._spec.gpus) if self._spec.gpus else ("CPU", float(self._spec.threads))

    def _room(self, node: dict[str, Any]) -> int:
        """How many workers a machine can hold."""
        name, amount = self._need()
        return int(node["Resources"].get(name, 0) / amount + 1e-6)

    def _control(self, slot: _Slot, method: str) -> Any:
        return getattr(slot.actor, method).options(concurrency_group=_CONTROL)

    def _drop(self, slot: _Slot) -> None:
        self._slots.remove(slot)
        ray.kill(slot.actor)

    def _settle(self, slot: _Slot) -> Outcome | None:
        task, slot.task = slot.task, None
        try:
            answer = ray.get(slot.ref)
        except RayError as error:
            return self._lost(slot, task, error)
        slot.ref, slot.progress = None, {}
        if task is None:
            self._loaded(slot, answer)
            return None
        if reason := answer.pop("recycle", None):
            self._notes.append(f"{slot.name} is replaced: {reason}")
            self._drop(slot)
        late, slot.overdue, slot.kill_at = slot.overdue, None, float("inf")
        if late and answer["status"] == "stopped":
            return Outcome(task, lost="timeout", reason=late)
        return Outcome(task, {**answer, "worker": slot.name})

    def _lost(self, slot: _Slot, task: Task | None, error: RayError) -> Outcome | None:
        self._drop(slot)
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"[:500]
        if task is None:
            self._died_while_loading(slot, reason)
            return None
        if slot.overdue:
            return Outcome(task, lost="timeout", reason=slot.overdue)
        loss: Loss = "memory" if isinstance(error, OutOfMemoryError) else "worker"
        return Outcome(task, lost=loss, reason=f"{slot.name} was lost ({reason})", place=self._place(slot, error))

    def _place(self, slot: _Slot, error: RayError) -> str | None:
        """Where a worker died that may have died of its portrait; None when its machine was lost."""
        alive = {node["NodeID"] for node in self._machines()}
        if isinstance(error, ActorUnavailableError | OutOfMemoryError) or slot.node not in alive:
            return None
        return _machine(slot.node) if sum(self._room(node) > 0 for node in self._machines()) > 1 else slot.name

    def _loaded(self, slot: _Slot, answer: dict[str, Any]) -> None:
        slot.node, slot.loaded = ray.get(slot.node_ref), not answer["error"]
        if slot.loaded:
            self._deaths_while_loading.clear()
            self._ever_loaded += 1
            self._notes.append(load_note(slot.name, answer))
            return
        self._drop(slot)
        self._leave_out(slot.node, load_error(answer))

    def _died_while_loading(self, slot: _Slot, reason: str) -> None:
        """A worker that dies again and again on a living machine while it loads is like one that cannot load."""
        try:
            node = ray.get(slot.node_ref, timeout=0)
        except RayError:  # it never came to life
            node = ""
        if node and node not in {n["NodeID"] for n in self._machines()}:
            return  # the machine went, or is left out already
        self._deaths_while_loading[node] += 1
        error = RunError(f"workers die while they load their models, the last with {reason}")
        if node and self._deaths_while_loading[node] >= MAX_DEATHS_WHILE_LOADING:
            self._leave_out(node, error)
        if self._deaths_while_loading[""] >= MAX_DEATHS_WHILE_LOADING * max(MAX_DEATHS_WHILE_LOADING, self._workers):
            raise error

    def _leave_out(self, node: str, error: Ap3dError) -> None:
        """No worker on this machine any more; when none is left, nothing can run."""
        self._unfit.add(node)
        left = any(self._room(machine) for machine in self._machines())
        if not left or (not self._ever_loaded and len(self._unfit) >= MAX_UNFIT_MACHINES):
            raise error
        self._notes.append(f"{_machine(node)} is left out: {error}")
        for other in [s for s in self._slots if not s.loaded]:
            self._drop(other)  # it may be waiting for a place on that machine; its successor does not

    def _expire(self, slot: _Slot) -> Outcome | None:
        """Ask a task past its time to stop; end its worker when it does not."""
        task, now = slot.task, time.monotonic()
        assert task is not None
        if slot.overdue is None:
            slot.overdue = overdue(task, now - slot.submitted, slot.progress)
            if slot.overdue:
                slot.kill_at = now + STOP_GRACE_SECONDS
                self.cancel(task)
        if now <= slot.kill_at:
            return None
        self._drop(slot)
        return Outcome(task, lost="timeout", reason=str(slot.overdue))

    def _poll_progress(self) -> None:
        asked = {slot.progress_ref: slot for slot in self._slots if slot.progress_ref is not None}
        ready = ray.wait(list(asked), num_returns=len(asked), timeout=0)[0] if asked else []
        for ref in ready:
            asked[ref].progress_ref = None
            try:
                asked[ref].progress = ray.get(ref)
            except RayError:  # the loss shows at the task itself
                continue
        if time.monotonic() - self._polled < PROGRESS_SECONDS:
            return
        self._polled = time.monotonic()
        for slot in self._slots:
            if slot.task and slot.progress_ref is None:
                slot.progress_ref = self._control(slot, "progress").remote()

    def _check_room(self) -> None:
        """End the run when no machine can hold a worker and none has come for the time allowed."""
        waited = time.monotonic() - self._started
        if waited < self._node_wait or any(slot.loaded for slot in self._slots):
            return
        nodes = [node for node in ray.nodes() if node["Alive"]]
        if any(self._room(node) for node in nodes):
            return
        name, amount = self._need()
        has = _described(nodes)
        raise InputError(f"no machine of the cluster can hold a worker that needs {amount:g} {name}; it has {has}")


def _machine(node: str) -> str:
    return f"machine {node[:8]}"


def _described(nodes: list[dict[str, Any]]) -> str:
    amounts = [(n["NodeManagerAddress"], n["Resources"].get("CPU", 0), n["Resources"].get("GPU", 0)) for n in nodes[:8]]
    machines = [f"{address} ({cpus:g} CPU, {gpus:g} GPU)" for address, cpus, gpus in amounts]
    more = f" and {len(nodes) - 8} more" if len(nodes) > 8 else ""
    return f"{len(nodes)} machine{'s' if len(nodes) != 1 else ''}: {', '.join(machines)}{more}"
