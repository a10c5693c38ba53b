"""Visual hull of silhouettes on a voxel grid, carved with a tolerance for views that disagree."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ap3d.cameras import Cameras


@dataclass(frozen=True)
class VoxelHull:
    """Occupied voxels of a cubic grid.

    Attributes:
        occupied: ``[R, R, R]`` bool, indexed x, y, z.
        lower: ``[3]`` world position of the grid's corner.
        voxel: side of a voxel in world units.
    """

    occupied: Tensor
    lower: Tensor
    voxel: float

    def shell(self) -> Tensor:
        """Centres ``[M, 3]`` of the occupied voxels that touch an empty one."""
        solid = self.occupied
        padded = torch.nn.functional.pad(solid.float(), (1,) * 6)[None, None]
        kernel = torch.zeros(1, 1, 3, 3, 3)
        kernel[0, 0, 1, 1, :] = kernel[0, 0, 1, :, 1] = kernel[0, 0, :, 1, 1] = 1
        neighbours = torch.nn.functional.conv3d(padded, kernel)[0, 0]
        return self.centres(solid & (neighbours < 6.5))

    def centres(self, mask: Tensor) -> Tensor:
        """World centres ``[M, 3]`` of the voxels of a mask."""
        return self.lower + (mask.nonzero().float() + 0.5) * self.voxel


def carve_hull(
    alpha: Tensor, cameras: Cameras, centre: Tensor, extent: float, resolution: int, agreement: float
) -> VoxelHull:
    """Keep the voxels that enough of the views that see them call foreground.

    Args:
        alpha: ``[B, 1, H, W]`` mattes.
        cameras: the ``B`` cameras.
        centre: ``[3]`` of the grid, world units.
        extent: side of the grid, world units.
        resolution: voxels a side.
        agreement: share of the views that have the voxel inside their frame.
    """
    voxel = extent / resolution
    lower = centre - extent / 2
    grid = torch.stack(torch.meshgrid(*[torch.arange(resolution)] * 3, indexing="ij"), -1)
    points = lower + (grid.reshape(-1, 3).float() + 0.5) * voxel
    inside, seen = torch.zeros(len(points)), torch.zeros(len(points))
    for index in range(len(cameras)):
        pixels, depth = cameras[index].project(points)
        unit = pixels[0] / torch.tensor([cameras.width, cameras.height]) * 2 - 1
        value = torch.nn.functional.grid_sample(
            alpha[index : index + 1], unit[None, None], align_corners=False, padding_mode="zeros"
        )[0, 0, 0]
        framed = (unit.abs() < 1).all(1) & (depth[0] > 0)
        seen += framed
        inside += framed * (value > 0.5)
    occupied = (seen >= 0.5 * len(cameras)) & (inside >= agreement * seen)
    return VoxelHull(_largest_component(occupied.reshape((resolution,) * 3)), lower, voxel)


def _largest_component(occupied: Tensor) -> Tensor:
    """Without the crumbs that mattes of single views leave beside the head."""
    labels, count = ndimage.label(occupied.numpy())
    if count < 2:
        return occupied
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return torch.from_numpy(labels == sizes.argmax())
