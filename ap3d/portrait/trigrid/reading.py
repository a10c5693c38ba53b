"""Read the files of a portrait: tri-grid, prompt, preview and the networks that decode it."""

import io
import pickle
import re
import unicodedata
import zipfile
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import fsspec
import torch
from torch import Tensor

from ap3d.errors import DataFileError, InputError
from ap3d.portrait.trigrid.portrait import TriGridPortrait
from ap3d.portrait.trigrid.tensors import RenderNetworks, TriGrid
from ap3d.tensor_files import unpack_tensors

LARGEST_TRIGRID = 1 << 29  # bytes; a portrait of Portrait3D has 151 million
LARGEST_NETWORKS = 1 << 30
LARGEST_PROMPT = 4096
NETWORKS_FILE = "decoder.safetensors"
GALLERY_SUFFIX = "_pyramid_trigrid"
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def load_trigrid(
    path: str,
    networks: str | None = None,
    *,
    scale: float = 3.0,
    resolution: int = 256,
    exact: bool = False,
    generator: torch.Generator | None = None,
) -> TriGridPortrait:
    """A portrait of Portrait3D.

    Args:
        path: ``ID.pth`` with ``ID.txt`` beside it, ``ID_pyramid_trigrid.pth`` with ``ID_prompt.txt``, or the same as
            ``.safetensors``; a local path or an fsspec URL.
        networks: safetensors file that ``ap3d convert-weights`` wrote; where absent, ``decoder.safetensors`` beside
            the tri-grid.
        scale: world units in a SMPL metre.
        resolution: nodes a side of the grid that views are marched through.
        exact: sample the tri-grid itself along each ray, as Portrait3D does; minutes a view on a CPU.
        generator: draws the places of exact samples; None takes the middle of each interval.

    Raises:
        DataFileError: a file is missing, damaged, too large, or holds anything but such tensors.
        InputError: a name that is no portrait id.
    """
    grid = read_trigrid(path)
    return TriGridPortrait(
        grid, read_networks(networks or _beside(path, NETWORKS_FILE)),
        scale=scale, resolution=resolution, exact=exact, generator=generator,
    )  # fmt: skip


def read_trigrid(path: str) -> TriGrid:
    """Tensors and prompt of a portrait; see :func:`load_trigrid`."""
    path = str(path)
    name = portrait_id(path)
    data = _read(path, LARGEST_TRIGRID, "a portrait's tri-grid")
    tensors = unpack_tensors(data, path) if path.endswith(".safetensors") else torch_tensors(data, path)
    return TriGrid.from_tensors(tensors, path, read_prompt(path), name)


def read_networks(path: str) -> RenderNetworks:
    """Decoder and colour layer of a safetensors file.

    Raises:
        DataFileError: missing, damaged, or of other networks.
    """
    if not _exists(path):
        raise DataFileError(
            f"{path} does not exist; a tri-grid needs its decoder: make it with"
            " `ap3d convert-weights decoder_512.ckpt OUT.safetensors`"
        )
    return RenderNetworks.from_tensors(unpack_tensors(_read(path, LARGEST_NETWORKS, "a decoder"), path), path)


def read_prompt(path: str) -> str:
    """The words that belong to a tri-grid file: data, never run, never part of a path.

    Raises:
        DataFileError: the file is missing, empty, too long, not UTF-8, or has control characters.
    """
    name = portrait_id(path)
    gallery = PurePosixPath(str(path)).stem.endswith(GALLERY_SUFFIX)
    source = _beside(path, f"{name}_prompt.txt" if gallery else f"{name}.txt")
    if not _exists(source):
        raise DataFileError(f"{source} is missing; it must hold the prompt of {path} in one line")
    try:
        text = _read(source, LARGEST_PROMPT, "a prompt").decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        raise DataFileError(f"{source} is not UTF-8 text; save the prompt as UTF-8") from None
    if not text:
        raise DataFileError(f"{source} is empty; write the prompt of {path} into it")
    if any(unicodedata.category(c) == "Cc" for c in text):
        raise DataFileError(f"{source} has more than one line or control characters; a prompt is one line of words")
    return text


def portrait_id(path: str) -> str:
    """The id in the name of a tri-grid file.

    Raises:
        InputError: characters that an id must not have.
    """
    file = PurePosixPath(str(path))
    name = file.stem.removesuffix(GALLERY_SUFFIX)
    if file.suffix not in (".pth", ".safetensors"):
        raise InputError(f"{path!r} is no tri-grid: its name must end in .pth or .safetensors")
    if not _ID.fullmatch(name) or name.strip(".") == "":
        raise InputError(f"{path!r} gives no portrait id: use letters, digits, '.', '_' and '-', at most 64")
    return name


def torch_tensors(data: bytes, source: str) -> dict[str, Tensor]:
    """The tensors of ``model`` in a file that ``torch.save`` wrote; nothing in it is run.

    Raises:
        DataFileError: not such a file, damaged, larger unpacked than a tri-grid, or holding more than tensors.
    """
    content = load_torch_zip(data, source, LARGEST_TRIGRID)
    model = content.get("model") if isinstance(content, Mapping) else None
    if not isinstance(model, Mapping):
        raise DataFileError(f"{source}: there is no 'model' with tensors; it is no result of Portrait3D")
    return {str(name): value for name, value in model.items() if isinstance(value, Tensor)}


def load_torch_zip(data: bytes, source: str, limit: int) -> Any:
    """What a file of ``torch.save`` holds, read with ``weights_only``.

    Raises:
        DataFileError: see :func:`torch_tensors`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise DataFileError(
            f"{source} is truncated or was not written by torch.save; copy it again (plain pickles are not read)"
        ) from None
    if unpacked > limit:
        raise DataFileError(
            f"{source} unpacks to {unpacked:,} bytes, more than the {limit:,} that such a file may have"
        )
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise DataFileError(f"{source} holds more than tensors, maybe code; it was not run and is not read") from None
    except Exception as error:  # a damaged archive may fail anywhere in torch's reader
        reason = type(error).__name__
        raise DataFileError(f"{source} is damaged ({reason}); copy it again") from None


def _read(path: str, limit: int, what: str) -> bytes:
    try:
        filesystem, inner = fsspec.core.url_to_fs(path)
        size = filesystem.info(inner)["size"]
        if size is not None and size > limit:
            raise DataFileError(f"{path} has {size:,} bytes, more than {what} may have ({limit:,})")
        with filesystem.open(inner, "rb") as file:
            data: bytes = file.read(limit + 1)
    except FileNotFoundError:
        raise DataFileError(f"{path} does not exist; give the .pth or .safetensors of a portrait") from None
    except (OSError, ValueError, ImportError) as error:
        raise DataFileError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    if len(data) > limit:
        raise DataFileError(f"{path} has more bytes than {what} may have ({limit:,})")
    return data


def _exists(path: str) -> bool:
    try:
        filesystem, inner = fsspec.core.url_to_fs(path)
        return bool(filesystem.isfile(inner))
    except (OSError, ValueError, ImportError):
        return False


def _beside(path: str, name: str) -> str:
    folder, separator, _ = str(path).rpartition("/")
    return f"{folder}{separator}{name}"
