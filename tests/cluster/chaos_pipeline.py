"""Three stages on the real workspace, without torch, for :mod:`tests.cluster.chaos`; they tell what they do.

Words of a prompt steer them: ``invalid`` and ``broken`` raise, ``poison`` ends the interpreter at every try.
"""

import ctypes
import json
import os
import random
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ap3d.config import Config
from ap3d.errors import InputError, RunError
from ap3d.portrait_job import PortraitJob
from ap3d.storage import Store
from ap3d.workspace import Locations, Workspace

STAGES = ("portrait", "whole", "publish")
STEPS = 4
VARIABLE = "AP3D_CHAOS"


@dataclass(frozen=True)
class ChaosSettings:
    """What the workers need to know; travels in an environment variable.

    Attributes:
        events: file to which each step of each try is appended.
        stage_seconds: of each stage.
        storage_errors: share of writes that fail.
        unfit: file with the ids of machines where the models cannot be loaded.
    """

    events: str
    stage_seconds: float = 0.1
    storage_errors: float = 0.02
    unfit: str = ""

    def environment(self) -> dict[str, str]:
        """The variable that carries the settings."""
        return {VARIABLE: json.dumps(asdict(self))}

    @staticmethod
    def read() -> "ChaosSettings":
        """The settings of this process."""
        return ChaosSettings(**json.loads(os.environ[VARIABLE]))


class FlakyStore(Store):
    """A store whose writes fail now and then, as those of busy buckets do."""

    def __init__(self, root: str, share: float, random_numbers: random.Random) -> None:
        super().__init__(root)
        self._share, self._random = share, random_numbers

    def write_bytes(self, path: str, data: bytes) -> None:
        """Write, or fail."""
        if self._random.random() < self._share:
            raise RunError(f"cannot write {path}: 503 slow down")
        super().write_bytes(path, data)


def load(config: Config, device: str, threads: int) -> Any:
    """The pipeline of a worker."""
    settings = ChaosSettings.read()
    if settings.unfit and _machine() in Path(settings.unfit).read_text():
        raise InputError("weights are missing on this machine")
    return lambda job, store, attempt, **options: _Try(settings, config, job, store, attempt, options).run()


def _machine() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


class _Try:
    def __init__(
        self, settings: ChaosSettings, config: Config, job: PortraitJob, store: Store, attempt: str, options: Any
    ) -> None:
        self.settings, self.config, self.job, self.attempt, self.options = settings, config, job, attempt, options
        flaky = FlakyStore(store.root, settings.storage_errors, random.Random(f"{job.face_id} {attempt}"))
        self.workspace = Workspace(flaky, Locations.in_dataset(job.face_id, config.config_hash), attempt)
        self.started = time.time()

    def run(self) -> Mapping[str, Any]:
        self._tell("begin")
        try:
            row = self._run()
        except Exception as error:
            self._tell("end", status=type(error).__name__)
            raise
        self._tell("end", status=row["status"])
        return row

    def _run(self) -> dict[str, Any]:
        if (done := self.workspace.done_row()) is not None:
            return done
        if "invalid" in self.job.prompt:
            raise InputError("no such portrait")
        if "broken" in self.job.prompt:
            raise ArithmeticError("a matrix was singular")
        for stage in STAGES:
            if self.workspace.finished(stage, self._fingerprint(stage)) is None and not self._make(stage):
                return self._row("stopped")
        row = self._row("done")
        self.workspace.write_done(row)
        self.workspace.clear_stages(STAGES)
        return row

    def _make(self, stage: str) -> bool:
        self._tell("stage", stage=stage)
        for step in range(STEPS):
            self.options["on_progress"](SimpleNamespace(stage=stage, step=step, steps=STEPS))
            if self.options["should_stop"]():
                return False
            time.sleep(self.settings.stage_seconds / STEPS)
            if "poison" in self.job.prompt:
                ctypes.string_at(0)  # a segmentation fault
        content = f"{self.job.prompt} {stage}\n".encode()
        outputs = {"avatar.json": content, "preview.png": b"png"} if stage == "publish" else {"out.bin": content}
        commit = self.workspace.commit_bundle if stage == "publish" else self.workspace.commit
        commit(stage, outputs, {"fingerprint": self._fingerprint(stage), "seconds": self.settings.stage_seconds})
        self._tell("committed", stage=stage)
        return True

    def _fingerprint(self, stage: str) -> str:
        return f"{stage} of {self.job.prompt}"

    def _row(self, status: str) -> dict[str, Any]:
        bundle = self.workspace.locations.bundle
        return {
            "face_id": self.job.face_id, "config_hash": self.config.config_hash, "prompt": self.job.prompt,
            "seed": self.job.seed, "preset": self.config.preset, "status": status, "attempt": self.attempt,
            "uri_bundle": bundle, "uri_preview": f"{bundle}/preview.png", "wall_s": time.time() - self.started,
            "started": datetime.fromtimestamp(self.started, UTC).isoformat(),
            "finished": datetime.now(UTC).isoformat(),
        }  # fmt: skip

    def _tell(self, event: str, **more: str) -> None:
        facts = {"event": event, "pid": os.getpid(), "face": self.job.face_id, "attempt": self.attempt, **more}
        line = (json.dumps(facts) + "\n").encode()
        descriptor = os.open(self.settings.events, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line)  # one write: lines of several processes stay whole
        os.close(descriptor)
