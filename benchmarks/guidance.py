"""Speed of the text-to-image model: python benchmarks/guidance.py [--quick] [--model FOLDER] [--json FILE]

Milliseconds a crop of the UNet with its ControlNet, by threads, number type, memory format and batch, with the error
that the number type adds; then the steps that an avatar is made of: encoding, decoding, one gradient of interval score
matching, one sampled picture, and what a whole avatar of a preset spends in the network. Shortest of several runs.
Last, for every preset and stage: evaluations of an avatar, operations, seconds in UNet and ControlNet and utilisation.
Presets that the model at hand is for are timed with it, the others counted: draft and paper beside a small model, for
networks of Stable Diffusion 1.5's sizes, smoke and built-in beside a model of 512 pixels not at all.
"""

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from ap3d.threads import prepare_environment

prepare_environment()
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import Tensor

from ap3d.config import load_config
from ap3d.diffusion.cost import Cost, counted, peak_flops
from ap3d.diffusion.ism import IsmSettings, ism_gradient
from ap3d.diffusion.models import GuidanceModels
from ap3d.diffusion.sampling import CHUNK, sample_images
from ap3d.stages.counting import counted_evaluations

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BATCHES = (1, 4, 8, 16)
UTILISATION = 0.4  # of a card, in phases of guidance
PROMPT = "front view, an old man with short gray hair and a beard"
Row = dict[str, object]


def best(function: Callable[[], object], repeats: int, device: str) -> float:
    """Shortest time in milliseconds, without the first call."""

    def timed() -> float:
        start = time.perf_counter()
        function()
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    timed()
    return 1e3 * min(timed() for _ in range(repeats))


