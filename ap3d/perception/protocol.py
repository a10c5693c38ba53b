"""What perception models take and give, whatever network is inside."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import torch
from torch import Tensor

from ap3d.portrait.protocol import PortraitViews


class Part(IntEnum):
    """What a pixel shows, in the one scheme of all segmenters; the first ten are the classes of our own parser.

    A segmenter gives the parts that it knows: where it has no class for ears, brows or beard, they are SKIN. NECK is
    all bare skin below the face, MOUTH the lips and what is between them, ACCESSORY hats, glasses and jewellery.
    """

    BACKGROUND = 0
    SKIN = 1
    HAIR = 2
    EARS = 3
    BROWS = 4
    EYES = 5
    MOUTH = 6
    NECK = 7
    CLOTHES = 8
    BEARD = 9
    ACCESSORY = 10


class Group(IntEnum):
    """The coarse groups that meshes are split into."""

    BACKGROUND = 0
    SKIN = 1
    HAIR = 2
    CLOTHES = 3


_GROUPS = {
    Part.BACKGROUND: Group.BACKGROUND, Part.HAIR: Group.HAIR, Part.CLOTHES: Group.CLOTHES,
    Part.ACCESSORY: Group.CLOTHES,
}  # fmt: skip


def groups_of(labels: Tensor) -> Tensor:
    """``Group`` of each ``Part``: integers of any shape to int64 of the same shape."""
    table = torch.tensor([_GROUPS.get(part, Group.SKIN) for part in Part], device=labels.device)
    return table[labels.long()]


@dataclass(frozen=True)
class FaceLandmarks:
    """Landmarks of the largest face of each picture.

    Attributes:
        points: ``[B, 70, 2]`` pixels (centres at half-integers): 68 of iBUG, then the right and the left iris (the
            subject's), as :meth:`ap3d.rig.protocol.Rig.landmarks` orders them.
        mesh: ``[B, K, 3]`` all points of the detector: pixels, and depth in pixels (negative towards the camera).
        score: ``[B]`` confidence in 0 to 1; 0 where no face was found, and then the points are NaN.
        faces: ``[B]`` number of faces in the picture.
    """

    points: Tensor
    mesh: Tensor
    score: Tensor
    faces: Tensor

    def __len__(self) -> int:
        return len(self.points)


class PerceptionModel(Protocol):
    """What all of them have."""

    @property
    def name(self) -> str:
        """Name in the table of its kind."""
        ...

    @property
    def licence(self) -> str:
        """Licence of the weights."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of the weights; the name where there are none."""
        ...


class LandmarkDetector(PerceptionModel, Protocol):
    """Finds faces and their landmarks."""

    def detect(self, images: Tensor) -> FaceLandmarks:
        """Landmarks of pictures ``[B, 3, H, W]`` in 0 to 1."""
        ...


class Segmenter(PerceptionModel, Protocol):
    """Says what each pixel shows."""

    @property
    def parts(self) -> frozenset[Part]:
        """The parts that it can tell."""
        ...

    def segment(self, images: Tensor) -> Tensor:
        """``Part`` of every pixel (int64 ``[B, H, W]``, the images' device) of pictures ``[B, 3, H, W]`` in 0 to 1."""
        ...


class HairMasker(PerceptionModel, Protocol):
    """Finds hair."""

    def hair(self, images: Tensor) -> Tensor:
        """Where hair is (bool ``[B, H, W]``) in pictures ``[B, 3, H, W]`` in 0 to 1."""
        ...


class Matting(PerceptionModel, Protocol):
    """Parts a head from its background."""

    def matte(self, views: PortraitViews) -> Tensor:
        """Alpha ``[B, 1, H, W]`` in 0 to 1 of the heads in ``views``."""
        ...


class NormalEstimator(PerceptionModel, Protocol):
    """Finds the surface's normals."""

    def normals(self, views: PortraitViews) -> Tensor:
        """Unit normals ``[B, 3, H, W]`` in each camera's OpenGL axes (x right, y up, z to the viewer); 0 where
        ``views.alpha`` is below one half."""
        ...
