"""One schema for every motion, and its conversion to a rig."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ap3d.errors import InputError
from ap3d.rig.protocol import Rig, RigParams


@dataclass(frozen=True)
class Motion:
    """``T`` frames of expression and pose.

    Attributes:
        expression: ``[T, E]`` in ``expression_basis``.
        neck, head, jaw: ``[T, 3]`` axis-angle, radians.
        eyes: ``[T, 6]`` left and right axis-angle, radians.
        eyelids: ``[T, 2]`` left, right; 1 closes.
        fps: frames per second.
        expression_basis: ``arkit52``, ``flame2020`` or ``flame2023``.
        expression_names: names of the coefficients, empty for bases without names.
    """

    expression: Tensor
    neck: Tensor
    head: Tensor
    jaw: Tensor
    eyes: Tensor
    eyelids: Tensor
    fps: float
    expression_basis: str
    expression_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.expression)

    @staticmethod
    def still(frames: int, fps: float, basis: str, names: tuple[str, ...]) -> "Motion":
        """A motion in which nothing moves."""
        zeros = lambda n: torch.zeros(frames, n)  # noqa: E731
        return Motion(zeros(len(names)), zeros(3), zeros(3), zeros(3), zeros(6), zeros(2), fps, basis, names)

    def to(self, rig: Rig) -> "Motion":
        """The same motion in a rig's own expression basis.

        Raises:
            InputError: no published linear map exists between the two bases.
        """
        if self.expression_basis != rig.expression_basis:
            raise InputError(
                f"a motion in {self.expression_basis} coefficients cannot drive rig {rig.name}, which needs "
                f"{rig.expression_basis}"
            )
        if not self.expression_names or self.expression_names == tuple(rig.expression_names):
            return self
        matched = torch.zeros(len(self), rig.n_expression)
        for index, name in enumerate(rig.expression_names):
            if name in self.expression_names:
                matched[:, index] = self.expression[:, self.expression_names.index(name)]
        return Motion(
            matched, self.neck, self.head, self.jaw, self.eyes, self.eyelids, self.fps,
            self.expression_basis, tuple(rig.expression_names),
        )  # fmt: skip

    def params(self, base: RigParams, frame: int) -> RigParams:
        """A rig's parameters at one frame; shape, scale and translation stay those of ``base``."""
        part = slice(frame, frame + 1)
        return base.replace(
            expression=self.expression[part], neck=self.neck[part], head=self.head[part], jaw=self.jaw[part],
            eyes=self.eyes[part], eyelids=self.eyelids[part],
        )  # fmt: skip
