"""What perception models take and give, whatever network is inside."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


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


class LandmarkDetector(Protocol):
    """Finds faces and their landmarks."""

    @property
    def name(self) -> str:
        """Name in the table of detectors."""
        ...

    @property
    def licence(self) -> str:
        """Licence of the weights."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of the weights."""
        ...

    def detect(self, images: Tensor) -> FaceLandmarks:
        """Landmarks of pictures ``[B, 3, H, W]`` in 0 to 1."""
        ...
