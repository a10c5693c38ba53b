"""Rows of named ARKit weights, as JSON files hold them, to a motion."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ap3d.errors import DataFileError
from ap3d.motion.arkit import ARKIT_NAMES, canonical
from ap3d.motion.schema import Motion

_LARGEST = 1e30


def rate_of(value: Any) -> float | None:
    """A frame rate from JSON; None where the file holds none.

    Raises:
        DataFileError: it is no positive number.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not _is_number(value) or value <= 0:
        raise DataFileError(f"the frame rate in the file must be a positive number, got {value!r}")
    return float(value)


def motion_from_weights(names: Any, rows: Any, fps: float) -> Motion:
    """Weights ``rows[T][N]`` of actions ``names[N]``.

    Raises:
        DataFileError: rows of another length than the names, no numbers, or no name of an ARKit action.
    """
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise DataFileError("the names of the blendshapes must be a list of words")
    found = {action: i for i, n in enumerate(names) if (action := canonical(n))}
    if not found:
        raise DataFileError("none of the file's blendshapes is an ARKit action (jawOpen, eyeBlinkLeft, ...)")
    table = torch.from_numpy(_table(rows, len(names)))
    expression = torch.zeros(len(table), len(ARKIT_NAMES))
    for action, index in found.items():
        expression[:, ARKIT_NAMES.index(action)] = table[:, index].clamp(0, 1)
    still = Motion.still(len(table), fps, "arkit52", ARKIT_NAMES)
    unknown = [n for n in names if canonical(n) is None]
    return Motion(
        expression, still.neck, still.head, still.jaw, still.eyes, still.eyelids, fps, "arkit52", ARKIT_NAMES
    ).with_notes(
        f"blendshapes that are no ARKit actions were dropped: {', '.join(unknown[:4])}" if unknown else "",
        f"{52 - len(found)} of the 52 actions are not in the file and stay at rest" if len(found) < 52 else "",
    )


def _table(rows: Any, columns: int) -> np.ndarray:
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise DataFileError("the frames must be a list of rows of weights")
    if not rows:
        raise DataFileError("the motion holds 0 frames")
    for frame, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != columns:
            count = len(row) if isinstance(row, list) else 0
            raise DataFileError(f"frame {frame} has {count} weights, but the file names {columns} blendshapes")
        if not all(_is_number(v) for v in row):
            raise DataFileError(f"frame {frame} holds a weight that is no finite number")
    return np.asarray(rows, dtype=np.float32)


def _is_number(value: Any) -> bool:
    """A number that float32 holds; JSON's may be infinite, or integers of any length."""
    return isinstance(value, int | float) and abs(value) < _LARGEST
