"""The two camera sets against the table of the reference sheet, and their JSON."""

import json
import math

import pytest
import torch

from ap3d.errors import DataFileError
from ap3d.portrait.view_sets import FOCAL, KEY_VIEWS, gaussian_views, mesh_views, read_views


@pytest.mark.parametrize(
    "index, height, distance, tilt", [(0, -0.883, 2.734, 24.0), (8, 0, 2.660, 4.9), (16, 0.883, 2.583, -14.7)]
)
def test_pitches_are_those_of_the_sheet(index: int, height: float, distance: float, tilt: float) -> None:
    camera = mesh_views().cameras[index]
    position = camera.positions[0]
    assert float(position[1]) == pytest.approx(height, abs=2e-3)
    assert float(position.norm()) == pytest.approx(2.65, abs=1e-5)
    pivot = torch.tensor([0.0, 0.228, 0.0])
    assert float((pivot - position).norm()) == pytest.approx(distance, abs=2e-3)
    assert math.degrees(math.asin(float(camera.cam2world[0, 1, 2]))) == pytest.approx(tilt, abs=0.1)
    pixels, _ = camera.project(pivot[None])
    assert torch.allclose(pixels[0, 0], torch.tensor([256.0, 256.0]), atol=1e-2)


def test_key_views_are_front_left_back_right() -> None:
    positions = mesh_views().cameras[list(KEY_VIEWS)].positions
    expected = torch.tensor([[0, 0, 1.0], [1, 0, 0], [0, 0, -1], [-1, 0, 0]]) * 2.65
    assert torch.allclose(positions, expected, atol=1e-4)


def test_sets_have_their_order_and_names() -> None:
    mesh, gaussian = mesh_views(), gaussian_views()
    assert (len(mesh.cameras), len(gaussian.cameras)) == (24, 120)
    assert mesh.names[11] == "0011_original.png" and gaussian.names[-1] == "0119.png"
    assert mesh.yaws[:8] == (90, 180, 270, 0, 135, 225, 315, 45) and mesh.pitches[::8] == (120, 90, 60)
    assert gaussian.pitches[::24] == (60, 75, 90, 105, 120) and gaussian.yaws[:3] == (90, 105, 120)
    assert mesh.directions[:8] == ["front view", "side view", "back view", "side view", "side view", "back view",
                                   "back view", "side view"]  # fmt: skip


def test_json_is_that_of_the_original_and_comes_back() -> None:
    views = mesh_views(128)
    record = json.loads(views.to_json())["0009_original.png"]
    assert set(record) == {"view_direction", "camera_params", "focal_length", "fov", "pitch", "yaw"}
    assert len(record["camera_params"]) == 1 and len(record["camera_params"][0]) == 16
    assert record["yaw"] == pytest.approx(math.pi) and record["fov"] == 30
    names, cameras = read_views(views.to_json(), 128)
    assert names == list(views.names)
    assert torch.allclose(cameras.cam2world, views.cameras.cam2world)
    assert torch.allclose(cameras.intrinsics, views.cameras.intrinsics, rtol=1e-5)
    assert float(cameras.intrinsics[0, 0]) / 128 == pytest.approx(FOCAL, rel=1e-5)


_VIEW = '{"a": {"fov": 30, "camera_params": [[%s]]}}'


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "{}x", '{"a": {"fov": 30}}', _VIEW % "1, 2", _VIEW % ", ".join(["1"] * 15 + ["NaN"])]
)
def test_bad_json_is_refused(text: str) -> None:
    with pytest.raises(DataFileError):
        read_views(text, 64)
