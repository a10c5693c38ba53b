"""The built-in models from nothing: what each training reads, writes and reports.

Everything lies below one folder (``runs/builtin`` by default, ignored by git): ``pool/`` and ``held_out/`` pictures,
``diffusion/`` the model folder in diffusers form, ``shape_prior.safetensors``, ``state.pt``, curves and sheets.
Each training goes on where it was killed.
"""

import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ap3d.diffusion.conditions import ConditionSpec
from ap3d.diffusion.models import GuidanceModels
from ap3d.tensor_files import pack_tensors
from ap3d.training.attributes import BACKGROUND_COLOUR, PortraitAttributes
from ap3d.training.autoencoder import build_autoencoder, fit_linear_decoder, train_decoder
from ap3d.training.captions import caption_words, random_person
from ap3d.training.checkpoints import Curve, export_folder
from ap3d.training.combinations import kept_from_training
from ap3d.training.denoising import FrozenParts, run_training
from ap3d.training.diffusion_training import DiffusionConfig, DiffusionTrainer
from ap3d.training.new_words import teach_new_words
from ap3d.training.portrait_pool import PortraitPool
from ap3d.training.probe import Probe, examples
from ap3d.training.shape_prior import FILE as SHAPE_PRIOR_FILE
from ap3d.training.shape_prior import ShapePriorConfig, train_shape_prior
from ap3d.training.sheets import save_sheet
from ap3d.training.text_pretraining import TextConfig, pretrain_text_encoder

Report = Callable[[dict[str, Any]], None]
HELD_OUT_ROWS, HELD_OUT_SEED, REFERENCE_ROWS = 448, 1_000_003, 3072
CURVE_COLUMNS = (
    "step", "samples", "seconds", "loss", "kind", "shirt", "hair_colour", "skin", "eye_colour", "net_hair_style",
    "net_beard", "net_shirt", "net_hair_colour", "net_skin", "style_short", "style_long",
    "style_bald", "style_curly", "style_bun", "style_fringe",
)  # fmt: skip
MODEL_INDEX = {
    "_class_name": "StableDiffusionControlNetPipeline", "controlnet": ["diffusers", "ControlNetModel"],
    "feature_extractor": [None, None], "image_encoder": [None, None], "requires_safety_checker": False,
    "safety_checker": [None, None], "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderTiny"],
}  # fmt: skip


def train_text(out: Path, config: TextConfig, report: Report) -> None:
    """Tokenizer and text encoder into ``out/diffusion``; nothing else is needed first."""
    curve = Curve(out / "text.csv", ("step", "loss", "seconds"))

    def log(row: dict[str, float]) -> None:
        curve.add(row)
        report(row)

    accuracy = pretrain_text_encoder(out / "diffusion", config, log)
    (out / "text.json").write_text(json.dumps(accuracy, indent=1))
    report(accuracy)


def train_words(out: Path, steps: int, report: Report) -> None:
    """Words that joined the vocabulary after the text encoder's training, into ``out/diffusion``."""
    result = teach_new_words(out / "diffusion", steps=steps, report=report)
    write_prompts(out / "diffusion")
    (out / "words.json").write_text(json.dumps(result, indent=1))
    report(result)


def train_shape(out: Path, config: ShapePriorConfig, report: Report) -> None:
    """The shape prior into ``out``; needs the text encoder and the rig."""
    from ap3d.rig.builtin import BuiltinRig

    rig = BuiltinRig.load()

    def draw(rng: np.random.Generator, count: int) -> tuple[Sequence[PortraitAttributes], Tensor]:
        people = [random_person(rng) for _ in range(count)]
        noise = torch.from_numpy(rng.standard_normal((count, rig.n_shape))).float()
        return people, torch.stack(
            [rig.sample_shape(p.gender, p.age, p.build, z) for p, z in zip(people, noise, strict=True)]
        )

    result = train_shape_prior(out / SHAPE_PRIOR_FILE, draw, rig.sha256, config, report)
    (out / "shape_prior.json").write_text(json.dumps(result, indent=1))
    report(result)


def render_pool(out: Path, rows: int, limit: int | None = None) -> PortraitPool:
    """Fill the held-out pictures, then the training pool (``limit`` rows of it), in this process."""
    _fill(PortraitPool(out / "held_out", HELD_OUT_ROWS, seed=HELD_OUT_SEED))
    pool = PortraitPool(out / "pool", rows)
    _fill(pool, limit, accept=_may_be_trained_on)
    return pool


