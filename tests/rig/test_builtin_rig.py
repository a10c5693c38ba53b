"""The built-in rig: frames, winding, lids, jaw, gaze, landmarks, gradients, and its file."""

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ap3d.cameras import orbit
from ap3d.errors import DataFileError, InputError
from ap3d.raster.mesh import interpolate, rasterize_mesh
from ap3d.rig import load_rig
from ap3d.rig.builtin import GAZE_SIDE_ANGLE, JAW_OPEN_ANGLE, PATH, BuiltinRig, axis_angle_matrix
from ap3d.rig.protocol import RigParams


@pytest.fixture(scope="module")
def rig() -> BuiltinRig:
    return BuiltinRig.load()


def people(rig: BuiltinRig, count: int = 6, seed: int = 0) -> RigParams:
    generator = torch.Generator().manual_seed(seed)
    groups = [
        ("man", "old", "thin"),
        ("woman", "young", "average"),
        ("man", "child", "average"),
        ("woman", "old", "chubby"),
    ]
    shapes = [
        rig.sample_shape(*groups[i % len(groups)], torch.randn(rig.n_shape, generator=generator)) for i in range(count)
    ]
    return RigParams.neutral(rig, count).replace(shape=torch.stack(shapes))


def with_actions(rig: BuiltinRig, params: RigParams, **actions: float) -> RigParams:
    expression = params.expression.clone()
    for name, value in actions.items():
        expression[:, rig.expression_names.index(name)] = value
    return params.replace(expression=expression)


def test_loads_fast_and_by_name() -> None:
    load_rig("builtin")
    start = time.perf_counter()
    load_rig("builtin")
    assert time.perf_counter() - start < 0.2
    with pytest.raises(InputError, match="unknown rig"):
        load_rig("smplz")


def test_frame_is_y_up_face_forward_left_positive(rig: BuiltinRig) -> None:
    points = rig.landmarks(RigParams.neutral(rig))[0]
    nose, chin, left_eye, right_eye, nape = points[30], points[8], points[69], points[68], rig.template[:, 2].min()
    assert left_eye[0] > 0.05 and right_eye[0] < -0.05
    assert nose[1] > chin[1] and left_eye[1] > nose[1]
    assert nose[2] > left_eye[2] > nape
    head = rig.vertices(RigParams.neutral(rig))[0, rig.head_vertices]
    centre = (head.amin(0) + head.amax(0)) / 2
    assert torch.allclose(centre, torch.tensor([0.0, 0.25, 0.0]), atol=0.03)


def test_faces_wind_outward(rig: BuiltinRig) -> None:
    a, b, c = rig.template[rig.faces[rig.regions["scalp"]]].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    outward = (normal * ((a + b + c) / 3)).sum(1) > 0
    assert outward.float().mean() > 0.99
    for eye in ("left_eye", "right_eye"):
        corners = rig.template[rig.faces[rig.regions[eye]]]
        normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        assert ((normal * (corners.mean(1) - corners.mean((0, 1)))).sum(1) > 0).all()


def test_landmarks_are_symmetric(rig: BuiltinRig) -> None:
    points = rig.landmarks(RigParams.neutral(rig))[0]
    pairs = (
        [(i, 16 - i) for i in range(8)]
        + [(17 + i, 26 - i) for i in range(5)]
        + [(36, 45), (37, 44), (38, 43), (39, 42)]
    )
    pairs += [
        (40, 47),
        (41, 46),
        (48, 54),
        (49, 53),
        (50, 52),
        (59, 55),
        (58, 56),
        (60, 64),
        (61, 63),
        (67, 65),
        (31, 35),
        (68, 69),
    ]
    for right, left in pairs:
        assert torch.allclose(points[right] * torch.tensor([-1.0, 1, 1]), points[left], atol=0.006), (right, left)


