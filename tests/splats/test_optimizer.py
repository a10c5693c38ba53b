"""State surgery: moments follow their Gaussians, frozen ones stay, checkpoints continue exactly."""

from dataclasses import replace

import torch
from test_avatar import mesh, random_avatar
from test_bundle import make_bundle

from ap3d.cameras import Cameras
from ap3d.guidance_config import OptimizerConfig
from ap3d.splats.density import DensityRule, ScreenGradients, control_density
from ap3d.splats.frames import triangle_frames
from ap3d.splats.optimizer import AvatarOptimizer
from ap3d.splats.ply import read_binding, read_local, write_binding, write_local


def camera(size: int) -> Cameras:
    """One whose focal length is its size."""
    return Cameras(torch.eye(4)[None], torch.tensor([[size, size, size / 2, size / 2]]).float(), size, size)


def take_steps(optimizer: AvatarOptimizer, count: int, frozen: torch.Tensor | None = None) -> None:
    for _ in range(count):
        avatar = optimizer.avatar
        loss = sum((p.square() * (1 + torch.arange(len(avatar)).view(-1, *[1] * (p.ndim - 1)))).sum()
                   for p in avatar.parameters().values() if p.numel())  # fmt: skip
        loss.backward()  # type: ignore[union-attr]
        optimizer.step(frozen)


def test_frozen_gaussians_do_not_move_even_with_momentum() -> None:
    optimizer = AvatarOptimizer(random_avatar(20, 8))
    take_steps(optimizer, 3)
    before = {name: value.clone() for name, value in optimizer.detached().tensors().items()}
    frozen = torch.arange(20) < 7
    take_steps(optimizer, 3, frozen)
    after = optimizer.detached().tensors()
    for name in ("xyz", "rotation", "scaling", "opacity", "f_dc"):
        assert torch.equal(before[name][:7], after[name][:7]), name
        assert not torch.equal(before[name][7:], after[name][7:]), name


def test_pinned_gaussians_change_colour_alone_and_stay_pinned_through_density_control() -> None:
    optimizer = AvatarOptimizer(random_avatar(20, 8))
    take_steps(optimizer, 3)
    optimizer.pin(lambda avatar: avatar.binding < 3)
    before = {name: value.clone() for name, value in optimizer.detached().tensors().items()}
    pinned = before["binding"] < 3
    assert 0 < int(pinned.sum()) < 20
    take_steps(optimizer, 3)
    for name in ("xyz", "rotation", "scaling", "opacity", "f_dc"):
        same = (before[name] == getattr(optimizer.detached(), name)).flatten(1).all(1)
        assert same.tolist() == (pinned.tolist() if name != "f_dc" else [False] * 20), name
    gradients = ScreenGradients(20)
    gradients.total, gradients.seen = torch.ones(20), torch.ones(20)
    frames = triangle_frames(*mesh())
    control_density(optimizer, gradients, frames, DensityRule(prunes=False), torch.Generator().manual_seed(0))
    after = optimizer.detached()
    assert len(after) == 20 + int((~pinned).sum())
    assert optimizer.pinned is not None and torch.equal(optimizer.pinned, after.binding < 3)


def test_rebuild_by_identity_changes_nothing_of_the_trajectory() -> None:
    one, two = (AvatarOptimizer(random_avatar(20, 8)) for _ in range(2))
    take_steps(one, 3)
    take_steps(two, 3)
    two.rebuild(torch.arange(20), torch.zeros(20, dtype=torch.bool))
    take_steps(one, 3)
    take_steps(two, 3)
    for name, value in one.detached().tensors().items():
        torch.testing.assert_close(value, two.detached().tensors()[name])


def test_a_checkpoint_continues_the_same_trajectory() -> None:
    one = AvatarOptimizer(random_avatar(20, 8), 0.5)
    take_steps(one, 3)
    two = AvatarOptimizer.from_state(one.state(), 0.5)
    take_steps(one, 3)
    take_steps(two, 3)
    for name, value in one.detached().tensors().items():
        assert torch.equal(value, two.detached().tensors()[name]), name


def test_split_children_keep_offset_binding_and_group() -> None:
    vertices, faces = mesh()
    frames = triangle_frames(vertices, faces)
    avatar = random_avatar(40, 8)
    optimizer = AvatarOptimizer(avatar)
    take_steps(optimizer, 1)
    avatar = optimizer.detached()
    hot = torch.zeros(40)
    hot[[3, 17]] = 1.0
    gradients = ScreenGradients(40)
    gradients.add(hot[None, :, None].expand(1, 40, 2), torch.ones(1, 40), camera(2))
    rule = DensityRule(gradient=0.5, split_scale=0.0, minimum_opacity=0.0, maximum_scale=1e9, maximum_count=100)
    added, removed = control_density(optimizer, gradients, frames, rule, torch.Generator().manual_seed(0))
    result = optimizer.detached()
    assert (added, removed, len(result)) == (2, 0, 42)
    for parent, child in ((3, 40), (17, 41)):
        assert result.binding[child] == avatar.binding[parent] and result.group[child] == avatar.group[parent]
        assert torch.equal(result.initial_xyz[child], avatar.initial_xyz[parent])
        distance = (result.xyz[child] - avatar.xyz[parent]).norm()
        assert 0 < float(distance) < 5 * float(avatar.scaling[parent].exp().max())
        shrunk = avatar.scaling[parent] - torch.log(torch.tensor(1.6))
        torch.testing.assert_close(result.scaling[child], shrunk)
        torch.testing.assert_close(result.scaling[parent], shrunk)


