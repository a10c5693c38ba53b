"""Median time, peak memory, and error of one candidate on one scene."""

import ctypes
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ap3d.raster.splats import Splats

PARAMETERS = ("means", "quaternions", "scales", "opacities", "sh")


def median_ms(function: Callable[[], object], seconds: float, most: int = 15) -> float:
    """Median over as many runs as fit, after one that is not counted; one run alone where that takes longer."""
    first = _time(function)
    if first > 2 * seconds:
        return 1e3 * first
    runs = max(3, min(most, round(seconds / max(first, 1e-6))))
    return 1e3 * statistics.median(_time(function) for _ in range(runs))


def _time(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_memory_mb(function: Callable[[], object]) -> int | None:
    """How far one call raises the process's resident memory; None where Linux's counters are not to be had."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back
        before = _status("VmRSS")
        function()
        return max(0, _status("VmHWM") - before) // 1024
    except (OSError, AttributeError):
        return None


def _status(field: str) -> int:
    """Kilobytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def leaves(splats: Splats, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Splats:
    """A copy that collects gradients."""
    named = splats.tensors().items()
    return Splats(**{name: t.detach().to(device, dtype, copy=True).requires_grad_() for name, t in named})


def gradients(splats: Splats) -> dict[str, Tensor]:
    """What a backward pass left, as float64 on the CPU."""
    found = {name: getattr(splats, name).grad for name in PARAMETERS}
    return {name: g.double().cpu() for name, g in found.items() if g is not None}


def gradient_error(ours: dict[str, Tensor], exact: dict[str, Tensor]) -> float:
    """The largest, over parameters, of the norm of the difference over the norm of the exact gradient."""
    shared = [name for name in ours if name in exact]
    return max(float((ours[name] - exact[name]).norm() / exact[name].norm().clamp(min=1e-12)) for name in shared)
