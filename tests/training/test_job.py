import subprocess
import sys

import pytest

from jobs.train_builtin import publish

PARTS = ("rig", "text", "shape", "portraits", "autoencoder", "diffusion", "readers", "probe", "publish")


def test_help_names_every_part_without_importing_torch():
    code = (
        "import sys; sys.argv = ['x', '--help']\nimport jobs.train_builtin as job\n"
        "try: job.main()\nfinally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(part in done.stdout for part in PARTS)


def test_publish_copies_models_and_keeps_cards(tmp_path):
    source, target = tmp_path / "runs", tmp_path / "builtin"
    for name in ("scheduler", "tokenizer", "text_encoder", "vae", "unet", "controlnet"):
        (source / "diffusion" / name).mkdir(parents=True)
        (source / "diffusion" / name / "config.json").write_text("{}")
    for name in ("model_index.json", "prompts.json"):
        (source / "diffusion" / name).write_text("{}")
    for name in ("shape_prior", "face_parser", "attribute_probe"):
        (source / f"{name}.safetensors").write_bytes(b"x")
    (target / "diffusion").mkdir(parents=True)
    (target / "diffusion" / "README.md").write_text("card")
    publish(source, target, ["readers"])
    assert (target / "face_parser.safetensors").exists() and not (target / "diffusion" / "unet").exists()
    publish(source, target)
    publish(source, target)
    assert (target / "diffusion" / "unet" / "config.json").exists()
    assert (target / "diffusion" / "README.md").read_text() == "card"
    assert (target / "shape_prior.safetensors").read_bytes() == b"x"


@pytest.mark.slow
def test_a_small_world_from_nothing(tmp_path):
    """Every training that needs no download, in the order of the help text, each as short as it can be."""
    from ap3d.diffusion.models import GuidanceModels
    from jobs import train_builtin as job

    common = job.Common(out=tmp_path / "runs")
    for part in (
        job.Text(common, steps=2),
        job.Words(common, steps=1),
        job.Shape(common, people=64, steps=2),
        job.Portraits(common, rows=64),
        job.Diffusion(common, rows=64, samples=16, render=False),
        job.Autoencoder(common, rows=64, steps=1),
        job.Readers(common, people=4, parser_steps=1, probe_steps=1),
        job.Publish(common, to=tmp_path / "builtin"),
    ):
        job.run(part)
    models = GuidanceModels.load(tmp_path / "builtin" / "diffusion")
    assert models.image_size == 128 and models.unknown_words("a man in a maroon shirt") == []
    names = {p.name for p in (tmp_path / "builtin").iterdir()}
    assert {"diffusion", "shape_prior.safetensors", "face_parser.safetensors", "attribute_probe.safetensors"} <= names
    assert (common.out / "probe.json").exists() and (common.out / "sheets" / "probe.png").exists()
