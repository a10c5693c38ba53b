"""Regions, point labels, framings and condition images."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ap3d.diffusion.conditions import BUILTIN_CODES, ConditionBuilder, ConditionSpec
from ap3d.errors import DataFileError, InputError
from ap3d.framing import FOV_DEGREES, framing_boxes, full_cameras, full_radius, head_camera_target
from ap3d.rig.builtin import BuiltinRig
from ap3d.rig.protocol import RigParams
from ap3d.rig.regions import Label, beard_zone, point_labels, scalp_weight
from ap3d.training.attributes import FRAMINGS


@pytest.fixture(scope="module")
def rig() -> BuiltinRig:
    return BuiltinRig.load()


def test_regions_partition_the_faces(rig: BuiltinRig) -> None:
    parts = [
        rig.regions[k]
        for k in ("scalp", "face", "ears", "eyes", "lips", "teeth", "tongue", "mouth", "neck", "torso", "sockets")
    ]
    ids = torch.cat(parts)
    assert len(ids) == len(rig.faces) == len(ids.unique())
    assert all(len(p) > 20 for p in parts)
    assert set(rig.regions["lids"].tolist()) <= set(rig.regions["face"].tolist())
    assert len(rig.regions["left_eye"]) == len(rig.regions["right_eye"]) == 140


def test_labels_at_known_places(rig: BuiltinRig) -> None:
    corners, weights = rig._landmarks
    points = (rig.template[corners] * weights[:, :, None]).sum(1)
    face_of = lambda n: int((rig.faces[:, None] == corners[n][weights[n].argmax()]).any(2)[:, 0].nonzero()[0])  # noqa: E731
    label = lambda n: int(point_labels(rig, torch.tensor([face_of(n)]), points[[n]]))  # noqa: E731
    assert label(30) == Label.SKIN and label(8) == Label.BEARD and label(27) == Label.SKIN
    top = int(rig.template[:, 1].argmax())
    face = int((rig.faces == top).any(1).nonzero()[0])
    assert int(point_labels(rig, torch.tensor([face]), rig.template[[top]])) == Label.SCALP


def test_iris_is_round_at_any_resolution(rig: BuiltinRig) -> None:
    faces = rig.regions["left_eye"]
    generator = torch.Generator().manual_seed(0)
    weights = torch.distributions.Dirichlet(torch.ones(3)).sample((len(faces), 200))
    del generator
    points = (rig.template[rig.faces[faces]][:, None] * weights[..., None]).sum(2).reshape(-1, 3)
    labels = point_labels(rig, faces.repeat_interleave(200), points)
    centre = rig.template[rig.parts == 1].mean(0)
    iris = points[(labels == Label.IRIS) | (labels == Label.PUPIL)] - centre
    assert float(iris[:, :2].norm(dim=1).max()) == pytest.approx(0.0062, rel=0.05)
    assert float(iris[:, 2].min()) > 0.005


def test_hair_and_beard_weights(rig: BuiltinRig) -> None:
    scalp, beard = scalp_weight(rig), beard_zone(rig)
    assert float(scalp[rig.template[:, 1].argmax()]) == 1 and float(beard[rig.template[:, 1].argmax()]) == 0
    assert 0.04 < float((scalp > 0.5).float().mean()) < 0.5
    assert float((scalp * beard).max()) < 0.5
    assert float(scalp[rig.parts > 0].max()) == 0


def test_framings_stay_inside_and_keep_their_size(rig: BuiltinRig) -> None:
    params = RigParams.neutral(rig)
    vertices = rig.vertices(params)
    target, height = head_camera_target(rig, vertices[0])
    assert full_radius(height) == pytest.approx(2.65, rel=0.06)
    assert target[1] < 0.25
    cameras = full_cameras(rig, vertices, [0.0, 60.0, 180.0], [0.0, 10.0, 0.0], 256)
    pixels, _ = cameras.project(rig.landmarks(params))
    assert float(cameras.intrinsics[0, 0]) == pytest.approx(128 / np.tan(np.radians(FOV_DEGREES / 2)), rel=1e-4)
    for name in FRAMINGS:
        boxes = framing_boxes(pixels, name, 256)
        assert (boxes[:, :2] >= -1e-3).all() and (boxes[:, :2] + boxes[:, 2:] <= 256 + 1e-3).all()
    eye = framing_boxes(pixels, "left_eye", 256)[0]
    assert torch.allclose(eye[:2] + eye[2] / 2, pixels[0, 69], atol=1)
    with pytest.raises(InputError):
        framing_boxes(pixels, "ear", 256)


def test_condition_image_of_a_frontal_head(rig: BuiltinRig) -> None:
    params = RigParams.neutral(rig)
    vertices = rig.vertices(params)
    cameras = full_cameras(rig, vertices, [0.0], [0.0], 128)
    image = ConditionBuilder(rig).render(vertices, cameras)[0]
    assert image.shape == (6, 128, 128) and float(image.min()) >= 0 and float(image.max()) <= 1
    assert float(image[:, 0, 0].abs().max()) == 0
    pixels, _ = cameras.project(rig.landmarks(params))
    x, y = (int(v) for v in pixels[0, 69])
    assert torch.allclose(image[3:, y, x], torch.tensor(BUILTIN_CODES["PUPIL"]), atol=0.35)
    forehead = image[:3, int(pixels[0, 27, 1]) - 14, 64]
    assert forehead[2] > 0.9 and abs(float(forehead[0]) - 0.5) < 0.05
    left_cheek = image[:3, int(pixels[0, 33, 1]), int(pixels[0, 14, 0])]
    assert left_cheek[0] > 0.7  # the subject's left faces image right


def test_brows_are_skin_where_a_model_has_no_code_for_them(rig: BuiltinRig) -> None:
    params = RigParams.neutral(rig)
    vertices = rig.vertices(params)
    cameras = full_cameras(rig, vertices, [0.0], [0.0], 128)
    pixels, _ = cameras.project(rig.landmarks(params))
    x, y = (int(v) for v in pixels[0, 24])  # the middle of the left brow
    place = (slice(3, None), slice(y - 6, y + 7), slice(x - 2, x + 3))
    old = ConditionSpec(codes={name: code for name, code in BUILTIN_CODES.items() if name != "BROW"})
    painted, plain = (
        ConditionBuilder(rig, spec).render(vertices, cameras)[0][place] for spec in (ConditionSpec(), old)
    )
    shows = lambda image, name: (image - torch.tensor(BUILTIN_CODES[name])[:, None, None]).abs().amax(0) < 0.05  # noqa: E731
    assert shows(plain, "SKIN").all()
    assert shows(painted, "BROW").any() and shows(painted, "SKIN").any()


def test_production_condition(rig: BuiltinRig, tmp_path: Path) -> None:
    ConditionSpec.production().write(tmp_path / "condition.json")
    spec = ConditionSpec.read(tmp_path)
    assert spec == ConditionSpec.production() and spec.channels == 4
    params = RigParams.neutral(rig)
    vertices = rig.vertices(params)
    cameras = full_cameras(rig, vertices, [0.0], [0.0], 128)
    image = ConditionBuilder(rig, spec).render(vertices, cameras)[0]
    assert float(image[:3, 0, 0].min()) == 1 and float(image[3, 0, 0]) == 0
    pixels, _ = cameras.project(rig.landmarks(params))
    x, y = (int(v) for v in pixels[0, 69])
    assert 0.2 < float(image[3, y, x]) < 0.9 and float(image[:3, y, x].min()) > 0.6  # an open eye is background
    (tmp_path / "condition.json").write_text("{}")
    with pytest.raises(DataFileError):
        ConditionSpec.read(tmp_path)
