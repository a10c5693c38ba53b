"""``ap3d generate``: one prompt to one bundle."""

import argparse
import sys
import uuid
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ap3d.config import Config, load_config, parse_overrides
from ap3d.errors import DataFileError, InputError
from ap3d.portrait_job import PortraitJob, checked_prompt, checked_seed, content_id
from ap3d.preflight import check_models
from ap3d.splats.facts import check_facts
from ap3d.storage import Store
from ap3d.workspace import Locations, Workspace


def generate(options: argparse.Namespace) -> int:
    """Make one avatar; returns 0, or 1 when the portrait failed."""
    overrides = parse_overrides(options.set) | ({"models.rig": options.rig} if options.rig else {})
    config = load_config(options.preset, overrides, options.config)
    prompt, seed = checked_prompt(_prompt(options)), checked_seed(options.seed)
    if options.threads is not None and options.threads < 1:
        raise InputError(f"--threads must be at least 1, got {options.threads}")
    if options.out.lower().rstrip("/").endswith(".zip"):
        raise InputError(f"--out must be a folder, got {options.out!r}; zip it when it is done")
    abstract = options.abstract_prompt
    abstract = None if abstract is None else checked_prompt(abstract, "abstract prompt")
    job = PortraitJob(_face_id(options, prompt, seed), prompt, seed, options.portrait, abstract)
    store = Store(options.out)
    where = Locations.single(job.face_id, config.config_hash)
    _refuse_another_bundle(store, job, config)
    check_models(config)
    store.check_writable()
    if (row := Workspace(store, where, "").done_row()) is None:
        row = _run(options, config, job, store, where)
    return _say(row, options.out)


def _prompt(options: argparse.Namespace) -> str:
    """The words given, or those beside the starting portrait.

    Raises:
        InputError: there are neither, or the portrait's cannot be read.
    """
    if options.prompt is not None:
        return str(options.prompt)
    if options.portrait is None:
        raise InputError("give a prompt, or --portrait ID.pth with the prompt in ID.txt beside it")
    from ap3d.portrait.trigrid import read_prompt

    return read_prompt(options.portrait)


def _face_id(options: argparse.Namespace, prompt: str, seed: int) -> str:
    """From everything that was asked for; a portrait counts by its content wherever it lies."""
    given = [] if options.abstract_prompt is None else [options.abstract_prompt]
    if options.portrait is None:
        return content_id(prompt, seed, *given)
    from ap3d.stages.base import portrait_digest

    return content_id(prompt, seed, portrait_digest(PortraitJob("", prompt, seed, options.portrait)), *given)


def _run(
    options: argparse.Namespace, config: Config, job: PortraitJob, store: Store, where: Locations
) -> dict[str, Any]:
    import torch

    from ap3d.pipeline import Generator, ProgressEvent

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:<11}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        bars: dict[str, TaskID] = {}
        loading = progress.add_task("models", total=1)
        generator = Generator(config, device, options.threads)
        progress.update(loading, completed=1)

        def show(event: ProgressEvent) -> None:
            if event.stage not in bars:
                bars[event.stage] = progress.add_task(event.stage, total=event.steps)
                if not console.is_terminal:
                    print(f"stage {event.stage}", flush=True)
            progress.update(bars[event.stage], completed=event.step, total=event.steps)

        return generator.run(
            job, store, uuid.uuid4().hex[:8], keep_work=options.keep_work, on_progress=show, locations=where
        )


def _refuse_another_bundle(store: Store, job: PortraitJob, config: Config) -> None:
    """A folder that holds another avatar is not overwritten."""
    try:
        facts = store.read_json("avatar.json")
    except DataFileError:
        return
    check_facts(facts, store.root)
    held = (facts.get("prompt"), facts.get("seed"), facts.get("config_hash"))
    another = job.portrait is not None and facts.get("face_id") != job.face_id
    if another or held != (job.prompt, job.seed, config.config_hash):
        raise InputError(
            f"{store.root} holds another avatar ({facts.get('prompt')!r}); choose another --out or remove it"
        )


def _say(row: dict[str, Any], out: str) -> int:
    if row["status"] != "done":
        print(f"ap3d: the portrait failed ({row['error_class']}): {row['error_message']}", file=sys.stderr)
        if row.get("error_trace"):
            print(row["error_trace"], file=sys.stderr)
        return 1
    if row["unknown_words"]:
        print(f"words that the model has never seen: {', '.join(row['unknown_words'])}")
    print(f"{out}: {row['completed_prompt']!r} in {row['wall_s']:.0f} s; look at {out.rstrip('/')}/sheet.png")
    return 0
