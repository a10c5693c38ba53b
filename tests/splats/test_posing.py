"""Binding to several triangles: the kernel against torch, and what blending promises."""

import math

import pytest
import torch
from scipy.spatial.transform import Rotation
from test_avatar import covariances, mesh, random_avatar

from ap3d.splats.avatar import GaussianAvatar
from ap3d.splats.frames import TriangleFrames, triangle_frames
from ap3d.splats.posing import Binding, pose_gaussians, pose_reference


def rotation(seed: int) -> torch.Tensor:
    return torch.from_numpy(Rotation.random(random_state=seed).as_matrix()).float()


def blended_avatar(count: int = 300, sh_degree: int = 0) -> GaussianAvatar:
    g = torch.Generator().manual_seed(8)
    avatar = random_avatar(count, 8, sh_degree)
    weights = torch.rand(count, 4, generator=g).sort(1, descending=True)[0]
    weights[:50, 1:] = 0
    others = torch.randint(8, (count, 3), generator=g)
    return avatar.bound_to(torch.cat([avatar.binding[:, None], others], 1), weights / weights.sum(1, keepdim=True))


def twisted() -> tuple[TriangleFrames, TriangleFrames]:
    vertices, faces = mesh()
    moved = vertices.clone()
    for f in range(8):
        turn = Rotation.from_rotvec([0.1 * f, 0.3 * f, -0.2 * f]).as_matrix()
        moved[3 * f : 3 * f + 3] = (1 + 0.1 * f) * vertices[3 * f : 3 * f + 3] @ torch.from_numpy(turn).float().T + f
    return triangle_frames(vertices, faces), triangle_frames(moved, faces)


@pytest.mark.parametrize(("several", "historic"), [(False, False), (False, True), (True, False)])
def test_kernel_agrees_with_torch_forward_and_backward(several: bool, historic: bool, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("AP3D_THREADS", "2")
    avatar = blended_avatar() if several else blended_avatar().single()
    neutral, posed = twisted()
    binding = Binding(avatar.binding, avatar.extra_binding, avatar.extra_weights)
    outputs, gradients = [], []
    for function in (pose_gaussians, pose_reference):
        leaves = [t.clone().requires_grad_() for t in (avatar.xyz, avatar.rotation, avatar.scaling.exp())]
        out = function(*leaves, binding, posed, neutral, historic)
        draw = torch.Generator().manual_seed(1)
        loss = sum((o * torch.randn(o.shape, generator=draw)).sum() for o in out[:3])
        gradients.append(torch.autograd.grad(loss, leaves))  # type: ignore[arg-type]
        outputs.append(out)
    for ours, theirs in zip(outputs[0], outputs[1], strict=True):
        if ours.shape[1:] == (4,):
            theirs = theirs * (ours * theirs).sum(1, keepdim=True).sign()
        torch.testing.assert_close(ours, theirs, atol=3e-5, rtol=1e-4)
    for index in (0, 2):
        torch.testing.assert_close(gradients[0][index], gradients[1][index], atol=1e-4, rtol=1e-4)


def test_gradient_of_local_quaternions_is_that_of_the_covariance() -> None:
    avatar, (neutral, posed) = blended_avatar(), twisted()
    found = []
    for function in (pose_gaussians, pose_reference):
        leaf = avatar.rotation.clone().requires_grad_()
        binding = Binding(avatar.binding, avatar.extra_binding, avatar.extra_weights)
        out = function(avatar.xyz, leaf, avatar.scaling.exp(), binding, posed, neutral, False)
        weights = torch.randn(300, 4, 4, generator=torch.Generator().manual_seed(0))
        square = out[1][:, :, None] * out[1][:, None]  # blind to the quaternion's sign
        found.append(torch.autograd.grad((square * weights).sum(), leaf)[0])
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


def test_at_the_neutral_pose_further_triangles_change_nothing() -> None:
    avatar, (neutral, _) = blended_avatar(), twisted()
    one, four = (a.pose(neutral, neutral) for a in (avatar.single(), avatar))
    torch.testing.assert_close(one.means, four.means, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(covariances(one), covariances(four), atol=1e-4, rtol=1e-3)


def test_a_common_similarity_moves_blended_gaussians_exactly() -> None:
    vertices, faces = mesh()
    avatar, turn, shift = blended_avatar(sh_degree=1), rotation(3), torch.tensor([0.4, -1.0, 2.0])
    neutral = triangle_frames(vertices, faces)
    moved = triangle_frames(1.7 * vertices @ turn.T + shift, faces)
    before, after = avatar.pose(neutral, neutral), avatar.pose(moved, neutral)
    torch.testing.assert_close(after.means, 1.7 * before.means @ turn.T + shift, atol=3e-4, rtol=1e-4)
    expected = 1.7**2 * turn @ covariances(before) @ turn.T
    torch.testing.assert_close(covariances(after), expected, atol=3e-4, rtol=1e-3)
    assert after.view_rotations is not None
    torch.testing.assert_close(after.view_rotations, turn.expand(300, 3, 3), atol=1e-4, rtol=0)


def test_half_way_between_two_turns_about_an_axis_the_distance_from_the_axis_stays() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -3, 0], [1, -3, 0], [0, -2, 0]])
    faces = torch.arange(6).reshape(2, 3)
    angle = math.radians(80)
    turn = torch.from_numpy(Rotation.from_rotvec([0, angle, 0]).as_matrix()).float()
    moved = vertices.clone()
    moved[:3] = vertices[:3] @ turn.T
    neutral, posed = triangle_frames(vertices, faces), triangle_frames(moved, faces)
    avatar = random_avatar(20, 1)
    share = torch.tensor([[0.5, 0.5]]).expand(20, 2)
    blended = avatar.bound_to(torch.tensor([[0, 1]]).expand(20, 2), share)
    before, after = blended.pose(neutral, neutral).means, blended.pose(posed, neutral).means
    half = torch.from_numpy(Rotation.from_rotvec([0, angle / 2, 0]).as_matrix()).float()
    torch.testing.assert_close(after, before @ half.T, atol=1e-4, rtol=1e-4)


def test_refusals() -> None:
    avatar, (neutral, posed) = blended_avatar(), twisted()
    with pytest.raises(ValueError, match="neutral"):
        avatar.pose(posed)
    with pytest.raises(ValueError, match="order"):
        avatar.pose(posed, neutral, historic_rotation=True)
    with pytest.raises(IndexError, match=r"0\.\.1"):
        vertices, faces = mesh()
        avatar.single().pose(triangle_frames(vertices, faces[:2]))
