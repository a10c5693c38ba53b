"""Where model folders come from, and checks before they are opened."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from ap3d.checksums import BUILTIN
from ap3d.errors import DataFileError, InputError, MissingDependencyError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def resolve_model_folder(spec: str | os.PathLike[str], builtin: str = "diffusion") -> Path:
    """The local folder of a model: "builtin", a folder, an fsspec URI, or a hub id that was fetched before.

    A URI is copied into the user's cache once; a hub id is only looked up there: nothing is downloaded from a hub.

    Raises:
        InputError: nothing is there.
    """
    if spec == "builtin":
        folder = BUILTIN / builtin
        if not folder.is_dir():
            raise DataFileError(f"the built-in model {folder} is missing; see python -m jobs.train_builtin --help")
        return folder
    text = os.fspath(spec)
    if "://" in text:
        return _cached_copy(text)
    if Path(text).is_dir():
        return Path(text)
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        return _hub_snapshot(text)
    raise InputError(f"model folder {text!r} does not exist")


def _cached_copy(uri: str) -> Path:
    """Copy a remote folder into the cache, one process of the machine while the others wait for it.

    The name appears only when the copy is whole.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ap3d" / "models"
    target = cache / hashlib.sha256(uri.encode()).hexdigest()[:16]
    if target.is_dir():
        return target
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with target.with_suffix(".lock").open("a") as lock:
            if fcntl:
                fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_dir():
                _copy_folder(uri, target)
    except OSError as error:
        raise InputError(f"model folder {uri!r} cannot be copied to {cache}: {error}") from error
    return target


def _copy_folder(uri: str, target: Path) -> None:
    import fsspec

    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed; the lock is ours
    partial.mkdir()
    try:
        filesystem, path = fsspec.core.url_to_fs(uri)
        if not filesystem.isdir(path):
            raise InputError(f"model folder {uri!r} does not exist")
        filesystem.get(path.rstrip("/") + "/", f"{partial}/", recursive=True)
    except (ImportError, ValueError, OSError) as error:
        raise InputError(f"model folder {uri!r} cannot be read: {error}") from error
    partial.rename(target)