def test_lids_close_and_hide_the_eyeballs(rig: BuiltinRig) -> None:
    open_eyes = people(rig)
    closed = open_eyes.replace(eyelids=torch.ones(len(open_eyes), 2))
    gap = lambda p: (p[:, [37, 38, 43, 44]] - p[:, [41, 40, 47, 46]]).norm(dim=2).mean(1)  # noqa: E731
    assert (gap(rig.landmarks(closed)) < 0.1 * gap(rig.landmarks(open_eyes))).all()
    looking = with_actions(rig, closed, eyeLookDownLeft=1.0, eyeLookOutLeft=1.0, eyeSquintLeft=1.0, eyeLookUpRight=1.0)
    eyes = torch.zeros(len(rig.faces))
    eyes[rig.regions["eyes"]] = 1
    for azimuth in (-30.0, 0.0, 30.0):
        camera = orbit([azimuth], [0.0], torch.tensor([0.0, 0.25, 0.0]), 2.65, 12.0, 512)
        vertices = rig.vertices(looking)
        clip = torch.cat([vertices, torch.ones_like(vertices[..., :1])], 2) @ camera.clip_matrices()[0].T
        ids = rasterize_mesh(clip, rig.faces, (512, 512))[..., 3].long()
        assert float((eyes[(ids - 1).clamp_min(0)] * (ids > 0)).sum((1, 2)).max()) <= 6


def test_lids_and_expression_add_up(rig: BuiltinRig) -> None:
    params = RigParams.neutral(rig)
    by_lids = rig.vertices(params.replace(eyelids=torch.tensor([[0.6, 0.6]])))
    by_action = rig.vertices(with_actions(rig, params, eyeBlinkLeft=0.6, eyeBlinkRight=0.6))
    assert torch.allclose(by_lids, by_action, atol=1e-6)
    over = with_actions(rig, params, eyeBlinkLeft=0.9, eyeBlinkRight=0.9).replace(eyelids=torch.tensor([[0.9, 0.9]]))
    assert torch.allclose(rig.vertices(over), rig.vertices(params.replace(eyelids=torch.ones(1, 2))), atol=1e-6)
    jaw = rig.vertices(params.replace(jaw=torch.tensor([[JAW_OPEN_ANGLE / 2, 0, 0]])))
    assert torch.allclose(jaw, rig.vertices(with_actions(rig, params, jawOpen=0.5)), atol=1e-6)


def test_jaw_opens_the_mouth(rig: BuiltinRig) -> None:
    params = people(rig)
    opened = rig.landmarks(params.replace(jaw=torch.tensor([[JAW_OPEN_ANGLE, 0, 0]]).expand(len(params), 3)))
    closed = rig.landmarks(params)
    gap = lambda p: (p[:, 62] - p[:, 66]).norm(dim=1) / 2.78  # noqa: E731
    assert (gap(opened) > 0.02).all() and (gap(closed) < 0.006).all()
    assert torch.allclose(opened[:, 30], closed[:, 30], atol=1e-2)


def test_eyes_turn_as_rigid_bodies(rig: BuiltinRig) -> None:
    params = RigParams.neutral(rig)
    angle = torch.tensor([[0.1, 0.3, 0.0, 0.1, 0.3, 0.0]])
    rest, turned = rig.vertices(params)[0], rig.vertices(params.replace(eyes=angle))[0]
    for part in (1, 2):
        a, b = rest[rig.parts == part], turned[rig.parts == part]
        expected = (a - a.mean(0)) @ axis_angle_matrix(angle[0, :3]).T
        assert torch.allclose(b - b.mean(0), expected, atol=1e-4)
    _, gaze = rig.controls(with_actions(rig, params, eyeLookOutLeft=1.0).replace(eyes=torch.full((1, 6), 2.0)))
    assert float(gaze[0, 0, 1]) == pytest.approx(GAZE_SIDE_ANGLE)


def test_neck_and_head_leave_the_shoulders(rig: BuiltinRig) -> None:
    params = RigParams.neutral(rig)
    rest = rig.vertices(params)[0]
    turned = rig.vertices(params.replace(neck=torch.tensor([[0, 0.35, 0]]), head=torch.tensor([[0, 0.35, 0]])))[0]
    border = rig.template[:, 1] < -0.25
    assert torch.allclose(rest[border], turned[border], atol=1e-5)
    head = rig.parts == 3
    expected = axis_angle_matrix(torch.tensor([0.0, 0.7, 0.0]))
    edge = lambda v: v[head][5] - v[head][40]  # noqa: E731
    assert torch.allclose(edge(turned), expected @ edge(rest), atol=1e-4)


