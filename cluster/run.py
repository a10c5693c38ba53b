"""One run of ``jobs.generate``: read, plan, drive, sum up."""

import contextlib
import os
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from ap3d import __version__
from ap3d.config import Config, load_config
from ap3d.errors import Ap3dError, InputError
from ap3d.preflight import check_models
from ap3d.redaction import redacted
from ap3d.storage import Store
from cluster import gallery, manifest, schema
from cluster.driver import Driver
from cluster.executor import Executor
from cluster.lease import Lease
from cluster.plan import Plan, make_plan
from cluster.progress import Progress, Reporter, duration, make_reporter
from cluster.prompt_files import read_portrait_folder, read_records
from cluster.prompts import PromptSet, build_jobs
from cluster.signals import Signals
from cluster.sizing import WorkerOptions, WorkerSizes, size_workers
from cluster.worker import DEFAULT_PIPELINE, WorkerSpec

DRAIN_SECONDS = 20.0
SHOWN_JOBS = 50


@dataclass(frozen=True)
class GenerateOptions:
    """The options of ``jobs.generate``; see its ``--help``."""

    out: str
    prompts: str | None = None
    portraits: str | None = None
    preset: str = "builtin"
    config_file: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    executor: str = "inline"
    sizes: WorkerOptions = field(default_factory=WorkerOptions)
    seed: int = 0
    keep_work: bool = False
    dry_run: bool = False
    takeover: bool = False
    timeout_s: float = 6 * 3600.0
    stage_timeout_s: float | None = None
    speculate: bool = False
    recycle_after: int = 0
    node_wait_s: float | None = None
    pipeline: str = DEFAULT_PIPELINE


def generate(options: GenerateOptions) -> int:
    """Make all portraits that are not there yet; returns the exit status.

    Raises:
        InputError: the options or the prompt file as a whole are unusable; nothing was written.
        RunError: the run could not go on; what was finished is recorded.
    """
    options.sizes.check(options.executor)
    if options.timeout_s <= 0:
        raise InputError(f"--timeout must be more than 0 seconds, got {options.timeout_s:g}")
    if options.stage_timeout_s is not None and options.stage_timeout_s <= 0:
        raise InputError(f"--stage-timeout must be more than 0 seconds, got {options.stage_timeout_s:g}")
    if options.recycle_after < 0:
        raise InputError(f"--recycle-after must be 0 or more portraits, got {options.recycle_after}")
    config = load_config(options.preset, options.overrides, options.config_file)
    prompts = _read_prompts(options)
    store = Store(_absolute_root(options.out))
    plan = make_plan(store, prompts, config)
    console = Console(width=None if sys.stdout.isatty() else 140)
    for note in prompts.notes:
        _say(console, f"note: {note}")
    if options.dry_run:
        return _dry_run(console, options, plan, store, config)
    if not plan.todo and not plan.recovered and not plan.rejected and _published(store):
        _say(console, f"nothing to do: all {len(plan.done)} portraits are done")
        _say_where(console, store)
        return 0
    if options.pipeline == DEFAULT_PIPELINE and not os.environ.get("RAY_ADDRESS"):
        check_models(config)  # workers on other machines may have models that this one lacks
    store.check_writable()
    return _drive(console, options, config, store, plan)


def _read_prompts(options: GenerateOptions) -> PromptSet:
    if (options.prompts is None) == (options.portraits is None):
        raise InputError("give either --prompts FILE or --portraits DIR")
    if options.prompts is not None:
        return build_jobs(read_records(options.prompts), options.seed)
    return build_jobs(read_portrait_folder(str(options.portraits)), options.seed)


def _absolute_root(out: str) -> str:
    """The root as every worker can open it.

    Raises:
        InputError: a relative path inside a submitted Ray job, whose folder is a copy that disappears.
    """
    if "://" in out:
        return out
    if not os.path.isabs(out) and os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        raise InputError(f"--out {out!r} must be an absolute path or a URL in a job that was submitted to Ray")
    return os.path.abspath(out)


def _published(store: Store) -> bool:
    return store.exists(manifest.TABLE) and store.exists(gallery.PAGE)


def _drive(console: Console, options: GenerateOptions, config: Config, store: Store, plan: Plan) -> int:
    run_id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:6]}"
    total = len(plan.todo) + len(plan.done) + len(plan.rejected)
    progress = Progress(total, len(plan.done), run_id)
    signals = Signals()
    signals.install()
    try:
        with _lease(store, options.takeover, run_id, progress) as lease, _reporter(progress, console) as reporter:
            driver = Driver(
                store, config, plan, lease, progress, reporter, signals,
                timeout_s=options.timeout_s, stage_timeout_s=options.stage_timeout_s, drain_s=_drain_seconds(),
                speculate=options.speculate,
            )  # fmt: skip
            _record_run(store, run_id, options, config)
            try:
                driver.record_known()
                if plan.todo and signals.received is None:
                    executor, sizes = _make_executor(options, config, store, lease, len(plan.todo))
                    driver.reporter = _metered(reporter, progress, options.executor)
                    reporter.say(_announcement(plan, sizes, options.executor))
                    signals.on_first = executor.drain if options.executor == "inline" else None
                    signals.install()
                    driver.run(executor)
            except BaseException:
                with contextlib.suppress(Ap3dError):
                    driver.finish()
                raise
            driver.finish()
    finally:
        signals.restore()
    _summary(console, progress)
    _say_where(console, store)
    if signals.received is not None:
        return signals.exit_status
    return 1 if progress.failed else 0


@contextlib.contextmanager
def _lease(store: Store, takeover: bool, run_id: str, progress: Progress) -> Iterator[Lease]:
    lease = Lease.acquire(store, takeover=takeover, run_id=run_id, progress=progress.snapshot)
    try:
        yield lease
    finally:
        with contextlib.suppress(Ap3dError):
            lease.release()


