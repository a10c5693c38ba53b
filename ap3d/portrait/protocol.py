"""What a starting 3D portrait is to the later stages."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ap3d.cameras import Cameras


@dataclass(frozen=True)
class PortraitViews:
    """Pictures of a portrait.

    Attributes:
        cameras: ``B`` cameras.
        color: ``[B, 3, H, W]`` premultiplied over nothing, 0 to 1.
        alpha: ``[B, 1, H, W]``.
        depth: ``[B, 1, H, W]`` mean camera z of what is seen, world units, 0 where nothing is; None where the source
            has none.
        normals: ``[B, 3, H, W]`` in world axes, outward, unit, 0 where nothing is; not premultiplied; or None.
        labels: ``[B, H, W]`` (``ap3d.perception.protocol.Part``) or None.
        background: ``[3]`` colour that the pictures were seen on.
    """

    cameras: Cameras
    color: Tensor
    alpha: Tensor
    background: Tensor
    depth: Tensor | None = None
    normals: Tensor | None = None
    labels: Tensor | None = None

    def opaque(self) -> Tensor:
        """The pictures over their background, ``[B, 3, H, W]``."""
        return self.color + (1 - self.alpha) * self.background[:, None, None].to(self.color)


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh, ``vertices [V, 3]`` in world units, ``faces [F, 3]``."""

    vertices: Tensor
    faces: Tensor


class Portrait(Protocol):
    """A static 3D portrait that can be looked at from anywhere."""

    def render(self, cameras: Cameras, framing: str = "full") -> PortraitViews:
        """Pictures from square cameras; ``framing`` names the crop that they show."""
        ...

    def density_mesh(self) -> Mesh | None:
        """The portrait's own surface, or None when it has no density."""
        ...
