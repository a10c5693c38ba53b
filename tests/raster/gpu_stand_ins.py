"""Stand-ins for the Python APIs of gsplat 1.5.3 and diff-gaussian-rasterization, drawing on the CPU in plain torch.

They follow the published sources in argument names, shapes, units and conventions, and compute everything from the
arguments they get: a wrapper that passes a transposed matrix, a quaternion of another length or the wrong half angle
gets a wrong picture.
"""

from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ap3d.raster import reference
from ap3d.raster.splats import GSPLAT, INRIA, SplatRule


def gsplat_rasterization(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, viewmats: Tensor, Ks: Tensor,
    width: int, height: int, near_plane: float = 0.01, far_plane: float = 1e10, radius_clip: float = 0.0,
    eps2d: float = 0.3, sh_degree: int | None = None, packed: bool = True, tile_size: int = 16,
    backgrounds: Tensor | None = None, render_mode: str = "RGB", sparse_grad: bool = False, absgrad: bool = False,
    rasterize_mode: str = "classic",
) -> tuple[Tensor, Tensor, dict[str, Any]]:  # fmt: skip
    """``gsplat.rasterization`` for given colours, unpacked, ``RGB+D``."""
    n, c = len(means), len(viewmats)
    assert means.shape == (n, 3) and quats.shape == (n, 4) and scales.shape == (n, 3) and opacities.shape == (n,)
    assert viewmats.shape == (c, 4, 4) and Ks.shape == (c, 3, 3) and colors.shape == (c, n, 3)
    assert sh_degree is None and not packed and backgrounds is None and render_mode == "RGB+D" and tile_size == 16
    tangents = torch.tensor([width, height]).to(Ks) / 2 / torch.diagonal(Ks[:, :2, :2], dim1=1, dim2=2)
    size, focal, centre = torch.tensor([width, height]).to(Ks), Ks[:, [0, 1], [0, 1]], Ks[:, :2, 2]
    low, high = centre / focal + 0.3 * tangents, (size - centre) / focal + 0.3 * tangents
    rotations = reference.rotation_matrices(quats)
    rule = SplatRule(GSPLAT.alpha_clamp, GSPLAT.extent, GSPLAT.opacity_aware, blur=eps2d, near=near_plane)
    cameras = means @ viewmats[:, :3, :3].transpose(1, 2) + viewmats[:, None, :3, 3]
    means2d = (cameras @ Ks.transpose(1, 2))[..., :2] / cameras[..., 2:]
    views, radii = [], []
    for i, camera in enumerate(cameras):
        covariances = _covariances(rotations * scales[:, None], camera, viewmats[i], focal[i], -low[i], high[i])
        ahead = (camera[:, 2] >= near_plane) & (camera[:, 2] <= far_plane)
        features = torch.cat([colors[i], camera[:, 2:]], 1)
        image, reach = _draw(means2d[i], covariances, features, camera[:, 2], opacities, ahead, width, height, rule)
        views.append(image)
        radii.append(reach[:, None].expand(n, 2))
    image = torch.stack(views).permute(0, 2, 3, 1)
    return image[..., :4], image[..., 4:], {"means2d": means2d, "radii": torch.stack(radii).int()}


class _Settings(NamedTuple):
    image_height: int
    image_width: int
    tanfovx: float
    tanfovy: float
    bg: Tensor
    scale_modifier: float
    viewmatrix: Tensor
    projmatrix: Tensor
    sh_degree: int
    campos: Tensor
    prefiltered: bool
    debug: bool


class _LaterSettings(NamedTuple):
    image_height: int
    image_width: int
    tanfovx: float
    tanfovy: float
    bg: Tensor
    scale_modifier: float
    viewmatrix: Tensor
    projmatrix: Tensor
    sh_degree: int
    campos: Tensor
    prefiltered: bool
    debug: bool
    antialiasing: bool


