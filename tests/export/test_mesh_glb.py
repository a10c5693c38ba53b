"""The rigged mesh: morph targets, skin and textures against the rig and the avatar's own pictures."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from ap3d.animation import bundle_camera, render
from ap3d.errors import DataFileError
from ap3d.export.glb import GlbReader
from ap3d.export.mesh_glb import export_mesh
from ap3d.export.mesh_reader import RiggedMesh, read_mesh
from ap3d.raster.mesh import interpolate, rasterize_mesh
from ap3d.rig.builtin import axis_angle_matrix
from ap3d.rig.protocol import RigParams
from ap3d.splats.avatar import SH_C0, Group
from ap3d.splats.bundle import Bundle
from tests.export.export_helpers import nodding_motion, painted_bundle, psnr


@pytest.fixture(scope="module")
def smooth(rig) -> Bundle:  # type: ignore[no-untyped-def]
    """Colours that change slowly over the surface, skin and eyes and teeth alike."""
    bundle = painted_bundle(rig, 12000, 0)
    means = bundle.pose(bundle.params).means
    return replace(bundle, avatar=replace(bundle.avatar, f_dc=(0.35 * torch.sin(4 * means)) / SH_C0))


@pytest.fixture(scope="module")
def data(smooth: Bundle) -> bytes:
    return export_mesh(smooth, smooth.params, texture_size=256)


@pytest.fixture(scope="module")
def mesh(data: bytes) -> RiggedMesh:
    return read_mesh(data)


@pytest.fixture(scope="module")
def bare(smooth: Bundle) -> RiggedMesh:
    """Without Gaussians of clothes."""
    avatar = smooth.avatar.select(smooth.avatar.group != Group.CLOTHES)
    return read_mesh(export_mesh(replace(smooth, avatar=avatar), smooth.params, texture_size=64))


def _posed(bundle: Bundle, head: tuple[float, float, float] = (0, 0, 0), **actions: float) -> RigParams:
    expression = torch.zeros(1, 52)
    for name, value in actions.items():
        expression[0, bundle.rig.expression_names.index(name)] = value
    return bundle.params.replace(expression=expression, head=torch.tensor([head]), neck=torch.tensor([head]) / 2)


def _of_file(mesh: RiggedMesh, params: RigParams) -> list[np.ndarray]:
    turns = {name: axis_angle_matrix(getattr(params, name))[0].numpy() for name in ("neck", "head")}
    return mesh.vertices(params.expression[0].numpy(), turns)


@pytest.mark.parametrize(
    ("head", "actions"),
    [
        ((0, 0, 0), {}),
        ((0, 0, 0), {"jawOpen": 1.0}),
        ((0, 0, 0), {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}),
        ((0.2, 0.7, 0.1), {}),
        ((0.1, -0.5, 0.0), {"jawOpen": 0.6, "mouthSmileLeft": 0.8, "browInnerUp": 0.5}),
    ],
)
def test_posed_as_gltf_prescribes_the_mesh_is_the_rig(
    smooth: Bundle, bare: RiggedMesh, head: tuple[float, float, float], actions: dict[str, float]
) -> None:
    """Without hair and clothes above the skin the mesh is the rig's to 0.1 mm."""
    params = _posed(smooth, head, **actions)
    expected = smooth.rig.vertices(params)[0] / float(params.scale)
    for part in _of_file(bare, params):
        assert cKDTree(expected.numpy()).query(part)[0].max() < 1e-4


def test_morph_targets_carry_the_52_names(smooth: Bundle, mesh: RiggedMesh) -> None:
    assert mesh.target_names == list(smooth.rig.expression_names) and len(mesh.target_names) == 52
    assert mesh.joint_names == ["root", "neck", "head", "left_eye", "right_eye"]
    for part in mesh.parts:
        np.testing.assert_allclose(part.weights.sum(1), 1, atol=1e-6)


def _picture(mesh: RiggedMesh, vertices: list[np.ndarray], bundle: Bundle, azimuth: float, size: int) -> torch.Tensor:
    """The file's mesh in its own textures, drawn by the mesh rasteriser."""
    camera = bundle_camera(bundle, azimuth, 2.0, size)
    starts = np.cumsum([0, *(len(v) for v in vertices)])
    points = torch.from_numpy(np.concatenate(vertices)).float() * float(bundle.params.scale)
    faces = torch.from_numpy(
        np.concatenate([p.indices + s for p, s in zip(mesh.parts, starts, strict=False)]).astype(int)
    )
    owner = torch.cat([torch.full((len(p.indices),), i) for i, p in enumerate(mesh.parts)])
    clip = torch.nn.functional.pad(points, (0, 1), value=1.0) @ camera.clip_matrices()[0].T
    rast = rasterize_mesh(clip[None], faces, (size, size))
    uv = interpolate(torch.from_numpy(np.concatenate([p.uv for p in mesh.parts]))[None], rast, faces)
    face = rast[0, ..., 3].long() - 1
    image = bundle.background[:, None, None].repeat(1, size, size)
    for index, part in enumerate(mesh.parts):
        texture = torch.from_numpy(part.texture.copy()).permute(2, 0, 1)[None] / 255
        sampled = torch.nn.functional.grid_sample(texture, uv * 2 - 1, align_corners=False, padding_mode="border")[0]
        mask = (face >= 0) & (owner[face.clamp(min=0)] == index)
        image[:, mask] = sampled[:, mask]
    return image


