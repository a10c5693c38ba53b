"""The same work through Ray Data's actor pool and through this project's driver, side by side.

Stand-in portraits of three stages that sleep, two workers of one logical CPU each. Each way runs clean, with a worker
killed in the middle, and with one portrait that raises. Counted are stages that ran more than once, rows that came out,
and seconds, of which starting workers is a part. Ray is started once for all.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = str(ROOT)
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from ap3d.errors import NumericalError

STAGES, SECONDS, WORKERS = 3, 0.2, 2
CASES = ("clean", "a worker killed", "one bad row")


def run_stage(folder: Path, face_id: str, stage: int) -> None:
    """Sleep, and note that the stage ran and where."""
    (folder / "pids").mkdir(exist_ok=True)
    (folder / "pids" / str(os.getpid())).touch()
    if "bad" in face_id:
        raise NumericalError("not a number")
    time.sleep(SECONDS)
    with open(folder / f"{face_id}.{stage}", "a") as file:
        file.write("x")


def load_pipeline(config: Any, device: str, threads: int) -> Callable[..., Mapping[str, Any]]:
    """The stages as a pipeline of the driver's workers: a stage that has its mark is skipped."""
    return _portrait


def _portrait(job: Any, store: Any, attempt: str, **options: Any) -> Mapping[str, Any]:
    from ap3d.config import load_config

    folder, config_hash = Path(job.portrait), load_config("smoke").config_hash
    for stage in range(STAGES):
        if not (folder / f"{job.face_id}.{stage}").exists():
            run_stage(folder, job.face_id, stage)
    bundle = f"avatars/{job.face_id}-{config_hash[:8]}"
    row = {
        "face_id": job.face_id,
        "config_hash": config_hash,
        "status": "done",
        "uri_bundle": bundle,
        "attempt": attempt,
    }
    store.write_json(f"{bundle}/avatar.json", {})
    store.write_json(f"work/{config_hash}/{job.face_id}/DONE.json", row)
    return row


class Portraits:
    """The same stages as a class for Ray Data."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make the portraits of a batch."""
        for face_id, folder in zip(batch["face_id"], batch["folder"], strict=True):
            for stage in range(STAGES):
                run_stage(Path(folder), str(face_id), stage)
        return batch


def by_driver(folder: Path, ids: list[str]) -> str:
    """``jobs.generate --executor ray``."""
    import pyarrow.parquet as pq

    from cluster.run import GenerateOptions, generate
    from cluster.sizing import WorkerOptions

    lines = "".join(f"{face_id},a person,{folder}\n" for face_id in ids)
    (folder / "prompts.csv").write_text("id,prompt,portrait\n" + lines)
    sizes = WorkerOptions(workers=WORKERS, threads_per_worker=1)
    generate(GenerateOptions(
        out=str(folder / "out"), prompts=str(folder / "prompts.csv"), preset="smoke", executor="ray", sizes=sizes,
        pipeline="benchmarks.scheduler:load_pipeline",
    ))  # fmt: skip
    rows = pq.read_table(folder / "out" / "avatars.parquet").to_pylist()
    failed = [row for row in rows if row["status"] == "failed"]
    note = f", and 1 row with its reason ({failed[0]['error_class']})" if failed else ""
    return f"{len(rows) - len(failed)} rows{note}"


def by_ray_data(blocks: int, **context: Any) -> Callable[[Path, list[str]], str]:
    """``map_batches`` on a pool of actors over so many blocks."""

    def run(folder: Path, ids: list[str]) -> str:
        import ray

        ray.data.DataContext.get_current().enable_progress_bars = False
        ray.data.DataContext.get_current().max_errored_blocks = context.get("max_errored_blocks", 0)
        items = [{"face_id": face_id, "folder": str(folder)} for face_id in ids]
        data = ray.data.from_items(items, override_num_blocks=min(blocks, len(items)))
        pool = ray.data.ActorPoolStrategy(size=WORKERS)
        made = data.map_batches(Portraits, compute=pool, num_cpus=1, batch_size=None)
        try:
            return f"{len(made.take_all())} rows"
        except Exception as error:
            return f"no row: the run ends with {type(error).__name__}"

    return run


WAYS: dict[str, Callable[[Path, list[str]], str]] = {
    "this driver": by_driver,
    "Ray Data, a block a worker": by_ray_data(WORKERS),
    "Ray Data, a block a row": by_ray_data(1000),
    "Ray Data, a block a row, errors allowed": by_ray_data(1000, max_errored_blocks=-1),
}


def killer(folder: Path, after: int) -> threading.Thread:
    """Kills one worker in the middle of a stage, when so many stages are done."""

    def kill() -> None:
        while len(list(folder.glob("*.*"))) < after:
            time.sleep(0.01)
        time.sleep(SECONDS / 2)
        os.kill(int(sorted(p.name for p in (folder / "pids").iterdir())[0]), signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


def measure(case: str, way: str, portraits: int) -> dict[str, Any]:
    """One run in a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ids = [f"p{i:03d}" for i in range(portraits)]
        if case == "one bad row":
            ids[portraits // 2] += "-bad"
        if case == "a worker killed":
            killer(folder, portraits * STAGES // 3)
        started = time.perf_counter()
        came = WAYS[way](folder, ids)
        seconds = time.perf_counter() - started
        ran = sum(len(path.read_text()) for path in folder.glob("p*.?"))
        marks = len(list(folder.glob("p*.?")))
    return {"case": case, "backend": way, "ms": 1e3 * seconds, "redone": ran - marks, "rows": came}


def results(portraits: int) -> Iterator[dict[str, Any]]:
    """All cases in all ways."""
    for case in CASES:
        for way in WAYS:
            if case == "one bad row" or "errors allowed" not in way:
                yield measure(case, way, portraits)


def table(rows: list[dict[str, Any]], portraits: int) -> str:
    """The figures as Markdown."""
    import ray

    best = portraits * STAGES * SECONDS / WORKERS
    work = f"{portraits} portraits of {STAGES} stages of {SECONDS} s, {WORKERS} workers"
    head = f"{work}, Ray {ray.__version__}: {best:.1f} s at best"
    lines = [head, "", "| case | way | seconds | stages done twice | what came out |", "|---|---|---|---|---|"]
    lines += [f"| {r['case']} | {r['backend']} | {r['ms'] / 1e3:.1f} | {r['redone']} | {r['rows']} |" for r in rows]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run all cases, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="8 portraits")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--figures", type=Path, help="folder for scheduler.md")
    options = parser.parse_args()
    import ray

    portraits = 8 if options.quick else 24
    ray.init(num_cpus=8, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
             object_store_memory=2**30)  # fmt: skip
    rows = []
    for row in results(portraits):
        print(row, flush=True)
        rows.append(row)
    text = table(rows, portraits)
    print(text)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    if options.figures:
        (options.figures / "scheduler.md").write_text(text)
    ray.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
