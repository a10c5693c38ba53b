"""Write a portrait in the format of Portrait3D's results."""

import io
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from ap3d.portrait.trigrid.tensors import RenderNetworks, TriGrid
from ap3d.tensor_files import pack_tensors


def trigrid_bytes(grid: TriGrid, mantissa_bits: int | None = None) -> bytes:
    """A ``.pth`` as ``torch.save`` writes it, its entries deflated (``torch.load`` inflates them).

    Args:
        grid: the portrait.
        mantissa_bits: round values to so many bits behind the leading one, which compresses well; None keeps all.
    """
    tensors = grid.tensors()
    if mantissa_bits is not None:
        tensors = {name: round_mantissa(value, mantissa_bits) for name, value in tensors.items()}
    stored, packed = io.BytesIO(), io.BytesIO()
    torch.save({"model": {name: value.contiguous() for name, value in tensors.items()}}, stored)
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
        for entry in source.infolist():
            out.writestr(zipfile.ZipInfo(entry.filename), source.read(entry), zipfile.ZIP_DEFLATED, 9)
    return packed.getvalue()


def round_mantissa(value: Tensor, bits: int) -> Tensor:
    """The nearest float32 numbers whose mantissa ends after ``bits`` bits."""
    fraction, exponent = torch.frexp(value.float())
    unit = 2.0 ** (bits + 1)
    return torch.ldexp((fraction * unit).round() / unit, exponent)


def networks_bytes(networks: RenderNetworks) -> bytes:
    """Decoder and colour layer as a safetensors file."""
    background = {f"bcg_synthesis.{name}": value for name, value in networks.background.items()}
    return pack_tensors(dict(networks.tensors) | background)


def write_portrait(
    folder: Path, grid: TriGrid, networks: RenderNetworks, preview: bytes, mantissa_bits: int | None = None
) -> list[Path]:
    """Write ``ID.pth``, ``ID.txt``, ``ID.png`` and ``decoder.safetensors``; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        f"{grid.name}.pth": trigrid_bytes(grid, mantissa_bits),
        f"{grid.name}.txt": (grid.prompt + "\n").encode(),
        f"{grid.name}.png": preview,
        "decoder.safetensors": networks_bytes(networks),
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in contents]
