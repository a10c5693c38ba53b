"""Hair and clothes on several triangles: nothing tears, the skull carries the top, the chest the ends."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.spatial import cKDTree
from test_avatar import covariances

from ap3d.rig.protocol import RigParams
from ap3d.splats.avatar import GaussianAvatar, Group
from ap3d.splats.carriers import cloth_carriers, hair_carriers, rebound
from ap3d.splats.frames import triangle_frames
from ap3d.splats.initial import Seeds, bind, seeds_avatar

METRE = 2.78
TURN = math.radians(60)


def curtain(step: float = 0.004) -> torch.Tensor:
    """Long hair: a tube of points round the head from the crown to the chest, template metres to world units."""
    heights, angles = torch.arange(-0.24, 0.06, step), torch.arange(-2.4, 2.4, step / 0.11)
    y, a = (t.flatten() for t in torch.meshgrid(heights, angles, indexing="ij"))
    points = torch.stack([0.11 * a.sin(), y, -0.01 - 0.11 * a.cos()], 1)
    return METRE * points + torch.tensor([0.0, 0.25, 0.0])


def hair(rig, neutral: RigParams, triangles: int) -> GaussianAvatar:  # type: ignore[no-untyped-def]
    vertices, points = rig.vertices(neutral)[0], curtain()
    ids, weights = hair_carriers(rig, vertices, points)
    if triangles == 1:  # the nearest triangle of the scalp, as AnimPortrait3D binds
        scalp = rig.regions["scalp"]
        ids[:, 0] = scalp[cKDTree(triangle_frames(vertices, rig.faces).origin[scalp].numpy()).query(points.numpy())[1]]
    frames = triangle_frames(vertices, rig.faces)
    groups = torch.full((len(points),), int(Group.HAIR))
    avatar = bind(points, ids[:, 0], frames, torch.full((len(points),), 0.01), 1.0, 0.5, groups)
    return avatar if triangles == 1 else avatar.bound_to(ids, weights)


def moved(rig, neutral: RigParams, avatar: GaussianAvatar, **pose: list[float]) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[no-untyped-def]
    params = neutral.replace(**{name: torch.tensor([value]) for name, value in pose.items()})
    frames = [triangle_frames(rig.vertices(p)[0], rig.faces) for p in (neutral, params)]
    return avatar.pose(frames[0], frames[0]).means, avatar.pose(frames[1], frames[0]).means


def largest_stretch(before: torch.Tensor, after: torch.Tensor) -> float:
    found = cKDTree(before.numpy()).query(before.numpy(), k=5)
    length, nearest = (torch.from_numpy(x[:, 1:]) for x in found)
    return float(((after[nearest] - after[:, None]).norm(dim=2) / length).max())


def test_a_head_turn_of_sixty_degrees_does_not_tear_long_hair(rig, neutral) -> None:  # type: ignore[no-untyped-def]
    turn = {"neck": [0.0, 0.4 * TURN, 0.0], "head": [0.0, 0.6 * TURN, 0.0]}
    one, four = (largest_stretch(*moved(rig, neutral, hair(rig, neutral, k), **turn)) for k in (1, 4))
    assert four < 2.2 and one > 3 * four


def test_a_nod_does_not_tear_long_hair(rig, neutral) -> None:  # type: ignore[no-untyped-def]
    assert largest_stretch(*moved(rig, neutral, hair(rig, neutral, 4), head=[0.35, 0.0, 0.0])) < 2


def test_the_skull_carries_the_top_and_the_chest_the_ends(rig, neutral) -> None:  # type: ignore[no-untyped-def]
    avatar = hair(rig, neutral, 4)
    before, after = moved(rig, neutral, avatar, head=[0.0, TURN, 0.0])
    metres = (before[:, 1] - 0.25) / METRE
    angle = torch.atan2(after[:, 0], after[:, 2]) - torch.atan2(before[:, 0], before[:, 2])
    angle = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
    torch.testing.assert_close(angle[metres > 0.01].median(), torch.tensor(TURN), atol=0.1, rtol=0)
    assert float((after - before)[metres < -0.23].norm(dim=1).max()) < 0.005 * METRE
    radius = lambda p: p[:, [0, 2]].norm(dim=1)  # noqa: E731
    assert float((radius(after) - radius(before)).abs().max()) < 0.03 * METRE


def test_an_open_jaw_leaves_hair_beside_it_where_it_is_but_takes_a_beard_along(rig, neutral) -> None:  # type: ignore[no-untyped-def]
    vertices = rig.vertices(neutral)[0]
    frames = triangle_frames(vertices, rig.faces)
    chin = rig.landmarks(neutral)[0, 8]
    before, after = moved(rig, neutral, hair(rig, neutral, 4), jaw=[0.36, 0.0, 0.0])
    beside = before[:, 2] < 0.02 * METRE
    assert float((after - before)[beside].norm(dim=1).max()) < 0.002 * METRE
    beard = chin + METRE * torch.tensor([[0.0, 0.005, 0.008], [0.004, 0.005, 0.008]])
    ids, weights = hair_carriers(rig, vertices, beard)
    strands = bind(beard, ids[:, 0], frames, torch.full((2,), 0.01), 1.0, 0.5, torch.ones(2)).bound_to(ids, weights)
    before, after = moved(rig, neutral, strands, jaw=[0.36, 0.0, 0.0])
    assert float((before - after)[:, 1].min()) > 0.01 * METRE


@pytest.mark.parametrize("carriers", [hair_carriers, cloth_carriers])
def test_weights_are_smooth_and_strongest_first(rig, neutral, carriers) -> None:  # type: ignore[no-untyped-def]
    points = curtain(0.01)
    ids, weights = carriers(rig, rig.vertices(neutral)[0], points)
    assert ids.shape == weights.shape == (len(points), 4)
    torch.testing.assert_close(weights.sum(1), torch.ones(len(points)))
    assert bool((weights[:, :-1] >= weights[:, 1:]).all()) and bool((weights >= 0).all())


def test_choosing_triangles_anew_moves_nothing_at_rest_and_mends_what_the_fit_has_torn(rig, neutral) -> None:  # type: ignore[no-untyped-def]
    avatar, frames = hair(rig, neutral, 4), triangle_frames(rig.vertices(neutral)[0], rig.faces)
    generator = torch.Generator().manual_seed(0)
    count = len(avatar)
    shuffled = avatar.extra_weights * torch.rand(count, 1, generator=generator)
    torn = replace(avatar, extra_weights=shuffled, rotation=torch.randn(count, 4, generator=generator))
    mended = rebound(torn, rig, rig.vertices(neutral)[0])
    before, after = torn.pose(frames, frames), mended.pose(frames, frames)
    torch.testing.assert_close(after.means, before.means, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(covariances(after), covariances(before), atol=1e-6, rtol=1e-3)
    initial = replace(mended, xyz=mended.initial_xyz, scaling=mended.initial_scaling).pose(frames, frames)
    torch.testing.assert_close(initial.means, before.means, atol=1e-4, rtol=1e-4)
    turn = {"neck": [0.0, 0.4 * TURN, 0.0], "head": [0.0, 0.6 * TURN, 0.0]}
    assert largest_stretch(*moved(rig, neutral, torn, **turn)) > 4
    assert largest_stretch(*moved(rig, neutral, mended, **turn)) < 2.2
    assert rebound(avatar.single(), rig, rig.vertices(neutral)[0]).extra_binding.shape[1] == 0


@pytest.mark.parametrize("triangles", [1, 2, 4])
def test_seeds_stand_where_they_were_sown(rig, neutral, triangles: int) -> None:  # type: ignore[no-untyped-def]
    vertices, points = rig.vertices(neutral)[0], curtain(0.02)
    g = torch.Generator().manual_seed(0)
    avatar = seeds_avatar(rig, vertices, Seeds(points, 0.01), 300, Group.HAIR, triangles, g)
    frames = triangle_frames(vertices, rig.faces)
    nearest = torch.cdist(avatar.pose(frames, frames).means, points).amin(1)
    assert float(nearest.max()) < 0.01 and avatar.extra_binding.shape[1] <= triangles - 1
