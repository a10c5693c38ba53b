"""The 52 actions of ARKit, and how they stand for jaw, lid and eye angles."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ap3d.rig.builtin import GAZE_DOWN_ANGLE, GAZE_SIDE_ANGLE, GAZE_UP_ANGLE, JAW_OPEN_ANGLE

_PAIRED_EYES = ("Blink", "LookDown", "LookIn", "LookOut", "LookUp", "Squint", "Wide")
_MOUTH = (
    "Close", "Funnel", "Pucker", "Left", "Right", "SmileLeft", "SmileRight", "FrownLeft", "FrownRight", "DimpleLeft",
    "DimpleRight", "StretchLeft", "StretchRight", "RollLower", "RollUpper", "ShrugLower", "ShrugUpper", "PressLeft",
    "PressRight", "LowerDownLeft", "LowerDownRight", "UpperUpLeft", "UpperUpRight",
)  # fmt: skip
ARKIT_NAMES: tuple[str, ...] = (
    *(f"eye{name}{side}" for side in ("Left", "Right") for name in _PAIRED_EYES),
    "jawForward", "jawLeft", "jawRight", "jawOpen",
    *(f"mouth{name}" for name in _MOUTH),
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip
_BY_KEY = {name.lower(): name for name in ARKIT_NAMES}
POSE_ACTIONS = tuple(
    n for n in ARKIT_NAMES if n == "jawOpen" or n.startswith("eyeBlink") or n.startswith("eyeLook")
)  # those that angles can stand for


def canonical(name: str) -> str | None:
    """The action that a name means: any letter case, ``_L`` and ``_R`` for the sides; None for no action."""
    key = name.strip().lower().replace("_", "").replace(" ", "")
    if key in _BY_KEY:
        return _BY_KEY[key]
    sides = {"l": "left", "r": "right"}
    return _BY_KEY.get(key[:-1] + sides[key[-1]]) if key and key[-1] in sides else None


def angles(expression: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Angles that actions stand for, by the built-in rig's published gains; the inverse of what that rig adds.

    Args:
        expression: ``[T, E]`` actions.
        names: their names; absent ones count as zero.

    Returns:
        Jaw ``[T, 3]`` and eyes ``[T, 6]`` (left, right) axis-angle in radians, eyelids ``[T, 2]``.
    """
    column = {name: expression[:, i] for i, name in enumerate(names)}
    zero = torch.zeros(len(expression))
    at = lambda name: column.get(name, zero)  # noqa: E731
    jaw = torch.stack([JAW_OPEN_ANGLE * at("jawOpen"), zero, zero], 1)
    eyes = []
    for side, left, right in (("Left", "Out", "In"), ("Right", "In", "Out")):
        pitch = GAZE_DOWN_ANGLE * at(f"eyeLookDown{side}") - GAZE_UP_ANGLE * at(f"eyeLookUp{side}")
        yaw = GAZE_SIDE_ANGLE * (at(f"eyeLook{left}{side}") - at(f"eyeLook{right}{side}"))
        eyes += [pitch, yaw, zero]
    lids = torch.stack([at("eyeBlinkLeft"), at("eyeBlinkRight")], 1)
    return jaw, torch.stack(eyes, 1), lids
