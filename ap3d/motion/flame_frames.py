"""FLAME and SMPL-X parameters of a sequence to a motion."""

import torch
from torch import Tensor

from ap3d.errors import DataFileError
from ap3d.motion.rotations import without_large_turn
from ap3d.motion.schema import Motion

LARGEST_EXPRESSION = 100  # coefficients of FLAME 2020, FLAME 2023 and SMPL-X 2020
_LARGEST_ANGLE = 2 * torch.pi


def flame_motion(
    frames: int,
    fps: float,
    basis: str,
    *,
    expression: Tensor | None = None,
    neck: Tensor | None = None,
    head: Tensor | None = None,
    jaw: Tensor | None = None,
    eyes: Tensor | None = None,
) -> Motion:
    """Parts ``[T, n]`` that are there, the others at rest; a head that faces away throughout is turned to the front.

    FLAME's global rotation is the neck, FLAME's neck the head (AnimPortrait3D's convention).

    Raises:
        DataFileError: wrong counts of columns or frames, or angles that are not radians.
    """
    given = {"expression": expression, "neck": neck, "head": head, "jaw": jaw, "eyes": eyes}
    columns = LARGEST_EXPRESSION if expression is None else expression.shape[1]
    if columns > LARGEST_EXPRESSION:
        raise DataFileError(f"{columns} expression coefficients: FLAME and SMPL-X have at most {LARGEST_EXPRESSION}")
    parts = Motion.still(max(frames, 1), fps, basis, columns=columns).tensors()
    for name, value in given.items():
        if value is None:
            continue
        if len(value) != frames:
            raise DataFileError(f"{name} has {len(value)} frames, other parts have {frames}")
        if name != "expression" and float(value.nan_to_num().abs().max() if value.numel() else 0) > _LARGEST_ANGLE:
            raise DataFileError(f"{name} holds angles above 360 degrees: they must be radians (axis-angle)")
        parts[name] = value
    if not frames:
        raise DataFileError("the motion holds 0 frames")
    note = ""
    if neck is not None and bool(neck.isfinite().all()):
        parts["neck"], degrees = without_large_turn(neck)
        note = (
            f"the head lay {degrees:.0f} degrees from the front on average; that turn was taken out" if degrees else ""
        )
    return Motion.still(1, fps, basis).with_tensors(parts).with_notes(note)
