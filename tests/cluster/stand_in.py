"""A tiny pipeline with the library's storage order, for tests of everything round it: words in the prompt steer it."""

import os
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from ap3d.config import Config
from ap3d.errors import InputError, StorageFullError
from ap3d.portrait_job import PortraitJob
from ap3d.storage import Store

PIPELINE = "stand_in:load"
SLOW_SECONDS = 30.0


def load(config: Config, device: str, threads: int) -> Any:
    """A pipeline of two stages; the words broken, crash, flaky, slow, deaf, full and invalid do what they say."""
    if config.models.diffusion == "unloadable":
        raise InputError("weights are missing")
    return lambda job, store, attempt, **options: _run(config, job, store, attempt, **options)


def _run(config: Config, job: PortraitJob, store: Store, attempt: str, **options: Any) -> Mapping[str, Any]:
    words = job.prompt.split()
    bundle = f"avatars/{job.face_id}-{config.config_hash[:8]}"
    work = f"work/{config.config_hash}/{job.face_id}"
    row: dict[str, Any] = {
        "face_id": job.face_id, "config_hash": config.config_hash, "prompt": job.prompt, "seed": job.seed,
        "preset": config.preset, "attempt": attempt, "unknown_words": [w for w in words if w.startswith("x")],
        "started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:00:01+00:00",
        "metrics": {"brightness": 0.5}, "wall_s": 1.0, "completed_prompt": job.prompt.upper(),
        "stages": [{"name": "portrait", "status": "done", "seconds": 0.5, "skipped": False, "fingerprint": "f"}],
    }  # fmt: skip
    store.write_json(f"{work}/seen-{attempt}-{os.getpid()}.json", {"stage": "portrait"})
    first = attempt.endswith("-00")
    if "invalid" in words:
        raise InputError("no such portrait")
    if "full" in words:
        raise StorageFullError("cannot write: the storage is full")
    if "broken" in words or ("flaky" in words and first):
        raise ArithmeticError("a matrix was singular")
    if "deaf" in words and first:
        time.sleep(SLOW_SECONDS)
    if "crash" in words and first:
        os._exit(11)
    steps = round(SLOW_SECONDS / 0.05) if "slow" in words and first else 2
    for step in range(steps):
        options["on_progress"](SimpleNamespace(stage="portrait", step=step, steps=steps))
        if options["should_stop"]():
            return {**row, "status": "stopped"}
        time.sleep(0.05)
    store.write_bytes(f"{bundle}/preview.png", b"png")
    store.write_json(f"{bundle}/avatar.json", {"prompt": job.prompt})
    row |= {"status": "done", "uri_bundle": bundle, "uri_preview": f"{bundle}/preview.png"}
    store.write_json(f"{work}/DONE.json", row)
    return row
