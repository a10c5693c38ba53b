"""Measure avatars: of a dataset (records are kept; what was measured before is skipped), or single bundles."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.command import OneLineParser, run_command

if TYPE_CHECKING:
    from ap3d.metrics.protocol import Metric
    from ap3d.metrics.subject import Tools
    from ap3d.storage import Store

STATUS = "exit status: 0 all measured, 1 some could not be, 2 bad input; figures below their targets change nothing"


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, measure and print; returns the exit status."""
    parser = OneLineParser(prog="python -m jobs.evaluate", description=__doc__, epilog=STATUS)
    add = parser.add_argument
    add("paths", nargs="+", metavar="ROOT|BUNDLE", help="one dataset's folder or URL, or bundles (folders, zips)")
    add("--metrics", metavar="NAMES", help="some of them, separated by commas (default: all)")
    add("--attributes", metavar="CSV", help="prompt and attribute columns; without it prompts are parsed")
    add("--probe", metavar="FOLDER", help="folder with attribute_probe.safetensors (default: the shipped one)")
    add("--out", metavar="FOLDER", help="where evaluation.md and .parquet go (default: into a dataset's root)")
    add("--redo", action="store_true", help="measure again what has a record")
    options = parser.parse_args(arguments)
    from rich.console import Console

    from ap3d.checksums import BUILTIN
    from ap3d.metrics.subject import Tools
    from ap3d.storage import Store
    from cluster import evaluation, evaluation_report

    tools = Tools(Path(options.probe) if options.probe else BUILTIN)
    metrics = _metrics(options.metrics, tools)
    asked = evaluation.read_attributes(options.attributes) if options.attributes else None
    store = _dataset(options.paths)
    avatars = evaluation.dataset_avatars(store) if store else evaluation.bundle_avatars(options.paths)
    found = evaluation.evaluate(avatars, metrics, tools, store=store, asked=asked, redo=options.redo, report=_say)
    summaries = evaluation_report.summarise(found.measured, metrics)
    evaluation_report.print_report(Console(), summaries)
    target = Store(options.out) if options.out else store
    if target:
        evaluation_report.write_report(target, summaries, found.measured)
        print(target.path(evaluation_report.PAGE))
    for line in found.failures:
        print(f"not measured: {line}", file=sys.stderr)
    return 1 if found.failures else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _metrics(names: str | None, tools: "Tools") -> list["Metric"]:
    """The metrics asked for, without those whose network is absent unless they were named."""
    from ap3d.errors import InputError
    from ap3d.metrics.table import METRICS

    wanted = names.split(",") if names else list(METRICS)
    for name in wanted:
        if name not in METRICS:
            raise InputError(f"--metrics: unknown metric {name!r}; there are: {', '.join(METRICS)}")
    absent = [n for n in wanted if not all(tools.has(tool) for tool in METRICS[n].needs)]
    if absent:
        line = f"no attribute_probe.safetensors in {tools.probe_folder}: {', '.join(absent)} left out; see --probe"
        if names:
            raise InputError(line)
        _say(line)
    return [METRICS[name] for name in wanted if name not in absent]


def _dataset(paths: list[str]) -> "Store | None":
    """The dataset that one path names, or None where the paths are bundles."""
    from ap3d.storage import Store
    from cluster import manifest

    store = None if len(paths) > 1 or paths[0].lower().endswith(".zip") else Store(paths[0])
    return store if store is not None and manifest.has_parts(store) else None


if __name__ == "__main__":
    run_command(main)
