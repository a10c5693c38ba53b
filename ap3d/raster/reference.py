"""A slow splat rasteriser in plain torch, dense over Gaussians and pixels, in the precision of its input.

It says what the kernels must compute: tests compare them with it in float64. Same rule, same tile boxes, autograd
for the gradients.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ap3d.cameras import Cameras

if TYPE_CHECKING:
    from ap3d.raster.splats import SplatImages, SplatRule, Splats

TILE = 16


def render(splats: "Splats", cameras: Cameras, sh_degree: int, rule: "SplatRule") -> "SplatImages":
    """See :func:`ap3d.raster.splats.rasterize_splats`; memory grows with Gaussians times pixels."""
    from ap3d.raster.splats import SplatImages

    dtype = splats.means.dtype
    view, intrinsics = cameras.world2cam.to(dtype), cameras.intrinsics.to(dtype)
    camera = splats.means @ view[:, :3, :3].transpose(1, 2) + view[:, None, :3, 3]
    ahead = camera[..., 2] >= rule.near
    # Gaussians behind the camera are moved in front of it, so that no value or gradient of theirs is infinite.
    camera = torch.where(ahead[..., None], camera, camera.new_tensor([0.0, 0.0, 1.0]))
    means2d = camera[..., :2] / camera[..., 2:] * intrinsics[:, None, :2] + intrinsics[:, None, 2:]
    if means2d.requires_grad:
        means2d.retain_grad()
    covariances = project_covariances(splats, camera, view, intrinsics, cameras, rule)
    boxes, radii = tile_boxes(means2d, covariances, splats.opacities, ahead, cameras, rule)
    colors = sh_colors(splats, cameras.positions.to(dtype), sh_degree)
    images = [
        composite(*inputs, splats.opacities, cameras.width, cameras.height, rule)
        for inputs in zip(means2d, covariances, colors, camera[..., 2], boxes, strict=True)
    ]
    color, alpha, depth = (torch.stack(parts) for parts in zip(*images, strict=True))
    return SplatImages(color, alpha, depth, radii, means2d)


def rotation_matrices(quaternions: Tensor) -> Tensor:
    """``[N, 4]`` w, x, y, z of any length to ``[N, 3, 3]``."""
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=1).unbind(1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, 1).view(-1, 3, 3)


def project_covariances(
    splats: "Splats", camera: Tensor, view: Tensor, intrinsics: Tensor, cameras: Cameras, rule: "SplatRule"
) -> Tensor:
    """EWA footprints ``[B, N, 2, 2]`` in square pixels of Gaussians at ``camera [B, N, 3]``."""
    size = torch.tensor([cameras.width, cameras.height]).to(intrinsics)
    focal, centre = intrinsics[:, None, :2], intrinsics[:, None, 2:]
    margin = 0.15 * size / focal
    z = camera[..., 2:]
    ratio = torch.clamp(camera[..., :2] / z, -centre / focal - margin, (size - centre) / focal + margin)
    jacobian = torch.cat([torch.diag_embed(focal / z), -(focal * ratio / z)[..., None]], -1)
    axes = rotation_matrices(splats.quaternions) * splats.scales[:, None, :]
    flat = jacobian @ view[:, None, :3, :3] @ axes
    return flat @ flat.transpose(-1, -2) + rule.blur * torch.eye(2).to(flat)


@torch.no_grad()
def tile_boxes(
    means2d: Tensor, covariances: Tensor, opacities: Tensor, ahead: Tensor, cameras: Cameras, rule: "SplatRule"
) -> tuple[Tensor, Tensor]:
    """The tiles each Gaussian is drawn in, ``[B, N, 2, 2]`` (first, end) by (x, y), and radii ``[B, N]``."""
    variance = torch.diagonal(covariances, dim1=-2, dim2=-1)
    if rule.opacity_aware:
        reach = torch.sqrt(2 * torch.log((opacities / rule.cut).clamp(min=1)))
        half = torch.ceil(reach.clamp(max=rule.extent)[:, None] * variance.sqrt())
        first, end = torch.floor((means2d - half) / TILE), torch.ceil((means2d + half) / TILE)
    else:
        mid = variance.mean(-1)
        largest = mid + torch.sqrt((mid * mid - torch.linalg.det(covariances)).clamp(min=0.1))
        half = torch.ceil(rule.extent * largest.sqrt())[..., None].expand_as(means2d)
        corner = means2d - 0.5
        first, end = torch.floor((corner - half) / TILE), torch.floor((corner + half + TILE - 1) / TILE)
    tiles = torch.tensor([-(-cameras.width // TILE), -(-cameras.height // TILE)]).to(first)
    boxes = torch.stack([first, end], -2).clamp(min=0).minimum(tiles)
    seen = ahead & (opacities >= rule.cut) & (boxes[..., 1, :] > boxes[..., 0, :]).all(-1)
    return boxes * seen[..., None, None], half.amax(-1).clamp(min=1) * seen


def sh_colors(splats: "Splats", positions: Tensor, sh_degree: int) -> Tensor:
    """Colours ``[B, N, 3]`` seen from camera centres ``[B, 3]``."""
    directions = splats.means - positions[:, None]
    if splats.view_rotations is not None:
        directions = (directions[..., None, :] @ splats.view_rotations.to(directions))[..., 0, :]
    basis = harmonics(torch.nn.functional.normalize(directions, dim=-1), sh_degree)
    return torch.einsum("bnk,nkc->bnc", basis, splats.sh[:, : basis.shape[-1]]).add(0.5).clamp(min=0)


def harmonics(directions: Tensor, degree: int) -> Tensor:
    """Real spherical harmonics ``[..., (degree + 1)^2]`` of unit vectors, signs and order of 3D Gaussian Splatting."""
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    bands = [torch.full_like(x, 0.28209479177387814)]
    if degree > 0:
        bands += [-0.4886025119029199 * y, 0.4886025119029199 * z, -0.4886025119029199 * x]
    if degree > 1:
        bands += [
            1.0925484305920792 * x * y, -1.0925484305920792 * y * z, 0.31539156525252005 * (2 * zz - xx - yy),
            -1.0925484305920792 * x * z, 0.5462742152960396 * (xx - yy),
        ]  # fmt: skip
    if degree > 2:
        bands += [
            -0.5900435899266435 * y * (3 * xx - yy), 2.890611442640554 * x * y * z,
            -0.4570457994644658 * y * (4 * zz - xx - yy), 0.3731763325901154 * z * (2 * zz - 3 * xx - 3 * yy),
            -0.4570457994644658 * x * (4 * zz - xx - yy), 1.445305721320277 * z * (xx - yy),
            -0.5900435899266435 * x * (xx - 3 * yy),
        ]  # fmt: skip
    return torch.stack(bands, -1)


def composite(
    means2d: Tensor, covariances: Tensor, colors: Tensor, depths: Tensor, boxes: Tensor, opacities: Tensor,
    width: int, height: int, rule: "SplatRule",
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """One view, front to back: colour ``[3, H, W]``, alpha and depth ``[1, H, W]``."""
    order = torch.argsort(depths.detach(), stable=True)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([columns, rows], -1).reshape(-1, 2).to(boxes)
    tiles = torch.floor(pixels / TILE)
    inside = ((tiles >= boxes[:, None, 0]) & (tiles < boxes[:, None, 1])).all(-1)[order]
    offset = means2d[order, None] - (pixels + 0.5)
    distance = torch.einsum("npi,nij,npj->np", offset, torch.linalg.inv(covariances[order]), offset)
    alpha = (opacities[order, None] * torch.exp(-0.5 * distance)).clamp(max=rule.alpha_clamp)
    alpha = torch.where(inside & (alpha >= rule.cut), alpha, torch.zeros_like(alpha))
    passed = torch.cumprod(1 - alpha, 0)
    drawn = passed >= rule.stop
    before = torch.cat([torch.ones_like(passed[:1]), passed[:-1]])
    weights = torch.where(drawn, alpha * before, torch.zeros_like(alpha))
    features = torch.cat([colors, depths[:, None]], 1)[order]
    image = (weights.T @ features).T.reshape(4, height, width)
    left = torch.where(drawn, 1 - alpha, torch.ones_like(alpha)).prod(0)
    return image[:3], (1 - left).reshape(1, height, width), image[3:]
