"""Plausible random faces for training views: paired ARKit actions, visemes, gaze and blinks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ap3d.errors import InputError
from ap3d.rig.protocol import Rig, RigParams

_SIDES = ("Left", "Right")


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


@dataclass(frozen=True)
class ExpressionSampler:
    """Draws expressions of an ``arkit52`` rig.

    Attributes:
        rig: the rig whose expression names are used.
    """

    rig: Rig

    def named(self, name: str, strength: float = 1.0) -> Tensor:
        """Expression coefficients ``[1, E]`` of a combination in :data:`COMBINATIONS`."""
        values = torch.zeros(1, self.rig.n_expression)
        for action, value in COMBINATIONS[name].items():
            values[0, self._index(action)] = value * strength
        return values

    def apply(self, params: RigParams, name: str, generator: torch.Generator, *, gaze: bool = True) -> RigParams:
        """Pose a neutral head: a combination of random strength, small noise, gaze and half-closed lids."""
        strength = 0.75 + 0.25 * _uniform(generator)
        expression = self.named(name, strength)
        noise = torch.rand(expression.shape, generator=generator) * (
            torch.rand(expression.shape, generator=generator) < 0.08
        )
        quiet = torch.ones_like(expression)
        for action in ("jawOpen", "tongueOut", "mouthClose", "jawForward", "jawLeft", "jawRight"):
            quiet[0, self._index(action)] = 0
        for action in self.rig.expression_names:
            if action.startswith("eye"):
                quiet[0, self._index(action)] = 0
        eyes = torch.zeros(1, 6)
        if gaze:
            pitch, yaw = 0.25 * (2 * _uniform(generator) - 1), 0.4 * (2 * _uniform(generator) - 1)
            eyes = torch.tensor([[pitch, yaw, 0.0, pitch, yaw, 0.0]])
        lids = torch.full((1, 2), max(0.0, 0.35 * (2 * _uniform(generator) - 1)))
        return params.replace(expression=expression + 0.25 * noise * quiet, eyes=eyes, eyelids=lids)

    def draw(self, params: RigParams, generator: torch.Generator, names: tuple[str, ...] | None = None) -> RigParams:
        """A random combination of ``names`` (all by default)."""
        pool = names or tuple(COMBINATIONS)
        return self.apply(params, pool[int(torch.randint(len(pool), (1,), generator=generator))], generator)

    def _index(self, action: str) -> int:
        try:
            return self.rig.expression_names.index(action)
        except ValueError:
            raise InputError(f"rig {self.rig.name} has no facial action {action!r}") from None


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))
