"""``python -m tests.cluster.chaos --seed S``: the real driver while workers, machines, storage and itself fail.

A simulated cluster makes portraits of three short stages. A worker is killed every two seconds, a machine every
thirty, one machine hangs, one write in fifty fails, one prompt in twenty is bad, and the driver is killed in the
middle and started again. Then the dataset is checked as a reader would see it. Exit status 0 when all checks hold.
"""

import argparse
import csv
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from cluster import maintenance
from tests.cluster.chaos_cluster import Harm, SimulatedCluster, driver_process
from tests.cluster.chaos_events import Events
from tests.cluster.chaos_pipeline import ChaosSettings

# By kind: the prompt, and the error class that its row must have.
BAD = {
    "empty": ("", ("InputError",)),
    "long": ("x" * 3000, ("InputError",)),
    "invalid": ("an invalid man", ("InputError",)),
    "broken": ("a broken man", ("ArithmeticError",)),
    "poison": ("a man of poison", ("Poison", "WorkerLost")),
}


@dataclass
class Report:
    """One seed's line of the table, and what did not hold."""

    seed: int
    seconds: float = 0.0
    tries: int = 0
    died: int = 0
    storage_errors: int = 0
    redone: int = 0
    killed: str = ""
    done: int = 0
    failed: int = 0
    wrong: list[str] = field(default_factory=list)

    HEADER = "seed | seconds | tries | died | share | storage errors | workers/machines/hung killed | stages redone | done | failed | checks"  # noqa: E501

    def __str__(self) -> str:
        share = f"{self.died / max(self.tries, 1):.0%}"
        cells = (self.seed, round(self.seconds), self.tries, self.died, share, self.storage_errors, self.killed,
                 self.redone, self.done, self.failed, "hold" if not self.wrong else "; ".join(self.wrong))  # fmt: skip
        return " | ".join(map(str, cells))


def main() -> int:
    """Run the seeds one after another and print a table."""
    options = _parser().parse_args()
    print(f"| {Report.HEADER} |\n|{'---|' * (Report.HEADER.count('|') + 1)}", flush=True)
    wrong = 0
    for seed in range(options.seed, options.seed + options.seeds):
        report = run_seed(seed, options)
        print(f"| {report} |", flush=True)
        wrong += bool(report.wrong)
    return 1 if wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--seed", type=int, default=0)
    add("--seeds", type=int, default=1, help="how many, from --seed on")
    add("--nodes", type=int, default=8)
    add("--gpus", type=int, default=2, help="logical ones of each node, with a worker on each")
    add("--portraits", type=int, default=600)
    add("--stage-seconds", type=float, default=0.1)
    add("--kill-actor", type=float, default=2.0, metavar="SECONDS")
    add("--kill-node", type=float, default=30.0, metavar="SECONDS")
    add("--died-share", type=float, default=0.15, help="kill more workers while less than this share of tries died")
    add("--storage-errors", type=float, default=0.02, help="share of the workers' writes that fail")
    add("--unfit", type=int, default=0, help="nodes on which the models cannot be loaded")
    add("--limit", type=float, default=600.0, metavar="SECONDS")
    add("--keep", action="store_true", help="keep the folder with the dataset and the driver's log")
    return parser


