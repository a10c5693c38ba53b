"""The bound avatar: what it does when the mesh moves, is scaled or turned."""

from dataclasses import replace

import torch
from scipy.spatial.transform import Rotation

from ap3d.guidance_config import RestraintConfig
from ap3d.raster.reference import rotation_matrices
from ap3d.raster.splats import Splats
from ap3d.splats.avatar import GaussianAvatar, position_penalty, scale_penalty, size_penalty
from ap3d.splats.fitting import penalties
from ap3d.splats.frames import triangle_frames
from ap3d.splats.initial import bind, surface_avatar


def random_avatar(count: int, triangles: int, sh_degree: int = 0) -> GaussianAvatar:
    g = torch.Generator().manual_seed(5)
    draw = lambda *size: torch.randn(*size, generator=g)  # noqa: E731
    xyz, scaling = draw(count, 3), draw(count, 3) - 1
    return GaussianAvatar(
        xyz, draw(count, 4), scaling, draw(count, 1), draw(count, 3), draw(count, (sh_degree + 1) ** 2 - 1, 3),
        torch.randint(triangles, (count,), generator=g), torch.randint(5, (count,), generator=g),
        xyz.clone(), scaling.clone(),
    )  # fmt: skip


def covariances(splats: Splats) -> torch.Tensor:
    axes = rotation_matrices(splats.quaternions) * splats.scales[:, None, :]
    return axes @ axes.transpose(1, 2)


def mesh() -> tuple[torch.Tensor, torch.Tensor]:
    vertices = torch.randn(24, 3, generator=torch.Generator().manual_seed(2))
    return vertices, torch.arange(24).reshape(8, 3)


