"""PLY files: property order, round trips, and refusals."""

import io

import pytest
import torch
from plyfile import PlyData
from test_avatar import mesh, random_avatar

from ap3d.errors import DataFileError
from ap3d.export.ply import write as write_world
from ap3d.splats.frames import triangle_frames
from ap3d.splats.ply import read_local, write_local


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_local_file_round_trips_bit_exactly(degree: int) -> None:
    avatar = random_avatar(50, 8, degree)
    again = read_local(write_local(avatar))
    for name, value in avatar.tensors().items():
        if not name.startswith("initial"):
            assert torch.equal(value, again.tensors()[name]), name


def test_local_file_has_the_published_property_order() -> None:
    names = [p.name for p in PlyData.read(io.BytesIO(write_local(random_avatar(5, 8, 3))))["vertex"].properties]
    expected = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{i}" for i in range(45)), "opacity",
                "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3", "binding_0", "hair_points_mask",
                "clothes_points_mask", "smplx_points_mask", "teeth_points_mask", "eye_region_points_mask"]  # fmt: skip
    assert names == expected and len(names) == 65


def test_world_file_holds_the_posed_gaussians() -> None:
    vertices, faces = mesh()
    splats = random_avatar(50, 8).pose(triangle_frames(vertices, faces))
    vertex = PlyData.read(io.BytesIO(write_world(splats)))["vertex"]
    torch.testing.assert_close(torch.tensor(vertex["y"]), splats.means[:, 1])
    torch.testing.assert_close(torch.tensor(vertex["scale_2"]).exp(), splats.scales[:, 2])
    torch.testing.assert_close(torch.sigmoid(torch.tensor(vertex["opacity"])), splats.opacities, atol=1e-5, rtol=1e-4)


TRUNCATED = write_local(random_avatar(5, 8))[:-3]


@pytest.mark.parametrize("data", [b"", b"ply\nformat binary", b"not a ply at all", TRUNCATED])
def test_other_files_are_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(DataFileError) as caught:
        read_local(data)
    assert "\n" not in str(caught.value)


def test_an_unbound_ply_is_refused() -> None:
    vertices, faces = mesh()
    data = write_world(random_avatar(5, 8).pose(triangle_frames(vertices, faces)))
    with pytest.raises(DataFileError, match="binding_0"):
        read_local(data)
