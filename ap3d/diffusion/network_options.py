"""How networks run: memory format, attention kernel, compilation. None of it changes results beyond rounding."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ap3d.errors import InputError

ATTENTION = {
    "flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION, "math": SDPBackend.MATH,
}  # fmt: skip


@dataclass(frozen=True)
class NetworkOptions:
    """Options of the resident networks.

    Attributes:
        channels_last: memory format of weights and activations.
        attention: ``auto`` (torch's choice), or a key of :data:`ATTENTION`.
        compile: ``none``, ``default`` (torch.compile) or ``cuda-graphs`` (its mode reduce-overhead).
    """

    channels_last: bool = False
    attention: str = "auto"
    compile: str = "none"

    def runner(self, network: nn.Module) -> Callable[..., Any]:
        """What to call instead of a network."""
        if self.compile == "none" and self.attention == "auto":
            return network
        return Runner(network, self)


class Runner:
    """A network called under its options."""

    def __init__(self, network: nn.Module, options: NetworkOptions) -> None:
        self._orig_mod = network  # as compiled modules name it; the cost meter counts on it
        self.options = options
        mode = {"none": None, "default": "default", "cuda-graphs": "reduce-overhead"}[options.compile]
        self._call: Any = network if mode is None else torch.compile(network, mode=mode)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """The network's output.

        Raises:
            InputError: the attention kernel cannot run here.
        """
        graphs = self.options.compile == "cuda-graphs" and arguments[0].is_cuda
        if graphs:
            torch.compiler.cudagraph_mark_step_begin()
        try:
            if self.options.attention == "auto":
                output = self._call(*arguments, **options)
            else:
                with sdpa_kernel(ATTENTION[self.options.attention]):
                    output = self._call(*arguments, **options)
        except RuntimeError as error:
            if "No available kernel" in str(error):
                raise InputError(
                    f"attention kernel {self.options.attention!r} cannot run on {arguments[0].device} in "
                    f"{arguments[0].dtype}; set 'models.attention' to auto"
                ) from error
            raise
        return _copied(output) if graphs else output


def _copied(output: Any) -> Any:
    """Graphs write every answer into the same memory."""
    if isinstance(output, Tensor):
        return output.clone()
    return type(output)(_copied(part) for part in output) if isinstance(output, list | tuple) else output
