"""Networks that others have exported whole, as TorchScript or ONNX, run in this process.

Such a file is a program in its format's own instructions, not Python code; still, give only files that you trust.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from ap3d.errors import DataFileError, InputError, MissingDependencyError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of the channels


@dataclass(frozen=True)
class Wanted:
    """A weights file that the package does not ship.

    Attributes:
        option: the configuration field and name, as ``perception.segmenter=sapiens``.
        file: what it is called.
        source: where it is to be had.
        licence: of the weights.
    """

    option: str
    file: str
    source: str
    licence: str

    def find(self, path: str | Path | None) -> Path:
        """The file at ``path``.

        Raises:
            InputError: no path was given, or nothing is there; the line names what to fetch.
        """
        if path and Path(path).is_file():
            return Path(path)
        problem = f"no file {str(path)!r}" if path else "no weights given"
        raise InputError(
            f"{problem}: fetch {self.file} from {self.source} ({self.licence}) and write {self.option}:PATH"
        )


class ExportedNetwork:
    """One picture tensor in, one tensor out (the last, where the network gives several)."""

    def __init__(self, run: Callable[[Tensor], Any], fingerprint: str, name: str) -> None:
        self._run, self.fingerprint, self.name = run, fingerprint, name

    @classmethod
    def load(cls, path: Path, device: str = "cpu") -> "ExportedNetwork":
        """Read a file; ``.onnx`` needs onnxruntime, all else is TorchScript.

        Raises:
            InputError: the device is absent.
            DataFileError: the file is damaged or of another kind.
            MissingDependencyError: onnxruntime is absent.
        """
        check_device(device)
        run = _onnx(path, device) if path.suffix == ".onnx" else _torchscript(path, device)
        with path.open("rb") as file:
            return cls(run, hashlib.file_digest(file, "sha256").hexdigest(), path.name)

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Run ``[B, 3, h, w]``; the answer is float32 on the pictures' device.

        Raises:
            DataFileError: the network does not take such pictures.
        """
        try:
            answer = self._run(pictures)
        except Exception as error:
            raise DataFileError(f"{self.name} cannot read pictures {tuple(pictures.shape)}: {_line(error)}") from error
        answer = answer[-1] if isinstance(answer, list | tuple) else answer
        if not isinstance(answer, Tensor) or answer.ndim != 4 or len(answer) != len(pictures):
            raise DataFileError(f"{self.name} gives no picture for each picture; it is another kind of network")
        return answer.float().to(pictures.device)


@dataclass(frozen=True)
class ExportedModel:
    """What plug-ins on one exported network share; each says in ``wanted`` which file it reads."""

    wanted: ClassVar[Wanted]
    network: ExportedNetwork

    @classmethod
    def load(cls, path: str | Path | None = None, device: str = "cpu") -> Self:
        """Read the exported network.

        Raises:
            InputError: no such file, or no such device.
            DataFileError: the file is damaged.
            MissingDependencyError: an ONNX file, and onnxruntime is absent.
        """
        return cls(ExportedNetwork.load(cls.wanted.find(path), device))

    @property
    def licence(self) -> str:
        """Of the weights."""
        return self.wanted.licence

    @property
    def fingerprint(self) -> str:
        """Hash of the weights."""
        return self.network.fingerprint


def check_device(device: str) -> None:
    """Refuse a device that this machine does not have.

    Raises:
        InputError: so.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r} is not there: {_line(error)}; use 'cpu'") from None


def normalised(images: Tensor, size: tuple[int, int], mean: Any, deviation: Any, mode: str = "bilinear") -> Tensor:
    """Pictures ``[B, 3, H, W]`` resized to ``size`` (rows, columns), less ``mean``, over ``deviation``."""
    options = {"antialias": True} if mode == "bilinear" else {}
    small = F.interpolate(images, size, mode=mode, **options)
    column = lambda values: small.new_tensor(values)[:, None, None]  # noqa: E731
    return (small - column(mean)) / column(deviation)


def _torchscript(path: Path, device: str) -> Callable[[Tensor], Any]:
    try:
        module = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise DataFileError(f"{path} is damaged or no TorchScript file: {_line(error)}") from error
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    return lambda pictures: module(pictures.to(device, dtype))


def _onnx(path: Path, device: str) -> Callable[[Tensor], Any]:
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError("ONNX files need onnxruntime: pip install ap3d[onnx]") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    wanted = ["CUDAExecutionProvider"] * device.startswith("cuda") + ["CPUExecutionProvider"]
    providers = [p for p in wanted if p in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # its errors have no common class
        raise DataFileError(f"{path} is damaged or no ONNX file: {_line(error)}") from error
    entry = session.get_inputs()[0]
    dtype = torch.float16 if entry.type == "tensor(float16)" else torch.float32
    return lambda pictures: torch.from_numpy(
        session.run(None, {entry.name: pictures.to("cpu", dtype).contiguous().numpy()})[-1]
    )


def _line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip()[:200] if lines else type(error).__name__