class _Rasterizer(torch.nn.Module):
    def __init__(self, raster_settings: Any) -> None:
        super().__init__()
        self.raster_settings = raster_settings

    def forward(
        self, means3D: Tensor, means2D: Tensor, opacities: Tensor, shs: Tensor | None = None,
        colors_precomp: Tensor | None = None, scales: Tensor | None = None, rotations: Tensor | None = None,
        cov3D_precomp: Tensor | None = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """Colour ``[3, H, W]`` and radii ``[N]``; with ``antialiasing`` among the settings, inverse depth too."""
        s, n = self.raster_settings, len(means3D)
        assert (shs is None) != (colors_precomp is None) and cov3D_precomp is None
        assert colors_precomp is not None and scales is not None and rotations is not None
        assert means3D.shape == (n, 3) and means2D.shape == (n, 3) and opacities.shape == (n, 1)
        assert colors_precomp.shape == (n, 3) and scales.shape == (n, 3) and rotations.shape == (n, 4)
        assert s.bg.shape == (3,) and s.campos.shape == (3,)
        points = torch.cat([means3D, torch.ones_like(means3D[:, :1])], 1)
        camera = (points @ s.viewmatrix)[:, :3]  # row vectors: the matrix is stored column by column
        clip = points @ s.projmatrix
        size = torch.tensor([s.image_width, s.image_height]).to(means3D)
        pixels = ((clip[:, :2] / (clip[:, 3:] + 1e-7) + 1) * size - 1) / 2  # centres at whole numbers
        pixels = pixels + (means2D - means2D.detach())[:, :2] * size / 2  # gradients are per half image
        half_angles = torch.tensor([s.tanfovx, s.tanfovy]).to(means3D)
        axes = _rotations(rotations) * scales[:, None] * s.scale_modifier
        limit = 1.3 * half_angles
        covariances = _covariances(axes, camera, s.viewmatrix.T, size / (2 * half_angles), -limit, limit)
        ahead = camera[:, 2] > 0.2
        image, radii = _draw(pixels + 0.5, covariances, colors_precomp, camera[:, 2], opacities[:, 0], ahead,
                             s.image_width, s.image_height, INRIA)  # fmt: skip
        color = image[:3] + (1 - image[3:]) * s.bg[:, None, None]
        return (color, radii.int(), color[:1]) if hasattr(s, "antialiasing") else (color, radii.int())


def diff_gaussian_package(later: bool = False) -> SimpleNamespace:
    """The module ``diff_gaussian_rasterization``, as first released or with the fields and outputs added later."""
    return SimpleNamespace(
        GaussianRasterizationSettings=_LaterSettings if later else _Settings, GaussianRasterizer=_Rasterizer
    )


def _rotations(q: Tensor) -> Tensor:
    """Of quaternions as they are: the CUDA kernel does not normalise them."""
    length = q.square().sum(1)[:, None, None]
    eye = torch.eye(3).to(q)
    return eye + (reference.rotation_matrices(q) - eye) * length


def _covariances(axes: Tensor, camera: Tensor, view: Tensor, focal: Tensor, low: Tensor, high: Tensor) -> Tensor:
    z = camera[:, 2:]
    ratio = torch.clamp(camera[:, :2] / z, low, high)
    jacobian = torch.cat([torch.diag_embed((focal / z).expand(len(z), 2)), -(focal * ratio / z)[..., None]], -1)
    flat = jacobian @ view[:3, :3] @ axes
    return flat @ flat.transpose(1, 2) + 0.3 * torch.eye(2).to(flat)


def _draw(
    means2d: Tensor, covariances: Tensor, features: Tensor, depths: Tensor, opacities: Tensor, ahead: Tensor,
    width: int, height: int, rule: SplatRule,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Features and alpha ``[C + 1, H, W]``, and radii."""
    frame: Any = SimpleNamespace(width=width, height=height)
    boxes, radii = reference.tile_boxes(means2d[None], covariances[None], opacities, ahead[None], frame, rule)
    parts = []
    for first in range(0, features.shape[1], 3):
        colors = torch.nn.functional.pad(features[:, first : first + 3], (0, max(0, first + 3 - features.shape[1])))
        color, alpha, _ = reference.composite(means2d, covariances, colors, depths, boxes[0], opacities, width, height,
                                              rule)  # fmt: skip
        parts.append(color[: features.shape[1] - first])
    return torch.cat([*parts, alpha]), radii[0]
