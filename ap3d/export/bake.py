"""Bakes an avatar's colours into textures of its rig's mesh."""

import io
import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from ap3d.export.shell import densities
from ap3d.raster.mesh import rasterize_mesh
from ap3d.raster.splats import Splats
from ap3d.splats.avatar import SH_C0

NEIGHBOURS = 10
QUALITY = 92
OVERLAP = 1.15  # area of the triangles over that of the texels they cover, from which on a layout is not used


def usable_uv(uv: Tensor, size: int) -> Tensor:
    """Texture coordinates ``[F, 3, 2]`` as they are, or a cell for each triangle where they overlap or are missing."""
    a, b = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    wanted = float((a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).abs().sum()) / 2 * size * size
    inside = bool((uv >= 0).all()) and bool((uv <= 1).all())
    if inside and 0 < wanted <= OVERLAP * float(Texels.of(uv, size).covered.sum()):
        return uv
    side = math.ceil(math.sqrt(len(uv)))
    index = torch.arange(len(uv))
    corner = torch.stack([index % side, index // side], 1)[:, None]
    triangle = torch.tensor([[0.1, 0.1], [0.9, 0.1], [0.1, 0.9]])
    return (corner + triangle) / side


@dataclass(frozen=True)
class Texels:
    """Texels that triangles cover.

    Attributes:
        covered: ``[S, S]`` bool; row 0 is v = 0.
        face: ``[P]`` the triangle of each covered texel.
        weights: ``[P, 3]`` barycentric weights of its corners.
    """

    covered: Tensor
    face: Tensor
    weights: Tensor

    @staticmethod
    def of(uv: Tensor, size: int) -> "Texels":
        """Texels of a square texture under triangles of texture coordinates ``[F, 3, 2]`` in 0..1."""
        flat = torch.cat([uv.reshape(-1, 2) * 2 - 1, torch.zeros(3 * len(uv), 1), torch.ones(3 * len(uv), 1)], 1)
        rast = rasterize_mesh(flat[None], torch.arange(3 * len(uv)).reshape(-1, 3), (size, size))[0]
        covered = rast[..., 3] > 0
        u, v, _, index = rast[covered].unbind(1)
        return Texels(covered, index.long() - 1, torch.stack([u, v, 1 - u - v], 1))

    def interpolate(self, corners: Tensor) -> Tensor:
        """Values ``[P, C]`` at the texels of values ``[F, 3, C]`` at the triangles' corners."""
        return (corners[self.face] * self.weights[..., None]).sum(1)

    def picture(self, colors: Tensor) -> np.ndarray:
        """Colours ``[P, 3]`` in 0..1 as ``[S, S, 3]`` uint8; what no triangle covers takes the nearest colour."""
        image = np.zeros((*self.covered.shape, 3), np.uint8)
        image[self.covered.numpy()] = (colors * 255).round().clamp(0, 255).byte().numpy()
        _, (rows, columns) = distance_transform_edt(~self.covered.numpy(), return_indices=True)
        return image[rows, columns]


def surface_colors(points: Tensor, splats: Splats) -> Tensor:
    """Colours ``[P, 3]`` of points on the avatar's surface as the Gaussians round them have it.

    No camera is needed, so folds that none sees are coloured too; view dependence is left out.
    """
    contribution, index = densities(points, splats, NEIGHBOURS)
    # The nearest decides where no Gaussian reaches.
    contribution = contribution + 1e-6 * torch.linspace(1, 0, contribution.shape[1])
    colors = (0.5 + SH_C0 * splats.sh[:, 0]).clamp(0, 1)
    return (colors[index] * contribution[..., None]).sum(1) / contribution.sum(1, keepdim=True)


def jpeg_bytes(image: np.ndarray) -> bytes:
    """A picture ``[H, W, 3]`` uint8 as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()
