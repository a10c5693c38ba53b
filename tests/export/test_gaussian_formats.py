"""Every format of Gaussians: what is read back, what independent readers see, and refusals."""

import gzip
import struct
import time

import numpy as np
import pytest
import torch

from ap3d.animation import bundle_camera, render
from ap3d.errors import DataFileError
from ap3d.export import FORMATS, splat_glb
from ap3d.export.axes import to_file
from ap3d.export.gaussians import export_gaussians, import_gaussians
from ap3d.export.glb import GlbReader
from ap3d.raster.splats import Splats
from ap3d.rig.protocol import RigParams
from ap3d.splats.bundle import Bundle
from tests.export.export_helpers import covariances, painted_bundle, ply_columns, psnr

LEAST_PSNR = {"ply": 60.0, "splat": 40.0, "spz": 30.0, "glb": 60.0}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("azimuth", [0.0, 140.0])
def test_the_reloaded_file_looks_like_the_avatar(painted: Bundle, posed: RigParams, name: str, azimuth: float) -> None:
    splats = painted.pose(posed)
    camera = bundle_camera(painted, azimuth, 5.0, 192)
    degree = 0 if name == "splat" else 2
    expected = render(splats, camera, painted.background, degree)
    scale = float(posed.scale)
    again = import_gaussians(export_gaussians(painted, posed, name), name, units_per_metre=scale)
    assert psnr(render(again, camera, painted.background, degree), expected) >= LEAST_PSNR[name]
    if degree:  # a file whose harmonics were not rotated would be told apart
        unturned = Splats(**(splats.tensors() | {"view_rotations": torch.eye(3).expand(len(splats), 3, 3)}))
        assert psnr(render(unturned, camera, painted.background, degree), expected) < 30


@pytest.mark.parametrize("name", ["ply", "spz", "splat"])
def test_an_independent_reader_sees_the_same_gaussians(painted: Bundle, posed: RigParams, name: str) -> None:
    """GaussForge carries the format authors' own SPZ library; it converts to PLY, which plyfile reads."""
    gaussforge = pytest.importorskip("gaussforge")
    data = export_gaussians(painted, posed, name)
    converted = gaussforge.GaussForge().convert(data, name, "ply")
    assert "data" in converted, converted
    ours = FORMATS[name].load().read(data)
    read = lambda *names: torch.from_numpy(ply_columns(converted["data"], *names)).float()  # noqa: E731
    close = lambda a, b, tolerance: torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)  # noqa: E731
    close(read("x", "y", "z"), ours.means, 1e-5)
    seen = Splats(
        ours.means, read("rot_0", "rot_1", "rot_2", "rot_3"), read("scale_0", "scale_1", "scale_2").exp(),
        torch.sigmoid(read("opacity")[:, 0]), ours.sh,
    )  # fmt: skip
    close(covariances(seen), covariances(ours), 1e-5)
    close(seen.opacities, ours.opacities, 2e-3)
    close(read("f_dc_0", "f_dc_1", "f_dc_2"), ours.sh[:, 0], 2e-2 if name == "splat" else 1e-4)
    if name != "splat":
        rest = read(*(f"f_rest_{i}" for i in range(24))).reshape(-1, 3, 8).transpose(1, 2)
        close(rest, ours.sh[:, 1:], 1e-5)


