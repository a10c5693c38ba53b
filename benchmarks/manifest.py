"""A dataset of a million rows: plan and resume, compaction, and a curator's question to ``avatars.parquet``.

Each step runs in a process of its own, which tells its seconds and its largest memory. The dataset is made first: rows
with six stages and eight metrics, flushed as a driver does, a tenth failed, a hundredth tried twice.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import pyarrow as pa

from ap3d.config import load_config
from ap3d.storage import Store
from cluster import manifest, schema

STAGES = ("portrait", "mesh", "initialise", "whole", "refine", "publish")
METRICS = ("psnr", "ssim", "lpips", "clip", "aed", "landmarks", "iqa", "gaussians")
PART_ROWS = 500


def template(config_hash: str, rows: int) -> pa.Table:
    """Rows that differ in nothing but their number."""
    stage = {"status": "done", "seconds": 12.5, "skipped": False, "peak_memory_mb": 830.0, "fingerprint": "f" * 64}
    stages = [{"name": name, **stage} for name in STAGES]
    row = schema.row_from_report({
        "face_id": "x", "config_hash": config_hash, "status": "done", "seed": 0, "preset": "builtin", "wall_s": 75.0,
        "epoch": 1, "attempt": 0, "stages": stages, "metrics": dict.fromkeys(METRICS, 0.5), "run_id": "run",
        "host": "h", "worker": "worker 0", "device": "cpu", "finished": datetime(2026, 1, 1, tzinfo=UTC),
    })  # fmt: skip
    return pa.concat_tables([schema.table_from_rows([row])] * rows).combine_chunks()


def make(root: Path, rows: int, part_rows: int) -> None:
    """Parts, bundles' folders and the prompt file of a run over ``rows`` prompts."""
    store, config_hash = Store(str(root)), load_config("builtin").config_hash
    manifest.ManifestWriter(store, 1)
    base = template(config_hash, part_rows)
    with open(root / "prompts.csv", "w") as prompts:
        prompts.write("prompt\n")
        for start in range(0, rows, part_rows):
            numbers = range(start, start + part_rows)
            texts = [f"a person number {i} with long red hair, wearing a green shirt" for i in numbers]
            prompts.writelines(f'"{text}"\n' for text in texts)
            write_part(store, base, texts, start)


def write_part(store: Store, base: pa.Table, texts: list[str], start: int) -> None:
    """One part, and the folders and records of its finished portraits."""
    from ap3d.portrait_job import content_id

    ids = [content_id(text, 0, "", "") for text in texts]
    failed = [(start + i) % 10 == 9 for i in range(len(ids))]
    changes = {
        "face_id": ids, "prompt": texts, "status": ["failed" if f else "done" for f in failed],
        "uri_bundle": [None if f else f"avatars/{i}-{'0' * 8}" for i, f in zip(ids, failed, strict=True)],
        "wall_s": [60.0 + (start + i) % 97 for i in range(len(ids))],
    }  # fmt: skip
    table = base
    for name, values in changes.items():
        table = table.set_column(table.column_names.index(name), schema.ROW_SCHEMA.field(name), pa.array(values))
    again = table.slice(0, len(table) // 100)
    part = pa.concat_tables([table, again])
    store.write_bytes(f"{manifest.PARTS}/{1:06d}-{start:09d}-x.parquet", manifest._encode(part))
    work = f"work/{base['config_hash'][0]}"
    for face_id, uri in zip(ids, changes["uri_bundle"], strict=True):
        if uri is not None:
            os.makedirs(store.path(str(uri)), exist_ok=True)
            os.makedirs(store.path(work, face_id), exist_ok=True)
            with open(store.path(work, face_id, "DONE.json"), "w") as file:
                file.write("{}")


def plan(root: Path) -> str:
    """What a resubmission does before its first portrait."""
    from cluster.plan import make_plan
    from cluster.prompt_files import read_records
    from cluster.prompts import build_jobs

    made = make_plan(Store(str(root)), build_jobs(read_records(str(root / "prompts.csv"))), load_config("builtin"))
    return f"{len(made.done):,} done, {len(made.todo):,} to make"


def compact(root: Path) -> str:
    """``jobs.compact --no-sweep``: parts to few files, the table and the gallery."""
    from cluster.maintenance import compact as run

    return run(str(root), sweep=False)


def sweep(root: Path) -> str:
    """What ``jobs.compact`` does besides: a look into the folders of all portraits."""
    from cluster.orphans import sweep as run

    store = Store(str(root))
    return f"{run(store, manifest.read_all(store, ('status',))):,} files removed"


def query(root: Path) -> str:
    """Count by status, and the best twenty by a metric, in DuckDB on the table."""
    import duckdb

    duckdb.sql("SELECT 1").fetchall()
    table = f"'{root}/avatars.parquet'"
    started = time.perf_counter()
    counts = duckdb.sql(f"SELECT status, count(*) FROM {table} GROUP BY status").fetchall()
    best = duckdb.sql(
        f"SELECT face_id, prompt, metric_clip, uri_preview FROM {table} WHERE status = 'done' AND latest"
        " ORDER BY metric_clip DESC LIMIT 20"
    ).fetchall()
    seconds = time.perf_counter() - started
    return json.dumps({"ms": 1e3 * seconds, "note": f"{sorted(counts)}, best {len(best)}"})


STEPS = {
    "plan and resume": plan, "compaction": compact, "sweep": sweep, "resume when compacted": plan,
    "curator's query": query,
}  # fmt: skip
LIMITS = {
    "plan and resume": "15 s, 2 GB", "compaction": "60 s", "sweep": "", "resume when compacted": "15 s, 2 GB",
    "curator's query": "0.2 s",
}  # fmt: skip


def measure(name: str, root: Path) -> dict[str, Any]:
    """One step in a process of its own."""
    command = [sys.executable, __file__, "--step", name, "--root", str(root)]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def step(name: str, root: Path) -> None:
    """Run one step and print its figures as JSON."""
    import resource

    started = time.perf_counter()
    note = STEPS[name](root)
    figures = {"ms": 1e3 * (time.perf_counter() - started), "note": note}
    if note.startswith("{"):
        figures = json.loads(note)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**figures, "cpu_ms": 1e3 * time.process_time(), "memory_mb": memory}))


def main() -> int:
    """Make the dataset, measure the steps, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="20,000 rows")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--root", type=Path, help="use or make the dataset here, and keep it")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step(options.step, options.root)
        return 0
    rows = 20_000 if options.quick else options.rows
    with tempfile.TemporaryDirectory() as temporary:
        root = options.root or Path(temporary) / "root"
        if not (root / "prompts.csv").exists():
            root.mkdir(parents=True)
            make(root, rows, PART_ROWS)
        report([{"case": name, "rows": rows, **measure(name, root)} for name in STEPS], options.json)
    return 0


def report(results: list[dict[str, Any]], file: Path | None) -> None:
    """Print a table and write the JSON."""
    head = f"step, {results[0]['rows']:,} rows"
    print(f"| {head} | seconds | of the processor, with imports | memory | aim | |\n|---|---|---|---|---|---|")
    for r in results:
        seconds, cpu, memory = r["ms"] / 1e3, r["cpu_ms"] / 1e3, r["memory_mb"]
        aim = LIMITS[r["case"]]
        print(f"| {r['case']} | {seconds:.2f} | {cpu:.1f} | {memory:,.0f} MB | {aim} | {r['note']} |")
    if file:
        file.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    sys.exit(main())
