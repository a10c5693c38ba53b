"""CPU threads of a process; to be set before torch starts its own."""

import os


def prepare_environment() -> None:
    """Let idle OpenMP threads sleep: spinning ones take the cores from the processes beside them.

    Call it before torch is imported; what the user has set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")


def use_threads(count: int | None) -> None:
    """Let torch and the rasterisers of this process use this many threads.

    None gives torch one, because networks as small as the built-in ones lose by more, and the rasterisers all cores.
    """
    import torch

    torch.set_num_threads(count or 1)
    if count is not None:
        os.environ["AP3D_THREADS"] = str(count)
