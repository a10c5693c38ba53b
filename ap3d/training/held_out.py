"""A small fixed set of portraits that nothing is trained on: pictures, conditions, class maps and what they show.

It lies beside the tests, so that the shipped networks are measured on the same pictures for ever, whatever the
renderer becomes.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ap3d.diffusion.conditions import ConditionBuilder
from ap3d.rig.builtin import BuiltinRig
from ap3d.training.portrait_pool import Scene
from ap3d.training.portraits.people import sample_person
from ap3d.training.portraits.render import person_samples

SEED = 3_000_017


@dataclass(frozen=True)
class HeldOut:
    """``N`` pictures.

    Attributes:
        images: ``[N, S, S, 3]`` uint8.
        conditions: ``[N, S, S, 6]`` uint8.
        classes: ``[N, S, S]`` uint8, indices into the face parser's ``CLASSES``.
        codes: ``[N, 12]`` int8, see :meth:`Scene.codes`.
    """

    images: NDArray[np.uint8]
    conditions: NDArray[np.uint8]
    classes: NDArray[np.uint8]
    codes: NDArray[np.int8]

    @property
    def scenes(self) -> list[Scene]:
        """What the pictures show."""
        return [Scene.from_codes(row.tolist()) for row in self.codes]

    def save(self, path: Path) -> None:
        """Write a compressed npz."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **vars(self))

    @staticmethod
    def load(path: Path) -> "HeldOut":
        """The inverse of :meth:`save`."""
        with np.load(path, allow_pickle=False) as file:
            return HeldOut(**{name: file[name] for name in ("images", "conditions", "classes", "codes")})


def render_held_out(rig: BuiltinRig, people: int, views: int = 3, seed: int = SEED, size: int = 128) -> HeldOut:
    """Some views and framings of each of ``people``."""
    rng, builder = np.random.default_rng(seed), ConditionBuilder(rig)
    samples = [
        sample
        for _ in range(people)
        for sample in person_samples(sample_person(rng, rig), rig, rng, views, size, builder, with_classes=True)
    ]
    scenes = [Scene(s.attributes, s.expression, s.framing, s.view) for s in samples]
    return HeldOut(
        np.stack([s.image for s in samples]),
        np.stack([s.condition for s in samples]),
        np.stack([s.classes for s in samples if s.classes is not None]),
        np.array([s.codes() for s in scenes], np.int8),
    )
