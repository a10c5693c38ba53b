"""The faces that guidance sees: procedural ones for the built-in rig, recorded or seeded ones for FLAME and SMPL-X.

Source of the numbers: reference/animportrait3d-avatar-and-guidance.md, section 7.3. Gaze and lids are drawn here for
every rig; what a recording says of them is not used.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ap3d.errors import InputError
from ap3d.guidance_config import ExpressionConfig
from ap3d.motion.expressions import COMBINATIONS, ExpressionSampler
from ap3d.motion.schema import Motion
from ap3d.rig.protocol import Rig, RigParams

# Further mouth shapes of speech, and smaller movements, beside the named combinations.
VISEMES: dict[str, dict[str, float]] = {
    "pp": {"mouthPressLeft": 0.5, "mouthPressRight": 0.5, "mouthRollLower": 0.3, "mouthRollUpper": 0.3},
    "ff": {"mouthRollLower": 0.5, "jawOpen": 0.06, "mouthUpperUpLeft": 0.25, "mouthUpperUpRight": 0.25},
    "th": {"jawOpen": 0.16, "tongueOut": 0.3, "mouthLowerDownLeft": 0.2, "mouthLowerDownRight": 0.2},
    "ss": {"jawOpen": 0.06, "mouthStretchLeft": 0.35, "mouthStretchRight": 0.35, "mouthLowerDownLeft": 0.3,
           "mouthLowerDownRight": 0.3},
    "shout": {"jawOpen": 0.9, "mouthStretchLeft": 0.25, "mouthStretchRight": 0.25, "browDownLeft": 0.3,
              "browDownRight": 0.3},
    "laugh": {"jawOpen": 0.5, "mouthSmileLeft": 0.8, "mouthSmileRight": 0.8, "cheekSquintLeft": 0.6,
              "cheekSquintRight": 0.6, "mouthUpperUpLeft": 0.4, "mouthUpperUpRight": 0.4},
    "teeth": {"jawOpen": 0.03, "mouthUpperUpLeft": 0.7, "mouthUpperUpRight": 0.7, "mouthLowerDownLeft": 0.6,
              "mouthLowerDownRight": 0.6, "mouthStretchLeft": 0.4, "mouthStretchRight": 0.4},
}  # fmt: skip
FACES_OF = {
    "all": (*COMBINATIONS, *VISEMES),
    "eyes": ("neutral", "smile", "frown", "surprise", "squint", "oh"),
    "open_mouth": ("open", "aa", "grin", "laugh", "teeth", "surprise", "shout", "oh"),
}
# Quantiles of the jaw's angle (radians) in the tracked data that AnimPortrait3D used: all of it, and its open mouths.
JAW_QUANTILES = {
    "all": ((0.0, 0.0), (0.81, 0.1), (0.923, 0.2), (1.0, 0.5)),
    "open_mouth": ((0.0, 0.0), (0.18, 0.1), (1.0, 0.634)),
}
OPEN_JAW = 0.1  # radians, from which a recorded mouth counts as open


class ExpressionBank(Protocol):
    """Draws posed heads."""

    def draw(self, params: RigParams, faces: str, generator: torch.Generator, *, head: bool = True) -> RigParams:
        """One head of a kind in ``guidance_config.FACES``; ``head``: with turns of neck and head, where there are."""
        ...


def expression_bank(rig: Rig, config: ExpressionConfig) -> ExpressionBank:
    """The bank of a rig: recorded where one is given, procedural for ARKit rigs, else seeded coefficients.

    Raises:
        InputError: the recording is unreadable or of another basis.
    """
    if config.bank is not None:
        return RecordedBank.read(rig, config)
    return ProceduralBank(rig, config) if rig.expression_basis == "arkit52" else SeededBank(rig, config)


@dataclass(frozen=True)
class ProceduralBank:
    """Plausible pairings of ARKit's actions, visemes and one-sided faces."""

    rig: Rig
    config: ExpressionConfig

    def draw(self, params: RigParams, faces: str, generator: torch.Generator, *, head: bool = True) -> RigParams:
        """See :class:`ExpressionBank`; the head stays straight."""
        names = FACES_OF[faces]
        chosen = names[int(torch.randint(len(names), (1,), generator=generator))]
        actions = {**COMBINATIONS, **VISEMES}[chosen]
        strength = 0.6 + 0.4 * _uniform(generator)
        values = {action: value * strength for action, value in actions.items()}
        if _uniform(generator) < self.config.one_sided_share:
            values = _one_sided(values, generator)
        posed = with_gaze_and_lids(params, self.config, generator)
        posed = posed.replace(eyelids=posed.eyelids.clamp(min=0))  # added to eyeBlink, which they must not undo
        return ExpressionSampler(self.rig).posed(posed, values)


