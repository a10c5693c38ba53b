"""``ap3d convert-weights``."""

import argparse
from pathlib import Path

from ap3d.errors import InputError
from ap3d.portrait.trigrid.conversion import convert_networks
from ap3d.portrait.trigrid.tensors import BACKGROUND


def convert_weights(options: argparse.Namespace) -> int:
    """Convert and say what was found; returns the exit status.

    Raises:
        InputError: the output's name is no safetensors file.
    """
    target = Path(options.out)
    if target.suffix != ".safetensors":
        raise InputError(f"{options.out!r} must end in .safetensors")
    shapes = convert_networks(Path(options.source), target)
    background = sum(name.startswith(BACKGROUND) for name in shapes)
    what = f"with its background network ({background} tensors)" if background else "without a background network"
    print(f"{target}: decoder and colour layer, {what}")
    return 0
