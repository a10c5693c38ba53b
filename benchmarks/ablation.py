"""What each part of guidance is worth: python benchmarks/ablation.py --prompts 4 --out runs/ablation [--docs]

Makes the same prompts with each variant (everything; without ControlNet, eyes and mouth, refinement; score
distillation instead of interval score matching; each saving on or off), measures them with the metrics of
`jobs.evaluate`, and writes `table.md` and `sheet.jpg` into the folder; --docs puts both into docs/. Stages that two
variants share are made once; avatars and measurements that are there already are kept, so that the same command goes
on after a kill and adds prompts or variants later. On several cores, --part 1/2 and --part 2/2 side by side make and
measure every second prompt each; the command without --part then only puts their results together.
"""

import argparse
import csv
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from ap3d.threads import prepare_environment

prepare_environment()

import io

from PIL import Image, ImageDraw

from ap3d.config import Config, load_config
from ap3d.errors import Ap3dError, InputError
from ap3d.metrics.subject import Tools
from ap3d.metrics.table import METRICS
from ap3d.pipeline import Generator, PortraitJob
from ap3d.storage import Store
from cluster.evaluation import Avatar, evaluate

PROMPTS = ROOT / "jobs" / "held_out_prompts.csv"
MEASURED = ("attributes", "colours", "geometry", "landmarks", "articulation", "integrity")
GUIDED = ("eyes", "mouth", "whole", "refine")
TILE, CAPTION, SHOWN = 200, 18, 3  # pixels; prompts on the sheet
# Switches that no output depends on, so that stages made without them would be taken for those made with them.
ALONE = "without savings that change nothing"
_NO_CONTROL = {f"regions.{name}.control": False for name in ("full", "face", "mouth", "left_eye", "right_eye")} | {
    f"{phase}.control": False for phase in ("eyes", "mouth.edit", "refine")
}
Overrides = dict[str, Any]