@dataclass(frozen=True)
class RecordedBank:
    """Frames of a motion in the rig's own coefficients."""

    rig: Rig
    config: ExpressionConfig
    motion: Motion
    weights: Tensor  # [T] of faces "all"

    @staticmethod
    def read(rig: Rig, config: ExpressionConfig) -> "RecordedBank":
        """Read ``config.bank``.

        Raises:
            InputError: unreadable, or in coefficients that the rig does not take.
        """
        from ap3d.motion.reading import read_motion

        if rig.expression_basis == "arkit52":
            raise InputError("'expressions.bank' is for FLAME and SMPL-X rigs; the built-in rig makes its own faces")
        motion = read_motion(Path(str(config.bank))).to(rig)
        return RecordedBank(rig, config, motion, face_weights(motion.expression, motion.jaw[:, 0]))

    def draw(self, params: RigParams, faces: str, generator: torch.Generator, *, head: bool = True) -> RigParams:
        """See :class:`ExpressionBank`."""
        weights = self.weights if faces == "all" else torch.ones(len(self.motion))
        if faces == "open_mouth":
            open_jaw = (self.motion.jaw[:, 0] > OPEN_JAW).float()
            weights = open_jaw if open_jaw.any() else weights
        frame = int(torch.multinomial(weights, 1, generator=generator))
        posed = self.motion.params(params, frame)
        if not head:
            posed = posed.replace(neck=torch.zeros(1, 3), head=torch.zeros(1, 3))
        return with_gaze_and_lids(posed, self.config, generator)


@dataclass(frozen=True)
class SeededBank:
    """Normal coefficients of falling size and a jaw with the published histogram."""

    rig: Rig
    config: ExpressionConfig

    def draw(self, params: RigParams, faces: str, generator: torch.Generator, *, head: bool = True) -> RigParams:
        """See :class:`ExpressionBank`."""
        count = self.rig.n_expression
        size = 0.8 / (1 + torch.arange(count) / 10) * (0.4 if faces == "eyes" else 1.0)
        jaw = torch.zeros(1, 3)
        jaw[0, 0] = jaw_angle(_uniform(generator), "open_mouth" if faces == "open_mouth" else "all")
        expression = size * torch.randn(1, count, generator=generator)
        neck = 0.08 * torch.randn(1, 3, generator=generator) * float(head)
        return with_gaze_and_lids(params.replace(expression=expression, jaw=jaw, neck=neck), self.config, generator)


def jaw_angle(quantile: float, faces: str) -> float:
    """The angle of the published distribution at a quantile in 0..1, radians."""
    shares, angles = np.array(JAW_QUANTILES[faces]).T
    return float(np.interp(quantile, shares, angles))


def face_weights(expression: Tensor, jaw: Tensor) -> Tensor:
    """How often each recorded face ``[T]`` is drawn: strong expressions and open jaws more often.

    ``floor(|e| / min |e|)^2``, and 10 more where the jaw's angle exceeds 0.2 radians.
    """
    norms = expression.norm(dim=1)
    least = norms[norms > 1e-6].min() if bool((norms > 1e-6).any()) else torch.ones(())
    return (norms / least).floor().clamp(1, 1e4).square() + 10.0 * (jaw > 0.2)


def with_gaze_and_lids(params: RigParams, config: ExpressionConfig, generator: torch.Generator) -> RigParams:
    """Both eyes look the same way, both lids close alike."""
    pitch, yaw = (limit * (2 * _uniform(generator) - 1) for limit in (config.gaze_pitch, config.gaze_yaw))
    low, high = config.closing if _uniform(generator) < config.closing_share else config.opening
    lids = low + (high - low) * _uniform(generator)
    return params.replace(eyes=torch.tensor([[pitch, yaw, 0.0, pitch, yaw, 0.0]]), eyelids=torch.full((1, 2), lids))


def _one_sided(values: dict[str, float], generator: torch.Generator) -> dict[str, float]:
    """One side does less than the other."""
    quiet = "Left" if _uniform(generator) < 0.5 else "Right"
    share = _uniform(generator)
    return {action: value * (share if action.endswith(quiet) else 1.0) for action, value in values.items()}


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))
