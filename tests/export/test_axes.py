"""Rotated harmonics, and where a nose lands in each format's viewers."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.spatial.transform import Rotation

from ap3d.animation import render
from ap3d.cameras import Cameras
from ap3d.export import FORMATS
from ap3d.export.axes import from_file, rotate_harmonics, to_file
from ap3d.export.gaussians import export_gaussians
from ap3d.raster.reference import harmonics
from ap3d.splats.avatar import SH_C0
from ap3d.splats.bundle import Bundle


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_rotated_harmonics_are_the_turned_function(degree: int) -> None:
    generator = torch.Generator().manual_seed(degree)
    sh = torch.randn(20, (degree + 1) ** 2, 3, generator=generator, dtype=torch.float64)
    turns = torch.from_numpy(Rotation.random(20, random_state=degree).as_matrix())
    directions = torch.nn.functional.normalize(torch.randn(50, 3, generator=generator, dtype=torch.float64), dim=1)
    seen = torch.einsum("mk,nkc->nmc", harmonics(directions, degree), rotate_harmonics(sh, turns))
    expected = torch.einsum("nmk,nkc->nmc", harmonics(directions @ turns, degree), sh)
    torch.testing.assert_close(seen, expected, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("axes", ["y-up", "y-down", "z-up"])
def test_going_to_a_files_axes_and_back_changes_nothing(painted: Bundle, axes: str) -> None:
    splats = painted.pose(painted.params)
    again = from_file(to_file(splats, axes, 0.36), axes, 0.36)
    torch.testing.assert_close(again.means, splats.means, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again.sh, splats.sh, atol=1e-4, rtol=1e-4)


# How each kind of viewer stands before the face, in the file's own axes: camera columns right, down, forward.
VIEWERS = {
    "y-up": [[1, 0, 0], [0, -1, 0], [0, 0, -1]],  # three.js, glTF: up is +y, the camera looks along -z
    "y-down": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],  # COLMAP and 3DGS: the camera's own axes
    "z-up": [[1, 0, 0], [0, 0, 1], [0, -1, 0]],  # Blender's front view: looks along +y
}


def _viewer(axes: str, distance: float, size: int) -> Cameras:
    rotation = torch.tensor(VIEWERS[axes], dtype=torch.float32)
    pose = torch.eye(4)
    pose[:3, :3] = rotation
    pose[:3, 3] = -distance * rotation[:, 2]
    focal = 0.5 * size / math.tan(math.radians(12.5))
    return Cameras(pose[None], torch.tensor([[focal, focal, size / 2, size / 2]]), size, size)


@pytest.mark.parametrize(("name", "axes"), [*((n, None) for n in FORMATS), ("ply", "z-up"), ("splat", "y-up")])
def test_a_red_nose_lands_on_the_same_pixel_in_every_viewer(painted: Bundle, name: str, axes: str | None) -> None:
    """The subject's left cheek is blue: a mirrored or an upside-down file fails."""
    landmarks = painted.rig.landmarks(painted.params)[0]
    marks = {0: landmarks[30], 2: landmarks[14]}  # red on the tip of the nose, blue on the subject's left jaw
    splats = painted.pose(painted.params)
    color = torch.full((len(splats), 3), 0.1)
    for channel, place in marks.items():
        color[(splats.means - place).norm(dim=1) < 0.05] = torch.eye(3)[channel]
    avatar = replace(painted.avatar, f_dc=(color - 0.5) / SH_C0).with_sh_degree(0)
    data = export_gaussians(replace(painted, avatar=avatar), painted.params, name, axes)
    unit = 1 / float(painted.params.scale) if FORMATS[name].metres else 1.0
    raw = FORMATS[name].load().read(data)  # exactly what the file says
    picture = render(raw, _viewer(axes or FORMATS[name].axes, 3.0 * unit, 128), torch.zeros(3), 0)[0]
    rows, columns = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    focal = 64 / math.tan(math.radians(12.5))
    for channel, place in marks.items():
        strength = (picture[channel] - picture[[c for c in range(3) if c != channel]].amax(0)).clamp(min=0)
        found = torch.stack([(strength * columns).sum(), (strength * rows).sum()]) / strength.sum() + 0.5
        depth = 3.0 - place[2]
        expected = torch.stack([64 + focal * place[0] / depth, 64 - focal * place[1] / depth])
        assert float((found - expected).abs().max()) < 2.5, (channel, found, expected)
