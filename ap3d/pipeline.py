"""Runs the stages of one portrait, skips what is finished, and reports one row."""

import gc
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from ap3d.config import Config
from ap3d.diffusion.cost import COST_COLUMNS, cost_columns, peak_flops, peak_memory, reset_peak_memory, summed_columns
from ap3d.errors import Ap3dError, RunError
from ap3d.portrait_job import PortraitJob
from ap3d.redaction import redacted
from ap3d.resources import Resources
from ap3d.stages import STAGES
from ap3d.stages.base import Stage, StageContext, StopRequested, portrait_digest, stage_fingerprint, start_of
from ap3d.storage import Store
from ap3d.threads import use_threads
from ap3d.workspace import Locations, Workspace

__all__ = ["Generator", "PortraitJob", "ProgressEvent"]


@dataclass(frozen=True)
class ProgressEvent:
    """How far a running stage has come."""

    stage: str
    step: int
    steps: int


class Generator:
    """Makes portraits one after another with resident models.

    Args:
        config: resolved configuration.
        device: torch device of the diffusion models.
        threads: CPU threads of this process; None: one for the networks, all cores for the rasterisers.

    Raises:
        InputError: a model named by the configuration is absent or damaged.
    """

    def __init__(self, config: Config, device: str = "cpu", threads: int | None = None) -> None:
        use_threads(threads)
        self.config = config
        self.resources = Resources.load(config, device)

    def run(
        self,
        job: PortraitJob,
        store: Store,
        attempt: str,
        *,
        keep_work: bool = False,
        on_progress: Callable[[ProgressEvent], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
        locations: Locations | None = None,
        smaller: bool = False,
    ) -> dict[str, Any]:
        """Make one portrait and return its row; an error of this portrait becomes a failed row.

        Args:
            job: what to make.
            store: the dataset's root (or a bundle's, with ``locations``).
            attempt: unique name of this try; outputs of different tries never share a file.
            keep_work: keep the outputs of the stages after the bundle is published.
            on_progress: called at each step.
            should_stop: asked at each step; when true the row's status is ``stopped`` and the work stays resumable.
            locations: folders; by default those of a dataset.
            smaller: make stages in the preset's smaller form from the start, not only after memory ran out.

        Raises:
            RunError: the storage is full or unreachable, so that no other portrait could succeed either.
        """
        where = locations or Locations.in_dataset(job.face_id, self.config.config_hash)
        workspace = Workspace(store, where, attempt)
        self.resources.models.forget_prompts()
        if (row := workspace.done_row()) is not None:
            return row
        run = _Run(self, job, workspace, on_progress, should_stop, smaller)
        row = run.execute()
        if row["status"] == "done":
            workspace.write_done(row)
            if not keep_work:
                workspace.clear_stages(tuple(s.name for s in STAGES))
        return row


class _Run:
    """The state of one portrait while its stages run."""

    def __init__(
        self,
        owner: Generator,
        job: PortraitJob,
        workspace: Workspace,
        on_progress: Callable[[ProgressEvent], None] | None,
        should_stop: Callable[[], bool] | None,
        smaller: bool,
    ) -> None:
        self.owner, self.job, self.workspace = owner, job, workspace
        self.on_progress, self.should_stop = on_progress, should_stop
        self.portrait: str | None = None
        self.forms = [owner.config.smaller_form()] if smaller else [owner.config, owner.config.smaller_form()]
        self.smaller_stages = 0
        self.records: dict[str, dict[str, Any]] = {}
        self.stage_rows: list[dict[str, Any]] = []
        self.started = time.time()

    def execute(self) -> dict[str, Any]:
        try:
            start = start_of(self.owner.config, self.job)
            self.portrait = portrait_digest(self.job)
            for stage in STAGES:
                if start not in stage.starts:
                    continue
                if stage.name == "publish" and (row := self.workspace.done_row()) is not None:
                    return row  # a copy on another worker was first
                self._run_stage(stage)
        except StopRequested:
            return self._row("stopped", None)
        except RunError:
            raise
        except Exception as error:
            return self._row("failed", error)
        return self._row("done", None)

    def _run_stage(self, stage: Stage) -> None:
        record, fingerprint = self._finished(stage)
        skipped = record is not None
        if record is None:
            record, fingerprint = self._make_in_memory(stage)
        self.records[stage.name] = record
        self.stage_rows.append(
            {
                "name": stage.name,
                "status": "done",
                "seconds": float(record["seconds"]),
                "core_seconds": float(record.get("core_seconds", record["seconds"])),
                "skipped": skipped,
                "fingerprint": fingerprint,
                **{name: record[name] for name in COST_COLUMNS if name in record},
            }
        )

    def _peak_flops(self) -> float:
        models = self.owner.resources.models
        return peak_flops(str(models.device), models.dtype, torch.get_num_threads())

    def _finished(self, stage: Stage) -> tuple[dict[str, Any] | None, str]:
        """The record of a stage that was finished in any form."""
        seen = ""
        for form in (self.owner.config, self.owner.config.smaller_form()):
            fingerprint = self._fingerprint(stage, form)
            if fingerprint != seen and (record := self.workspace.finished(stage.name, fingerprint)) is not None:
                return record, fingerprint
            seen = fingerprint
        return None, ""

    def _make_in_memory(self, stage: Stage) -> tuple[dict[str, Any], str]:
        """Run a stage; when memory runs out, once more in the smaller form."""
        for form in self.forms[:-1]:
            fingerprint = self._fingerprint(stage, form)
            try:
                return self._make(stage, form, fingerprint), fingerprint
            except (torch.OutOfMemoryError, MemoryError):
                pass  # not here: the traceback still holds the stage's tensors
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        self.smaller_stages += 1
        fingerprint = self._fingerprint(stage, self.forms[-1])
        return self._make(stage, self.forms[-1], fingerprint), fingerprint

    def _fingerprint(self, stage: Stage, config: Config) -> str:
        return stage_fingerprint(stage, config, self.job, self.owner.resources, self.records, self.portrait)

    def _make(self, stage: Stage, config: Config, fingerprint: str) -> dict[str, Any]:
        resources = self.owner.resources
        report = lambda step, steps: self._report(stage.name, step, steps)  # noqa: E731
        report(0, 1)
        context = StageContext(
            self.job, config, resources, self.workspace, self.records, stage.name, fingerprint, report,
        )  # fmt: skip
        reset_peak_memory(resources.device)
        before = time.process_time()
        result = stage.run(context)
        seconds, core_seconds = context.seconds, time.process_time() - before
        details = {
            "fingerprint": fingerprint,
            "seed": self.job.seed,
            "seconds": seconds,
            "core_seconds": core_seconds,  # of this process, since its last start
            **peak_memory(resources.device),
            **cost_columns(context.cost, seconds, self._peak_flops()),
            "metrics": dict(result.metrics),
            "notes": dict(result.notes),
        }
        commit = self.workspace.commit_bundle if stage.name == "publish" else self.workspace.commit
        return commit(stage.name, result.outputs, details)

    def _report(self, stage: str, step: int, steps: int) -> None:
        if self.on_progress is not None:
            self.on_progress(ProgressEvent(stage, step, steps))
        if self.should_stop is not None and self.should_stop():
            raise StopRequested

    def _bytes_of(self, stage: str) -> int:
        return sum(int(output["bytes"]) for output in self.records[stage]["outputs"].values())

    def _row(self, status: str, error: Exception | None) -> dict[str, Any]:
        job, config, notes = self.job, self.owner.config, {}
        metrics: dict[str, float] = {}
        for record in self.records.values():
            notes.update(record["notes"])
            metrics.update({k: float(v) for k, v in record["metrics"].items()})
        if self.smaller_stages:
            metrics["stages_in_smaller_form"] = float(self.smaller_stages)
        bundle = self.workspace.locations.bundle if status == "done" else None
        return {
            "face_id": job.face_id,
            "config_hash": config.config_hash,
            "prompt": job.prompt,
            "completed_prompt": notes.get("completed_prompt"),
            "abstract_prompt": notes.get("abstract_prompt", job.abstract_prompt),
            "unknown_words": notes.get("unknown_words", []),
            "seed": job.seed,
            "portrait": redacted(job.portrait) if job.portrait else None,
            "preset": config.preset,
            "status": status,
            "error_class": type(error).__name__ if error else None,
            "error_message": _one_line(error) if error else None,
            "error_trace": None if error is None or isinstance(error, Ap3dError) else _trace(error),
            "uri_bundle": bundle,
            "uri_preview": f"{bundle}/preview.png".lstrip("/") if bundle is not None else None,
            "attempt": self.workspace.attempt,
            "started": _timestamp(self.started),
            "finished": _timestamp(time.time()),
            "wall_s": time.time() - self.started,
            "stages": self.stage_rows,
            **summed_columns(self.stage_rows, self._peak_flops()),
            "metrics": metrics,
            "bytes_bundle": self._bytes_of("publish") if status == "done" else None,
            "bytes_checkpoint": max((r.get("checkpoint_bytes", 0) for r in self.records.values()), default=0),
        }


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:2000] or type(error).__name__


def _trace(error: Exception) -> str:
    return "".join(traceback.format_exception(error))[-8000:]
