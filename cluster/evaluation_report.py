"""An evaluation for people and programs: a table on the terminal, ``evaluation.md``, ``evaluation.parquet``."""

import io
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from ap3d.metrics.protocol import Confusion, Figure, Measured, Metric, Summary
from ap3d.storage import Store

TABLE, PAGE = "evaluation.parquet", "evaluation.md"
_COLUMNS = ("metric", "figure", "value", "target", "chance", "avatars", "reached")

Summaries = Mapping[str, Summary]


def summarise(measured: Mapping[str, Sequence[Measured]], metrics: Sequence[Metric]) -> dict[str, Summary]:
    """What every metric says about all avatars."""
    return {metric.name: metric.summarise(measured[metric.name]) for metric in metrics}


def print_report(console: Console, summaries: Summaries) -> None:
    """Figures, then confusion tables that are not diagonal."""
    table = Table(*_COLUMNS, box=None)
    for name, summary in summaries.items():
        for figure in summary.figures:
            style = {True: "green", False: "red", None: None}[figure.reached]
            table.add_row(*_cells(name, figure), style=style)
    console.print(table)
    for name, summary in summaries.items():
        for found in summary.confusions:
            if _mistaken(found):
                console.print(_confusion_table(name, found))


def write_report(store: Store, summaries: Summaries, measured: Mapping[str, Sequence[Measured]]) -> None:
    """Write both files below a root."""
    store.write_bytes(PAGE, page(summaries).encode())
    sink = io.BytesIO()
    pq.write_table(value_table(measured), sink, compression="zstd")
    store.write_bytes(TABLE, sink.getvalue())


def value_table(measured: Mapping[str, Sequence[Measured]]) -> pa.Table:
    """One row an avatar, metric and number: face_id, prompt, seed, metric, key, value; lists stay in the records."""
    rows = [
        {"face_id": m.face_id, "prompt": m.prompt, "seed": m.seed, "metric": name, "key": key, "value": float(value)}
        for name, found in measured.items()
        for m in found
        for key, value in m.values.items()
        if not isinstance(value, list)
    ]
    types = [
        ("face_id", pa.string()), ("prompt", pa.string()), ("seed", pa.int64()), ("metric", pa.string()),
        ("key", pa.string()), ("value", pa.float64()),
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=pa.schema(types))


def page(summaries: Summaries) -> str:
    """All figures and confusion tables as Markdown."""
    lines = ["# Evaluation", "", *_markdown(_COLUMNS, [_cells(n, f) for n, s in summaries.items() for f in s.figures])]
    for name, summary in summaries.items():
        for found in summary.confusions:
            rows = [
                (label, *map(str, counts))
                for label, counts in zip(found.labels, found.counts, strict=True)
                if any(counts)
            ]
            lines += ["", f"## {name}: {found.name}", "", *_markdown(("asked", *found.labels), rows)]
    return "\n".join(lines) + "\n"


def _cells(metric: str, figure: Figure) -> tuple[str, ...]:
    sign = ">=" if figure.at_least else "<="
    target = "" if figure.target is None else f"{sign} {figure.target:g}"
    chance = "" if figure.chance is None else f"{figure.chance:.2f}"
    reached = {True: "yes", False: "no", None: ""}[figure.reached]
    return metric, figure.name, f"{figure.value:.4g}", target, chance, str(figure.count), reached


def _mistaken(found: Confusion) -> bool:
    return any(count for i, row in enumerate(found.counts) for j, count in enumerate(row) if i != j)


def _confusion_table(metric: str, found: Confusion) -> Table:
    table = Table("asked \\ read", *found.labels, title=f"{metric}: {found.name}", box=None, title_justify="left")
    for label, counts in zip(found.labels, found.counts, strict=True):
        if any(counts):
            table.add_row(label, *(str(c) if c else "." for c in counts))
    return table


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]
