"""Triangle frames: orthonormal, equivariant, and finite for triangles without area."""

import pytest
import torch
from scipy.spatial.transform import Rotation

from ap3d.splats.frames import (
    frames_reference,
    quaternion_product,
    quaternions_from_matrices,
    rotate_by_quaternions,
    triangle_frames,
)


def test_frames_are_rotations_and_follow_the_mesh() -> None:
    generator = torch.Generator().manual_seed(0)
    vertices = torch.randn(30, 3, generator=generator)
    faces = torch.arange(30).reshape(10, 3)
    frames = triangle_frames(vertices, faces)
    identity = torch.eye(3).expand(10, 3, 3)
    torch.testing.assert_close(frames.rotation.transpose(1, 2) @ frames.rotation, identity, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(frames.rotation), torch.ones(10))
    turn = torch.from_numpy(Rotation.random(random_state=1).as_matrix()).float()
    moved = triangle_frames(2.5 * vertices @ turn.T + 1.0, faces)
    torch.testing.assert_close(moved.rotation, turn @ frames.rotation, atol=1e-5, rtol=0)
    torch.testing.assert_close(moved.scale, 2.5 * frames.scale)
    torch.testing.assert_close(moved.origin, 2.5 * frames.origin @ turn.T + 1.0)


def test_normal_points_outwards_for_counter_clockwise_triangles() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    frames = triangle_frames(vertices, torch.tensor([[0, 1, 2]]))
    torch.testing.assert_close(frames.rotation[0, :, 1], torch.tensor([0.0, 0, 1]))
    torch.testing.assert_close(frames.scale, torch.tensor([1.0]))


def test_kernel_agrees_with_torch() -> None:
    vertices = torch.randn(60, 3, generator=torch.Generator().manual_seed(3))
    vertices[3:6] = vertices[3]  # a triangle without length
    vertices[8] = 2 * vertices[7] - vertices[6]  # one without area
    faces = torch.arange(60).reshape(20, 3)
    ours, theirs = triangle_frames(vertices, faces), frames_reference(vertices, faces)
    sound = [i for i in range(20) if i != 2]  # where there is no area, rounding chooses the normal
    for name in ("rotation", "origin", "scale"):
        torch.testing.assert_close(getattr(ours, name)[sound], getattr(theirs, name)[sound], atol=1e-5, rtol=1e-5)
    assert torch.isfinite(ours.rotation).all()
    with pytest.raises(IndexError, match="vertex"):
        triangle_frames(vertices[:50], faces)


def test_degenerate_triangles_stay_finite() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    frames = triangle_frames(vertices, torch.tensor([[0, 0, 0], [0, 1, 2]]))
    assert torch.isfinite(frames.rotation).all() and (frames.scale > 0).all()


def test_quaternions_agree_with_scipy() -> None:
    rotations = Rotation.random(200, random_state=3)
    matrices = torch.from_numpy(rotations.as_matrix()).float()
    ours = quaternions_from_matrices(matrices)
    theirs = torch.from_numpy(rotations.as_quat(scalar_first=True)).float()
    torch.testing.assert_close((ours * theirs).sum(1).abs(), torch.ones(200), atol=1e-5, rtol=0)
    product = quaternion_product(ours[:100], ours[100:])
    torch.testing.assert_close(
        (quaternions_from_matrices(matrices[:100] @ matrices[100:]) * product).sum(1).abs(), torch.ones(100)
    )
    vectors = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    expected = (matrices @ vectors[..., None])[..., 0]
    torch.testing.assert_close(rotate_by_quaternions(3 * ours, vectors), expected, atol=1e-5, rtol=1e-5)
