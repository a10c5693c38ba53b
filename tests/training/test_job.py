import subprocess
import sys

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
