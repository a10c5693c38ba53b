"""The ffmpeg binary that imageio-ffmpeg brings: which codecs it has, and sound read through it."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ap3d.errors import DataFileError, MissingDependencyError

AUDIO_RATE = 16_000  # samples per second that sound is read at
LONGEST_AUDIO_SECONDS = 6 * 3600


@dataclass(frozen=True)
class Audio:
    """Mono sound.

    Attributes:
        samples: ``[N]`` float32 in -1 to 1.
        rate: samples per second.
    """

    samples: np.ndarray
    rate: int

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.samples) / self.rate


@lru_cache(maxsize=1)
def ffmpeg_path() -> str:
    """The binary.

    Raises:
        MissingDependencyError: imageio-ffmpeg has none for this platform.
    """
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise MissingDependencyError(
            "imageio-ffmpeg has no ffmpeg for this platform: install one, set IMAGEIO_FFMPEG_EXE"
        ) from error


@lru_cache(maxsize=1)
def encoders() -> frozenset[str]:
    """Names of the encoders that the binary was built with."""
    done = subprocess.run([ffmpeg_path(), "-hide_banner", "-encoders"], capture_output=True, text=True, check=False)
    rows = (line.split() for line in done.stdout.splitlines())
    return frozenset(r[1] for r in rows if len(r) > 1 and len(r[0]) == 6)


def first_encoder(names: Sequence[str]) -> str:
    """The first of some encoders that is there.

    Raises:
        MissingDependencyError: none is.
    """
    for name in names:
        if name in encoders():
            return name
    raise MissingDependencyError(f"ffmpeg at {ffmpeg_path()} has none of the encoders {', '.join(names)}")


def read_audio(path: str | Path) -> Audio:
    """Sound of any format that ffmpeg reads, as mono at :data:`AUDIO_RATE`.

    Raises:
        DataFileError: absent, damaged, without sound, or longer than six hours.
    """
    if not Path(path).is_file():
        raise DataFileError(f"cannot read audio {path}: no such file")
    # No network protocols: a playlist must not make the reader fetch anything.
    command = [
        ffmpeg_path(), "-hide_banner", "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe", "-i", str(path),
        "-vn", "-t", str(LONGEST_AUDIO_SECONDS + 1), "-ac", "1", "-ar", str(AUDIO_RATE), "-f", "f32le", "-",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=False)
    samples = np.frombuffer(done.stdout[: len(done.stdout) // 4 * 4], np.float32)
    if done.returncode or not len(samples):
        reason = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it holds no sound"])[-1]
        raise DataFileError(f"audio {path} is damaged or holds no sound ({reason})")
    if len(samples) > LONGEST_AUDIO_SECONDS * AUDIO_RATE:
        raise DataFileError(f"audio {path} is longer than {LONGEST_AUDIO_SECONDS // 3600} hours; cut it")
    return Audio(np.nan_to_num(samples), AUDIO_RATE)