def test_gradients_match_finite_differences(rig: BuiltinRig) -> None:
    base = with_actions(rig, people(rig, 1), jawOpen=0.3, eyeBlinkLeft=0.4)
    generator = torch.Generator().manual_seed(1)
    base = base.replace(
        **{k: 0.1 * torch.randn(1, 3, generator=generator) for k in ("neck", "head")},
        eyes=torch.full((1, 6), 0.05),
        eyelids=torch.full((1, 2), 0.2),
    )
    probe = torch.randn(70, 3, generator=generator)
    for name, tensor in base.tensors().items():
        leaf = tensor.clone().requires_grad_()
        (rig.landmarks(base.replace(**{name: leaf}))[0] * probe).sum().backward()
        assert leaf.grad is not None
        index = int(leaf.grad.abs().argmax())
        step = torch.zeros(leaf.numel())
        step[index] = 1e-2
        values = [
            (rig.landmarks(base.replace(**{name: tensor + s * step.view_as(tensor)}))[0] * probe).sum() for s in (1, -1)
        ]
        assert float(leaf.grad.flatten()[index]) == pytest.approx(
            float(values[0] - values[1]) / 2e-2, rel=2e-2, abs=1e-3
        ), name


def test_damaged_files_give_one_line(tmp_path: Path) -> None:
    data = PATH.read_bytes()
    cases = {"truncated": data[: len(data) // 2], "empty": b"", "text": b"hello"}
    for name, content in cases.items():
        file = tmp_path / f"{name}.npz"
        file.write_bytes(content)
        with pytest.raises(DataFileError) as caught:
            BuiltinRig.load(file)
        assert "\n" not in str(caught.value)
    np.savez(tmp_path / "pickled.npz", template=np.array([{}], dtype=object))
    for file in (tmp_path / "pickled.npz", tmp_path / "absent.npz"):
        with pytest.raises(DataFileError):
            BuiltinRig.load(file)


def test_groups_of_people_differ(rig: BuiltinRig) -> None:
    zero = torch.zeros(rig.n_shape)
    faces = {}
    for key in (
        ("man", "young", "average"),
        ("man", "child", "average"),
        ("man", "young", "chubby"),
        ("man", "young", "thin"),
    ):
        params = RigParams.neutral(rig).replace(shape=rig.sample_shape(*key, zero)[None])
        faces[key] = rig.landmarks(params)[0]
    width = lambda p: float(p[13, 0] - p[3, 0])  # noqa: E731
    assert width(faces[("man", "young", "chubby")]) > 1.05 * width(faces[("man", "young", "thin")])
    height = lambda p: float(p[27, 1] - p[8, 1])  # noqa: E731
    assert height(faces[("man", "child", "average")]) < 0.92 * height(faces[("man", "young", "average")])


def test_batches_equal_single_heads(rig: BuiltinRig) -> None:
    params = people(rig, 3)
    together = rig.vertices(params)
    for i in range(3):
        assert torch.allclose(rig.vertices(params[[i]])[0], together[i], atol=1e-6)
    assert {f.name for f in dataclasses.fields(params)} == set(params.tensors())


def test_interpolated_template_lands_on_the_face(rig: BuiltinRig) -> None:
    camera = orbit([0.0], [0.0], torch.tensor([0.0, 0.25, 0.0]), 2.65, 20.0, 64)
    vertices = rig.vertices(RigParams.neutral(rig))
    clip = torch.cat([vertices, torch.ones_like(vertices[..., :1])], 2) @ camera.clip_matrices()[0].T
    rast = rasterize_mesh(clip, rig.faces, (64, 64))
    template = interpolate(rig.template[None], rast, rig.faces)[0, 32, 32]
    assert template[2] > 0.06 and abs(float(template[0])) < 0.01