@pytest.mark.parametrize("azimuth", [0.0, 70.0, 180.0])
@pytest.mark.parametrize("actions", [{}, {"jawOpen": 0.8}, {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}])
def test_the_textured_mesh_looks_like_the_splats(
    smooth: Bundle, mesh: RiggedMesh, azimuth: float, actions: dict[str, float]
) -> None:
    params = _posed(smooth, (0.0, 0.3, 0.0), **actions)
    drawn = _picture(mesh, _of_file(mesh, params), smooth, azimuth, 192)
    expected = render(smooth.pose(params), bundle_camera(smooth, azimuth, 2.0, 192), smooth.background, 0)[0]
    assert psnr(drawn, expected) > 24


def test_hair_widens_the_outline(smooth: Bundle, bare: RiggedMesh) -> None:
    """Gaussians of hair 6 cm over the scalp lift the scalp and leave the face."""
    avatar = smooth.avatar
    scalp = torch.isin(avatar.binding, smooth.rig.regions["scalp"])
    frames = smooth.neutral
    lifted = (
        avatar.xyz + scalp[:, None] * torch.tensor([0.0, 1.0, 0.0]) * (0.15 / frames.scale[avatar.binding])[:, None]
    )
    raised = replace(avatar, xyz=lifted, group=torch.where(scalp, torch.ones_like(avatar.group), avatar.group))
    haired = read_mesh(export_mesh(replace(smooth, avatar=raised), smooth.params, texture_size=64))
    top = [max(p.positions[:, 1].max() for p in m.parts) for m in (haired, bare)]
    assert 0.02 < top[0] - top[1] < 0.08
    chin = [m.parts[0].positions[m.parts[0].positions[:, 2].argmax()] for m in (haired, bare)]
    np.testing.assert_allclose(chin[0], chin[1], atol=1e-6)


def test_a_pose_becomes_the_files_default(smooth: Bundle) -> None:
    params = _posed(smooth, (0.0, 0.5, 0.0), jawOpen=0.4)
    mesh = read_mesh(export_mesh(smooth, params, texture_size=64))
    assert mesh.default_weights[mesh.target_names.index("jawOpen")] == pytest.approx(0.4)
    half = np.sin(0.25)
    np.testing.assert_allclose(mesh.default_rotations["head"], [0, half, 0, np.cos(0.25)], atol=1e-6)


def test_a_motion_becomes_an_animation(smooth: Bundle) -> None:
    names = tuple(smooth.rig.expression_names)
    motion = nodding_motion(smooth, 20, 20.0)
    glb = GlbReader(export_mesh(smooth, smooth.params, motion, texture_size=64))
    animation = glb.document["animations"][0]
    by_path = {c["target"]["path"]: animation["samplers"][c["sampler"]] for c in animation["channels"]}
    np.testing.assert_allclose(glb.accessor(by_path["weights"]["input"])[:, 0], np.arange(20) / 20, atol=1e-6)
    weights = glb.accessor(by_path["weights"]["output"]).reshape(20, 52)
    jaw = names.index("jawOpen")
    np.testing.assert_allclose(weights[:, jaw], motion.expression[:, jaw], atol=1e-6)
    turn = glb.accessor(by_path["rotation"]["output"])
    np.testing.assert_allclose(np.linalg.norm(turn, axis=1), 1, atol=1e-6)


def test_trimesh_loads_the_file(data: bytes, mesh: RiggedMesh) -> None:
    trimesh = pytest.importorskip("trimesh")
    scene = trimesh.load(io.BytesIO(data), file_type="glb")
    assert sum(len(g.faces) for g in scene.geometry.values()) == sum(len(p.indices) for p in mesh.parts)
    size = scene.extents
    assert 0.3 < size[1] < 0.7  # head and shoulders in metres, upright


@pytest.mark.parametrize("cut", [0, 3, 30, 5000, -4])
def test_damaged_files_are_refused(data: bytes, cut: int) -> None:
    with pytest.raises(DataFileError):
        read_mesh(data[:cut] if cut else b"")