def test_ply_has_the_order_of_properties_that_3dgs_writes(painted: Bundle) -> None:
    header = export_gaussians(painted, painted.params, "ply").split(b"end_header")[0].decode()
    names = [line.split()[2] for line in header.splitlines() if line.startswith("property float")]
    expected = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{i}" for i in range(24))]
    assert names == [*expected, "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]


def test_splat_is_32_bytes_a_gaussian_largest_first(painted: Bundle) -> None:
    data = export_gaussians(painted, painted.params, "splat")
    assert len(data) == 32 * len(painted.avatar)
    sizes = np.frombuffer(data, "<f4").reshape(-1, 8)[:, 3:6].prod(1)
    weight = sizes * np.frombuffer(data, "u1").reshape(-1, 32)[:, 27]
    assert (np.diff(weight) <= 1e-3 * weight[:-1] + 1e-12).mean() > 0.99


def test_spz_header_says_version_3_and_equal_avatars_make_equal_files(painted: Bundle) -> None:
    data = export_gaussians(painted, painted.params, "spz")
    assert data == export_gaussians(painted, painted.params, "spz")
    assert struct.unpack("<IIIBBBB", gzip.decompress(data)[:16]) == (0x5053474E, 3, 6000, 2, 12, 0, 0)


def test_gltf_holds_linear_scales_and_opacities_in_metres(painted: Bundle, posed: RigParams) -> None:
    glb = GlbReader(export_gaussians(painted, posed, "glb"))
    primitive = glb.document["meshes"][0]["primitives"][0]
    assert primitive["mode"] == 0 and glb.document["extensionsUsed"] == ["KHR_gaussian_splatting"]
    assert primitive["extensions"]["KHR_gaussian_splatting"]["colorSpace"] == "srgb_rec709_display"
    splats = painted.pose(posed)
    value = lambda n: torch.from_numpy(glb.accessor(primitive["attributes"][n]).copy())  # noqa: E731
    torch.testing.assert_close(value("POSITION"), splats.means / 2.78, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(value("KHR_gaussian_splatting:SCALE"), splats.scales / 2.78)
    torch.testing.assert_close(value("KHR_gaussian_splatting:OPACITY")[:, 0], splats.opacities)
    unit = value("KHR_gaussian_splatting:ROTATION").norm(dim=1)
    torch.testing.assert_close(unit, torch.ones_like(unit), atol=1e-5, rtol=0)
    assert {f"KHR_gaussian_splatting:SH_DEGREE_2_COEF_{i}" for i in range(5)} <= set(primitive["attributes"])
    assert glb.document["asset"]["extras"]["prompt"] == "a <test>"


def test_gltf_points_fall_back_to_linear_colours() -> None:
    """sRGB 0.5 is 0.2140 in linear light (IEC 61966-2-1)."""
    one = Splats(
        torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0]]), torch.ones(1, 3), torch.ones(1), torch.zeros(1, 1, 3)
    )
    glb = GlbReader(splat_glb.write(one))
    color = glb.accessor(glb.document["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"])
    np.testing.assert_allclose(color, [[0.2140, 0.2140, 0.2140, 1.0]], atol=1e-4)


BOMB = gzip.compress(struct.pack("<IIIBBBB", 0x5053474E, 3, 9_999_999, 3, 12, 0, 0) + bytes(10_000_000))
HUGE = b"ply\nformat binary_little_endian 1.0\nelement vertex 1000000000\nproperty float x\nend_header\n"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("data", [b"", b"ply", b"glTF" + bytes(40), b"\x1f\x8b" + bytes(31), BOMB[:-1], BOMB, HUGE])
def test_damaged_files_are_refused_in_one_line(name: str, data: bytes) -> None:
    with pytest.raises(DataFileError) as caught:
        FORMATS[name].load().read(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
def test_truncated_exports_are_refused(painted: Bundle, name: str) -> None:
    data = export_gaussians(painted, painted.params, name)
    for cut in (len(data) - 5, len(data) // 2 + 1, 17):
        with pytest.raises(DataFileError):
            FORMATS[name].load().read(data[:cut])


def test_sixty_thousand_gaussians_take_less_than_two_seconds(rig) -> None:  # type: ignore[no-untyped-def]
    bundle = painted_bundle(rig, 60_000, 1)
    splats = bundle.pose(bundle.params)
    for name, chosen in FORMATS.items():
        started = time.process_time()
        chosen.load().write(to_file(splats, chosen.axes))
        assert time.process_time() - started < 2, name
