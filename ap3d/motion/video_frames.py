"""Frames of a video file, upright, at a steady rate and a limited size, through imageio-ffmpeg."""

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ap3d.errors import DataFileError, InputError

LONGEST_SIDE = 640  # pixels; larger videos are scaled down while they are decoded
SMALLEST_SIDE, LARGEST_SIDE = 32, 8192
LONGEST_SECONDS = 600.0
HIGHEST_FPS = 60.0
_LOCAL = ["-protocol_whitelist", "file"]  # a playlist must not fetch anything


@dataclass(frozen=True)
class Video:
    """A video that can be read.

    Attributes:
        path: the file.
        fps: frames per second that :meth:`frames` delivers.
        width, height: of the file's own pictures, before rotation.
    """

    path: Path
    fps: float
    width: int
    height: int

    def batches(self, count: int, longest_seconds: float = LONGEST_SECONDS) -> Iterator[Tensor]:
        """Pictures ``[count or fewer, 3, H, W]`` in 0 to 1, in order.

        Raises:
            DataFileError: the file breaks off before its first picture, or is longer than it said.
        """
        limit, done = math.ceil(longest_seconds * self.fps) + 1, 0
        scale = f"scale=w={LONGEST_SIDE}:h={LONGEST_SIDE}:force_original_aspect_ratio=decrease:force_divisible_by=2"
        if max(self.width, self.height) <= LONGEST_SIDE:
            scale = "scale=w=trunc(iw/2)*2:h=trunc(ih/2)*2"
        reader = _open(self.path, ["-vf", f"fps={self.fps:.6f},{scale}", "-threads", "1"])
        try:
            width, height = next(reader)["size"]
            waiting: list[np.ndarray] = []
            for raw in reader:
                done += 1
                if done > limit:
                    raise _too_long(self.path, longest_seconds)
                waiting.append(np.frombuffer(raw, np.uint8).reshape(height, width, 3))
                if len(waiting) == count:
                    yield _pictures(waiting)
                    waiting = []
            if waiting:
                yield _pictures(waiting)
        except (OSError, RuntimeError, StopIteration) as error:
            raise DataFileError(f"video {self.path} broke off while it was read: {_reason(error)}") from None
        finally:
            reader.close()
        if not done:
            raise DataFileError(f"video {self.path} holds 0 frames")


def open_video(path: str | Path, longest_seconds: float = LONGEST_SECONDS) -> Video:
    """Look at a video file.

    Raises:
        InputError: it is longer than ``longest_seconds``.
        DataFileError: missing, or no video.
    """
    path = Path(path).absolute()
    if not path.is_file():
        raise DataFileError(f"cannot read video {path}: no such file")
    reader = _open(path, [])
    try:
        facts: dict[str, Any] = next(reader)
    except (OSError, RuntimeError, StopIteration, IndexError, ValueError, KeyError) as error:
        raise DataFileError(f"{path} is no video that can be read: {_reason(error)}") from None
    finally:
        reader.close()
    width, height = facts["source_size"]
    if not (min(width, height) >= SMALLEST_SIDE and max(width, height) <= LARGEST_SIDE):
        raise InputError(
            f"video {path} is {width} x {height} pixels; sides from {SMALLEST_SIDE} to {LARGEST_SIDE} can be read"
        )
    duration, fps = float(facts.get("duration") or 0.0), float(facts.get("fps") or 0.0)
    if math.isfinite(duration) and duration > longest_seconds:
        raise _too_long(path, longest_seconds, duration)
    fps = fps if math.isfinite(fps) and fps > 0 else 25.0
    return Video(path, min(fps, HIGHEST_FPS), width, height)


def _too_long(path: Path, limit: float, seconds: float | None = None) -> InputError:
    length = f"is {seconds:.0f} seconds long" if seconds else "is too long"
    return InputError(f"video {path} {length}; cut it to {limit:g} seconds or raise --max-seconds")


def _open(path: Path, output: list[str]) -> Any:
    import imageio_ffmpeg

    logging.getLogger("imageio_ffmpeg").setLevel(logging.ERROR)  # it warns of every scaled size
    return imageio_ffmpeg.read_frames(str(path), input_params=_LOCAL, output_params=output)


def _pictures(frames: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255


def _reason(error: BaseException) -> str:
    """The last telling line of what ffmpeg wrote."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "rror" in line or "nvalid" in line]
    chosen = (telling or lines or [type(error).__name__])[-1]
    return chosen if len(chosen) <= 200 else chosen[:200] + "..."
