"""The 68 landmarks of the `face-alignment` project (Bulat and Tzimiropoulos, arXiv 1703.07332).

Weights: its TorchScript file ``2DFAN4-cd938726ad.zip`` (92 MB, BSD-3-Clause). Faces are found by the shipped detector,
so that neither the package nor its own face detector is needed.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from ap3d.errors import DataFileError
from ap3d.perception.exported import ExportedNetwork, Wanted
from ap3d.perception.landmarks_mesh import FaceMeshDetector
from ap3d.perception.protocol import FaceLandmarks

WANTED = Wanted(
    "perception.landmarks=face-alignment",
    "2DFAN4-cd938726ad.zip",
    "www.adrianbulat.com/downloads/python-fan",
    "BSD-3-Clause",
)
CROP, POINTS = 256, 68
SIDE = 200 / 195  # of the square that it sees, over width plus height of the face's box
RISE = 0.12  # of the box's height, from its centre to the square's


@dataclass(frozen=True)
class FanDetector:
    """Points from heat maps; each iris is the middle of its eye, which these landmarks do not have."""

    network: ExportedNetwork
    finder: FaceMeshDetector
    name: str = "face-alignment"
    licence: str = WANTED.licence

    @classmethod
    def load(cls, path: str | Path | None = None, device: str = "cpu") -> "FanDetector":
        """Read the TorchScript file.

        Raises:
            InputError: no such file, or no such device.
            DataFileError: the file is damaged.
        """
        return cls(ExportedNetwork.load(WANTED.find(path), device), FaceMeshDetector.load())

    @property
    def fingerprint(self) -> str:
        """Hash of the weights."""
        return self.network.fingerprint

    @torch.inference_mode()
    def detect(self, images: Tensor) -> FaceLandmarks:
        """See :class:`ap3d.perception.protocol.LandmarkDetector`; the mesh is the 68 points, without depth."""
        found = self.finder.detect(images.cpu())
        points = torch.full((len(images), POINTS, 2), torch.nan)
        rows = torch.nonzero(found.score > 0)[:, 0]
        if len(rows):
            corner, side = face_square(found.mesh[rows, :, :2])
            heat = self.network(crop_squares(images.cpu()[rows], corner, side))
            if heat.shape[1] != POINTS:
                raise DataFileError(f"{self.network.name} has {heat.shape[1]} heat maps, not {POINTS}")
            points[rows] = corner[:, None] + heat_peaks(heat) * (side / heat.shape[-1])[:, None, None]
        irises = torch.stack([points[:, 36:42].mean(1), points[:, 42:48].mean(1)], 1)
        mesh = F.pad(points, (0, 1))
        return FaceLandmarks(torch.cat([points, irises], 1), mesh, found.score, found.faces)


def face_square(points: Tensor) -> tuple[Tensor, Tensor]:
    """Upper left corner ``[B, 2]`` and side ``[B]`` of the square to look at, for faces of points ``[B, K, 2]``."""
    low, high = points.amin(1), points.amax(1)
    extent = high - low
    centre = (low + high) / 2 - extent * extent.new_tensor([0.0, RISE])
    side = extent.sum(1) * SIDE
    return centre - side[:, None] / 2, side


def crop_squares(images: Tensor, corner: Tensor, side: Tensor) -> Tensor:
    """Bilinear crops ``[B, 3, 256, 256]``, black outside the pictures."""
    steps = (torch.arange(CROP).to(images) + 0.5) / CROP
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    where = corner[:, None, None] + torch.stack([columns, rows], 2) * side[:, None, None, None]
    extent = images.new_tensor([images.shape[3], images.shape[2]])
    return F.grid_sample(images, 2 * where / extent - 1, "bilinear", "zeros", align_corners=False)


def heat_peaks(heat: Tensor) -> Tensor:
    """The highest pixel of maps ``[B, K, N, N]``, a quarter pixel towards its higher neighbours: ``[B, K, 2]`` (x, y),
    centres at half-integers."""
    size = heat.shape[-1]
    best = heat.flatten(2).argmax(2)
    column, row = best % size, best // size
    flat = F.pad(heat, (1, 1, 1, 1), mode="replicate").flatten(2)
    at = lambda dx, dy: flat.gather(2, ((row + 1 + dy) * (size + 2) + column + 1 + dx)[..., None])[..., 0]  # noqa: E731
    slope = torch.stack([at(1, 0) - at(-1, 0), at(0, 1) - at(0, -1)], 2)
    inside = (torch.stack([column, row], 2) > 0) & (torch.stack([column, row], 2) < size - 1)
    return torch.stack([column, row], 2) + 0.5 + 0.25 * slope.sign() * inside
