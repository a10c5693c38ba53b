"""ARKit-52 face capture in CSV: Live Link Face's columns, or any file whose header names the actions."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ap3d.errors import DataFileError
from ap3d.motion.arkit import ARKIT_NAMES, canonical
from ap3d.motion.schema import Motion
from ap3d.motion.source import Source

DEFAULT_RATE = 60.0  # what Live Link Face records at
_HEAD = ("headyaw", "headpitch", "headroll")
_EYES = ("lefteyeyaw", "lefteyepitch", "righteyeyaw", "righteyepitch")
_COUNT, _TIMECODE = "blendshapecount", "timecode"
_LARGEST = 10.0  # coefficients lie in 0 to 1 (some recorders overshoot); far beyond is another unit
_LARGEST_RADIANS = 3.5


def matches(source: Source) -> bool:
    """Whether the first line names an ARKit action between commas."""
    line = source.data[:8192].removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0]
    return any(canonical(cell) for cell in line.decode("utf-8", "replace").split(","))


def read_arkit_csv(source: Source) -> Motion:
    """Read a capture; rows in which the recorder had lost the face repeat the row before.

    Live Link Face's angles grow to the subject's left (yaw), upwards (pitch) and towards the subject's right shoulder
    (roll), in radians, as held by the programs that consume its stream; the app does not document them.

    Raises:
        DataFileError: not text, no known column, no frames, or a value that is no number.
    """
    table = _table(source)
    actions = {name: i for i, cell in enumerate(table.header) if (name := canonical(cell))}
    if not actions:
        raise DataFileError("the CSV names none of the 52 ARKit actions in its first line (jawOpen, eyeBlinkLeft, ...)")
    rows, lost = _tracked(table)
    expression = torch.zeros(len(rows), len(ARKIT_NAMES))
    for name, index in actions.items():
        expression[:, ARKIT_NAMES.index(name)] = table.column(rows, index).clamp(0, 1)
    angles = table.angles(rows, _HEAD + _EYES)
    in_degrees = bool((angles.abs() > _LARGEST_RADIANS).any())
    angles = torch.deg2rad(angles) if in_degrees else angles
    yaw, pitch, roll, left_yaw, left_pitch, right_yaw, right_pitch = angles
    zero = torch.zeros(len(rows))
    fps, assumed = source.rate(_rate(table), DEFAULT_RATE)
    motion = Motion.still(len(rows), fps, "arkit52", ARKIT_NAMES)
    # Gaze is in the eyeLook* actions already; the eye angles serve files that lack those.
    gaze = [zero] * 6
    if not any(n.startswith("eyeLook") for n in actions):
        gaze = [-left_pitch, left_yaw, zero, -right_pitch, right_yaw, zero]
    head = torch.stack([-pitch, yaw, roll], 1)
    return Motion(
        expression, motion.neck, head, motion.jaw, torch.stack(gaze, 1), motion.eyelids, motion.fps, "arkit52",
        ARKIT_NAMES,
    ).with_notes(
        assumed,
        f"{52 - len(actions)} of the 52 actions have no column and stay at rest" if len(actions) < 52 else "",
        "head and eye angles above 3.5 were read as degrees" if in_degrees else "",
        f"the face was lost in {lost} of {len(rows)} rows; they repeat the row before" if lost else "",
    )  # fmt: skip


@dataclass(frozen=True)
class _Table:
    """Header cells, and rows with their line numbers."""

    header: list[str]
    rows: list[tuple[int, list[str]]]

    def index(self, name: str) -> int | None:
        keys = [cell.strip().lower() for cell in self.header]
        return keys.index(name) if name in keys else None

    def column(self, rows: Sequence[tuple[int, list[str]]], index: int, limit: float = _LARGEST) -> Tensor:
        return torch.tensor([_number(row, index, line, limit) for line, row in rows])

    def angles(self, rows: Sequence[tuple[int, list[str]]], names: tuple[str, ...]) -> Tensor:
        """Columns by name ``[N, T]``, zero where absent."""
        found = [self.index(n) for n in names]
        return torch.stack([torch.zeros(len(rows)) if i is None else self.column(rows, i, 360.0) for i in found])


def _table(source: Source) -> _Table:
    try:
        lines = list(csv.reader(io.StringIO(source.data.decode("utf-8-sig"))))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataFileError(f"the motion is not a CSV text file: {error}") from error
    rows = [(number, row) for number, row in enumerate(lines, 1) if any(cell.strip() for cell in row)]
    if not rows:
        raise DataFileError("the CSV is empty")
    return _Table([cell.strip() for cell in rows[0][1]], rows[1:])


def _tracked(table: _Table) -> tuple[list[tuple[int, list[str]]], int]:
    """Rows with those without a face (BlendShapeCount 0) replaced by their neighbour, and how many those were."""
    index = table.index(_COUNT)
    if not table.rows:
        raise DataFileError("the CSV holds no frames below its header")
    if index is None:
        return table.rows, 0
    good = [row for row in table.rows if index < len(row[1]) and row[1][index].strip() not in ("0", "")]
    if not good:
        raise DataFileError("the CSV holds no frame with a face: BlendShapeCount is 0 throughout")
    kept, last, chosen = iter(good), good[0], []
    following = next(kept)
    for row in table.rows:
        if row is following:
            last, following = row, next(kept, row)
        chosen.append(last)
    return chosen, len(table.rows) - len(good)


def _number(row: list[str], index: int, line: int, limit: float) -> float:
    try:
        value = float(row[index])
    except (IndexError, ValueError):
        cell = row[index] if index < len(row) else ""
        raise DataFileError(f"line {line} of the CSV has no number in column {index + 1}: {cell!r}") from None
    if not math.isfinite(value) or abs(value) > limit:
        meant = "coefficients lie in 0 to 1" if limit == _LARGEST else "angles are radians, or degrees up to 360"
        raise DataFileError(f"line {line} of the CSV has {value} in column {index + 1}; {meant}")
    return value


def _rate(table: _Table) -> float | None:
    """Frames per second, where they can be told, from Live Link Face timecodes ``hh:mm:ss:frame.fraction``."""
    index = table.index(_TIMECODE)
    if index is None:
        return None
    frames = [row[index].split(":")[-1] for _, row in table.rows if index < len(row) and row[index].count(":") == 3]
    if len(frames) < DEFAULT_RATE:
        return None  # less than a second: its highest frame number says nothing
    try:
        largest = max(int(float(f)) for f in frames)
    except (ValueError, OverflowError):
        return None
    return min((rate for rate in (24.0, 25.0, 30.0, 50.0, 60.0) if rate > largest), default=None)
