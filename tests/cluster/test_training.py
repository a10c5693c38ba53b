"""A ControlNet trained by two workers of Ray Train goes on after everything was killed."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load, load_file, save_file

from ap3d.checksums import BUILTIN

if TYPE_CHECKING:
    from ap3d.storage import Store

pytest.importorskip("ray.train")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small UNet for pictures of 32 pixels; text encoder and autoencoder are the shipped ones."""
    from ap3d.training.denoiser import DenoiserConfig, build_unet

    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("text_encoder", "tokenizer", "vae", "scheduler"):
        (folder / name).symlink_to(BUILTIN / "diffusion" / name)
    build_unet(DenoiserConfig(latent_size=8, channels=(16, 16, 32))).save_pretrained(folder / "unet")
    return folder


def write_triples(path: Path) -> None:
    import io

    def encoded(channels: int) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, np.random.default_rng(0).integers(0, 255, (32, 32, channels), np.uint8))
        return buffer.getvalue()

    rows = [{"image": encoded(3), "condition": encoded(6), "caption": "a man"} for _ in range(16)]
    pq.write_table(pa.Table.from_pylist(rows), path)


def _average(rank: int, folder: str) -> None:
    """One of two processes; leaves what it got in a file."""
    from cluster.training import average_over_workers

    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    tensors = [torch.full((2, 3), float(rank)), torch.arange(4.0) * (1 + 2 * rank)]
    average_over_workers(tensors)
    save_file(dict(zip("ab", tensors, strict=True)), f"{folder}/{rank}.safetensors")
    torch.distributed.destroy_process_group()


def test_gradients_become_means_over_the_workers(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_average, (str(tmp_path),), 2)
    for rank in range(2):
        got = load_file(tmp_path / f"{rank}.safetensors")
        assert torch.equal(got["a"], torch.full((2, 3), 0.5)) and torch.equal(got["b"], 2 * torch.arange(4.0))


def test_a_worker_trains_and_reports_through_ray_train(model: Path, tmp_path: Path) -> None:
    """Ray Train's local mode: its function in this process, without a cluster."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from ap3d.training.controlnet_training import ControlNetConfig, ControlNetOptions
    from cluster.training import worker

    write_triples(tmp_path / "data.parquet")
    condition = str(BUILTIN / "diffusion" / "controlnet" / "condition.json")
    options = ControlNetOptions(
        str(tmp_path / "data.parquet"), str(tmp_path / "out"), str(model), condition,
        config=ControlNetConfig(samples=8, batch=4),
    )  # fmt: skip
    trainer = TorchTrainer(
        worker, train_loop_config=asdict(options), scaling_config=ScalingConfig(num_workers=0),
        run_config=RunConfig(storage_path=str(tmp_path / "ray")),
    )  # fmt: skip
    returned = trainer.fit().return_value
    assert returned["samples"] == 8 and returned["bad_rows"] == 0 and returned["step"] == 2
    assert len(load_file(tmp_path / "out" / "controlnet" / "diffusion_pytorch_model.safetensors")) > 10


@pytest.mark.slow
def test_two_workers_go_on_after_one_is_killed_and_after_all_are(model: Path, tmp_path: Path, s3_server: str) -> None:
    """The checkpoint lies in a bucket; Ray Train restarts the workers, and the same command a killed training."""
    from ap3d.storage import Store
    from tests.s3_server import new_bucket

    write_triples(tmp_path / "data.parquet")
    out, log = Store(new_bucket()), tmp_path / "log"
    command = [
        sys.executable, "-m", "jobs.train_controlnet", "--data", str(tmp_path / "data.parquet"), "--out", out.root,
        "--model", str(model), "--condition", str(BUILTIN / "diffusion" / "controlnet" / "condition.json"),
        "--samples", "600", "--batch", "2", "--workers", "2", "--save-seconds", "0", "--ray-storage",
        str(tmp_path / "ray"),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
        alive = lambda: process.poll() is None or pytest.fail(log.read_text())  # noqa: E731
        try:
            until(lambda: alive() and samples_in(out) >= 20)
            victim = training_workers(process.pid)[-1]
            victim.kill()
            victim.wait(20)
            reached = samples_in(out)
            until(lambda: alive() and samples_in(out) >= reached + 20)
            assert len(training_workers(process.pid)) == 2
        finally:
            children = psutil.Process(process.pid).children(recursive=True)
            for each in (process, *children):
                each.kill()
            process.wait()
            psutil.wait_procs(children, timeout=20)
    reached = samples_in(out)
    assert reached < 600 and not out.exists("controlnet/config.json")
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900, check=False)
    assert finished.returncode == 0, finished.stderr
    words = finished.stdout.split()
    told = dict(zip(words[::2], words[1::2], strict=True))
    assert int(told["resumed_at"]) >= reached and (told["samples"], told["bad_rows"]) == ("600", "0")
    weights = load(out.read_bytes("controlnet/diffusion_pytorch_model.safetensors"))
    assert len(weights) > 10 and all(bool(t.isfinite().all()) for t in weights.values())


def samples_in(out: "Store") -> int:
    """How far the checkpoint in a store has come; 0 before there is one."""
    from ap3d.training.checkpoints import unpack_state

    return int(unpack_state(out.read_bytes("state.pt"), "state.pt")["samples"]) if out.exists("state.pt") else 0


def training_workers(driver: int) -> list[psutil.Process]:
    """Ray Train's workers below a process."""
    children = psutil.Process(driver).children(recursive=True)
    return [child for child in children if "RayTrainWorker" in " ".join(child.cmdline())]


def until(condition: Callable[[], object], seconds: float = 600) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.2)
