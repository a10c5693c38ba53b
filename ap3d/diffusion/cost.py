"""What guidance spends in networks: evaluations, floating-point operations, and how well the device was used.

Operations are counted by torch once a network and shape, on a call that is made anyway; afterwards the number is
looked up. An operation is a multiplication or an addition, so a fused multiply-add counts as two.
"""

import functools
import resource
import time
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

COST_COLUMNS = (
    "peak_memory_mb", "peak_gpu_memory_mb", "unet_evaluations", "controlnet_evaluations", "flops", "utilisation",
)  # fmt: skip
_PEAK_SECONDS = 0.15  # of products, after which the device's best is known well enough


@dataclass(frozen=True)
class Cost:
    """Work of the networks.

    Attributes:
        unet: pictures that the UNet evaluated, both branches of a guided prediction counted.
        controlnet: pictures that the ControlNets evaluated, summed over them.
        flops: operations of UNet, ControlNets and autoencoder.
    """

    unet: int = 0
    controlnet: int = 0
    flops: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def tensor(self) -> Tensor:
        """The numbers as float64, for a checkpoint."""
        return torch.tensor(astuple(self), dtype=torch.float64)

    @staticmethod
    def from_tensor(values: Tensor) -> "Cost":
        """The inverse of :meth:`tensor`."""
        unet, controlnet, flops = values.tolist()
        return Cost(round(unet), round(controlnet), flops)


class CostMeter:
    """Calls networks and adds up what they do.

    Attributes:
        total: since the models were loaded.
    """

    def __init__(self) -> None:
        self.total = Cost()
        self._flops: dict[tuple[Any, ...], int] = {}

    def call(self, kind: str, network: Any, *arguments: Any, **options: Any) -> Any:
        """``network(*arguments, **options)``, counted.

        Args:
            kind: ``unet``, ``controlnet`` or ``autoencoder``; the first two count pictures.
            network: a module or one of its methods.
            arguments: the first is a tensor ``[B, ...]``.
            options: passed on.
        """
        batch, differentiated = len(arguments[0]), torch.is_grad_enabled() and arguments[0].requires_grad
        key = (kind, id(getattr(network, "__self__", network)), *_shapes((*arguments, *options.values())))
        if key not in self._flops and not differentiated:
            output, self._flops[key] = counted(_plain(network), *arguments, **options)
        else:
            output = network(*arguments, **options)
        if key not in self._flops:  # the counter's hooks must not outlive it in a graph
            with torch.no_grad():
                self._flops[key] = counted(_plain(network), *arguments, **options)[1]
        passes = 2 if differentiated else 1  # frozen weights: the way back costs what the way there did
        self.total += Cost(batch * (kind == "unet"), batch * (kind == "controlnet"), passes * self._flops[key])
        return output


def counted(network: Any, *arguments: Any, **options: Any) -> tuple[Any, int]:
    """The output of a call and its operations; on the meta device nothing is computed and the count is the same."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with FlopCounterMode(display=False, custom_mapping={attention: _cpu_attention_flops}) as counter:
        output = network(*arguments, **options)
    return output, int(counter.get_total_flops())


def _cpu_attention_flops(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Of torch's fused attention on CPUs, which its own table leaves out; arguments are shapes."""
    return int(sdpa_flop_count(query, key, value))


def _shapes(values: Iterable[Any]) -> Iterable[tuple[int, ...] | None]:
    """Shapes of the tensors among some arguments, one level deep; absent ones count too."""
    for value in values:
        if isinstance(value, Tensor):
            yield tuple(value.shape)
        elif isinstance(value, list | tuple):
            yield from (tuple(v.shape) for v in value if isinstance(v, Tensor))
        elif value is None:
            yield None


def _plain(network: Any) -> Any:
    """The module behind a compiled one: only single operations can be counted."""
    return getattr(network, "_orig_mod", network)


@functools.cache
def peak_flops(device: str, dtype: torch.dtype, threads: int = 1) -> float:
    """Operations a second of large matrix products on a device: what utilisation is measured against.

    Args:
        device: torch device.
        dtype: number type of the factors.
        threads: of torch, part of the key alone: the measurement uses those that are set.
    """
    size = 1024 if torch.device(device).type == "cpu" else 8192
    a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    best, started = float("inf"), time.perf_counter()
    while time.perf_counter() - started < _PEAK_SECONDS or best == float("inf"):
        torch.mm(a, b)  # warms up
        _synchronize(device)
        begun = time.perf_counter()
        torch.mm(a, b)
        _synchronize(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best


def _synchronize(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def utilisation(flops: float, seconds: float, peak: float) -> float:
    """Share of the device's measured peak that a phase reached."""
    return flops / (seconds * peak) if seconds > 0 and peak > 0 else 0.0


def cost_columns(cost: Cost, seconds: float, peak: float) -> dict[str, float]:
    """One phase's columns of a row; without networks its utilisation is 0."""
    return {
        "unet_evaluations": cost.unet,
        "controlnet_evaluations": cost.controlnet,
        "flops": cost.flops,
        "utilisation": utilisation(cost.flops, seconds, peak),
    }


def summed_columns(phases: Iterable[Mapping[str, Any]], peak: float) -> dict[str, float]:
    """Columns of a whole avatar; its utilisation is that of the phases that use networks."""
    listed = [phase for phase in phases if "flops" in phase]
    total = sum((Cost(p["unet_evaluations"], p["controlnet_evaluations"], p["flops"]) for p in listed), Cost())
    columns = cost_columns(total, sum(p["seconds"] for p in listed if p["flops"]), peak)
    for name in ("peak_memory_mb", "peak_gpu_memory_mb"):
        if known := [p[name] for p in listed if p.get(name) is not None]:
            columns[name] = max(known)
    return columns


def reset_peak_memory(device: str) -> None:
    """Begin a phase: forget the largest amount of GPU memory so far."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: str) -> dict[str, float]:
    """Most memory used, in MiB: of the process so far (a system keeps no maximum for a part of its life) and, on a
    GPU, of the phase."""
    out = {"peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if torch.device(device).type == "cuda":
        out["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return out
