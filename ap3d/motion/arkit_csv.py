"""ARKit-52 face capture in CSV: Live Link Face's columns, or any file whose header names the actions."""

import csv
import io
import math

import torch

from ap3d.errors import DataFileError
from ap3d.motion.schema import Motion

DEFAULT_FPS = 60.0  # what Live Link Face records at
_HEAD = ("headyaw", "headpitch", "headroll")
_EYES = ("lefteyeyaw", "lefteyepitch", "righteyeyaw", "righteyepitch")
_LARGEST = 10.0  # coefficients lie in 0 to 1 (some recorders overshoot); far beyond is another unit


def read_arkit_csv(data: bytes, names: tuple[str, ...], fps: float | None = None) -> Motion:
    """Parse a capture.

    Args:
        data: the file's content, UTF-8 with or without a byte order mark.
        names: the 52 action names to look for; letter case does not matter.
        fps: frames per second; by default from the Timecode column, else 60.

    Raises:
        DataFileError: not text, no known column, no frames, or a value that is no number.
    """
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataFileError(f"the motion is not a CSV text file: {error}") from error
    rows = [r for r in rows if any(cell.strip() for cell in r)]
    header = [cell.strip() for cell in rows[0]] if rows else []
    columns = {name.lower(): index for index, name in enumerate(header)}
    known = {n: columns[n.lower()] for n in names if n.lower() in columns}
    if not known:
        raise DataFileError("the CSV names none of the 52 ARKit actions in its first line (jawOpen, eyeBlinkLeft, ...)")
    if len(rows) < 2:
        raise DataFileError("the CSV holds no frames below its header")
    table = torch.tensor([[_number(r, i, line) for i in known.values()] for line, r in enumerate(rows[1:], 2)])
    motion = Motion.still(len(table), fps or _rate(rows, columns), "arkit52", names)
    expression = motion.expression.clone()
    for position, name in enumerate(known):
        expression[:, names.index(name)] = table[:, position].clamp(0, 1)
    head = _angles(rows, columns, _HEAD, len(table))
    eyes = _angles(rows, columns, _EYES, len(table))
    zero = torch.zeros(len(table))
    return Motion(
        expression, motion.neck, torch.stack([-head[1], head[0], -head[2]], 1), motion.jaw,
        # Gaze is in the eyeLook* actions already; the eye angles serve files that lack those.
        torch.stack([-eyes[1], eyes[0], zero, -eyes[3], eyes[2], zero], 1)
        if not any(n.startswith("eyeLook") for n in known) else motion.eyes,
        motion.eyelids, motion.fps, "arkit52", names,
    )  # fmt: skip


def _number(row: list[str], index: int, line: int) -> float:
    try:
        value = float(row[index])
    except (IndexError, ValueError):
        cell = row[index] if index < len(row) else ""
        raise DataFileError(f"line {line} of the CSV has no number in column {index + 1}: {cell!r}") from None
    if not math.isfinite(value) or abs(value) > _LARGEST:
        raise DataFileError(f"line {line} of the CSV has {value} in column {index + 1}; coefficients lie in 0 to 1")
    return value


def _angles(rows: list[list[str]], columns: dict[str, int], names: tuple[str, ...], count: int) -> torch.Tensor:
    out = torch.zeros(len(names), count)
    for position, name in enumerate(names):
        if name in columns:
            out[position] = torch.tensor([_number(r, columns[name], n) for n, r in enumerate(rows[1:], 2)])
    return out


def _rate(rows: list[list[str]], columns: dict[str, int]) -> float:
    """Frames per second from Live Link Face timecodes ``hh:mm:ss:frame.fraction``."""
    index = columns.get("timecode")
    if index is None or len(rows) < 3:
        return DEFAULT_FPS
    frames = [r[index].split(":")[-1] for r in rows[1:] if index < len(r) and r[index].count(":") == 3]
    if len(frames) < DEFAULT_FPS:
        return DEFAULT_FPS  # less than a second: its highest frame number says nothing
    try:
        largest = max(int(float(f)) for f in frames)
    except ValueError:
        return DEFAULT_FPS
    return min((rate for rate in (24, 25, 30, 50, 60) if rate > largest), default=DEFAULT_FPS)
