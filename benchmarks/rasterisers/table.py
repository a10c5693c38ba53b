"""The measured rows as Markdown: a summary of times, and every figure of a few scenes."""

from collections.abc import Iterable
from typing import Any

Row = dict[str, Any]
DETAILED = ("20k 256px SH3 sparse", "60k 512px SH3 sparse", "60k 512px SH3 heavy")
PASSES = ("forward", "forward+backward")


def markdown(rows: list[Row], machine: str) -> str:
    """The whole page."""
    splats = [row for row in rows if "pass" in row]
    parts = [
        "<!-- written by benchmarks/raster.py -->",
        f"Measured on {machine}. Medians; one thread unless said otherwise.",
    ]
    for name in PASSES:
        parts += [f"**{name.capitalize()}**: milliseconds, and in brackets how many times our first column.",
                  _summary([row for row in splats if row["pass"] == name])]  # fmt: skip
    for scene in DETAILED:
        chosen = [row for row in splats if row["scene"] == scene]
        if chosen:
            parts += [f"**{scene}**: every candidate", _details(chosen)]
    others = [row for row in rows if "pass" not in row]
    if others:
        parts += ["**Meshes and animation**", _others(others)]
    return "\n\n".join(parts) + "\n"


def _summary(rows: list[Row]) -> str:
    names, scenes = _distinct(row["backend"] for row in rows), _distinct(row["scene"] for row in rows)
    cells = {(row["scene"], row["backend"]): row for row in rows}
    lines = []
    for scene in scenes:
        found = [cells.get((scene, name)) for name in names]
        shown = [f"{_ms(row['ms'])} ({row['ratio']:g})" if row else "" for row in found]
        lines.append([scene, *shown])
    return _table(["scene", *names], lines)


def _details(rows: list[Row]) -> str:
    lines = []
    for row in rows:
        lines.append([
            row["backend"], row["pass"], _ms(row["ms"]), f"{row['ratio']:g}", f"{row['gaussians_per_s'] / 1e6:.2f}",
            _shown(row["memory_mb"], "d"), _shown(row["error"], ".1e"), _shown(row.get("error_mean"), ".1e"),
        ])  # fmt: skip
    header = ["candidate", "pass", "ms", "ratio", "M Gaussians/s", "peak MB", "error", "mean error"]
    return _table(header, lines) + (
        "\n\nError against float64: of the picture, the largest and mean difference; of the backward pass, the largest "
        "relative error among the gradients."
    )


def _others(rows: list[Row]) -> str:
    header = ["case", "threads", "ms", "frames/s", "peak MB"]
    lines = [
        [row["case"], row["backend"].removeprefix("ap3d, "), _ms(row["ms"]), _shown(row.get("frames_per_s"), "g"),
         _shown(row["memory_mb"], "d")]
        for row in rows
    ]  # fmt: skip
    return _table(header, lines)


def _table(header: list[str], lines: list[list[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _ms(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _shown(value: float | int | None, form: str) -> str:
    return "" if value is None else format(value, form)
