"""Where model folders come from, and checks before they are opened."""

import hashlib
import json
import os
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


def check_safetensors(path: Path) -> None:
    """Compare a safetensors file's header with its size, without reading the tensors.

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
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataFileError(f"{path} is truncated or not a safetensors file ({error})") from error
    if 8 + length + max(ends, default=0) != size:
        raise DataFileError(f"{path} is truncated: {size} bytes, its header says {8 + length + max(ends, default=0)}")


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
    """One diffusers or transformers network from safetensors, frozen, on a device.

    Raises:
        DataFileError: missing, truncated, or not of this class.
    """
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    files = [f for f in files if f.name != "linear_decoder.safetensors"]
    if not files:
        raise DataFileError(f"{folder} holds no .safetensors weights")
    for file in files:
        check_safetensors(file)
    options: dict[str, Any] = {"variant": "fp16"} if all(".fp16." in f.name for f in files) else {}
    name = "dtype" if model_class.__module__.startswith("transformers") else "torch_dtype"
    try:
        _hide_progress()
        model = model_class.from_pretrained(
            str(folder), use_safetensors=True, local_files_only=True, **{name: dtype}, **options
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataFileError(f"{folder} is not a usable {model_class.__name__}: {reason}") from error
    return model.to(device).eval().requires_grad_(False)


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
