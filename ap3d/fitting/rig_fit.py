"""A rig's parameters for a static portrait: similarity, then Gauss-Newton on landmarks, surface and priors."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ap3d.diffusion.conditions import vertex_normals
from ap3d.errors import RigFitError
from ap3d.fitting.landmarks import LandmarkModel
from ap3d.fitting.parameters import FreeParameters
from ap3d.fitting.similarity import placed_params
from ap3d.fitting.surface import LabelledSurface, SurfaceRows, outer_vertices, surface_rows
from ap3d.fitting.triangulation import SpatialLandmarks
from ap3d.rig.protocol import Rig, RigParams

FIELDS = ("shape", "expression", "neck", "head", "jaw", "eyes", "eyelids", "scale", "translation")
LANDMARK_ROUNDS, SURFACE_ROUNDS = 6, 8
LANDMARK_COUNT, SURFACE_COUNT = 100.0, 600.0  # independent observations that all of them together count as
REACH = (0.03, 0.010)  # metres, of the first and the last round
DAMPING = 1e-3
HUBER = 2.5
LARGEST_LANDMARK_ERROR, LARGEST_SURFACE_ERROR = 0.012, 0.006  # metres


@dataclass(frozen=True)
class RigFit:
    """A fitted rig.

    Attributes:
        params: batch of one.
        landmark_mm: mean distance of the rig's points to the triangulated landmarks, millimetres.
        surface_mm: median distance of its face from the portrait's skin, millimetres (NaN without a surface).
        views: how many views the landmarks came from.
        landmark_pixels: median reprojection error of the landmarks.
    """

    params: RigParams
    landmark_mm: float
    surface_mm: float
    views: int
    landmark_pixels: float


def fit_rig(
    rig: Rig,
    landmarks: SpatialLandmarks,
    surface: LabelledSurface | None,
    report: Callable[[int, int], None] = lambda step, steps: None,
) -> RigFit:
    """Fit pose, shape, expression, lids, gaze, scale and place of a rig.

    Args:
        rig: any rig.
        landmarks: the detector's mesh points in space.
        surface: the portrait's skin, hair and clothes; without one the landmarks alone decide.
        report: told (round, rounds).

    Raises:
        RigFitError: the rig stays too far from the landmarks or the skin.
    """
    model = LandmarkModel.of(rig, landmarks)
    params = placed_params(rig, model)
    free = FreeParameters.of(rig, FIELDS)
    outer, torso = outer_vertices(rig)
    rounds = LANDMARK_ROUNDS + (SURFACE_ROUNDS if surface is not None else 0)
    for index in range(rounds):
        rows = None
        vertices, jacobian = free.jacobian(rig, params)
        if surface is not None and index >= LANDMARK_ROUNDS:
            share = (index - LANDMARK_ROUNDS) / max(SURFACE_ROUNDS - 1, 1)
            metre = float(params.scale[0, 0])
            reach = REACH[0] * (REACH[1] / REACH[0]) ** share * metre
            normals = vertex_normals(vertices[None], rig.faces)[0]
            rows = surface_rows(surface, vertices, normals, outer, torso, metre, reach)
        start = free.pack(params)
        step = _step(free, start, model, vertices, jacobian, rows)
        params = free.unpack((start + step)[None], params)
        report(index + 1, rounds)
    return _checked(rig, params, model, surface, landmarks)


def _step(
    free: FreeParameters, start: Tensor, model: LandmarkModel, vertices: Tensor, jacobian: Tensor,
    rows: SurfaceRows | None,
) -> Tensor:  # fmt: skip
    """The change ``[P]`` of one Gauss-Newton round."""
    residual = model.points(vertices) - model.target  # [K, 3]
    columns = model.points(jacobian)  # [P, K, 3]
    scaled = residual.norm(dim=1) / model.sigma
    weights = (HUBER / scaled.clamp_min(HUBER)) / model.sigma.square() * (LANDMARK_COUNT / len(scaled))
    weighted = columns * weights[:, None]
    normal = torch.einsum("pkc,qkc->pq", weighted, columns)
    right = -torch.einsum("pkc,kc->p", weighted, residual)
    if rows is not None and len(rows.vertices):
        along = torch.einsum("pmc,mc->pm", jacobian[:, rows.vertices], rows.directions)
        certain = rows.weights * (SURFACE_COUNT / len(rows.weights))
        normal = normal + (along * certain) @ along.T
        right = right - (along * certain) @ rows.residual
    normal = normal + torch.diag(free.precision + DAMPING * normal.diagonal())
    right = right - free.precision * start
    return bounded_solve(normal, right, free.low - start, free.high - start)


def bounded_solve(normal: Tensor, right: Tensor, low: Tensor, high: Tensor, rounds: int = 12) -> Tensor:
    """Least ``x H x / 2 - b x`` within bounds, by an active set.

    Args:
        normal: ``[P, P]`` positive definite.
        right: ``[P]``.
        low, high: ``[P]`` bounds with ``low <= 0 <= high``.
        rounds: of changes of the active set.
    """
    normal, right = normal.double(), right.double()
    low, high = low.double(), high.double()
    solution = torch.zeros_like(right)
    held = torch.zeros_like(right, dtype=torch.bool)
    for _ in range(rounds):
        free = ~held
        rest = right[free] - normal[free][:, held] @ solution[held]
        solution = solution.clone()
        solution[free] = torch.linalg.solve(normal[free][:, free], rest)
        outside = (solution < low) | (solution > high)
        solution = torch.minimum(torch.maximum(solution, low), high)
        downhill = right - normal @ solution
        release = held & ~outside & (((solution <= low) & (downhill > 0)) | ((solution >= high) & (downhill < 0)))
        if not outside.any() and not release.any():
            break
        held = (held | outside) & ~release
    return solution.float()


def _checked(
    rig: Rig, params: RigParams, model: LandmarkModel, surface: LabelledSurface | None, landmarks: SpatialLandmarks
) -> RigFit:
    metre = float(params.scale[0, 0])
    vertices = rig.vertices(params)[0]
    landmark_error = float((model.points(vertices) - model.target).norm(dim=1)[model.inner].mean()) / metre
    surface_error = float("nan")
    if surface is not None:
        face = torch.unique(rig.faces[rig.regions["face"]])
        normals = vertex_normals(vertices[None], rig.faces)[0]
        torso = torch.zeros(len(vertices), dtype=torch.bool)
        rows = surface_rows(surface, vertices, normals, face, torso, metre, REACH[0] * metre)
        if int(rows.skin.sum()) < len(face) // 20:
            raise RigFitError("hardly any of the rig's face lies near the portrait's skin; is the portrait a head?")
        surface_error = float(rows.residual[rows.skin].abs().median()) / metre
    if landmark_error > LARGEST_LANDMARK_ERROR or surface_error > LARGEST_SURFACE_ERROR:
        raise RigFitError(
            f"the rig stays {1000 * landmark_error:.1f} mm from the face's landmarks and {1000 * surface_error:.1f} mm"
            f" from its skin (limits {1000 * LARGEST_LANDMARK_ERROR:.0f} and {1000 * LARGEST_SURFACE_ERROR:.0f} mm);"
            " is this one human head with an uncovered face?"
        )
    return RigFit(params, 1000 * landmark_error, 1000 * surface_error, len(landmarks.views), landmarks.pixels)