def _may_be_trained_on(person: PortraitAttributes) -> bool:
    return not kept_from_training(person)


def _fill(
    pool: PortraitPool,
    limit: int | None = None,
    parent: int | None = None,
    accept: Callable[[PortraitAttributes], bool] = lambda _: True,
) -> None:
    from ap3d.rig.builtin import BuiltinRig
    from ap3d.training.portraits import render_samples

    rig = BuiltinRig.load()

    def render(rng: np.random.Generator, count: int) -> Sequence[Any]:
        if parent is not None and os.getppid() != parent:  # a killed trainer must not leave its producer behind
            raise SystemExit(1)
        return render_samples(rig, rng, count, accept=accept)

    pool.fill(render, limit)


def _produce(out: Path, rows: int) -> None:
    """The producer process: held-out pictures first, then the pool."""
    torch.set_num_threads(1)
    os.nice(5)
    parent = os.getppid()
    _fill(PortraitPool(out / "held_out", HELD_OUT_ROWS, seed=HELD_OUT_SEED), parent=parent)
    _fill(PortraitPool(out / "pool", rows), parent=parent, accept=_may_be_trained_on)


def start_producer(out: Path, rows: int) -> multiprocessing.process.BaseProcess:
    """Render in the background; the process ends when the pool is full, or with its parent."""
    process = multiprocessing.get_context("spawn").Process(target=_produce, args=(out, rows), daemon=True)
    process.start()
    return process


def train_readers(
    out: Path, people: int, parser_steps: int, probe_steps: int, report: Report, start: Path | None = None
) -> None:
    """Face parser and measuring probe into ``out``, measured on people whom they have not seen.

    Args:
        out: folder of the pictures and the results.
        people: of whom the parser sees four pictures each, and the probe the whole heads.
        parser_steps: batches.
        probe_steps: batches.
        report: told the progress and the figures.
        start: folder of the networks to go on from, the learning rate then being lower; from nothing where None.
    """
    from ap3d.metrics import attribute_probe
    from ap3d.perception import parsing
    from ap3d.training import readers

    known, heads, unseen, splats = (readers.Labelled.load(path) for path in _reader_pictures(out, people))
    rate = readers.RATE if start is None else readers.RATE / 2
    begin = parsing.FaceParser.load(start / parsing.FILE) if start else None
    parser = readers.train_parser(known, parser_steps, report, start=begin, rate=rate)
    save_half(parser, out / parsing.FILE)
    figures = {"parser": readers.parser_overlap(parser, unseen)}
    report(figures["parser"])
    data = readers.joined([readers.whole_heads(known), readers.whole_heads(heads)])
    first = attribute_probe.AttributeProbe.load(start / attribute_probe.FILE) if start else None
    probe = readers.train_probe(data, probe_steps, report, start=first, rate=rate)
    save_half(probe, out / attribute_probe.FILE)
    for name, pictures in (("probe", readers.whole_heads(unseen)), ("probe_through_splats", splats)):
        figures[name] = readers.probe_accuracy(probe, pictures)
        report(figures[name])
    (out / "readers.json").write_text(json.dumps(figures, indent=1))


