import numpy as np
import pytest
import torch

from ap3d.cameras import orbit
from ap3d.errors import NoFaceError
from ap3d.fitting.similarity import axis_angle, similarity
from ap3d.fitting.triangulation import triangulate
from ap3d.perception.protocol import FaceLandmarks
from ap3d.rig.skinning import axis_angle_matrix

AZIMUTHS = [0.0, 40.0, -40.0, 20.0, 180.0]
CAMERAS = orbit(AZIMUTHS, [5.0, -10.0, 10.0, 20.0, 0.0], torch.tensor([0.1, 0.2, 0.0]), 2.7, 30.0, 256)
ALL = torch.ones(len(AZIMUTHS), dtype=torch.bool)


def seen(points: torch.Tensor, noise: float = 0.0) -> FaceLandmarks:
    """What a perfect detector would find, with Gaussian noise in pixels; nothing from behind."""
    pixels = CAMERAS.project(points)[0]
    pixels = pixels + noise * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    mesh = torch.cat([pixels, torch.zeros_like(pixels[..., :1])], 2)
    score = torch.tensor([0.9, 0.9, 0.9, 0.9, 0.0])
    mesh[4] = torch.nan
    return FaceLandmarks(mesh[:, :70, :2], mesh, score, (score > 0).long())


def face_points() -> torch.Tensor:
    return torch.tensor([0.1, 0.2, 0.2]) + 0.2 * torch.randn(478, 3, generator=torch.Generator().manual_seed(1))


def test_exact_detections_give_the_points_back() -> None:
    points = face_points()
    found = triangulate(seen(points), CAMERAS, ALL)
    assert torch.allclose(found.points, points, atol=1e-5) and found.views == [0, 1, 2, 3] and found.pixels < 1e-3


def test_a_view_that_shows_another_face_does_not_count() -> None:
    points, found = face_points(), seen(face_points(), 0.5)
    found.mesh[1, :, :2] += torch.tensor([60.0, -30.0])
    result = triangulate(found, CAMERAS, ALL)
    assert result.views == [0, 2, 3]
    # Half a pixel at this distance is 0.0028 world units; three views with 60 degrees between them.
    assert float((result.points - points).norm(dim=1).median()) < 0.006


def test_single_wrong_points_weigh_little() -> None:
    points, found = face_points(), seen(face_points())
    found.mesh[2, :40, :2] += 15
    result = triangulate(found, CAMERAS, ALL)
    assert float((result.points - points).norm(dim=1)[:40].median()) < 0.004
    assert len(result.views) == 4


def test_no_face_is_named() -> None:
    nothing = seen(face_points())
    nothing.score[:] = 0
    with pytest.raises(NoFaceError, match="0 of 5 views"):
        triangulate(nothing, CAMERAS, ALL)
    strange = seen(face_points())
    strange.mesh[..., :2] = 256 * torch.rand(strange.mesh.shape[:2] + (2,), generator=torch.Generator().manual_seed(2))
    with pytest.raises(NoFaceError, match="no two the same"):
        triangulate(strange, CAMERAS, ALL)


def test_similarity_of_points_that_were_moved() -> None:
    points = face_points()
    turn = torch.tensor([0.3, -0.5, 0.2])
    rotation = axis_angle_matrix(turn[None])[0]
    scale, found, shift = similarity(points, 2.5 * points @ rotation.T + 1.0, torch.rand(478) + 0.1)
    assert scale == pytest.approx(2.5, rel=1e-5) and torch.allclose(found, rotation, atol=1e-5)
    assert torch.allclose(shift, torch.ones(3), atol=1e-5)
    assert torch.allclose(axis_angle(rotation), turn, atol=1e-5)
    assert np.allclose(axis_angle(torch.eye(3)), 0)