def run_seed(seed: int, options: argparse.Namespace) -> Report:
    """One simulated cluster, one dataset, all checks."""
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    events, unfit = folder / "events", folder / "unfit"
    settings = ChaosSettings(str(events), options.stage_seconds, options.storage_errors, str(unfit))
    expected = write_prompts(folder / "prompts.csv", options.portraits, random.Random(seed))
    cluster = SimulatedCluster(options.nodes, options.gpus, settings.environment())
    left_out = [str(node.node_id) for node in cluster.nodes()[: options.unfit]]
    unfit.write_text("\n".join(left_out))
    harm = Harm(
        cluster, Events(events), random.Random(seed),
        actor_every=options.kill_actor, node_every=options.kill_node, died_share=options.died_share,
    )  # fmt: skip
    harm.hang_after, harm.spared = options.portraits // 4, set(left_out)  # those must be there to be left out
    started = time.monotonic()
    try:
        status = _drive(cluster, harm, folder, options)
    finally:
        harm.ended.set()
        if harm.is_alive():
            harm.join()
        cluster.close()
    report = Report(seed, time.monotonic() - started, killed=f"{harm.actors}/{harm.nodes}/{harm.hung}")
    check(report, folder, expected, harm.events, status)
    log = (folder / "driver.log").read_text()
    if missed := [node for node in left_out if f"machine {node[:8]} is left out" not in log]:
        report.wrong.append(f"{len(missed)} of {options.unfit} unfit machines were not left out")
    if report.died < options.died_share * report.tries:
        report.wrong.append(f"only {report.died} of {report.tries} tries died")
    if options.keep:
        print(f"kept: {folder}", flush=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return report


def write_prompts(path: Path, count: int, random_numbers: random.Random) -> dict[str, tuple[str, ...] | None]:
    """A prompt file with five bad prompts in a hundred; returns the error classes by id, None for good ones."""
    kinds = [k for k in BAD if k != "poison"]
    bad = random_numbers.sample(range(count), max(count // 20, len(BAD)))
    kind_of = {index: "poison" if n == 0 else kinds[n % len(kinds)] for n, index in enumerate(bad)}
    expected: dict[str, tuple[str, ...] | None] = {}
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "prompt"])
        for index in range(count):
            kind = kind_of.get(index)
            prompt, classes = BAD[kind] if kind else (f"man number {index}", None)
            expected[f"p{index:04d}"] = classes
            writer.writerow([f"p{index:04d}", prompt])
    return expected


def _drive(cluster: SimulatedCluster, harm: Harm, folder: Path, options: argparse.Namespace) -> int | None:
    """The driver, killed in the middle, and the same command again; None when it did not end in time."""
    command = [str(folder / "prompts.csv"), str(folder / "root"), str(options.nodes * options.gpus)]
    until = time.monotonic() + options.limit
    harm.start()
    with driver_process(cluster.address, command, folder / "driver.log") as first:
        while first.poll() is None and time.monotonic() < until and len(harm.events.done) < options.portraits // 2:
            time.sleep(0.1)
    with driver_process(cluster.address, command, folder / "driver.log") as second:
        while second.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
        return second.poll()


def check(
    report: Report, folder: Path, expected: dict[str, tuple[str, ...] | None], events: Events, status: int | None
) -> None:
    """Compare the dataset with what was asked for."""
    if status != 1:  # some portraits are bad
        log = (folder / "driver.log").read_text().strip().splitlines()
        report.wrong.append(f"the driver ended with {status}: {log[-1] if log else ''}")
        return
    events.read()
    events.open.clear()
    report.tries, report.died = len(events.begun), len(events.died)
    report.storage_errors, report.redone = events.storage_errors, events.redone()
    rows: list[dict[str, Any]] = pq.read_table(folder / "root" / "avatars.parquet").to_pylist()
    report.done = sum(row["status"] == "done" for row in rows)
    report.failed = len(rows) - report.done
    if sorted(row["face_id"] for row in rows) != sorted(expected):
        report.wrong.append("portraits are missing or there twice")
    for row in rows:
        classes = expected[row["face_id"]]
        if row["status"] != ("failed" if classes else "done") or (classes and row["error_class"] not in classes):
            report.wrong.append(f"{row['face_id']}: {row['status']} {row['error_class']} {row['error_message']}")
    if events.remade:
        report.wrong.append(f"{events.remade} committed stages were made again")
    if report.redone > report.died + report.storage_errors:
        report.wrong.append(f"{report.redone} stages redone for {report.died} tries that died")
    orphans = orphan_files(folder / "root", rows)
    if orphans:
        report.wrong.append(f"{len(orphans)} orphan files after compaction, {orphans[0]} among them")


def orphan_files(root: Path, rows: list[dict[str, Any]]) -> list[str]:
    """Files after a compaction that belong to no row."""
    maintenance.compact(str(root))
    bundles = {row["uri_bundle"] for row in rows if row["status"] == "done"}
    records = {
        f"work/{row['config_hash']}/{row['face_id']}/{'DONE' if row['status'] == 'done' else 'FAILED'}.json"
        for row in rows
    }
    files = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    known = {"avatars.parquet", "index.html", *records}
    return [
        name for name in files
        if name not in known and not name.startswith(("manifest/", "logs/")) and name.rpartition("/")[0] not in bundles
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
