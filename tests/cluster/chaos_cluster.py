"""A simulated cluster of several Ray nodes on this machine, and a thread that does it harm."""

import contextlib
import functools
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
# A node counts as dead after some 15 s without an answer instead of the minute of a default cluster.
HEALTH_CHECK = {"failure_threshold": "5", "period_ms": "2000", "timeout_ms": "3000", "initial_delay_ms": "3000"}


FROZEN_SECONDS = 40.0
# What a raylet waits for from its agents: the files with their ports.
_AGENT = """
for argument in "$@"; do
  case $argument in --node-id=*) node=${argument#*=};; --session-dir=*) session=${argument#*=};; esac
done
for name in metrics_agent_port metrics_export_port dashboard_agent_listen_port runtime_env_agent_port; do
  file=$session/${name}_$node; echo 1 > $file.$$; mv $file.$$ $file
done
exec sleep infinity
"""


class SimulatedCluster:
    """Nodes with logical GPUs; each is a raylet with its own workers.

    Args:
        nodes: machines beside the head, which holds no worker.
        gpus: logical GPUs of each.
        environment: variables that workers get.
    """

    def __init__(self, nodes: int, gpus: int, environment: dict[str, str]) -> None:
        self._gpus = gpus
        self.folder = tempfile.mkdtemp(prefix="ray")  # short: the paths of Ray's sockets are limited
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray reads it once in a process
        os.environ |= {
            "RAY_TMPDIR": self.folder, "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment,
            **{f"RAY_health_check_{name}": value for name, value in HEALTH_CHECK.items()},
        }  # fmt: skip
        _lighten_nodes()
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "num_gpus": 0, "include_dashboard": False, "object_store_memory": 80 * 2**20}
        self._cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
        for _ in range(nodes):
            self.add_node()

    @property
    def address(self) -> str:
        """For ``ray.init``."""
        return str(self._cluster.address)

    def add_node(self) -> None:
        """A new machine appears."""
        self._cluster.add_node(num_cpus=0, num_gpus=self._gpus, object_store_memory=80 * 2**20)

    def nodes(self) -> list[Any]:
        """The machines beside the head."""
        return sorted(self._cluster.worker_nodes, key=lambda node: str(node.node_id))

    def forget(self, node: Any) -> None:
        """A machine that nobody is to choose any more."""
        self._cluster.worker_nodes.discard(node)

    def kill_node(self, node: Any) -> None:
        """A machine is gone at once, with its workers."""
        processes = self.processes(node)
        self._cluster.remove_node(node, allow_graceful=False)
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()

    @staticmethod
    def processes(node: Any) -> list[psutil.Process]:
        """The raylet of a machine and all that it started."""
        try:
            raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
            return [raylet, *raylet.children(recursive=True)]
        except (psutil.Error, KeyError):
            return []

    def close(self) -> None:
        """End every process of this cluster and remove its folder."""
        for node in self.nodes():
            with contextlib.suppress(Exception):
                self.kill_node(node)
        with contextlib.suppress(Exception):
            self._cluster.shutdown()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and process.environ().get("RAY_TMPDIR") == self.folder:
                    process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def _lighten_nodes() -> None:
    """Two Python processes of each node serve dashboards and runtime environments, which nothing here uses; they
    take longer to start than all the rest, so shell processes stand in for them."""
    from ray._private import ray_constants, services

    build = services._build_python_executable_command_memory_profileable
    agents = (ray_constants.PROCESS_TYPE_DASHBOARD_AGENT, ray_constants.PROCESS_TYPE_RUNTIME_ENV_AGENT)

    def command(component: str, *more: Any, **options: Any) -> list[str]:
        return ["/bin/sh", "-c", _AGENT, "agent"] if component in agents else build(component, *more, **options)

    services._build_python_executable_command_memory_profileable = command
    # As machines would, nodes get their own share of a busy processor: the kernel divides it among sessions.
    services.ConsolePopen = functools.partial(services.ConsolePopen, start_new_session=True)


@contextlib.contextmanager
def driver_process(address: str, arguments: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A driver in a process of its own, its output appended to a log."""
    environment = os.environ | {"RAY_ADDRESS": address}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.chaos_driver", *arguments],
            cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class Harm(threading.Thread):
    """Ends workers and machines by a schedule until it is told to stop.

    Args:
        cluster: where.
        events: what workers tell; for the tries that are under way.
        random_numbers: who is hit.
        actor_every: seconds between two workers.
        node_every: seconds between two machines.
        died_share: also end a worker whenever less than this share of all tries has died.
    """

    def __init__(
        self, cluster: SimulatedCluster, events: Any, random_numbers: random.Random,
        *, actor_every: float, node_every: float, died_share: float,
    ) -> None:  # fmt: skip
        super().__init__(name="harm", daemon=True)
        self.cluster, self.events, self._random = cluster, events, random_numbers
        self.actor_every, self.node_every, self.died_share = actor_every, node_every, died_share
        self.actors = self.nodes = self.hung = 0
        self.hang_after = 0  # portraits done; a machine then stands still once
        self.spared: set[str] = set()  # machines by id
        self.ended = threading.Event()
        self._frozen: tuple[float, list[psutil.Process]] | None = None
        self._changing = threading.Lock()  # the cluster's nodes

    def run(self) -> None:
        """Four looks a second."""
        next_actor, next_node = time.monotonic() + self.actor_every, time.monotonic() + self.node_every
        while not self.ended.wait(0.25):
            self.events.read()
            self.events.prune()
            now = time.monotonic()
            if now > next_actor or self.events.died_share < self.died_share:
                self._kill_actor()
                next_actor = now + self.actor_every if now > next_actor else next_actor
            if now > next_node:
                threading.Thread(target=self._replace_node, daemon=True).start()  # workers go on dying meanwhile
                next_node = now + self.node_every
            if not self.hung and len(self.events.done) >= self.hang_after:
                self._freeze()
            if self._frozen and now > self._frozen[0]:
                self._thaw()
        self._thaw()

    def _kill_actor(self) -> None:
        if not self.events.open:
            return
        pid = self._random.choice(sorted(self.events.open))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.actors += 1
        self.events.open.pop(pid, None)

    def _replace_node(self) -> None:
        with self._changing:
            self.cluster.kill_node(self._victim())
            self.nodes += 1
            self.cluster.add_node()

    def _victim(self) -> Any:
        return self._random.choice([node for node in self.cluster.nodes() if str(node.node_id) not in self.spared])

    def _freeze(self) -> None:
        """One machine answers no more, but its processes stay."""
        self.hung += 1
        with self._changing:
            node = self._victim()
            processes = self.cluster.processes(node)
            for process in processes:
                with contextlib.suppress(psutil.Error):
                    process.suspend()
            self.cluster.forget(node)
            self._frozen = (time.monotonic() + FROZEN_SECONDS, processes)

    def _thaw(self) -> None:
        """It comes back after it was given up, and its workers go on with what they were doing."""
        if self._frozen is None:
            return
        processes, self._frozen = self._frozen[1], None
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.resume()
