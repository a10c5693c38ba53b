"""Workers as Ray actors. The driver owns retries, so Ray restarts nothing by itself.

An actor holds one task at a time. Progress and stop go through a second concurrency group and are answered while a
portrait is being made. Whatever Ray reports as lost is killed before its task is given back: a machine that only
seemed dead must not go on writing for longer than needed.
"""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError

from ap3d.errors import InputError, RunError
from cluster.executor import Loss, Outcome, Task, load_error
from cluster.worker import Worker, WorkerSpec

PROGRESS_SECONDS = 2.0
MAX_DEATHS_WHILE_LOADING = 3
NODE_WAIT_SECONDS = 8.0
AUTOSCALED_NODE_WAIT_SECONDS = 1200.0
_CONTROL = "control"


def connect() -> dict[str, float]:
    """Join the cluster named by ``RAY_ADDRESS``, or start Ray inside this process; returns the total resources.

    A submitted job has brought its code along; any other driver of a cluster sends this checkout to the workers.

    Raises:
        RunError: the cluster cannot be reached.
    """
    if not ray.is_initialized():
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


@dataclass
class _Slot:
    """One actor and what it is asked for at present."""

    name: str
    actor: Any
    ref: Any  # the answer awaited: that of load() or run(); None when idle
    task: Task | None = None
    deadline: float = float("inf")
    loaded: bool = False
    progress: dict[str, Any] = field(default_factory=dict)
    progress_ref: Any = None


class RayExecutor:
    """Runs tasks on Ray actors; call :func:`connect` first.

    Args:
        spec: what a worker loads.
        workers: how many actors to keep.
        node_wait: seconds to wait for a machine that can hold a worker; None decides by whether the cluster autoscales.
    """

    def __init__(self, spec: WorkerSpec, workers: int, node_wait: float | None = None) -> None:
        self._spec, self._workers = spec, workers
        default = AUTOSCALED_NODE_WAIT_SECONDS if autoscales() else NODE_WAIT_SECONDS
        self._node_wait = default if node_wait is None else node_wait
        needs = {"num_gpus": spec.gpus, "num_cpus": 0} if spec.gpus else {"num_cpus": spec.threads}
        self._actor_class = ray.remote(**needs, max_restarts=0, max_task_retries=0, concurrency_groups={_CONTROL: 1})(
            Worker
        )
        self._slots: list[_Slot] = []
        self._made = 0
        self._deaths_while_loading = 0
        self._draining = False
        self._started = self._polled = time.monotonic()

    def start(self) -> None:
        """Ask for all workers; they become ready one after another."""
        self._started = time.monotonic()
        self._top_up()

    def free(self) -> int:
        """Workers that are loaded and idle."""
        return len(self._idle())

    def submit(self, task: Task) -> None:
        """Hand the task to an idle worker."""
        slot = self._idle()[0]
        slot.ref, slot.task = slot.actor.run.remote(task.job, task.attempt), task
        slot.deadline = time.monotonic() + task.timeout_s

    def wait(self, timeout: float) -> list[Outcome]:
        """Tasks that ended or were lost.

        Raises:
            InputError: no machine can hold a worker, or the models are not there.
            RunError: workers die while they load.
        """
        self._top_up()
        awaited = {slot.ref: slot for slot in self._slots if slot.ref is not None}
        if not awaited:
            time.sleep(timeout)
            return []
        ray.wait(list(awaited), num_returns=1, timeout=timeout)
        ready, _ = ray.wait(list(awaited), num_returns=len(awaited), timeout=0)
        outcomes = [self._settle(awaited[ref]) for ref in ready]
        outcomes += [self._expire(slot) for slot in list(self._slots) if time.monotonic() > slot.deadline]
        self._poll_progress()
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
        while len(self._slots) < self._workers and not self._draining:
            actor = self._actor_class.remote(self._spec)
            self._slots.append(_Slot(f"worker {self._made}", actor, actor.load.remote()))
            self._made += 1

    def _control(self, slot: _Slot, method: str) -> Any:
        return getattr(slot.actor, method).options(concurrency_group=_CONTROL)

    def _drop(self, slot: _Slot) -> None:
        self._slots.remove(slot)
        ray.kill(slot.actor)

    def _settle(self, slot: _Slot) -> Outcome | None:
        task, slot.task, slot.deadline = slot.task, None, float("inf")
        try:
            answer = ray.get(slot.ref)
        except RayError as error:
            self._drop(slot)
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"[:500]
            if task is None:
                self._died_while_loading(reason)
                return None
            return Outcome(task, lost=_loss(error), reason=f"{slot.name} was lost ({reason})")
        slot.ref, slot.progress = None, {}
        if task is None:
            self._loaded(slot, answer)
            return None
        return Outcome(task, {**answer, "worker": slot.name})

    def _loaded(self, slot: _Slot, answer: dict[str, Any]) -> None:
        """A worker that cannot load is left out; when it was the last, nothing can run."""
        slot.loaded = not answer["error"]
        if slot.loaded:
            self._deaths_while_loading = 0
            return
        self._drop(slot)
        self._workers -= 1
        if not self._slots:
            raise load_error(answer)

    def _died_while_loading(self, reason: str) -> None:
        self._deaths_while_loading += 1
        if self._deaths_while_loading >= MAX_DEATHS_WHILE_LOADING:
            raise RunError(f"workers die while they load their models, the last with {reason}")

    def _expire(self, slot: _Slot) -> Outcome | None:
        task = slot.task
        if task is None:
            return None
        self._drop(slot)
        return Outcome(task, lost="timeout", reason=f"longer than {task.timeout_s:.0f} s")

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
        need = {"GPU": self._spec.gpus} if self._spec.gpus else {"CPU": float(self._spec.threads)}
        if any(all(node["Resources"].get(k, 0) >= v for k, v in need.items()) for node in nodes):
            return
        wanted = " and ".join(f"{amount:g} {name}" for name, amount in need.items())
        raise InputError(f"no machine of the cluster can hold a worker that needs {wanted}; it has {_described(nodes)}")


def _loss(error: RayError) -> Loss:
    return "memory" if isinstance(error, OutOfMemoryError) else "worker"


def _described(nodes: list[dict[str, Any]]) -> str:
    amounts = [(n["NodeManagerAddress"], n["Resources"].get("CPU", 0), n["Resources"].get("GPU", 0)) for n in nodes[:8]]
    machines = [f"{address} ({cpus:g} CPU, {gpus:g} GPU)" for address, cpus, gpus in amounts]
    more = f" and {len(nodes) - 8} more" if len(nodes) > 8 else ""
    return f"{len(nodes)} machine{'s' if len(nodes) != 1 else ''}: {', '.join(machines)}{more}"