def test_pruning_removes_transparent_gaussians_but_keeps_one_a_triangle() -> None:
    vertices, faces = mesh()
    avatar = random_avatar(40, 8)
    avatar.opacity[:] = -10.0
    avatar.opacity[avatar.binding == 1] = 3.0
    optimizer = AvatarOptimizer(avatar)
    rule = DensityRule(gradient=1e9, maximum_scale=1e9)
    frames = triangle_frames(vertices, faces)
    control_density(optimizer, ScreenGradients(40), frames, rule, torch.Generator())
    result = optimizer.detached()
    counts = torch.bincount(result.binding, minlength=8)
    owned = torch.bincount(avatar.binding, minlength=8) > 0
    assert counts[1] == (avatar.binding == 1).sum() > 1
    assert torch.equal(counts > 0, owned) and len(result) < 40


def test_gaussians_that_fill_the_screen_are_pruned_whatever_the_frame_shows() -> None:
    """A radius counts in focal lengths: 3 pixels of a frame of 10 are as large as 30 of one of 100."""
    vertices, faces = mesh()
    for size in (10, 100):
        avatar = random_avatar(40, 8)
        avatar.opacity[:] = torch.linspace(0, 1, 40)[:, None]
        optimizer, gradients = AvatarOptimizer(avatar), ScreenGradients(40)
        radii = torch.full((1, 40), 0.1 * size)
        radii[0, :20] = 0.3 * size
        gradients.add(torch.zeros(1, 40, 2), radii, camera(size))
        gradients = ScreenGradients.from_state(gradients.state())
        gradients.add(torch.zeros(1, 40, 2), torch.ones(1, 40), camera(size))  # the largest counts, not the last
        rule = DensityRule(gradient=1e9, minimum_opacity=0.0, maximum_scale=1e9, maximum_radius=0.2)
        _, removed = control_density(optimizer, gradients, triangle_frames(vertices, faces), rule, torch.Generator())
        kept = optimizer.detached()
        strongest = {int(b): int((avatar.binding == b).nonzero()[-1]) for b in avatar.binding}
        spared = sum(index < 20 for index in strongest.values())
        assert removed == 20 - spared and torch.equal(kept.opacity[-20:], avatar.opacity[20:])


def test_a_first_step_is_the_learning_rate_of_each_parameter() -> None:
    config = OptimizerConfig(xyz=1e-3, rotation=2e-3, scaling=3e-3, opacity=4e-3, f_dc=5e-3, f_rest=6e-3)
    before = random_avatar(20, 8).with_sh_degree(1)
    optimizer = AvatarOptimizer(before, config=config)
    optimizer.set_factor(0.5)
    sum(p.sum() for p in optimizer.avatar.parameters().values()).backward()  # type: ignore[union-attr]
    optimizer.step()
    for name, after in optimizer.avatar.parameters().items():
        moved = getattr(before, name) - after.detach()
        torch.testing.assert_close(moved, torch.full_like(moved, 0.5 * getattr(config, name)), atol=1e-6, rtol=1e-3)


def test_growth_stops_at_the_maximum_count() -> None:
    vertices, faces = mesh()
    optimizer = AvatarOptimizer(random_avatar(40, 8))
    gradients = ScreenGradients(40)
    gradients.add(torch.rand(1, 40, 2), torch.ones(1, 40), camera(64))
    rule = DensityRule(gradient=0.0, minimum_opacity=0.0, maximum_scale=1e9, maximum_count=45)
    control_density(optimizer, gradients, triangle_frames(vertices, faces), rule, torch.Generator())
    assert len(optimizer.avatar) == 45


def test_children_inherit_all_triangles_and_a_reload_changes_no_decision(rig, neutral) -> None:  # type: ignore[no-untyped-def]
    """Split, save, load, prune: the same Gaussians go as without saving, since nothing is counted beforehand."""
    start = make_bundle(rig, neutral, 600, 4, 0)
    optimizer = AvatarOptimizer(start.avatar)
    gradients = ScreenGradients(600)
    gradients.add(torch.ones(1, 600, 2) * (torch.arange(600) % 3 == 0)[None, :, None], torch.ones(1, 600), camera(2))
    rule = DensityRule(gradient=0.5, minimum_opacity=0.0, maximum_scale=1e9)
    added, _ = control_density(optimizer, gradients, start.neutral, rule, torch.Generator().manual_seed(0))
    grown = optimizer.detached()
    assert added == 200
    parents = torch.arange(600)[torch.arange(600) % 3 == 0]
    assert torch.equal(grown.extra_binding[600:], start.avatar.extra_binding[parents])
    assert torch.equal(grown.extra_weights[600:], start.avatar.extra_weights[parents])
    grown = replace(grown, opacity=torch.randn(800, 1, generator=torch.Generator().manual_seed(1)))
    reloaded = read_binding(write_binding(grown), read_local(write_local(grown)))
    prune = DensityRule(gradient=1e9, minimum_opacity=0.6, maximum_scale=1e9)
    kept = []
    for avatar in (grown, reloaded):
        optimizer = AvatarOptimizer(avatar)
        control_density(optimizer, ScreenGradients(800), start.neutral, prune, torch.Generator())
        kept.append(optimizer.detached())
    assert torch.equal(kept[0].xyz, kept[1].xyz) and torch.equal(kept[0].binding, kept[1].binding)
    assert torch.equal(kept[0].binding.unique(), grown.binding.unique()) and len(kept[0]) < 800
