"""Where on the built-in rig the detector's 478 points lie, learned from renders of the rig with the detector itself.

A detector's points are defined by its training data, not by a mesh. For each point the place on the rig is taken whose
projection agrees best with the detections over many people, expressions and views.
"""

import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ap3d.cameras import Cameras, orbit
from ap3d.framing import FOV_DEGREES, full_radius, head_camera_target
from ap3d.motion.expressions import ExpressionSampler
from ap3d.perception.embedding import PATH
from ap3d.perception.landmarks_mesh import FaceMeshDetector
from ap3d.perception.protocol import LandmarkDetector
from ap3d.rig.builtin import BuiltinRig
from ap3d.training.portraits import Person, Portraitist, sample_person

PICTURES = 320
SIZE = 256
FRONT = 0.02  # metres, z of the template: no point lies further back
SLACK = 0.1  # barycentric weight that a point may lie outside its triangle


@dataclass(frozen=True)
class Sightings:
    """Detections ``[N, 478, 2]`` and the projected vertices ``[N, V, 2]``, both over the inter-ocular distance."""

    points: Tensor
    vertices: Tensor


def draw_sightings(rig: BuiltinRig, detector: LandmarkDetector, count: int, seed: int = 0) -> Sightings:
    """Render people with expressions and detect their landmarks; pictures without a certain face are left out."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    sampler, points, vertices = ExpressionSampler(rig), [], []
    for index in range(count):
        person = sample_person(rng, rig)
        if index % 2:
            params = sampler.draw(person.neutral.replace(neck=person.params.neck, head=person.params.head), generator)
            person = replace(person, params=params)
        camera = _camera(rig, person, rng)
        found = detector.detect(Portraitist(person, rig).render(camera))
        if float(found.score) < 0.5:
            continue
        truth = camera.project(rig.vertices(person.params))[0]
        eyes = camera.project(rig.landmarks(person.params))[0][0, [36, 45]]
        unit = (eyes[0] - eyes[1]).norm()
        points.append(found.mesh[0, :, :2] / unit)
        vertices.append(truth[0] / unit)
    return Sightings(torch.stack(points), torch.stack(vertices))


def _camera(rig: BuiltinRig, person: Person, rng: np.random.Generator) -> Cameras:
    target, height = head_camera_target(rig, rig.vertices(person.neutral)[0])
    return orbit([rng.uniform(-28, 28)], [rng.uniform(-14, 18)], target, full_radius(height), FOV_DEGREES, SIZE)


def embed(rig: BuiltinRig, seen: Sightings) -> dict[str, np.ndarray]:
    """Arrays ``vertices [478, 3]``, ``weights [478, 3]`` and ``spread [478]``.

    The spread is the root mean square distance of detection and projection, over the inter-ocular distance.
    """
    skin_or_eye = (rig.parts <= 2) & (rig.template[:, 2] > FRONT)
    candidates = torch.nonzero(skin_or_eye)[:, 0]
    faces = rig.faces[skin_or_eye[rig.faces].all(1)]
    corners, weights, spread = [], [], []
    for point in range(seen.points.shape[1]):
        error = (seen.vertices[:, candidates] - seen.points[:, point, None]).square().sum(2)
        near = candidates[error.mean(0).topk(4, largest=False).indices]
        fits = [_fit_triangle(seen, point, face) for face in faces[torch.isin(faces, near).any(1)]]
        best = min(fits, key=lambda fit: fit[2])
        corners.append(best[0])
        weights.append(best[1])
        spread.append(best[2] ** 0.5)
    return {
        "vertices": torch.stack(corners).numpy().astype(np.int32),
        "weights": torch.stack(weights).numpy().astype(np.float32),
        "spread": np.array(spread, np.float32),
    }


def _fit_triangle(seen: Sightings, point: int, face: Tensor) -> tuple[Tensor, Tensor, float]:
    """Barycentric weights that explain a point best: least squares with sum 1, pushed back to the triangle."""
    corners = seen.vertices[:, face].double()
    edges = torch.stack([corners[:, 0] - corners[:, 2], corners[:, 1] - corners[:, 2]], 2).reshape(-1, 2)
    wanted = (seen.points[:, point].double() - corners[:, 2]).reshape(-1, 1)
    free = torch.linalg.lstsq(edges, wanted).solution[:, 0]
    weights = torch.cat([free, 1 - free.sum(0, keepdim=True)]).clamp(-SLACK, 1 + SLACK)
    weights = weights / weights.sum()
    left = (corners * weights[None, :, None]).sum(1) - seen.points[:, point]
    return face, weights, float(left.square().sum(1).mean())


def export_embedding(folder: Path, count: int = PICTURES) -> Path:
    """Write the npz that ``ap3d.perception.embedding`` reads, made with the networks of the same folder."""
    rig = BuiltinRig.load()
    arrays = embed(rig, draw_sightings(rig, FaceMeshDetector.load(folder), count))
    path = folder / PATH.name
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    path.write_bytes(buffer.getvalue())
    return path