def inputs(models: GuidanceModels, batch: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Noisy latents, text and conditions of ``batch`` crops, always the same."""
    g = torch.Generator().manual_seed(0)
    latents = torch.randn(batch, *models.latent_shape, generator=g).to(models.device)
    size, channels = models.image_size, models.condition_channels
    conditions = torch.rand(batch, channels, size, size, generator=g) if channels else None
    return latents, models.encode_prompt([PROMPT] * batch), conditions


@torch.inference_mode()
def network_rows(spec: str, device: str, dtypes: list[str], threads: list[int], repeats: int) -> list[Row]:
    """Rows of the first table."""
    rows: list[Row] = []
    exact = GuidanceModels.load(spec, device=device)
    for dtype in dtypes:
        models = GuidanceModels.load(spec, device=device, dtype=DTYPES[dtype])
        error = deviation(exact, models)
        for layout in ("contiguous", "channels_last"):
            memory = torch.channels_last if layout == "channels_last" else torch.contiguous_format
            for network in (models.unet, *models.controlnets):
                network.to(memory_format=memory)
            for count in threads:
                torch.set_num_threads(count)
                for batch in BATCHES:
                    x, text, conditions = inputs(models, batch)
                    case = f"{count} threads, {dtype}, {layout}, batch {batch}"
                    call = lambda m=models, a=x, t=text, c=conditions: m.predict(a, 500, t, c)  # noqa: E731
                    rows.append({"case": case, "ms_a_crop": best(call, repeats, device) / batch, "error": error})
    torch.set_num_threads(1)
    return rows


def deviation(exact: GuidanceModels, models: GuidanceModels) -> float:
    """Root mean square of what another number type changes in the clean latents, over theirs."""
    x, text, conditions = inputs(exact, 2)
    clean = exact.predict(x, 500, text, conditions)[0].float()
    other = models.predict(x, 500, models.encode_prompt([PROMPT] * 2), conditions)[0].float()
    return float((other - clean).square().mean().sqrt() / clean.square().mean().sqrt())


def step_rows(models: GuidanceModels, preset: str, repeats: int, device: str) -> list[Row]:
    """Rows of the second table, with the batch sizes of a preset."""
    config = load_config(preset)
    whole, views = config.whole, config.views
    count, generator = whole.views_per_step, torch.Generator().manual_seed(0)
    latents, text, conditions = inputs(models, count)
    empty = models.encode_prompt([""] * count)
    settings = IsmSettings(whole.guidance_scale, whole.inversion_steps)
    pictures = torch.rand(count, 3, models.image_size, models.image_size, generator=generator, requires_grad=True)
    sampled = [PROMPT] * len(views.full_azimuths)
    _, _, all_conditions = inputs(models, len(sampled))
    gradient = lambda: ism_gradient(  # noqa: E731
        models, latents, 200, text, empty, empty, conditions, 0, settings, generator
    )
    sample = lambda: sample_images(  # noqa: E731
        models, sampled, all_conditions, steps=views.steps, guidance_scale=views.guidance_scale, generator=generator
    )
    work: dict[str, Callable[[], object]] = {
        f"encode {count} crops and back": lambda: models.encode_images(pictures).float().sum().backward(),
        f"decode {count} crops": lambda: models.decode_latents(latents),
        f"gradient of interval score matching, {count} crops": gradient,
        f"{len(sampled)} sampled views, {views.steps} steps": sample,
    }
    rows: list[Row] = [{"case": name, "ms": best(call, repeats, device)} for name, call in work.items()]
    times = [float(str(row["ms"])) for row in rows]
    rows.append({"case": f"preset {preset}: stage whole in networks", "ms": whole.iterations * (times[0] + times[2])})
    return rows


def cost_rows(models: GuidanceModels, repeats: int, device: str, card: float) -> list[Row]:
    """Rows of the third table.

    Args:
        models: what is timed.
        repeats: of every timing.
        device: where they are.
        card: operations a second, of which the presets that are only counted are taken to reach ``UTILISATION``.

    Returns:
        A row a preset, then its stages' rows, whose ``case`` holds the preset too.
    """
    x, text, conditions = inputs(models, CHUNK)
    timed = []
    for condition in (None, conditions):
        call = lambda c=condition: models.predict(x, 500, text, c)  # noqa: E731
        call()
        before = models.meter.total.flops
        call()
        timed.append(((models.meter.total.flops - before) / CHUNK, best(call, repeats, device) / 1e3 / CHUNK))
    peak = peak_flops(device, models.dtype, torch.get_num_threads())
    large = models.image_size >= 512

    def row(case: str, spent: Cost, measured: bool) -> Row:
        counts: Row = {"case": case, "unet": spent.unet, "controlnet": spent.controlnet}
        if measured:
            plain = spent.unet - spent.controlnet
            flops, seconds = (plain * a + spent.controlnet * b for a, b in zip(*timed, strict=True))
            return counts | {"flops": flops, "seconds": seconds, "utilisation": flops / seconds / peak}
        unet, controlnet = stable_diffusion_flops()
        flops = spent.unet * unet + spent.controlnet * controlnet
        return counts | {"flops": flops, "seconds": flops / (UTILISATION * card), "utilisation": None}

    rows: list[Row] = []
    for preset in ("draft", "paper") if large else ("smoke", "builtin", "draft", "paper"):
        stages, measured = counted_evaluations(load_config(preset)), large or preset in ("smoke", "builtin")
        rows.append(row(f"preset {preset}", sum(stages.values(), Cost()), measured))
        rows += [row(f"  {preset}: {name}", spent, measured) for name, spent in stages.items()]
    return rows


@functools.cache
def stable_diffusion_flops() -> tuple[int, int]:
    """Operations of one picture of 512 pixels in UNet and ControlNet of Stable Diffusion 1.5; nothing is computed."""
    from diffusers.models.controlnets.controlnet import ControlNetModel
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    sizes = {"cross_attention_dim": 768, "attention_head_dim": 8}
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, **sizes)
        controlnet = ControlNetModel(conditioning_channels=4, **sizes)
        x, text, image = torch.empty(1, 4, 64, 64), torch.empty(1, 77, 768), torch.empty(1, 4, 512, 512)
        step = torch.zeros(1)
    with torch.no_grad():
        return counted(unet, x, step, text)[1], counted(controlnet, x, step, text, image)[1]


def print_costs(rows: list[Row], card: float) -> None:
    """The third table."""
    for row in rows:
        used = (
            f"utilisation {row['utilisation']:.2f}" if row["utilisation"] else f"at {UTILISATION:.0%} of {card:.2g}/s"
        )
        print(
            f"{row['case']:18} {row['unet']:8} UNet {row['controlnet']:8} ControlNet {row['flops'] / 1e12:12.3f} TFLOP "
            f"{row['seconds']:8.1f} s, {used}"
        )


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one thread, one repetition")
    parser.add_argument("--model", default="builtin", metavar="FOLDER")
    parser.add_argument("--preset", default="builtin", help="whose batch sizes and steps (default: %(default)s)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", default="1,2", help="thread counts of torch (default: %(default)s)")
    parser.add_argument("--dtypes", default="float32,bfloat16", help="default: %(default)s")
    parser.add_argument("--dtype", default="float32", choices=list(DTYPES), help="of the second and third table")
    parser.add_argument("--peak", type=float, default=800.0, help="TFLOP/s for draft and paper (default: %(default)s)")
    parser.add_argument("--costs", action="store_true", help="the last table alone")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args(arguments)
    repeats = 1 if options.quick else 5
    threads = [1] if options.quick else [int(n) for n in options.threads.split(",")]
    dtypes = options.dtypes.split(",")
    models = GuidanceModels.load(options.model, device=options.device, dtype=DTYPES[options.dtype])
    rows: list[Row] = []
    if not options.costs:
        rows = network_rows(options.model, options.device, dtypes, threads, repeats)
        for row in rows:
            print(f"{row['case']:48} {row['ms_a_crop']:8.2f} ms a crop, error {row['error']:.1e}")
        steps = step_rows(models, options.preset, repeats, options.device)
        for row in steps:
            print(f"{row['case']:55} {row['ms']:10.1f} ms")
        rows += steps
    torch.set_num_threads(1)
    costs = cost_rows(models, repeats, options.device, 1e12 * options.peak)
    print_costs(costs, 1e12 * options.peak)
    if options.json:
        Path(options.json).write_text(json.dumps(rows + costs, indent=1) + "\n")


if __name__ == "__main__":
    main()
