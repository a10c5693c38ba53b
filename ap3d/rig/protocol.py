"""What every morphable model offers: parameters in, world-space vertices and landmarks out."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class RigParams:
    """Parameters of a batch of posed heads; every tensor starts with the batch size ``B``.

    Attributes:
        shape: ``[B, n_shape]`` identity coefficients.
        expression: ``[B, n_expression]`` in the rig's ``expression_basis``.
        neck: ``[B, 3]`` axis-angle, radians.
        head: ``[B, 3]`` axis-angle, radians.
        jaw: ``[B, 3]`` axis-angle, radians; positive x opens.
        eyes: ``[B, 6]`` left xyz, right xyz axis-angle, radians.
        eyelids: ``[B, 2]`` left, right; 1 closes.
        scale: ``[B, 1]`` world units per metre.
        translation: ``[B, 3]`` world units, applied after the scale.
    """

    shape: Tensor
    expression: Tensor
    neck: Tensor
    head: Tensor
    jaw: Tensor
    eyes: Tensor
    eyelids: Tensor
    scale: Tensor
    translation: Tensor

    def __len__(self) -> int:
        return len(self.shape)

    def replace(self, **changes: Tensor) -> "RigParams":
        """A copy with some tensors exchanged."""
        return replace(self, **changes)

    def map(self, function: Callable[[Tensor], Tensor]) -> "RigParams":
        """Apply a function to every tensor."""
        return RigParams(**{f.name: function(getattr(self, f.name)) for f in fields(self)})

    def __getitem__(self, index: slice | Tensor | list[int]) -> "RigParams":
        return self.map(lambda t: t[index])

    def expand(self, batch: int) -> "RigParams":
        """Repeat a batch of one ``batch`` times."""
        return self.map(lambda t: t.expand(batch, *t.shape[1:]))

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, contiguous, as they are stored in ``rig.safetensors``."""
        return {f.name: getattr(self, f.name).contiguous() for f in fields(self)}

    @staticmethod
    def neutral(rig: "Rig", batch: int = 1) -> "RigParams":
        """Zero shape, expression and pose at the rig's own scale and translation."""
        zeros = lambda n: torch.zeros(batch, n)  # noqa: E731
        return RigParams(
            zeros(rig.n_shape), zeros(rig.n_expression), zeros(3), zeros(3), zeros(3), zeros(6), zeros(2),
            torch.full((batch, 1), rig.default_scale), rig.default_translation.expand(batch, 3).clone(),
        )  # fmt: skip


class Rig(Protocol):
    """A morphable head. Vertices are differentiable with respect to every parameter."""

    name: str
    topology_sha256: str
    faces: Tensor  # [F, 3] int64, counter-clockwise seen from outside
    uv: Tensor  # [F, 3, 2]
    template: Tensor  # [V, 3] neutral mean head, metres, in world axes (y up, face to +z), before scale and translation
    canonical: Tensor  # [V, 3] the template in the built-in head's coordinates, which region borders are given in
    parts: Tensor  # [V] int64: 0 skin, 1 left eye, 2 right eye, 3 upper teeth, 4 lower teeth, 5 tongue, 6 lining
    face_parts: Tensor  # [F] int64, the same
    masks: dict[str, Tensor]  # [V] soft, of the skin: lips, ears, lids, mouth
    n_shape: int
    n_expression: int
    expression_basis: str  # "arkit52", "flame2020" or "flame2023"
    expression_names: tuple[str, ...]
    default_scale: float
    default_translation: Tensor  # [3]
    sha256: str  # of the file(s) the rig was read from
    licence: str  # of the rig's data

    @property
    def regions(self) -> dict[str, Tensor]:
        """Face ids (int64) by region name; see ``rig/regions.py``."""
        ...

    def vertices(self, params: RigParams) -> Tensor:
        """Posed vertices ``[B, V, 3]`` in world units."""
        ...

    def landmarks(self, params: RigParams) -> Tensor:
        """The 68 iBUG landmarks and the two eye centres (68: subject's right, 69: left), ``[B, 70, 3]``."""
        ...

    def landmarks_of(self, vertices: Tensor) -> Tensor:
        """The same ``[B, 70, 3]`` of posed vertices ``[B, V, 3]``; linear."""
        ...
