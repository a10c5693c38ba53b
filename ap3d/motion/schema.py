"""One schema for every motion."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from ap3d.errors import InputError
from ap3d.rig.protocol import Rig, RigParams

BASES = ("arkit52", "flame2020", "flame2023")
POSE_WIDTHS = {"neck": 3, "head": 3, "jaw": 3, "eyes": 6, "eyelids": 2}
LARGEST = 1000.0  # of a coefficient or an angle; no face goes so far
ROTATIONS = ("neck", "head", "jaw", "eyes")  # axis-angle, three columns a joint


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
        notes: what reading and conversion added, assumed or dropped, a sentence each, to be shown to the user.

    Raises:
        InputError: no frame, a frame rate that is not positive, shapes that do not fit, a value that is not finite
            or far beyond any face (named with its frame), or an unknown basis.
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
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.expression_basis not in BASES:
            raise InputError(f"unknown expression basis {self.expression_basis!r}; there are: {', '.join(BASES)}")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise InputError(f"a motion's frame rate must be positive, got {self.fps:g}")
        if self.expression.ndim != 2 or not len(self.expression):
            raise InputError("the motion holds 0 frames")
        if self.expression_names and len(self.expression_names) != self.expression.shape[1]:
            raise InputError(f"{self.expression.shape[1]} expression columns, but {len(self.expression_names)} names")
        for name, value in self.tensors().items():
            wanted = (len(self), POSE_WIDTHS.get(name, self.expression.shape[1]))
            if tuple(value.shape) != wanted:
                raise InputError(f"{name} must be {list(wanted)}, got {list(value.shape)}")
            bad = ~(value.abs() <= LARGEST).all(1)
            if bool(bad.any()):
                frame = int(bad.nonzero()[0])
                kind = f"beyond {LARGEST:g}" if bool(value[frame].isfinite().all()) else "that is not finite"
                raise InputError(f"frame {frame} of {name} holds a value {kind}")

    def __len__(self) -> int:
        return len(self.expression)

    @property
    def seconds(self) -> float:
        """Length; every frame lasts ``1 / fps``."""
        return len(self) / self.fps

    @staticmethod
    def still(frames: int, fps: float, basis: str, names: tuple[str, ...] = (), columns: int = 0) -> "Motion":
        """A motion in which nothing moves; ``columns`` expression coefficients where they have no names."""
        zeros = lambda n: torch.zeros(frames, n)  # noqa: E731
        columns = len(names) or columns
        return Motion(zeros(columns), zeros(3), zeros(3), zeros(3), zeros(6), zeros(2), fps, basis, names)

    def tensors(self) -> dict[str, Tensor]:
        """Expression and pose by name, ``[T, ...]`` each."""
        return {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}

    def with_notes(self, *notes: str) -> "Motion":
        """A copy with more notes; empty ones and repetitions are left out."""
        fresh = tuple(n for n in dict.fromkeys(notes) if n and n not in self.notes)
        return replace(self, notes=self.notes + fresh)

    def with_tensors(self, tensors: Mapping[str, Tensor], **changes: Any) -> "Motion":
        """A copy with some of :meth:`tensors` exchanged, and other fields."""
        return replace(self, **{**tensors, **changes})

    def frames(self, index: slice | Tensor) -> "Motion":
        """Some of the frames, at the same rate."""
        return self.with_tensors({name: value[index] for name, value in self.tensors().items()})

    def to(self, rig: Rig) -> "Motion":
        """The same motion in a rig's own expression basis; its ``notes`` say what was added and dropped.

        Raises:
            InputError: the motion's coefficients belong to another version of the rig's own model (FLAME 2020 against
                2023): they look alike, and would be misread.
        """
        from ap3d.motion.conversion import converted

        return converted(self, rig)

    def params(self, base: RigParams, frame: int) -> RigParams:
        """A rig's parameters at one frame; shape, scale and translation stay those of ``base``."""
        part = slice(frame, frame + 1)
        return base.replace(**{name: value[part] for name, value in self.tensors().items()})
