"""Camera frames, crops and clip matrices against plain geometry."""

import math

import pytest
import torch

from ap3d.cameras import FAR, NEAR, Cameras, look_at, orbit, portrait3d_camera


def test_orbit_directions() -> None:
    cameras = orbit([0.0, 90.0, 0.0], [0.0, 0.0, 90.0 - 1e-3], torch.zeros(3), 2.0, 30.0, 64)
    expected = torch.tensor([[0.0, 0, 2], [2, 0, 0], [0, 2, 0]])  # front, subject's left, above
    assert torch.allclose(cameras.positions, expected, atol=1e-3)


def test_front_view_shows_the_subjects_left_at_the_right_and_up_at_the_top() -> None:
    camera = orbit([0.0], [0.0], torch.zeros(3), 2.0, 30.0, 100)
    pixels, depth = camera.project(torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.5]]))
    assert torch.allclose(pixels[0, 0], torch.tensor([50.0, 50.0]), atol=1e-4)
    assert pixels[0, 1, 0] > 50 and pixels[0, 2, 1] < 50
    assert torch.allclose(depth[0], torch.tensor([2.0, 2.0, 2.0, 1.5]), atol=1e-5)


def test_field_of_view_spans_the_image() -> None:
    camera = look_at(torch.tensor([[0.0, 0.0, 1.0]]), torch.zeros(3), 40.0, 80)
    edge = math.tan(math.radians(20))
    pixels, _ = camera.project(torch.tensor([[edge, 0.0, 0.0], [-edge, edge, 0.0]]))
    assert torch.allclose(pixels[0], torch.tensor([[80.0, 40.0], [0.0, 0.0]]), atol=1e-3)


def test_world2cam_is_the_inverse_and_axes_are_right_handed() -> None:
    cameras = orbit([13.0, -150.0], [20.0, -40.0], torch.tensor([0.1, 0.2, -0.3]), 3.0, 25.0, 32)
    identity = torch.eye(4).expand(2, 4, 4)
    assert torch.allclose(cameras.world2cam @ cameras.cam2world, identity, atol=1e-5)
    assert torch.allclose(torch.linalg.det(cameras.cam2world[:, :3, :3]), torch.ones(2), atol=1e-5)


def test_clip_positions_agree_with_pixels() -> None:
    poses = orbit([30.0], [10.0], torch.zeros(3), 2.0, 30.0, 64).cam2world
    camera = Cameras(poses, torch.tensor([[90.0, 70.0, 20.0, 33.0]]), 60, 48)
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)) * 0.3
    clip = torch.cat([points, torch.ones(20, 1)], 1) @ camera.clip_matrices()[0].T
    ndc = clip[:, :2] / clip[:, 3:]
    pixels, depth = camera.project(points)
    assert torch.allclose((ndc + 1) / 2 * torch.tensor([60.0, 48.0]), pixels[0], atol=1e-3)
    assert torch.allclose(clip[:, 3], depth[0], atol=1e-5)


def test_clip_depth_runs_from_near_to_far() -> None:
    camera = look_at(torch.tensor([[0.0, 0.0, 0.0]]), torch.tensor([0.0, 0.0, -1.0]), 30.0, 8)
    ends = torch.tensor([[0.0, 0.0, -NEAR, 1.0], [0.0, 0.0, -FAR, 1.0]]) @ camera.clip_matrices()[0].T
    assert torch.allclose(ends[:, 2] / ends[:, 3], torch.tensor([-1.0, 1.0]), atol=1e-4)


def test_crop_and_resize_move_pixels_affinely() -> None:
    cameras = orbit([0.0, 40.0], [0.0, 5.0], torch.zeros(3), 2.0, 30.0, 64)
    points = torch.randn(10, 3, generator=torch.Generator().manual_seed(1)) * 0.2
    pixels, _ = cameras.project(points)
    boxes = torch.tensor([[10.0, 20.0, 16.0], [5.0, 0.0, 40.0]])
    cropped = cameras.crop(boxes, 128)
    expected = (pixels - boxes[:, None, :2]) * (128 / boxes[:, None, 2:])
    assert (cropped.width, cropped.height) == (128, 128)
    assert torch.allclose(cropped.project(points)[0], expected, atol=1e-3)
    assert torch.allclose(cameras.resized(32).project(points)[0], pixels / 2, atol=1e-3)


def test_selection_and_concatenation() -> None:
    cameras = orbit([0.0, 40.0, 80.0], [0.0, 5.0, 0.0], torch.zeros(3), 2.0, 30.0, 64)
    assert len(cameras[1]) == 1 and torch.equal(cameras[1].cam2world[0], cameras.cam2world[1])
    joined = Cameras.concatenate([cameras[0], cameras[1:]])
    assert torch.equal(joined.cam2world, cameras.cam2world)
    with pytest.raises(ValueError, match="different image sizes"):
        Cameras.concatenate([cameras, cameras.resized(32)])


def test_portrait3d_front_is_plus_z() -> None:
    front = portrait3d_camera(90.0, 90.0)
    assert torch.allclose(front.positions, torch.tensor([[0.0, 0.0, 2.65]]), atol=1e-4)
    left = portrait3d_camera(0.0, 90.0).positions[0]
    assert abs(float(left[0])) == pytest.approx(2.65, abs=1e-4)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="cam2world"):
        Cameras(torch.eye(4), torch.ones(1, 4), 8, 8)
    with pytest.raises(ValueError, match="intrinsics"):
        Cameras(torch.eye(4)[None], torch.ones(2, 4), 8, 8)
