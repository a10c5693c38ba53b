"""Stable Diffusion 1.5's true size on a CPU: how fast it loads, and what one step of the paper preset holds."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ap3d.diffusion.models import GuidanceModels
from tests.true_size import write_true_size

STEP = """
import json, resource, sys, time, torch
from dataclasses import replace
from types import SimpleNamespace
from pathlib import Path
torch.set_num_threads(int(sys.argv[2]))
from ap3d.config import load_config
from ap3d.resources import Resources
from ap3d.portrait_job import PortraitJob
from ap3d.rig.protocol import RigParams
from ap3d.splats.optimizer import AvatarOptimizer
from ap3d.stages import guided, matching
from ap3d.tensor_files import pack_tensors, unpack_tensors
from tests.tiny_avatar import tiny_avatar
folder = sys.argv[1]
config = load_config("paper", {"models.diffusion": folder, "models.controlnet": "none", "models.vae": "none",
    "models.dtype": "float32", "models.rig": "builtin", "models.crops_at_once": 1, "whole.views_per_step": 1})
resources = Resources.load(config)
rig = resources.rig
notes = {"completed_prompt": "an old man", "abstract_prompt": "an old man", "background": [0.5, 0.5, 0.5]}
context = SimpleNamespace(job=PortraitJob("x", "an old man", 0), config=config, resources=resources, stage="whole",
    generator=torch.Generator().manual_seed(0), records={}, notes=lambda stage: notes, report=lambda a, b: None,
    read_tensors=lambda stage, name: RigParams.neutral(rig).tensors(), save_checkpoint=lambda *a: None)
avatar = tiny_avatar(rig, 400000).with_sh_degree(3)
run = guided.GuidedRun(context, AvatarOptimizer(avatar), [1])
phase = replace(config.whole, iterations=1, azimuths=(0.0, 0.0), back_share=0.0, start_timestep=300)
started = time.perf_counter()
matching.run_matching(run, phase)
moved = float((run.optimizer.avatar.f_dc.detach() - avatar.f_dc).abs().max())
print(json.dumps({"seconds": time.perf_counter() - started, "moved": moved, "dropped": run.dropped,
    "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_true_size(tmp_path_factory.mktemp("sd15"))


@pytest.mark.slow
def test_it_loads_in_under_ten_seconds(folder: Path) -> None:
    started = time.perf_counter()
    models = GuidanceModels.load(folder)
    seconds = time.perf_counter() - started
    count = lambda network: sum(p.numel() for p in network.parameters()) / 1e6  # noqa: E731
    assert count(models.unet) == pytest.approx(859.5, abs=0.5)
    assert count(models.controlnets[0]) == pytest.approx(361.3, abs=0.5)
    assert (models.image_size, models.latent_shape, models.condition_channels) == (512, (4, 64, 64), 4)
    assert models.encode_prompt(["a man"]).shape == (1, 77, 768)
    assert seconds < 10


@pytest.mark.slow
def test_one_step_of_the_paper_preset_stays_under_14_gigabytes(folder: Path) -> None:
    """All crops of one camera in front, with the ControlNet, at full size."""
    command = [sys.executable, "-c", STEP, str(folder), "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["gigabytes"] < 14 and found["dropped"] == 0 and found["moved"] > 0
