"""Motions that need no file: talking with blinks and small head turns, and an overview of expressions."""

import math

import torch

from ap3d.motion.schema import Motion

# Mouth shapes of a made-up phrase: action strengths, held about a tenth of a second each.
_VISEMES: tuple[dict[str, float], ...] = (
    {},
    {"jawOpen": 0.55, "mouthLowerDownLeft": 0.25, "mouthLowerDownRight": 0.25},
    {"jawOpen": 0.15, "mouthStretchLeft": 0.35, "mouthStretchRight": 0.35},
    {"jawOpen": 0.35, "mouthFunnel": 0.45},
    {"jawOpen": 0.08, "mouthPucker": 0.6},
    {"mouthPressLeft": 0.4, "mouthPressRight": 0.4},
    {"jawOpen": 0.42, "mouthSmileLeft": 0.3, "mouthSmileRight": 0.3},
)
_HOLD_SECONDS = 0.13
_BLINK_SECONDS = 0.32


def talking(names: tuple[str, ...], seconds: float, fps: float, generator: torch.Generator) -> Motion:
    """Talk, blink, look about and nod a little; the last frame leads back to the first.

    Args:
        names: action names of an ``arkit52`` rig.
        seconds: length.
        fps: frames per second.
        generator: draws the mouth shapes and the times of the blinks.
    """
    count = max(round(seconds * fps), 2)
    times = torch.arange(count) / fps
    expression = _speech(names, times, seconds, generator)
    for start in _blink_times(seconds, generator):
        phase = ((times - start) / _BLINK_SECONDS).clamp(0, 1)
        closed = (math.pi * phase).sin().clamp(min=0).pow(0.7)
        for side in ("Left", "Right"):
            column = names.index(f"eyeBlink{side}")
            expression[:, column] = torch.maximum(expression[:, column], closed)
    turn = 2 * math.pi * times / seconds
    zero = torch.zeros(count)
    head = torch.stack([0.06 * (2 * turn).sin(), 0.20 * turn.sin(), 0.04 * turn.sin()], 1)
    gaze = torch.stack([zero, -0.15 * turn.sin(), zero], 1)
    still = Motion.still(count, fps, "arkit52", names)
    return Motion(
        expression, 0.4 * head, 0.6 * head, still.jaw, torch.cat([gaze, gaze], 1), still.eyelids, fps,
        "arkit52", names,
    )  # fmt: skip


def _speech(names: tuple[str, ...], times: torch.Tensor, seconds: float, generator: torch.Generator) -> torch.Tensor:
    holds = max(round(seconds / _HOLD_SECONDS), 2)
    picks = torch.randint(1, len(_VISEMES), (holds,), generator=generator)
    picks[0] = picks[-1] = 0
    keys = torch.zeros(holds, len(names))
    for row, pick in enumerate(picks.tolist()):
        for action, value in _VISEMES[pick].items():
            keys[row, names.index(action)] = value
    position = times / seconds * (holds - 1)
    low = position.floor().long().clamp(max=holds - 2)
    blend = position - low
    blend = (blend * blend * (3 - 2 * blend))[:, None]
    return keys[low] * (1 - blend) + keys[low + 1] * blend


def _blink_times(seconds: float, generator: torch.Generator) -> list[float]:
    times, now = [], min(0.6, 0.25 * seconds)
    while now + _BLINK_SECONDS < seconds:
        times.append(now)
        now += 1.2 + 1.2 * float(torch.rand((), generator=generator))
    return times