@contextlib.contextmanager
def _reporter(progress: Progress, console: Console) -> Iterator[Any]:
    reporter = make_reporter(progress, console)
    try:
        yield reporter
    finally:
        reporter.close()


def _metered(reporter: Reporter, progress: Progress, executor: str) -> Reporter:
    """The reporter, whose news also go to Ray's Prometheus endpoint where there is Ray."""
    if executor != "ray":
        return reporter
    from cluster.ray_metrics import MeteredReporter

    return MeteredReporter(reporter, progress)


def _make_executor(
    options: GenerateOptions, config: Config, store: Store, lease: Lease, jobs: int
) -> tuple[Executor, WorkerSizes]:
    def spec(sizes: WorkerSizes) -> WorkerSpec:
        return WorkerSpec(
            store.root, config, sizes.threads, sizes.gpus, options.keep_work, lease.witness, options.pipeline,
            options.recycle_after,
        )  # fmt: skip

    if options.executor == "ray":
        from cluster.ray_executor import RayExecutor, connect

        there = connect()
        sizes = size_workers(options.sizes, there.get("CPU", 1), there.get("GPU", 0), jobs, config.needs_gpu)
        executor: Executor = RayExecutor(
            spec(sizes), sizes.workers, options.node_wait_s, elastic=options.sizes.workers is None
        )
    else:
        from cluster.inline import InlineExecutor

        sizes = size_workers(options.sizes, os.cpu_count() or 1, _local_gpus(), 1)
        executor = InlineExecutor(spec(sizes))
    executor.start()
    return executor, sizes


def _local_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _drain_seconds() -> float:
    """Less than what ``ray job stop`` waits before it kills."""
    if not os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        return DRAIN_SECONDS
    return max(1.0, 0.7 * float(os.environ.get("RAY_JOB_STOP_WAIT_TIME_S", 3)))


def _record_run(store: Store, run_id: str, options: GenerateOptions, config: Config) -> None:
    """The resolved configuration and the options of this run, for whoever asks later how the data came about."""
    facts = {
        "run_id": run_id,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "ap3d_version": __version__,
        "config_hash": config.config_hash,
        "config": schema.without_credentials(config.to_dict()),
        "options": schema.without_credentials(asdict(options)),
    }
    store.write_json(f"manifest/_runs/{run_id}.json", facts)


def _announcement(plan: Plan, sizes: WorkerSizes, executor: str) -> str:
    each = f"{sizes.gpus:g} GPU" if sizes.gpus else f"{sizes.threads} thread{'s' if sizes.threads > 1 else ''}"
    workers = f"{sizes.workers} {executor} worker{'s' if sizes.workers > 1 else ''}"
    done = f", {len(plan.done)} done before" if plan.done else ""
    return f"{len(plan.todo)} portraits to make{done}; {workers} with {each} each"


def _dry_run(console: Console, options: GenerateOptions, plan: Plan, store: Store, config: Config) -> int:
    """Say what would run and what it would cost; 2 where prompts are unusable."""
    _say(console, f"preset {config.preset}, configuration {config.config_hash}, root {store.shown}")
    _say(console, f"{len(plan.todo)} to make, {len(plan.done)} done, {len(plan.rejected)} unusable")
    for job in plan.todo[:SHOWN_JOBS]:
        _say(console, f"  {job.face_id}  seed {job.seed}  {job.prompt[:80]}")
    if len(plan.todo) > SHOWN_JOBS:
        _say(console, f"  and {len(plan.todo) - SHOWN_JOBS} more")
    for rejected in plan.rejected[:SHOWN_JOBS]:
        _say(console, f"  unusable: {rejected.reason}")
    if plan.todo:
        _say(console, _cost(options, plan, config))
    return 2 if plan.rejected else 0


def _cost(options: GenerateOptions, plan: Plan, config: Config) -> str:
    """Expected time by earlier rows of the same preset."""
    rows = plan.known.filter(
        pc.and_(pc.equal(plan.known["preset"], config.preset), pc.equal(plan.known["status"], "done"))
    )
    seconds = rows["wall_s"].drop_null()
    if not len(seconds):
        return f"no finished portrait of preset {config.preset!r} is here to tell the time of one; make a few first"
    workers = options.sizes.workers or 1
    each, work = pc.mean(seconds).as_py(), pc.mean(seconds).as_py() * len(plan.todo)
    number = f"{workers} worker{'s' if workers > 1 else ''}"
    return (
        f"about {duration(work / workers)} with {number}, {work / 3600:.2f} worker hours in all: {each:.1f} s a"
        f" portrait, the mean of {len(seconds)} of this preset here"
    )


def _summary(console: Console, progress: Progress) -> None:
    table = Table(title=f"run {progress.run_id}", title_justify="left", min_width=40)
    for column in ("portraits", "done", "failed", "done before", "left", "tried again", "time", "avatars/h"):
        table.add_column(column, justify="right")
    left = progress.total - progress.already_done - progress.done - progress.failed
    counts = (progress.total, progress.done, progress.failed, progress.already_done, left, progress.retried)
    table.add_row(*map(str, counts), duration(progress.seconds), f"{progress.per_hour:.0f}")
    console.print(table)
    for line in progress.errors:
        console.print(f"failed: {line}", markup=False, highlight=False, soft_wrap=True)


def _say_where(console: Console, store: Store) -> None:
    page = store.uri(gallery.PAGE)
    _say(console, f"table:   {store.uri(manifest.TABLE)}")
    _say(console, f"gallery: {Path(page).as_uri() if store.is_local else page}")


def _say(console: Console, text: str) -> None:
    console.print(redacted(text), markup=False, highlight=False, soft_wrap=True)
