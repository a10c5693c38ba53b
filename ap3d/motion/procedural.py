"""Motions that need no file: talk, blink, look around, express and nod. Every one ends where it began."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ap3d.errors import InputError
from ap3d.motion.arkit import ARKIT_NAMES
from ap3d.motion.expressions import COMBINATIONS
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
_SACCADE_SECONDS = 0.07
_SHOWN = ("smile", "surprise", "frown", "grin", "squint", "smirk", "oh", "wink")  # of COMBINATIONS, in this order
MOST_SECONDS = 3600.0
_NECK_SHARE = 0.4  # of a turn of the head; the rest is the head joint's


def talking(seconds: float, fps: float, generator: torch.Generator) -> Motion:
    """Talk, blink, look about and nod a little.

    Args:
        seconds: length.
        fps: frames per second.
        generator: draws the mouth shapes and the times of the blinks.
    """
    times = _times(seconds, fps)
    expression = _speech(times, seconds, generator)
    add_blinks(expression, times, _blink_times(seconds, generator))
    turn = 2 * math.pi * times / seconds
    head = torch.stack([0.06 * (2 * turn).sin(), 0.20 * turn.sin(), 0.04 * turn.sin()], 1)
    return _motion(expression, fps, head, -0.15 * turn.sin(), torch.zeros(len(times)))


def blinking(seconds: float, fps: float, generator: torch.Generator) -> Motion:
    """Blinks every few seconds, the head all but still."""
    times = _times(seconds, fps)
    expression = torch.zeros(len(times), len(ARKIT_NAMES))
    add_blinks(expression, times, _blink_times(seconds, generator))
    turn = 2 * math.pi * times / seconds
    return _motion(expression, fps, 0.02 * torch.stack([turn.sin(), (2 * turn).sin(), 0 * turn], 1))


def looking(seconds: float, fps: float, generator: torch.Generator) -> Motion:
    """The eyes leap from place to place, the head follows late and by a part; a wide leap brings a blink."""
    times = _times(seconds, fps)
    starts, targets = [0.0], [torch.zeros(2)]
    while (now := starts[-1] + 0.55 + 0.7 * float(torch.rand((), generator=generator))) < seconds - 0.5:
        starts.append(now)
        targets.append((torch.rand(2, generator=generator) - 0.5) * torch.tensor([0.40, 0.76]))
    starts.append(max(seconds - 0.5, starts[-1]))
    targets.append(torch.zeros(2))
    gaze, follow = torch.zeros(len(times), 2), torch.zeros(len(times), 2)
    blinks = []
    for start, before, after in zip(starts[1:], targets, targets[1:], strict=False):
        gaze += (after - before) * _eased((times - start) / _SACCADE_SECONDS)[:, None]
        follow += 0.35 * (after - before) * _eased((times - start - 0.05) / 0.45)[:, None]
        if float((after - before).norm()) > 0.3 and start + _BLINK_SECONDS < seconds:
            blinks.append(start - 0.02)
    expression = torch.zeros(len(times), len(ARKIT_NAMES))
    add_blinks(expression, times, blinks)
    head = torch.cat([follow, 0.2 * follow[:, 1:]], 1)
    eyes = gaze - follow
    return _motion(expression, fps, head, eyes[:, 1], eyes[:, 0])


def expressing(seconds: float, fps: float, generator: torch.Generator) -> Motion:
    """One named expression after another, each from rest and back, with a slight tilt of the head."""
    times = _times(seconds, fps)
    count = max(1, min(len(_SHOWN), int(seconds / 0.8)))
    each = seconds / count
    expression, head = torch.zeros(len(times), len(ARKIT_NAMES)), torch.zeros(len(times), 3)
    for index, name in enumerate(_SHOWN[:count]):
        phase = times - index * each
        strength = _eased(phase / (0.3 * each)) * _eased((each - phase) / (0.3 * each))
        for action, value in COMBINATIONS[name].items():
            expression[:, ARKIT_NAMES.index(action)] += 1.2 * value * strength
        head += strength[:, None] * 0.16 * (torch.rand(3, generator=generator) - 0.5)
    return _motion(expression.clamp(0, 1), fps, head)


def nodding(seconds: float, fps: float, generator: torch.Generator) -> Motion:
    """Nods of yes in the first half, a shaken no in the second."""
    times = _times(seconds, fps)
    half = seconds / 2
    beats = max(1, round(half * 1.4))
    window = lambda t: (math.pi * (t / half).clamp(0, 1)).sin().square()  # noqa: E731
    pitch = 0.22 * window(times) * (1 - (2 * math.pi * beats * times / half).cos()) / 2
    late = (times - half).clamp_min(0)
    yaw = 0.30 * window(late) * (2 * math.pi * beats * late / half).sin()
    head = torch.stack([pitch, yaw, torch.zeros_like(yaw)], 1)
    expression = torch.zeros(len(times), len(ARKIT_NAMES))
    add_blinks(expression, times, _blink_times(seconds, generator))
    return _motion(expression, fps, head, -0.7 * yaw, -0.7 * pitch)  # the eyes stay on whom they look at


PROCEDURAL: dict[str, Callable[[float, float, torch.Generator], Motion]] = {
    "talk": talking, "blink": blinking, "look": looking, "express": expressing, "nod": nodding,
}  # fmt: skip


def procedural(name: str, seconds: float, fps: float, seed: int) -> Motion:
    """One of :data:`PROCEDURAL` by name.

    Raises:
        InputError: an unknown name, a length outside 0.1 s to an hour, or a rate that is not positive.
    """
    if name not in PROCEDURAL:
        raise InputError(f"unknown built-in motion {name!r}; there are: {', '.join(PROCEDURAL)}")
    if not 0.1 <= seconds <= MOST_SECONDS or not 0 < fps <= 1000:
        raise InputError(f"a built-in motion lasts 0.1 s to an hour at a positive rate, got {seconds:g} s at {fps:g}")
    return PROCEDURAL[name](seconds, fps, torch.Generator().manual_seed(seed))


def with_blinks(motion: Motion, seed: int) -> Motion:
    """The motion with blinks of both lids added where its own lids are open, on any basis."""
    times = torch.arange(len(motion)) / motion.fps
    closed = torch.zeros(len(motion), len(ARKIT_NAMES))
    add_blinks(closed, times, _blink_times(motion.seconds, torch.Generator().manual_seed(seed)))
    lids = closed[:, ARKIT_NAMES.index("eyeBlinkLeft")][:, None]
    return motion.with_tensors({"eyelids": torch.maximum(motion.eyelids, lids)}).with_notes("blinks were added")


def add_blinks(expression: Tensor, times: Tensor, starts: list[float]) -> None:
    """Close both lids from each start on, for a third of a second, in ``expression [T, 52]``."""
    for start in starts:
        phase = ((times - start) / _BLINK_SECONDS).clamp(0, 1)
        closed = (math.pi * phase).sin().clamp(min=0).pow(0.7)
        for side in ("Left", "Right"):
            column = ARKIT_NAMES.index(f"eyeBlink{side}")
            expression[:, column] = torch.maximum(expression[:, column], closed)


def _times(seconds: float, fps: float) -> Tensor:
    return torch.arange(max(round(seconds * fps), 2)) / fps


def _motion(
    expression: Tensor, fps: float, head: Tensor, gaze_yaw: Tensor | None = None, gaze_pitch: Tensor | None = None
) -> Motion:
    """A motion from actions, turns of the head ``[T, 3]`` and gaze angles ``[T]`` against the head."""
    zero = torch.zeros(len(expression))
    gaze = torch.stack([zero if gaze_pitch is None else gaze_pitch, zero if gaze_yaw is None else gaze_yaw, zero], 1)
    still = Motion.still(len(expression), fps, "arkit52", ARKIT_NAMES)
    parts = {"neck": _NECK_SHARE * head, "head": (1 - _NECK_SHARE) * head, "eyes": torch.cat([gaze, gaze], 1)}
    return still.with_tensors(parts | {"expression": expression})


def _speech(times: Tensor, seconds: float, generator: torch.Generator) -> Tensor:
    holds = max(round(seconds / _HOLD_SECONDS), 2)
    picks = torch.randint(1, len(_VISEMES), (holds,), generator=generator)
    picks[0] = picks[-1] = 0
    keys = torch.zeros(holds, len(ARKIT_NAMES))
    for row, pick in enumerate(picks.tolist()):
        for action, value in _VISEMES[pick].items():
            keys[row, ARKIT_NAMES.index(action)] = value
    position = times / seconds * (holds - 1)
    low = position.floor().long().clamp(max=holds - 2)
    blend = _eased(position - low)[:, None]
    return keys[low] * (1 - blend) + keys[low + 1] * blend


def _eased(share: Tensor) -> Tensor:
    """From 0 to 1 with level ends, clamped."""
    share = share.clamp(0, 1)
    return share * share * (3 - 2 * share)


def _blink_times(seconds: float, generator: torch.Generator) -> list[float]:
    times, now = [], min(0.6, 0.25 * seconds)
    while now + _BLINK_SECONDS < seconds:
        times.append(now)
        now += 1.2 + 1.2 * float(torch.rand((), generator=generator))
    return times
