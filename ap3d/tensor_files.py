"""Named tensors as the content of a safetensors file."""

from collections.abc import Mapping

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ap3d.errors import DataFileError


def pack_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the bytes of a safetensors file."""
    return safetensors.torch.save({name: value.detach().contiguous() for name, value in tensors.items()})


def unpack_tensors(data: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file's bytes; ``name`` is for the message.

    Raises:
        DataFileError: truncated or of another kind.
    """
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, ValueError) as error:
        raise DataFileError(f"{name} is not a whole safetensors file: {error}") from error