def test_turning_the_mesh_turns_means_and_covariances() -> None:
    vertices, faces = mesh()
    avatar = random_avatar(60, 8)
    turn = torch.from_numpy(Rotation.random(random_state=4).as_matrix()).float()
    before = avatar.pose(triangle_frames(vertices, faces))
    after = avatar.pose(triangle_frames(vertices @ turn.T, faces))
    torch.testing.assert_close(after.means, before.means @ turn.T, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(covariances(after), turn @ covariances(before) @ turn.T, atol=1e-4, rtol=1e-3)
    historic = avatar.pose(triangle_frames(vertices @ turn.T, faces), historic_rotation=True)
    wrong = turn @ covariances(avatar.pose(triangle_frames(vertices, faces), historic_rotation=True)) @ turn.T
    assert not torch.allclose(covariances(historic), wrong, atol=1e-2)


def test_scaling_the_mesh_scales_positions_and_sizes() -> None:
    vertices, faces = mesh()
    avatar = random_avatar(60, 8)
    before, after = (avatar.pose(triangle_frames(k * vertices, faces)) for k in (1.0, 3.0))
    torch.testing.assert_close(after.means, 3 * before.means, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after.scales, 3 * before.scales, atol=1e-4, rtol=1e-4)


def test_view_dependence_turns_with_the_triangle_since_neutral() -> None:
    vertices, faces = mesh()
    avatar = random_avatar(30, 8, sh_degree=1)
    neutral = triangle_frames(vertices, faces)
    turn = torch.from_numpy(Rotation.random(random_state=6).as_matrix()).float()
    assert avatar.sh_degree == 1
    still = avatar.pose(neutral, neutral).view_rotations
    moved = avatar.pose(triangle_frames(vertices @ turn.T, faces), neutral).view_rotations
    assert still is not None and moved is not None
    torch.testing.assert_close(still, torch.eye(3).expand(30, 3, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(moved, turn.expand(30, 3, 3), atol=1e-4, rtol=0)


def test_changed_harmonics_are_seen_by_the_next_pose() -> None:
    vertices, faces = mesh()
    avatar, frames = random_avatar(30, 8, sh_degree=1), triangle_frames(vertices, faces)
    before = avatar.pose(frames, frames).sh
    assert avatar.pose(frames, frames).sh is before
    avatar.f_rest[3] += 1
    after = avatar.pose(frames, frames).sh
    torch.testing.assert_close(after[3, 1:] - before[3, 1:], torch.ones(3, 3))


def test_bound_points_come_back_where_they_were() -> None:
    vertices, faces = mesh()
    frames = triangle_frames(vertices, faces)
    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(1))
    binding = torch.arange(50) % 8
    avatar = bind(points, binding, frames, torch.full((50,), 0.1), 1.0, 0.3, torch.zeros(50))
    splats = avatar.pose(frames)
    torch.testing.assert_close(splats.means, points, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(splats.scales, torch.full((50, 3), 0.1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(splats.opacities, torch.full((50,), 0.3))


def test_penalties_are_means_over_what_exceeds_the_threshold() -> None:
    avatar = random_avatar(100, 8)
    assert float(position_penalty(avatar, 1.0)) == 0
    far = replace(avatar, xyz=avatar.initial_xyz * (1 + 3 / avatar.initial_xyz.norm(dim=1, keepdim=True)))
    torch.testing.assert_close(position_penalty(far, 1.0), torch.tensor(2.0))
    doubled = GaussianAvatar.concatenate([far, far])
    torch.testing.assert_close(position_penalty(doubled, 1.0), torch.tensor(2.0))
    assert float(scale_penalty(avatar, 1.6)) == 0
    grown = replace(avatar, scaling=avatar.initial_scaling + 1)
    expected = 3 * (1 - torch.log(torch.tensor(1.6))) ** 2
    torch.testing.assert_close(scale_penalty(grown, 1.6), expected)


def test_penalties_of_the_paper_are_sums_over_what_a_step_sees() -> None:
    avatar, seen = random_avatar(100, 8), torch.arange(100) < 30
    scaling = torch.log(torch.tensor([0.1, 0.2 + 0.03, 0.2 + 0.04])).expand(100, 3)
    avatar = replace(avatar, scaling=scaling.clone().requires_grad_())
    found = size_penalty(avatar, 0.2, seen)
    torch.testing.assert_close(found, torch.tensor(30 * 0.05), atol=1e-5, rtol=1e-4)
    found.backward()
    gradient = avatar.scaling.grad
    assert gradient is not None and bool(gradient.isfinite().all()) and not bool(gradient[30:].any())
    assert float(size_penalty(avatar, 1.0, seen).detach()) == 0
    far = replace(avatar, xyz=avatar.initial_xyz * (1 + 3 / avatar.initial_xyz.norm(dim=1, keepdim=True)))
    near = replace(far, xyz=torch.where(seen[:, None], far.xyz, far.initial_xyz))
    torch.testing.assert_close(position_penalty(near, 1.0, seen), torch.tensor(2.0))
    restraint = RestraintConfig(1.0, 0.5, 0.2, 10.0, "paper")
    torch.testing.assert_close(penalties(near, restraint, seen).detach(), torch.tensor(16.0), atol=1e-3, rtol=1e-4)


def test_surface_gaussians_lie_on_the_rig_and_cover_every_region(rig, neutral) -> None:  # type: ignore[no-untyped-def]
    vertices = rig.vertices(neutral)[0]
    avatar = surface_avatar(rig, vertices, 6000, torch.Generator().manual_seed(0))
    splats = avatar.pose(triangle_frames(vertices, rig.faces))
    corners = vertices[rig.faces[avatar.binding]]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    height = ((splats.means - corners[:, 0]) * torch.nn.functional.normalize(normal, dim=1)).sum(1)
    assert float(height.abs().max()) < 1e-4
    assert set(avatar.group.unique().tolist()) == {0, 2, 3, 4}
    for region in ("left_eye", "right_eye", "lips", "teeth"):
        assert torch.isin(avatar.binding, rig.regions[region]).sum() > 20, region
