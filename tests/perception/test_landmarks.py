"""The shipped landmark detector: equal to the original runtimes, right on faces whose landmarks are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.errors import DataFileError, InputError
from ap3d.framing import full_cameras
from ap3d.perception import load_landmark_detector
from ap3d.perception.face_measures import eye_opening, eye_whiteness, mouth_opening, mouth_width
from ap3d.perception.landmarks_mesh import FOLDER, FaceMeshDetector
from ap3d.perception.network_file import Network
from ap3d.training.portraits import Portraitist, sample_person
from ap3d.training.tflite_reader import read_tflite

# A picture, the detector's outputs by the TensorFlow Lite interpreter 2.3 and the mesh's by MediaPipe 0.10.21.
REFERENCES = Path(__file__).with_name("references.npz")
SIZE = 320
FACES = {
    "neutral": {},
    "open": {"jawOpen": 0.7},
    "closed eyes": {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0},
    "smile": {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8},
}


@pytest.fixture(scope="module")
def detector() -> FaceMeshDetector:
    return FaceMeshDetector.load()


@pytest.fixture(scope="module")
def references() -> dict[str, np.ndarray]:
    with np.load(REFERENCES) as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def faces(rig) -> tuple[dict[str, Tensor], dict[str, Tensor]]:  # type: ignore[no-untyped-def]
    """Pictures and true landmarks of one person's faces by name."""
    person = sample_person(np.random.default_rng(0), rig)
    camera = front_camera(rig, person.neutral)
    pictures, truth = {}, {}
    for name, actions in FACES.items():
        expression = torch.zeros(1, rig.n_expression)
        for action, value in actions.items():
            expression[0, rig.expression_names.index(action)] = value
        params = person.neutral.replace(expression=expression)
        pictures[name] = Portraitist(replace(person, params=params), rig).render(camera)
        truth[name] = camera.project(rig.landmarks(params))[0]
    return pictures, truth


def front_camera(rig, params) -> Cameras:  # type: ignore[no-untyped-def]
    return full_cameras(rig, rig.vertices(params)[0], [0.0], [0.0], SIZE)


def test_detector_equals_the_original_runtime(detector: FaceMeshDetector, references: dict[str, np.ndarray]) -> None:
    picture = torch.from_numpy(references["small"]).permute(2, 0, 1)[None] / 127.5 - 1
    regressors, logits = detector.detector(picture)
    np.testing.assert_allclose(regressors[0, ::8].numpy(), references["regressors"], atol=1e-4)
    np.testing.assert_allclose(logits[0, ::8].numpy(), references["logits"], atol=1e-4)


def test_mesh_equals_the_original_runtime(detector: FaceMeshDetector, references: dict[str, np.ndarray]) -> None:
    picture = torch.from_numpy(references["picture"]).permute(2, 0, 1)[None] / 255
    for index, output in enumerate(detector.mesh(picture)):
        np.testing.assert_allclose(output.reshape(-1).numpy(), references[f"mesh{index}"], atol=3e-4)


def test_a_batch_gives_what_single_pictures_give(detector: FaceMeshDetector) -> None:
    pictures = torch.rand(3, 3, 192, 192, generator=torch.Generator().manual_seed(0))
    for whole, *parts in zip(detector.mesh(pictures), *(detector.mesh(p[None]) for p in pictures), strict=True):
        torch.testing.assert_close(whole, torch.cat(parts), atol=2e-3, rtol=1e-4)


def test_landmarks_lie_where_the_rig_has_them(detector, faces) -> None:  # type: ignore[no-untyped-def]
    pictures, truth = faces
    for name, picture in pictures.items():
        found = detector.detect(picture)
        assert float(found.score) > 0.8 and int(found.faces) == 1
        error = (found.points - truth[name]).norm(dim=2)[0] / SIZE
        assert float(error.mean()) < 0.03 and float(error[36:48].mean()) < 0.012, name


def test_mouth_lids_and_smile_move_the_measures(detector, faces) -> None:  # type: ignore[no-untyped-def]
    pictures, _ = faces
    points = {name: detector.detect(picture).points for name, picture in pictures.items()}
    assert float(mouth_opening(points["open"])) > float(mouth_opening(points["neutral"])) + 0.15
    assert float(eye_opening(points["closed eyes"]).max()) < 0.4 * float(eye_opening(points["neutral"]).min())
    assert float(mouth_width(points["smile"])) > 1.1 * float(mouth_width(points["neutral"]))


def test_shut_eyes_are_not_white(detector, faces) -> None:  # type: ignore[no-untyped-def]
    white = {name: eye_whiteness(picture, detector.detect(picture).mesh) for name, picture in faces[0].items()}
    assert float(white["closed eyes"].max()) < 0.3 * float(white["neutral"].min())


def test_measures_do_not_depend_on_size_and_place(faces) -> None:  # type: ignore[no-untyped-def]
    points = faces[1]["open"]
    for measure in (mouth_opening, mouth_width, eye_opening):
        torch.testing.assert_close(measure(points), measure(2.5 * points + 40))


def test_turned_wide_and_small_pictures(detector, faces) -> None:  # type: ignore[no-untyped-def]
    picture = faces[0]["open"]
    upright = detector.detect(picture).points[0]
    turned = torch.rot90(picture, -1, (2, 3))  # clockwise: (x, y) goes to (SIZE - y, x)
    found = detector.detect(torch.nn.functional.pad(turned, (200, 40))).points[0]
    expected = torch.stack([SIZE - upright[:, 1] + 200, upright[:, 0]], 1)
    assert float((found - expected).norm(dim=1).mean()) < 0.03 * SIZE
    large = torch.nn.functional.interpolate(picture, scale_factor=3, mode="bilinear")
    assert float((detector.detect(large).points[0] / 3 - upright).norm(dim=1).mean()) < 0.01 * SIZE


def test_two_faces_the_largest_counts(detector, faces) -> None:  # type: ignore[no-untyped-def]
    picture = faces[0]["neutral"]
    small = torch.nn.functional.interpolate(picture, scale_factor=0.75, mode="bilinear")
    both = torch.ones(1, 3, SIZE, SIZE + small.shape[3])
    both[:, :, : small.shape[2], : small.shape[3]] = small
    both[..., small.shape[3] :] = picture
    found = detector.detect(both)
    assert int(found.faces) == 2 and float(found.points[0, :, 0].min()) > small.shape[3]


def test_no_face_and_no_picture(detector: FaceMeshDetector, faces) -> None:  # type: ignore[no-untyped-def]
    pictures = torch.cat([torch.full((1, 3, SIZE, SIZE), 0.5), faces[0]["neutral"]])
    found = detector.detect(pictures)
    assert (
        found.score.tolist()[0] == 0 and bool(found.points[0].isnan().all()) and bool(found.points[1].isfinite().all())
    )
    assert len(detector.detect(torch.zeros(0, 3, 64, 64))) == 0


def test_bad_files_and_names_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are: builtin"):
        load_landmark_detector("dlib")
    broken = tmp_path / "mesh.safetensors"
    broken.write_bytes((FOLDER / "mesh.safetensors").read_bytes()[:5000])
    for path in (broken, tmp_path / "absent.safetensors", FOLDER.parent / "shape_prior.safetensors"):
        with pytest.raises(DataFileError, match="reinstall") as caught:
            Network.load(path)
        assert "\n" not in str(caught.value)
    for data in (b"", b"abcdTFL3" + bytes(30), b"\xff\xff\xff\x7fTFL3" + bytes(30)):
        with pytest.raises(DataFileError):
            read_tflite(data)
