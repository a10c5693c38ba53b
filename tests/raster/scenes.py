"""Scenes, cameras and the comparison with the float64 reference that the splat tests share."""

import torch
from torch import Tensor

from ap3d.cameras import Cameras, orbit
from ap3d.raster import reference
from ap3d.raster.splats import SplatImages, SplatRule, Splats, rasterize_splats

IMAGE_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4


def random_splats(count: int, seed: int, degree: int = 0, turned: bool = False) -> Splats:
    """Elongated Gaussians of mixed opacity around the origin."""
    g = torch.Generator().manual_seed(seed)
    rotations = reference.rotation_matrices(torch.randn(count, 4, generator=g)) if turned else None
    return Splats(
        0.35 * torch.randn(count, 3, generator=g),
        3 * torch.randn(count, 4, generator=g),
        0.03 * torch.exp(0.8 * torch.randn(count, 3, generator=g)),
        torch.rand(count, generator=g),
        0.4 * torch.randn(count, (degree + 1) ** 2, 3, generator=g),
        rotations,
    )


def two_cameras(width: int = 70, height: int = 53) -> Cameras:
    """Two views of a non-square image with principal points off its centre and unequal focal lengths."""
    poses = orbit([20.0, -60.0], [10.0, -25.0], torch.zeros(3), 2.5, 30.0, 64).cam2world
    intrinsics = torch.tensor([[110.0, 95.0, 31.0, 29.5], [80.0, 120.0, 52.3, 20.0]])
    return Cameras(poses, intrinsics, width, height)


def concatenate(*parts: Splats) -> Splats:
    return Splats(**{name: torch.cat([p.tensors()[name] for p in parts]) for name in parts[0].tensors()})


def awkward_splats() -> Splats:
    """A random cloud with Gaussians behind, off screen, transparent, opaque, flat, needle-like, huge and doubled."""
    rows = [
        ((0.0, 0.0, 9.0), (0.1, 0.1, 0.1), 0.9),  # behind the first camera or far off both
        ((-1.3, 0.0, 1.9), (0.05, 0.05, 0.05), 0.9),  # near a camera
        ((5.0, 5.0, 0.0), (0.1, 0.1, 0.1), 0.9),  # off screen
        ((0.1, 0.1, 0.1), (0.1, 0.1, 0.1), 0.0),  # transparent
        ((0.1, 0.0, 0.1), (0.1, 0.1, 0.1), 1 / 256),  # below the cut
        ((-0.1, 0.2, 0.1), (0.04, 0.04, 0.04), 1.0),  # clamped alpha
        ((0.2, -0.1, 0.0), (0.0, 0.0, 0.0), 0.8),  # a point: the blur alone
        ((-0.2, -0.1, 0.0), (0.2, 0.2, 0.0), 0.5),  # a disc
        ((0.0, -0.2, 0.3), (0.4, 0.001, 0.001), 0.7),  # a needle
        ((0.0, 0.0, -0.5), (3.0, 3.0, 3.0), 0.3),  # larger than the image
        ((0.3, 0.3, 0.2), (0.03, 0.03, 0.03), 0.6),
        ((0.3, 0.3, 0.2), (0.03, 0.03, 0.03), 0.6),  # the same depth twice
    ]
    odd = random_splats(len(rows), 3, degree=3)
    means, scales, opacities = (torch.tensor([row[i] for row in rows]) for i in range(3))
    quaternions = odd.quaternions.clone()
    quaternions[2] = 0  # no rotation at all
    return concatenate(random_splats(150, 4, degree=3), Splats(means, quaternions, scales, opacities, odd.sh))


def leaves(splats: Splats, dtype: torch.dtype) -> Splats:
    out = {name: tensor.detach().to(dtype).clone() for name, tensor in splats.tensors().items()}
    return Splats(**{name: t.requires_grad_(name != "view_rotations") for name, t in out.items()})


def loss(images: SplatImages, seed: int = 0) -> Tensor:
    """A random linear function of colour, alpha and depth."""
    g = torch.Generator().manual_seed(seed)
    parts = (images.color, images.alpha, images.depth)
    return sum((part * torch.randn(part.shape, generator=g)).sum() for part in parts)  # type: ignore[return-value]


def relative(ours: Tensor | None, exact: Tensor | None) -> float:
    assert ours is not None and exact is not None
    return float((ours - exact).norm() / exact.norm().clamp(min=1e-9))


def compare(splats: Splats, cameras: Cameras, rule: SplatRule, **options: int) -> SplatImages:
    """Render and differentiate with both; returns the kernel's images."""
    ours, exact = leaves(splats, torch.float32), leaves(splats, torch.float64)
    images = rasterize_splats(ours, cameras, rule=rule, backend="cpu", **options)  # type: ignore[arg-type]
    wanted = rasterize_splats(exact, cameras, rule=rule, backend="reference", **options)  # type: ignore[arg-type]
    for name in ("color", "alpha", "depth"):
        assert float((getattr(images, name) - getattr(wanted, name)).detach().abs().max()) <= IMAGE_TOLERANCE, name
    assert torch.equal(images.radii, wanted.radii.float())
    if len(splats):
        loss(images).backward()
        loss(wanted).backward()
        assert relative(images.means2d.grad, wanted.means2d.grad) <= GRADIENT_TOLERANCE
        for name in ("means", "quaternions", "scales", "opacities", "sh"):
            assert relative(getattr(ours, name).grad, getattr(exact, name).grad) <= GRADIENT_TOLERANCE, name
    return images
