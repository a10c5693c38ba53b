"""Hull and mattes against shapes with known silhouettes."""

import math

import torch

from ap3d.cameras import orbit
from ap3d.perception.matte import border_colour, flat_background_matte
from ap3d.portrait.hull import carve_hull


def sphere_silhouettes(radius: float, centre: torch.Tensor, size: int = 96):  # type: ignore[no-untyped-def]
    cameras = orbit(list(range(0, 360, 30)), 5.0, centre, 2.65, 20.0, size)
    pixel = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="xy"), -1) + 0.5
    # A sphere's outline is a circle for a camera that looks at its centre.
    angle = math.asin(radius / 2.65)
    outline = float(cameras.intrinsics[0, 0]) * math.tan(angle)
    inside = (pixel - size / 2).norm(dim=-1) < outline
    return cameras, inside.float()[None, None].expand(len(cameras), 1, size, size)


def test_hull_of_a_sphere_is_the_sphere() -> None:
    centre = torch.tensor([0.1, 0.25, -0.05])
    cameras, alpha = sphere_silhouettes(0.3, centre)
    hull = carve_hull(alpha, cameras, centre, 1.0, 50, 1.0)
    points = hull.centres(hull.occupied)
    distance = (points - centre).norm(dim=1)
    volume = float(hull.occupied.sum()) * hull.voxel**3
    exact = 4 / 3 * math.pi * 0.3**3
    assert exact * 0.95 < volume < exact * 1.25  # side views alone leave caps at the poles
    assert float(distance.max()) < 0.3 * 1.4
    shell = hull.shell()
    assert 0 < len(shell) < len(points)
    equator = shell[(shell[:, 1] - centre[1]).abs() < 0.05]
    torch.testing.assert_close((equator - centre).norm(dim=1).mean(), torch.tensor(0.3), atol=0.02, rtol=0)


def test_agreement_forgives_views_that_miss_the_object() -> None:
    centre = torch.zeros(3)
    cameras, alpha = sphere_silhouettes(0.3, centre)
    broken = alpha.clone()
    broken[0] = 0
    assert not carve_hull(broken, cameras, centre, 1.0, 40, 1.0).occupied.any()
    whole = carve_hull(alpha, cameras, centre, 1.0, 40, 1.0).occupied.sum()
    kept = carve_hull(broken, cameras, centre, 1.0, 40, 0.9).occupied.sum()
    assert float(kept) > 0.95 * float(whole)


def test_matte_of_a_disc_on_a_flat_background() -> None:
    background = torch.tensor([0.45, 0.80, 0.78])
    pixel = torch.stack(torch.meshgrid(torch.arange(64), torch.arange(64), indexing="xy"), -1) - 31.5
    disc = pixel.norm(dim=-1) < 20
    image = torch.where(disc, torch.tensor([0.9, 0.7, 0.6])[:, None, None], background[:, None, None].expand(3, 64, 64))
    gap = (pixel - torch.tensor([0.0, 10.0])).norm(dim=-1) < 5
    image = torch.where(gap, background[:, None, None], image)
    hole = pixel.norm(dim=-1) < 1
    image = torch.where(hole, background[:, None, None], image)
    image[:, 2, 2:4] = 0.1  # a speck
    noisy = image + 0.01 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(border_colour(noisy[None]), background, atol=0.02, rtol=0)
    alpha = flat_background_matte(noisy[None], background)[0, 0]
    assert float((alpha - (disc & ~gap).float()).abs().mean()) < 0.01
    assert float(alpha[2, 2]) == 0 and float(alpha[32, 32]) == 1 and float(alpha[42, 32]) == 0


def test_a_soft_outline_is_unmixed_into_coverage() -> None:
    background, colour = torch.tensor([0.45, 0.80, 0.78]), torch.tensor([0.8, 0.15, 0.1])
    pixel = torch.stack(torch.meshgrid(torch.arange(64), torch.arange(64), indexing="xy"), -1) - 31.5
    coverage = ((20 - pixel.norm(dim=-1)) / 3 + 0.5).clamp(0, 1)  # a rim three pixels wide
    image = coverage * colour[:, None, None] + (1 - coverage) * background[:, None, None]
    alpha = flat_background_matte(image[None], background)[0, 0]
    assert float((alpha - coverage).abs().max()) < 0.15 and float((alpha - coverage).abs().mean()) < 0.004
