"""Plausible random faces for training views: paired ARKit actions, visemes, gaze and blinks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ap3d.errors import InputError
from ap3d.motion.arkit import ARKIT_NAMES
from ap3d.motion.schema import Motion
from ap3d.rig.builtin import JAW_OPEN_ANGLE
from ap3d.rig.protocol import Rig, RigParams

_SIDES = ("Left", "Right")
# From these on a face is called by what it does.
OPEN_MOUTH, CLOSED_EYES, SMILE, FROWN = 0.25, 0.8, 0.45, 0.5
_QUIET = ("jawOpen", "tongueOut", "mouthClose", "jawForward", "jawLeft", "jawRight")


def _both(name: str, value: float) -> dict[str, float]:
    return {name + side: value for side in _SIDES}


# Named combinations that people make; strengths are the usual maxima.
COMBINATIONS: dict[str, dict[str, float]] = {
    "neutral": {},
    "smile": {**_both("mouthSmile", 0.8), **_both("cheekSquint", 0.4)},
    "grin": {**_both("mouthSmile", 0.7), "jawOpen": 0.25, **_both("mouthUpperUp", 0.4), **_both("mouthLowerDown", 0.3)},
    "open": {"jawOpen": 0.7, "browInnerUp": 0.3},
    "aa": {"jawOpen": 0.45, **_both("mouthLowerDown", 0.2)},
    "oh": {"jawOpen": 0.3, "mouthFunnel": 0.6},
    "oo": {"mouthPucker": 0.7, "jawOpen": 0.1},
    "ee": {**_both("mouthStretch", 0.4), "jawOpen": 0.12, **_both("mouthUpperUp", 0.25)},
    "frown": {**_both("browDown", 0.7), **_both("mouthFrown", 0.5), **_both("noseSneer", 0.3)},
    "surprise": {"browInnerUp": 0.7, **_both("browOuterUp", 0.6), **_both("eyeWide", 0.5), "jawOpen": 0.35},
    "blink": _both("eyeBlink", 1.0),
    "squint": {**_both("eyeSquint", 0.6), **_both("cheekSquint", 0.3)},
    "smirk": {"mouthSmileLeft": 0.7, "mouthLeft": 0.2},
    "wink": {"eyeBlinkRight": 1.0, "cheekSquintRight": 0.4, "mouthSmileRight": 0.3},
}


def action_names(rig: Rig) -> tuple[str, ...]:
    """The ARKit actions that a rig is moved by here: its own, or all 52 where they are converted."""
    return tuple(rig.expression_names) if rig.expression_basis == "arkit52" else ARKIT_NAMES


def jaw_opening(rig: Rig, params: RigParams) -> float:
    """How far the first head of a batch opens its jaw, in units of ARKit's jawOpen."""
    angle = float(params.jaw[0, 0]) / JAW_OPEN_ANGLE
    if rig.expression_basis != "arkit52":
        return angle
    return angle + float(params.expression[0, rig.expression_names.index("jawOpen")])


def expression_word(rig: Rig, params: RigParams) -> str:
    """What the first head of a batch plainly does, as captions word it: "mouth open", "eyes closed", "smiling",
    "angry", or nothing. Smiles and frowns are known of rigs with ARKit's actions alone.
    """
    if jaw_opening(rig, params) >= OPEN_MOUTH:
        return "mouth open"
    if rig.expression_basis != "arkit52":
        return "eyes closed" if float(params.eyelids[0].min()) >= CLOSED_EYES else ""
    least = lambda name: min(float(params.expression[0, rig.expression_names.index(name + s)]) for s in _SIDES)  # noqa: E731
    if least("eyeBlink") + float(params.eyelids[0].min()) >= CLOSED_EYES:
        return "eyes closed"
    if least("mouthSmile") >= SMILE:
        return "smiling"
    return "angry" if least("browDown") >= FROWN and least("mouthFrown") > 0 else ""


@dataclass(frozen=True)
class ExpressionSampler:
    """Draws expressions as ARKit actions; rigs of the FLAME family are given the nearest shapes and angles.

    Attributes:
        rig: the rig that is posed.
    """

    rig: Rig

    def named(self, params: RigParams, name: str, strength: float = 1.0) -> RigParams:
        """A head (a batch of one) with a combination in :data:`COMBINATIONS`."""
        return self._posed(params, self._actions(COMBINATIONS[name], strength))

    def apply(self, params: RigParams, name: str, generator: torch.Generator, *, gaze: bool = True) -> RigParams:
        """Pose a neutral head: a combination of random strength, small noise, gaze and half-closed lids."""
        strength = 0.75 + 0.25 * _uniform(generator)
        expression = self._actions(COMBINATIONS[name], strength)
        noise = torch.rand(expression.shape, generator=generator) * (
            torch.rand(expression.shape, generator=generator) < 0.08
        )
        quiet = torch.ones_like(expression)
        names = action_names(self.rig)
        for column, action in enumerate(names):
            if action in _QUIET or action.startswith("eye"):
                quiet[0, column] = 0
        eyes = torch.zeros(1, 6)
        if gaze:
            pitch, yaw = 0.25 * (2 * _uniform(generator) - 1), 0.4 * (2 * _uniform(generator) - 1)
            eyes = torch.tensor([[pitch, yaw, 0.0, pitch, yaw, 0.0]])
        lids = torch.full((1, 2), max(0.0, 0.35 * (2 * _uniform(generator) - 1)))
        return self._posed(params.replace(eyes=eyes, eyelids=lids), expression + 0.25 * noise * quiet)

    def draw(self, params: RigParams, generator: torch.Generator, names: tuple[str, ...] | None = None) -> RigParams:
        """A random combination of ``names`` (all by default)."""
        pool = names or tuple(COMBINATIONS)
        return self.apply(params, pool[int(torch.randint(len(pool), (1,), generator=generator))], generator)

    def posed(self, params: RigParams, actions: dict[str, float]) -> RigParams:
        """A head (a batch of one) with some actions; gaze, lids and pose stay those of ``params``."""
        return self._posed(params, self._actions(actions, 1.0))

    def _actions(self, actions: dict[str, float], strength: float) -> Tensor:
        names = action_names(self.rig)
        values = torch.zeros(1, len(names))
        for action, value in actions.items():
            if action not in names:
                raise InputError(f"rig {self.rig.name} has no facial action {action!r}")
            values[0, names.index(action)] = value * strength
        return values

    def _posed(self, params: RigParams, actions: Tensor) -> RigParams:
        """One frame of a motion, so that there is one conversion; ``params`` gives the other controls."""
        names = action_names(self.rig)
        frame = Motion(
            actions, params.neck, params.head, params.jaw, params.eyes, params.eyelids, 1.0, "arkit52", names
        )
        return frame.to(self.rig).params(params, 0)


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))