def variants(preset: str) -> dict[str, Overrides]:
    """Overrides of a preset by the name of a variant, without those that change nothing of it."""
    base = load_config(preset)
    redrawn: Overrides = {}
    for name, phase in (("eyes", base.eyes), ("mouth.edit", base.mouth.edit), ("refine", base.refine)):
        redrawn[f"{name}.rounds"] = 4 * phase.rounds
        redrawn[f"{name}.iterations"] = max(1, phase.iterations // 4)
    named: dict[str, Overrides] = {
        "everything": {},
        "without ControlNet": dict(_NO_CONTROL),
        "without eyes and mouth": {"eyes.rounds": 0, "mouth.match.iterations": 0, "mouth.edit.rounds": 0},
        "without refinement": {"refine.rounds": 0},
        "SDS, not ISM": {"whole.objective": "sds", "mouth.match.objective": "sds"},
        "1 inversion step": {"whole.inversion_steps": 1, "mouth.match.inversion_steps": 1},
        "3 inversion steps": {"whole.inversion_steps": 3, "mouth.match.inversion_steps": 3},
        "targets redrawn 4 times as often": redrawn,
        "bfloat16": {"models.dtype": "bfloat16"},
        ALONE: {
            "models.crops_at_once": 1,
            "models.branches_together": False,
            "models.embed_once": False,
            "models.ahead": 0,
        },
    }
    return {name: changes for name, changes in named.items() if not changes or load_config(preset, changes) != base}


def store_of(name: str, root: str) -> Store:
    """Where a variant's avatars go: all share their stages, but for the one that must make its own."""
    return Store(f"{root}/alone" if name == ALONE else root)


def make(jobs: Sequence[PortraitJob], name: str, config: Config, store: Store) -> dict[str, dict[str, Any]]:
    """Rows by face of one variant; finished avatars are only looked up."""
    generator = Generator(config, threads=1)
    rows = {}
    for job in jobs:
        row = generator.run(job, store, f"{name.replace(' ', '-')}", keep_work=True)
        print(f"{name}: {job.face_id}: {row['status']} {row['error_message'] or ''}", flush=True)
        if row["status"] == "done":
            rows[job.face_id] = row
    return rows


def measure(rows: Mapping[str, Mapping[str, Any]], store: Store) -> dict[str, float]:
    """Figures of a variant by name, and what it cost."""
    avatars = [
        Avatar(r["face_id"], r["config_hash"], r["prompt"], r["seed"], store.path(r["uri_bundle"]), r["uri_bundle"])
        for r in rows.values()
    ]
    metrics = [METRICS[name] for name in MEASURED]
    found = evaluate(avatars, metrics, Tools(), store=store)
    for line in found.failures:
        print(f"not measured: {line}", file=sys.stderr)
    figures = {
        f"{metric.name}: {figure.name}": figure.value
        for metric in metrics
        for figure in metric.summarise(found.measured[metric.name]).figures
    }
    return figures | costs(rows)


def costs(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Means over the avatars: evaluations, operations and core-seconds of the guided stages."""
    stages = [stage for row in rows.values() for stage in row["stages"] if stage["name"] in GUIDED]
    mean = lambda name: sum(stage[name] for stage in stages) / max(len(rows), 1)  # noqa: E731
    return {
        "cost: UNet evaluations": mean("unet_evaluations"),
        "cost: ControlNet evaluations": mean("controlnet_evaluations"),
        "cost: TFLOP": mean("flops") / 1e12,
        "cost: core-seconds of guidance": mean("core_seconds"),
    }


def table(figures: Mapping[str, Mapping[str, float]], about: str) -> str:
    """Markdown with a row a variant; figures that no variant changes are left out."""
    names = list(dict.fromkeys(name for found in figures.values() for name in found))
    shown = [n for n in names if len({f"{f[n]:.3g}" if n in f else "" for f in figures.values()}) > 1]
    lines = [about, "", f"| variant | {' | '.join(shown)} |", f"|{' --- |' * (len(shown) + 1)}"]
    for variant, found in figures.items():
        cells = [f"{found[n]:.3g}" if n in found else "" for n in shown]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def sheet(made: Mapping[str, Mapping[str, Mapping[str, Any]]], faces: Sequence[str], root: str) -> Image.Image:
    """Rows of variants, columns of prompts: the preview, then an open mouth and a smile of the bundle's sheet."""
    width = 3 * TILE
    image = Image.new("RGB", (width * len(faces), (TILE + CAPTION) * len(made)), "white")
    draw = ImageDraw.Draw(image)
    for row, (variant, rows) in enumerate(made.items()):
        top, store = row * (TILE + CAPTION), store_of(variant, root)
        draw.text((4, top + 3), variant, fill="black")
        for column, face in enumerate(faces):
            if face not in rows:
                continue
            folder = rows[face]["uri_bundle"]
            preview, views = (_opened(store, f"{folder}/{name}.png") for name in ("preview", "sheet"))
            side = views.width // 6  # expressions in columns: neutral, open, smile
            parts = (preview, *(views.crop((k * side, 0, (k + 1) * side, side)) for k in (1, 2)))
            for k, part in enumerate(parts):
                image.paste(
                    part.resize((TILE, TILE), Image.Resampling.LANCZOS), (column * width + k * TILE, top + CAPTION)
                )
    return image


def _opened(store: Store, name: str) -> Image.Image:
    return Image.open(io.BytesIO(store.read_bytes(name))).convert("RGB")


def into_docs(text: str, picture: Image.Image, docs: Path) -> None:
    """Replace the table between the marks in guidance.md, and the figure."""
    picture.save(docs / "figures" / "ablation.jpg", quality=88)
    page = (docs / "guidance.md").read_text()
    begin, end = "<!-- ablation -->\n", "<!-- end of ablation -->"
    before, rest = page.split(begin)
    figure = "\n![Variants in rows: at rest, mouth open, smiling](figures/ablation.jpg)\n\n"
    (docs / "guidance.md").write_text(before + begin + text + figure + end + rest.split(end)[1])


def part_of(text: str) -> tuple[int, int]:
    """``K/N`` as K - 1 and N.

    Raises:
        InputError: it is something else.
    """
    try:
        part, parts = (int(number) for number in text.split("/"))
    except ValueError:
        part, parts = 0, 0
    if not 1 <= part <= parts:
        raise InputError(f"--part takes K/N with K from 1 to N, got {text!r}")
    return part - 1, parts


def main(arguments: list[str] | None = None) -> None:
    """Make, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=4, help="how many of jobs/held_out_prompts.csv")
    parser.add_argument("--preset", default="builtin")
    parser.add_argument("--out", default="runs/ablation", help="folder of avatars, measurements and results")
    parser.add_argument("--variants", help="some of them, separated by semicolons (default: all)")
    parser.add_argument("--part", default="1/1", metavar="K/N", help="make and measure every Nth prompt from the Kth")
    parser.add_argument("--docs", action="store_true", help="put table and figure into docs/")
    options = parser.parse_args(arguments)
    known = variants(options.preset)
    chosen = options.variants.split(";") if options.variants else list(known)
    if unknown := set(chosen) - set(known):
        parser.error(f"unknown variants {sorted(unknown)}; there are: {'; '.join(known)}")
    with PROMPTS.open(newline="") as file:
        asked = list(csv.DictReader(file))[: options.prompts]
    part, parts = part_of(options.part)
    jobs = [PortraitJob(row["id"], row["prompt"], int(row["seed"])) for row in asked][part::parts]
    made: dict[str, dict[str, dict[str, Any]]] = {}
    figures: dict[str, dict[str, float]] = {}
    for name in chosen:
        store = store_of(name, options.out)
        made[name] = make(jobs, name, load_config(options.preset, known[name]), store)
        figures[name] = measure(made[name], store)
    if parts > 1:
        return
    about = f"{len(jobs)} prompts, preset {options.preset}. One thread."
    text, picture = table(figures, about), sheet(made, [job.face_id for job in jobs][:SHOWN], options.out)
    Store(options.out).write_bytes("table.md", text.encode())
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    Store(options.out).write_bytes("sheet.jpg", buffer.getvalue())
    print(text)
    if options.docs:
        into_docs(text, picture, ROOT / "docs")


if __name__ == "__main__":
    try:
        main()
    except Ap3dError as error:
        sys.exit(f"error: {error}")
