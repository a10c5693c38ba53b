"""Draw people: attributes, shape, expression and pose."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ap3d.rig.builtin import BuiltinRig
from ap3d.rig.protocol import RigParams
from ap3d.training.attributes import (
    AGES,
    BUILDS,
    EXPRESSIONS,
    EYE_COLOURS,
    GENDERS,
    HAIR_COLOURS,
    HAIR_STYLES,
    SHIRT_COLOURS,
    SKINS,
    PortraitAttributes,
)  # fmt: skip

AGE_SHARES = (0.17, 0.37, 0.23, 0.23)
BUILD_SHARES = (0.25, 0.5, 0.25)
STYLE_SHARES = (0.22, 0.19, 0.11, 0.17, 0.16, 0.15)
EXPRESSION_SHARES = (0.36, 0.22, 0.18, 0.12, 0.12)
BEARD_SHARE = 0.45  # of adult men

# ARKit controls of each expression word, as (low, high) of a uniform draw; a name without side stands for both.
ACTIONS: dict[str, dict[str, tuple[float, float]]] = {
    "neutral": {},
    "smiling": {
        "mouthSmile": (0.65, 1.0), "cheekSquint": (0.2, 0.5), "mouthUpperUp": (0.0, 0.4), "mouthLowerDown": (0.0, 0.35),
    },
    "mouth open": {"jawOpen": (0.5, 1.0), "browInnerUp": (0.0, 0.5)},
    "angry": {
        "browDown": (0.8, 1.0), "mouthFrown": (0.4, 0.9), "noseSneer": (0.4, 0.8), "eyeSquint": (0.2, 0.6),
        "mouthPress": (0.2, 0.6),
    },
    "eyes closed": {"eyeBlink": (1.0, 1.0)},
}  # fmt: skip
# Small changes that keep the word true.
PERTURBATIONS = (
    "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff", "cheekSquintLeft", "cheekSquintRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawRight",
    "mouthDimpleLeft", "mouthDimpleRight", "mouthFunnel", "mouthLeft", "mouthRight", "mouthLowerDownLeft",
    "mouthLowerDownRight", "mouthPucker", "mouthRollLower", "mouthRollUpper", "mouthShrugLower",
    "mouthShrugUpper", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft",
    "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight",
)  # fmt: skip


@dataclass(frozen=True)
class Person:
    """One synthetic person in one pose.

    Attributes:
        attributes: what captions say.
        expression: one of ``EXPRESSIONS``.
        params: the rig's parameters, batch of one.
        seed: of hair, light and colour variation.
    """

    attributes: PortraitAttributes
    expression: str
    params: RigParams
    seed: int

    @property
    def neutral(self) -> RigParams:
        """The same head without expression and pose."""
        zero = torch.zeros_like
        p = self.params
        return p.replace(
            expression=zero(p.expression), neck=zero(p.neck), head=zero(p.head), jaw=zero(p.jaw), eyes=zero(p.eyes),
            eyelids=zero(p.eyelids),
        )  # fmt: skip


def sample_person(
    rng: np.random.Generator, rig: BuiltinRig, accept: Callable[[PortraitAttributes], bool] = lambda _: True
) -> Person:
    """Draw a person whom ``accept`` takes; every attribute is independent but the beard, which adult men alone may
    have.
    """
    attributes = sample_attributes(rng)
    while not accept(attributes):
        attributes = sample_attributes(rng)
    return build_person(attributes, str(rng.choice(EXPRESSIONS, p=EXPRESSION_SHARES)), rng, rig)


def sample_attributes(rng: np.random.Generator) -> PortraitAttributes:
    """Draw the words that describe a person."""
    pick = lambda values, shares=None: str(rng.choice(values, p=shares))  # noqa: E731
    gender, age = pick(GENDERS), pick(AGES, AGE_SHARES)
    beard = gender == "man" and age != "child" and rng.random() < BEARD_SHARE
    return PortraitAttributes(
        gender, age, pick(BUILDS, BUILD_SHARES), pick(SKINS), pick(HAIR_STYLES, STYLE_SHARES), pick(HAIR_COLOURS),
        pick(EYE_COLOURS), pick(SHIRT_COLOURS), bool(beard),
    )  # fmt: skip


def build_person(attributes: PortraitAttributes, expression: str, rng: np.random.Generator, rig: BuiltinRig) -> Person:
    """Draw shape, expression coefficients, gaze and pose for given words."""
    noise = torch.from_numpy(rng.standard_normal(rig.n_shape)).float()
    shape = rig.sample_shape(attributes.gender, attributes.age, attributes.build, noise)
    closed = expression == "eyes closed"
    gaze = np.zeros(2) if closed else rng.normal(0, (0.08, 0.14))
    vector = lambda *sd: torch.from_numpy(rng.normal(0, sd)).float()[None]  # noqa: E731
    params = RigParams.neutral(rig).replace(
        shape=shape[None],
        expression=torch.from_numpy(_expression(expression, rng, rig.expression_names)).float()[None],
        neck=vector(0.04, 0.06, 0.03),
        head=vector(0.06, 0.09, 0.04),
        eyes=torch.tensor([[gaze[0], gaze[1], 0, gaze[0], gaze[1], 0]], dtype=torch.float32),
    )
    return Person(attributes, expression, params, int(rng.integers(2**31)))


def _expression(word: str, rng: np.random.Generator, names: Sequence[str]) -> np.ndarray:
    values = np.zeros(len(names))
    for action, (low, high) in ACTIONS[word].items():
        value = rng.uniform(low, high)
        for index, name in enumerate(names):
            if name in (action, action + "Left", action + "Right"):
                values[index] = min(1.0, value * (1 if low == high else rng.uniform(0.92, 1.08)))
    count = int(rng.integers(0, 6))
    for name in rng.choice(PERTURBATIONS, count, replace=False):
        index = list(names).index(str(name))
        values[index] = min(1.0, values[index] + rng.uniform(0, 0.25))
    if word not in ("eyes closed", "mouth open") and rng.random() < 0.3:
        values[list(names).index("jawOpen")] += rng.uniform(0, 0.12)
    return values
