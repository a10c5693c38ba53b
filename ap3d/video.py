"""Pictures to a video file: rendered in this process, encoded in ffmpeg's, joined by a pipe."""

import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO

import torch
from torch import Tensor

from ap3d.errors import InputError, RunError
from ap3d.ffmpeg import ffmpeg_path, first_encoder

FORMATS = ("mp4", "webm", "png")  # png: a folder with a file a frame
_H264 = ("libx264", "libopenh264", "h264_videotoolbox", "h264_mf")
# Tagged as what it is: players take untagged large pictures for BT.709 and small ones for BT.601.
_BT709 = (
    "-vf", "scale=out_color_matrix=bt709:out_range=tv", "-colorspace", "bt709", "-color_primaries", "bt709",
    "-color_trc", "bt709", "-color_range", "tv",
)  # fmt: skip
_OPTIONS: dict[str, tuple[str, ...]] = {
    "libx264": ("-preset", "veryfast", "-crf", "16"),
    "libvpx-vp9": ("-crf", "24", "-b:v", "0", "-deadline", "good", "-cpu-used", "6", "-auto-alt-ref", "0"),
}
_OTHER_H264 = ("-b:v", "8M")


class VideoWriter:
    """A video file under construction; a context manager, and nothing is left open after it.

    Args:
        path: the file; for ``png`` an existing folder.
        kind: one of :data:`FORMATS`.
        size: width and height in pixels, even.
        fps: frames per second.
        alpha: frames have a fourth channel, straight alpha; not for ``mp4``.
        audio: a file whose sound goes into the video.
        seconds: where the sound is cut.

    Raises:
        InputError: the format is unknown or cannot hold what is asked.
        MissingDependencyError: no ffmpeg, or none with an encoder for the format.
        RunError: ffmpeg failed, with its last line.
    """

    def __init__(
        self,
        path: Path,
        kind: str,
        size: tuple[int, int],
        fps: float,
        *,
        alpha: bool = False,
        audio: str | None = None,
        seconds: float | None = None,
    ) -> None:
        if kind not in FORMATS:
            raise InputError(f"unknown video format {kind!r}; there are: {', '.join(FORMATS)}")
        if alpha and kind == "mp4":
            raise InputError("an mp4 holds no transparency: take .webm or PNG frames, or a background colour")
        self.frames = 0
        source = (
            "-f", "rawvideo", "-pix_fmt", "rgba" if alpha else "rgb24", "-s", f"{size[0]}x{size[1]}",
            "-framerate", f"{fps:.6f}", "-i", "-",
        )  # fmt: skip
        sound = ("-protocol_whitelist", "file,pipe", "-i", audio) if audio and kind != "png" else ()
        command = (ffmpeg_path(), "-hide_banner", "-y", "-v", "error", *source, *sound, *_coding(kind, alpha))
        if sound:
            codec = ("aac", "-b:a", "160k") if kind == "mp4" else ("libopus", "-b:a", "128k")
            command += ("-map", "0:v", "-map", "1:a:0", "-c:a", *codec, *(("-t", f"{seconds:.6f}") if seconds else ()))
        target = str(path / "%05d.png") if kind == "png" else str(path)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed in __exit__
        self._process = subprocess.Popen(
            (*command, target), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._errors
        )

    def write(self, frame: Tensor) -> None:
        """Append a frame ``[3 or 4, H, W]`` in 0 to 1."""
        pixels = (frame.detach().clamp(0, 1) * 255).round_().to(torch.uint8).permute(1, 2, 0)
        try:
            self._stdin.write(pixels.contiguous().numpy().tobytes())
        except BrokenPipeError:
            raise RunError(f"ffmpeg stopped after {self.frames} frames: {self._reason()}") from None
        self.frames += 1

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None:
                self._process.kill()
            else:
                self._stdin.close()
            code = self._process.wait()
            if kind is None and code:
                raise RunError(f"ffmpeg could not write the video: {self._reason()}")
        finally:
            if kind is not None:
                self._process.communicate()
            self._errors.close()

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _reason(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"exit status {self._process.returncode}"


def _coding(kind: str, alpha: bool) -> tuple[str, ...]:
    if kind == "png":
        return ("-c:v", "png", "-compression_level", "3", "-start_number", "0", "-f", "image2")
    codec = first_encoder(_H264 if kind == "mp4" else ("libvpx-vp9",))
    chosen = ("-c:v", codec, *_OPTIONS.get(codec, _OTHER_H264), "-threads", "1", *_BT709)
    if kind == "mp4":
        return (*chosen, "-pix_fmt", "yuv420p", "-movflags", "+faststart")
    return (*chosen, "-row-mt", "1", "-pix_fmt", "yuva420p" if alpha else "yuv420p")


def mp4_bytes(frames: Iterable[Tensor], fps: float) -> bytes:
    """Pictures ``[3, H, W]`` of even size as an H.264 file that browsers play while it loads."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        iterator = iter(frames)
        first = next(iterator)
        with VideoWriter(path, "mp4", (first.shape[2], first.shape[1]), fps) as writer:
            writer.write(first)
            for frame in iterator:
                writer.write(frame)
        return path.read_bytes()