def _reader_pictures(out: Path, people: int) -> list[Path]:
    """Files of the known people, of more whole heads, of the people held out and of those drawn through splats."""
    from ap3d.metrics.attribute_probe import SIZE
    from ap3d.rig.builtin import BuiltinRig
    from ap3d.training import readers
    from ap3d.training.splat_truth import splat_truth

    rig, seed = BuiltinRig.load(), readers.SEED
    unseen = max(people // 8, 1)
    render: dict[str, Callable[[], readers.Labelled]] = {
        "readers": lambda: readers.render_labelled(rig, people, seed),
        "readers_heads": lambda: readers.render_labelled(rig, people, seed + 2, SIZE, readers.FULL_VIEWS),
        "readers_held_out": lambda: readers.render_labelled(rig, unseen, seed + 1),
        "readers_splats": lambda: splat_truth(rig, max(unseen // 4, 1), seed + 3),
    }
    paths = [out / f"{name}.npz" for name in render]
    for path, make in zip(paths, render.values(), strict=True):
        if not path.exists():
            make().save(path)
    return paths


def save_half(network: torch.nn.Module, path: Path) -> None:
    """Write a network's tensors at half precision."""
    tensors = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    path.write_bytes(pack_tensors(tensors))


def train_autoencoder(out: Path, pool: PortraitPool, decoder_steps: int, report: Report) -> None:
    """Autoencoder into ``out/diffusion/vae``: exact encoder, least squares decoder, trained stock decoder."""
    torch.manual_seed(0)
    model = build_autoencoder()
    pictures = lambda rows: torch.from_numpy(pool.images[np.sort(rows)]).permute(0, 3, 1, 2).float() / 255  # noqa: E731
    decoder, quality = fit_linear_decoder(model, pictures(np.arange(min(len(pool), 256))))
    rng = np.random.default_rng(0)
    psnr = (
        train_decoder(model, lambda n: pictures(rng.integers(len(pool), size=n)), decoder_steps, report=report)
        if decoder_steps
        else 0.0
    )

    def write(folder: Path) -> None:
        model.half().save_pretrained(folder, safe_serialization=True)
        decoder.save(folder)
        settings = json.loads((folder / "config.json").read_text())
        settings.pop("block_out_channels", None)  # AutoencoderTiny derives it and complains of it
        (folder / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")

    export_folder(out / "diffusion" / "vae", write)
    result = {"linear_decoder_psnr": quality, "stock_decoder_psnr": psnr}
    (out / "autoencoder.json").write_text(json.dumps(result, indent=1))
    report(result)


def train_diffusion(
    out: Path, config: DiffusionConfig, *, rows: int, report: Report, probe_samples: int = 10_000,
    export_seconds: float = 240.0, start: str | None = None, render: bool = True,
) -> None:  # fmt: skip
    """UNet and ControlNet into ``out/diffusion``; needs text encoder and autoencoder.

    Args:
        out: folder of everything.
        config: schedule.
        rows: size of the pool.
        report: called with rows of progress.
        probe_samples: pictures between two probes.
        export_seconds: seconds of training between exports of the averaged weights.
        start: a model ("builtin" or a folder) to begin from; fresh weights where None. A checkpoint goes before it.
        render: fill the pool beside the training; False where another process does.
    """
    producer = start_producer(out, rows) if render else None
    alive = producer.is_alive if producer else lambda: True
    pool, held_out = PortraitPool(out / "pool", rows), PortraitPool(out / "held_out", HELD_OUT_ROWS, seed=HELD_OUT_SEED)
    held_out.wait_for(HELD_OUT_ROWS, alive)
    pool.wait_for(min(config.minimum_rows, rows), alive)
    if not (out / "diffusion" / "vae").exists():
        train_autoencoder(out, pool, 0, report)
    spec = ConditionSpec()
    trainer = DiffusionTrainer(config, pool, FrozenParts.load(out / "diffusion"), spec)
    if not trainer.resume(out / "state.pt") and start is not None:
        trainer.begin_from(GuidanceModels.load(start))
    curve = Curve(out / "diffusion.csv", CURVE_COLUMNS, trainer.step)
    probe = lru_cache(maxsize=1)(lambda: _probe(pool, held_out, spec, net_steps=200))  # built when it is first due
    due = trainer.samples + probe_samples

    def probe_when_due(t: DiffusionTrainer) -> None:
        nonlocal due
        if t.samples >= due or t.done() >= 1:
            _quick_probe(t, probe(), out, curve, report)
            due = t.samples + probe_samples

    hooks: dict[float, Callable[[DiffusionTrainer], None]] = {
        20.0: lambda t: _log(t, curve, report),
        20.001: probe_when_due,
        export_seconds: lambda t: export_denoiser(t, out / "diffusion"),
    }
    run_training(trainer, checkpoint=out / "state.pt", every=hooks)
    probe_model(out, rows, report)


def _probe(pool: PortraitPool, held_out: PortraitPool, spec: ConditionSpec, net_steps: int = 500) -> Probe:
    known = examples(pool, ("full", "left_eye", "right_eye"), REFERENCE_ROWS)
    asked = examples(held_out, ("full",), 112) + examples(held_out, ("left_eye", "right_eye"), 40)
    return Probe(known, asked, spec, net_steps)


def _row(trainer: DiffusionTrainer, **values: Any) -> dict[str, Any]:
    row = {"step": trainer.step, "samples": trainer.samples, "seconds": trainer.seconds, "loss": trainer.loss, **values}
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}


def _log(trainer: DiffusionTrainer, curve: Curve, report: Report) -> None:
    row = _row(trainer, kind="loss")
    curve.add(row)
    report(row)


def _quick_probe(trainer: DiffusionTrainer, probe: Probe, out: Path, curve: Curve, report: Report) -> None:
    """One-step samples of the averaged weights: cheap, and colours are already decided there."""
    scores, _ = probe.score(trainer.averaged_models(), steps=1, guidance_scale=1.0)
    row = _row(trainer, kind="one step", **scores)
    curve.add(row)
    report(row)
    sample_sheet(trainer, probe, out / "sheets" / f"{trainer.samples:07d}.png")


def probe_model(out: Path, rows: int, report: Report, model: str | None = None) -> dict[str, float]:
    """Twelve steps with guidance 2 on held-out conditions with shuffled attributes: the figures of the model card.

    Args:
        out: folder of ``pool/`` and ``held_out/``; receives ``probe.json`` and ``sheets/probe.png``.
        rows: size of the pool.
        report: called with the readers' accuracy on real renders, then on samples.
        model: what to probe, as in :meth:`GuidanceModels.load`; ``out/diffusion`` where None.
    """
    pool, held_out = PortraitPool(out / "pool", rows), PortraitPool(out / "held_out", HELD_OUT_ROWS, seed=HELD_OUT_SEED)
    models = GuidanceModels.load(model or out / "diffusion")
    probe = _probe(pool, held_out, models.condition_spec)
    real = probe.score_real()
    report({"real": real})
    scores, samples = probe.score(models)
    report({"samples": scores})
    full = len([e for e in probe.held_out if e.scene.framing == "full"])
    save_sheet(out / "sheets" / "probe.png", [samples[i : i + 14] for i in range(0, full, 14)])
    (out / "probe.json").write_text(json.dumps({"real": real, "samples": scores}, indent=1))
    return scores


def sample_sheet(trainer: DiffusionTrainer, probe: Probe, path: Path) -> None:
    """Conditions, renders and samples (8 steps, guidance 2) of twelve held-out scenes with shuffled attributes."""
    from ap3d.diffusion.sampling import sample_images
    from ap3d.training.captions import plain_caption

    rows = [*range(9), *range(len(probe.held_out) - 3, len(probe.held_out))]
    chosen, asked = [probe.held_out[i] for i in rows], [probe.asked[i] for i in rows]
    as_tensor = lambda a: torch.from_numpy(np.stack(a)).permute(0, 3, 1, 2).float() / 255  # noqa: E731
    conditions = as_tensor([e.condition for e in chosen])
    prompts = [plain_caption(s.person, s.framing, s.view) for s in asked]
    samples = sample_images(
        trainer.averaged_models(),
        prompts,
        conditions,
        steps=8,
        guidance_scale=2.0,
        generator=torch.Generator().manual_seed(1),
    )
    save_sheet(path, [conditions[:, :3], conditions[:, 3:], as_tensor([e.picture for e in chosen]), samples])
    path.with_suffix(".txt").write_text("\n".join(prompts) + "\n")


def write_prompts(folder: Path) -> None:
    """What a model folder says of its prompts: how open ones are completed, and which words it knows."""
    prompts = {
        "complete": True,
        "licence": "Apache-2.0",
        "flat_background": BACKGROUND_COLOUR,
        "vocabulary": caption_words(),
    }
    (folder / "prompts.json").write_text(json.dumps(prompts, indent=0) + "\n")


def export_denoiser(trainer: DiffusionTrainer, folder: Path) -> None:
    """Averaged UNet and ControlNet as fp16 safetensors, with all that makes ``folder`` a diffusers model."""
    models = trainer.averaged_models()
    trainer.scheduler.save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2, sort_keys=True) + "\n")
    write_prompts(folder)

    def write_controlnet(path: Path) -> None:
        models.controlnets[0].half().save_pretrained(path, safe_serialization=True)  # type: ignore[operator]
        trainer.spec.write(path / "condition.json")

    export_folder(folder / "controlnet", write_controlnet)
    export_folder(folder / "unet", lambda path: models.unet.half().save_pretrained(path, safe_serialization=True))  # type: ignore[operator]
