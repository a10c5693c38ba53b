"""Turns posed Gaussians into still ones in a file's axes, and back.

Renderers of this package turn the viewing direction where a Gaussian's triangle has turned; files have no such field,
so their spherical harmonics are rotated instead.
"""

import torch
from torch import Tensor

from ap3d.raster.reference import harmonics
from ap3d.raster.splats import Splats
from ap3d.splats.frames import quaternion_product, quaternions_from_matrices

# Rotations from the world (x to the viewer's right, y up, face to +z) to a file's axes.
ROTATIONS = {
    "y-up": torch.eye(3),  # OpenGL, glTF, three.js, SPZ
    "y-down": torch.diag(torch.tensor([1.0, -1.0, -1.0])),  # OpenCV and COLMAP, in which 3DGS is trained: face to -z
    "z-up": torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]),  # Blender: face to -y
}


def to_file(splats: Splats, axes: str, scale: float = 1.0) -> Splats:
    """Posed world Gaussians in a file's axes and units, without ``view_rotations``.

    Args:
        splats: posed Gaussians.
        axes: a key of :data:`ROTATIONS`.
        scale: length of a world unit in the file's units.
    """
    total = turn = ROTATIONS[axes].to(splats.means)
    if splats.view_rotations is not None:
        total = turn @ splats.view_rotations
    return _moved(splats, turn, scale, rotate_harmonics(splats.sh, total))


def from_file(splats: Splats, axes: str, scale: float = 1.0) -> Splats:
    """The inverse of :func:`to_file` for Gaussians that were read."""
    turn = ROTATIONS[axes].T.to(splats.means)
    return _moved(splats, turn, 1 / scale, rotate_harmonics(splats.sh, turn))


def _moved(splats: Splats, turn: Tensor, scale: float, sh: Tensor) -> Splats:
    spin = quaternions_from_matrices(turn[None]).expand(len(splats), 4)
    unit = torch.nn.functional.normalize(splats.quaternions, dim=1)
    return Splats(
        means=scale * splats.means @ turn.T,
        quaternions=quaternion_product(spin, unit),
        scales=scale * splats.scales,
        opacities=splats.opacities,
        sh=sh,
    )


def rotate_harmonics(sh: Tensor, rotation: Tensor) -> Tensor:
    """Coefficients of turned functions: ``sh'(d) = sh(R^T d)`` for every direction d.

    A band of real spherical harmonics is closed under rotation (Ivanic and Ruedenberg 1996), so its matrix follows
    exactly from the values at any directions that span the band.

    Args:
        sh: ``[N, K, 3]`` coefficients.
        rotation: ``[3, 3]`` or ``[N, 3, 3]``.

    Returns:
        ``[N, K, 3]``.
    """
    degree = round(sh.shape[1] ** 0.5) - 1
    if degree == 0:
        return sh
    directions = _sphere(24).to(sh)
    seen = directions @ rotation  # R^T d as rows, [(N,) M, 3]
    before, after = harmonics(directions, degree), harmonics(seen, degree)
    bands = [sh[:, :1]]
    for band in range(1, degree + 1):
        part = slice(band * band, (band + 1) ** 2)
        matrix = torch.linalg.pinv(before[:, part]) @ after[..., part]
        bands.append(matrix @ sh[:, part])
    return torch.cat(bands, 1)


def _sphere(count: int) -> Tensor:
    """Unit vectors ``[count, 3]`` spread over the sphere along a spiral."""
    index = torch.arange(count) + 0.5
    z = 1 - 2 * index / count
    angle = index * 2.399963229728653  # the golden angle
    ring = (1 - z * z).sqrt()
    return torch.stack([ring * angle.cos(), ring * angle.sin(), z], 1)