def _hub_snapshot(name: str) -> Path:
    """The newest fetched snapshot of a hub id."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise MissingDependencyError(f"model {name!r} needs the huggingface_hub package") from error
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except Exception as error:  # the hub client has many error types
        raise InputError(
            f"model {name!r} is neither a folder nor in the Hugging Face cache; `hf download {name}` puts it there"
        ) from error


def check_safetensors(path: Path) -> dict[str, tuple[int, ...]]:
    """Compare a safetensors file's header with its size, without reading the tensors; returns their shapes.

    Raises:
        DataFileError: the file is truncated or of another kind.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            if not 2 <= length <= size - 8:
                raise ValueError("its header does not fit")
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            ends = [entry["data_offsets"][1] for entry in header.values()]
            shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataFileError(f"{path} is truncated or not a safetensors file ({error})") from error
    if 8 + length + max(ends, default=0) != size:
        raise DataFileError(f"{path} is truncated: {size} bytes, its header says {8 + length + max(ends, default=0)}")
    return shapes


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DataFileError: missing or malformed.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataFileError(f"{path} is missing or not JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataFileError(f"{path} does not hold a JSON object")
    return value


def load_component(model_class: Any, folder: Path, device: Any, dtype: Any) -> Any:
    """One diffusers or transformers network from memory-mapped safetensors, frozen, on a device.

    Its tensors are compared with its configuration first: nothing is left at random values, nothing is dropped.

    Raises:
        DataFileError: missing, truncated, not of this class, or with tensors too few, too many or of other shapes.
    """
    files = weight_files(folder, dtype)
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        shapes |= check_safetensors(file)
    try:
        _hide_progress()
        model = _empty(model_class, read_json(folder / "config.json"))
        _compare(folder, shapes, {name: tuple(t.shape) for name, t in model.state_dict().items()})
        model.load_state_dict(_tensors(files, dtype), assign=True)
    except DataFileError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataFileError(f"{folder} is not a usable {model_class.__name__}: {reason}") from error
    return model.to(device).eval().requires_grad_(False)


_WEIGHTS = re.compile(r"(diffusion_pytorch_model|model)(\.fp16)?(-\d+-of-\d+)?(\.fp16)?\.safetensors")
# Autoencoders saved before diffusers 0.12 name their attention's projections otherwise.
_OLD_NAMES = ((".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0."))
_UNUSED = "position_ids"  # a constant that old text encoders store


def weight_files(folder: Path, dtype: Any) -> list[Path]:
    """The weight files of a component; of two number formats the one nearer to ``dtype``.

    Raises:
        DataFileError: there is none.
    """
    files = sorted(f for f in folder.glob("*.safetensors") if _WEIGHTS.fullmatch(f.name)) if folder.is_dir() else []
    if not files:
        raise DataFileError(f"{folder} holds no .safetensors weights")
    narrow = [f for f in files if ".fp16." in f.name or ".fp16-" in f.name]
    wide = [f for f in files if f not in narrow]
    return narrow if narrow and (not wide or "16" in str(dtype)) else wide


def _empty(model_class: Any, config: dict[str, Any]) -> Any:
    """The network without weights: parameters without memory, constants in place."""
    import torch
    from accelerate import init_empty_weights

    named = config.get("_class_name") or (config.get("architectures") or [model_class.__name__])[0]
    if named.removesuffix("WithProjection") != model_class.__name__:
        raise DataFileError(f"config.json names a {named}, where a {model_class.__name__} is meant")
    with init_empty_weights(include_buffers=False), torch.no_grad():
        if hasattr(model_class, "config_class"):
            return model_class(model_class.config_class.from_dict(config))
        return model_class.from_config(config)


def _current_name(name: str) -> str:
    for old, new in _OLD_NAMES:
        name = name.replace(old, new) if "attentions" in name else name
    return name


def _compare(folder: Path, found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> None:
    """Refuse a checkpoint whose tensors are not those of its configuration."""
    have = {_current_name(name): shape for name, shape in found.items() if not name.endswith(_UNUSED)}
    for what, names in (
        ("lacks", [n for n in wanted if n not in have]),
        ("holds unknown", [n for n in have if n not in wanted]),
        ("has other shapes than its config.json says in", [n for n in wanted if n in have and have[n] != wanted[n]]),
    ):
        if names:
            raise DataFileError(
                f"{folder} {what} {len(names)} of {len(wanted)} tensors, the first {min(names)}; fetch it again, or "
                "give the folder of the model that it belongs to"
            )


def _tensors(files: list[Path], dtype: Any) -> dict[str, Any]:
    """Tensors by their current names; those of the wanted type stay mapped to the file."""
    from safetensors.torch import load_file

    tensors = {}
    for file in files:
        for name, tensor in load_file(file).items():
            if not name.endswith(_UNUSED):
                tensors[_current_name(name)] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return tensors


def check_kind(folder: Path) -> None:
    """Refuse checkpoints of other families before their weights are read.

    Raises:
        InputError: SDXL, a transformer (SD 3, FLUX), or an inpainting model.
        DataFileError: no UNet's configuration.
    """
    wanted = "AP3D takes SD 1.5-class models, such as SG161222/Realistic_Vision_V5.1_noVAE"
    if (folder / "transformer").is_dir():
        raise InputError(f"{folder} is a transformer model (SD 3, FLUX); {wanted}")
    config = read_json(folder / "unet" / "config.json")
    if (folder / "text_encoder_2").is_dir() or config.get("addition_embed_type") == "text_time":
        raise InputError(f"{folder} is an SDXL checkpoint; {wanted}")
    if config.get("in_channels", 4) != config.get("out_channels", 4):
        raise InputError(
            f"{folder} takes {config['in_channels']} latent channels and gives {config['out_channels']}: a model for "
            f"inpainting or editing; {wanted}"
        )


def _hide_progress() -> None:
    """No bars for files that load in a blink, no notices about configuration fields of other versions."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging

    logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()


def fingerprint(folders: list[Path]) -> str:
    """sha256 over names and contents of the weights and JSON files below the folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.suffix in (".safetensors", ".json", ".txt")):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()
