"""Training of a ControlNet by Ray Train: one process a worker, gradients averaged over all of them."""

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from ap3d.errors import MissingDependencyError, RunError
from ap3d.training.controlnet_training import ControlNetConfig, ControlNetOptions, Place, train_controlnet
from cluster.ray_executor import connect

MAXIMUM_FAILURES = 3  # restarts of all workers from the last checkpoint


def train_with_ray(options: ControlNetOptions, workers: int, gpus: bool, storage: str | None = None) -> dict[str, Any]:
    """Run a training on several workers; the checkpoint is the training's own, below ``options.out``.

    Args:
        options: paths must mean the same on every machine.
        workers: processes.
        gpus: one GPU each instead of a CPU core.
        storage: a folder or URI for Ray Train's own records; its default where None.

    Returns:
        What :func:`worker` returned in the first one.

    Raises:
        MissingDependencyError: Ray Train is not installed.
        RunError: the cluster or the training failed; the message is the worker's.
    """
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer
    except ImportError as error:
        raise MissingDependencyError("training on several workers needs Ray Train: pip install ap3d[train]") from error
    resources = connect()
    kind = "GPU" if gpus else "CPU"
    if resources.get(kind, 0) < workers:
        raise RunError(f"{workers} workers need {workers} {kind}s, the cluster has {resources.get(kind, 0):g}")
    trainer = TorchTrainer(
        worker,
        train_loop_config=asdict(options),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpus),
        run_config=RunConfig(storage_path=storage, failure_config=FailureConfig(max_failures=MAXIMUM_FAILURES)),
    )
    try:
        result = trainer.fit()
    except Exception as error:  # Ray Train wraps the worker's own error
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise RunError(f"the training failed: {lines[-1] if lines else type(error).__name__}") from error
    return dict(result.return_value or {})


def worker(values: dict[str, Any]) -> dict[str, Any]:
    """What runs in every worker.

    Args:
        values: :class:`ControlNetOptions` as plain values.

    Returns:
        The last row of progress, where the training went on from, and the bad rows of all workers. Ray Train keeps
        metrics beside checkpoints of its own alone, so they are no way back for these.
    """
    import ray.train
    from ray.train.torch import get_device

    context = ray.train.get_context()
    options = ControlNetOptions(**{**values, "config": ControlNetConfig(**values["config"])})
    place = Place(context.get_world_rank(), context.get_world_size(), average_over_workers)
    last: dict[str, Any] = {}

    def report(row: dict[str, Any]) -> None:
        if "reason" not in row:
            last.update(row)
        if place.rank == 0 or "reason" in row:
            print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)

    trainer = train_controlnet(options, report, place, str(get_device()))
    bad = torch.tensor([float(len(trainer.data.bad_rows))], device=trainer.models.device)
    place.average([bad])
    return {**last, "bad_rows": round(float(bad) * place.world), "samples": trainer.samples}


def average_over_workers(tensors: list[Tensor]) -> None:
    """Replace tensors by their means over all workers, in one message."""
    if not torch.distributed.is_initialized():  # one worker alone
        return
    flat = torch.cat([t.flatten() for t in tensors])
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    offset = 0
    for tensor in tensors:
        tensor.copy_(flat[offset : offset + tensor.numel()].view_as(tensor))
        offset += tensor.numel()
