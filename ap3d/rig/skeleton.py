"""The joints behind a rig's pose, for programs that skin meshes themselves."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from ap3d.rig.protocol import RigParams


@dataclass(frozen=True)
class Skeleton:
    """Joints of a rig at its neutral pose; every joint's rest rotation is the identity.

    Attributes:
        names: of the joints; ``neck``, ``head``, ``jaw``, ``left_eye``, ``right_eye`` are those that RigParams turns.
        parents: index of each joint's parent, -1 for the first.
        positions: ``[J, 3]`` in world units.
        weights: ``[V, J]`` linear blend skinning, rows sum to 1.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]
    positions: Tensor
    weights: Tensor


@runtime_checkable
class Skinned(Protocol):
    """A rig whose pose is linear blend skinning."""

    def skeleton(self, params: RigParams) -> Skeleton:
        """The skeleton of a shape (a batch of one)."""
        ...
