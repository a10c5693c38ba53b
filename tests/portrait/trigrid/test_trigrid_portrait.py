"""A tri-grid's views and mesh against a field that a formula gives."""

import pytest
import torch

from ap3d.cameras import look_at
from ap3d.portrait.trigrid import TriGridPortrait
from ap3d.portrait.trigrid.marching import march_exact
from ap3d.portrait.view_sets import KEY_VIEWS, mesh_views
from tests.portrait.trigrid.ellipsoid import AXES, ellipsoid, raw_density


@pytest.fixture(scope="module")
def portrait() -> TriGridPortrait:
    grid, networks = ellipsoid()
    return TriGridPortrait(grid, networks, resolution=128)


def test_density_is_the_formula(portrait: TriGridPortrait) -> None:
    generator = torch.Generator().manual_seed(0)
    points = (torch.rand(2000, 3, generator=generator) - 0.5) * 2 * torch.tensor([0.15, 0.18, 0.15])
    expected = raw_density(points)
    assert (portrait.density(points * 3) - expected).abs().max() < 0.6


def test_baked_nodes_are_the_field(portrait: TriGridPortrait) -> None:
    size = portrait.resolution
    index = torch.randint(0, size, (500, 3), generator=torch.Generator().manual_seed(1))
    points = (index / (size - 1) - 0.5) * 0.7
    stored = portrait.baked.values[index[:, 2], index[:, 1], index[:, 0]]
    direct = portrait.field(points)
    assert torch.allclose(stored, direct, atol=2e-3 * float(direct.abs().max()) / 100)


def test_views_show_the_ellipsoid(portrait: TriGridPortrait) -> None:
    cameras = look_at(torch.tensor([[0.0, 0.0, 2.65], [2.65, 0.0, 0.0]]), torch.zeros(3), 30.0, 48)
    views = portrait.render(cameras)
    assert views.depth is not None and views.normals is not None and views.labels is None
    centre = views.alpha[:, 0, 23:25, 23:25]
    assert (centre > 0.99).all() and (views.alpha[:, 0, 0] < 1e-3).all()
    assert views.depth[0, 0, 24, 24] == pytest.approx(2.65 - 3 * AXES[2], abs=0.04)
    assert views.depth[1, 0, 24, 24] == pytest.approx(2.65 - 3 * AXES[0], abs=0.04)
    assert views.normals[0, 2, 24, 24] > 0.99 and views.normals[1, 0, 24, 24] > 0.99
    front = views.color[0] / views.alpha[0].clamp(min=1e-3)
    assert front[0, 24, 32] > front[0, 24, 15], "red grows towards the subject's left, right in the picture"
    assert front[1, 14, 24] > front[1, 33, 24], "green grows upward"


def test_baked_views_agree_with_exact_ones(portrait: TriGridPortrait) -> None:
    grid, networks = ellipsoid()
    exact = TriGridPortrait(grid, networks, exact=True, samples=64)
    cameras = mesh_views(40).cameras[list(KEY_VIEWS[:2])]
    a, b = portrait.render(cameras), exact.render(cameras)
    assert -10 * (a.opaque() - b.opaque()).square().mean().log10() > 34
    assert a.depth is not None and b.depth is not None and a.normals is not None and b.normals is not None
    solid = (a.alpha > 0.99) & (b.alpha > 0.99)
    assert (a.depth - b.depth)[solid].abs().median() < 0.01
    assert (a.normals * b.normals).sum(1, keepdim=True)[solid].median() > 0.995


def test_exact_rays_are_deterministic_and_independent_of_chunks(portrait: TriGridPortrait) -> None:
    directions = torch.nn.functional.normalize(torch.randn(9, 3, generator=torch.Generator().manual_seed(2)) * 0.05
                                               + torch.tensor([0.0, 0.0, -1.0]), dim=1)  # fmt: skip
    origin = torch.tensor([0.0, 0.0, 2.65])
    whole = march_exact(portrait.field, origin, directions, 3.0, samples=24)
    single = march_exact(portrait.field, origin, directions[4:5], 3.0, samples=24)
    assert torch.allclose(whole.colour[4:5], single.colour, atol=1e-5)
    seeded = [
        march_exact(portrait.field, origin, directions, 3.0, samples=24, generator=torch.Generator().manual_seed(s))
        for s in (1, 1, 2)
    ]
    assert torch.equal(seeded[0].colour, seeded[1].colour) and not torch.equal(seeded[0].colour, seeded[2].colour)
    assert (seeded[0].colour - whole.colour).abs().max() < 0.03


def test_mesh_is_the_surface_and_faces_outward(portrait: TriGridPortrait) -> None:
    mesh = portrait.density_mesh()
    assert mesh is not None
    voxel = 0.7 / 127
    away = (mesh.vertices / 3 / torch.tensor(AXES)).norm(dim=1) - 1
    assert away.abs().max() * max(AXES) < 0.5 * voxel
    corners = mesh.vertices[mesh.faces]
    volume = (corners[:, 0] * torch.linalg.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert volume == pytest.approx(4 / 3 * torch.pi * 27 * AXES[0] * AXES[1] * AXES[2], rel=0.02)
