from pathlib import Path

import pytest
import torch
from scipy.optimize import lsq_linear

from ap3d.diffusion.conditions import vertex_normals
from ap3d.errors import RigFitError
from ap3d.fitting.parameters import FreeParameters
from ap3d.fitting.rig_fit import bounded_solve, fit_rig
from ap3d.fitting.surface import LabelledSurface, outer_vertices
from ap3d.fitting.triangulation import SpatialLandmarks
from ap3d.perception.embedding import Embedding
from ap3d.perception.mesh_topology import IBUG
from ap3d.perception.protocol import Part
from ap3d.rig import load_rig
from ap3d.rig.body_model import BodyModelRig
from ap3d.rig.protocol import RigParams
from tests.rig.synthetic_models import write_flame

RIG = load_rig()
MILLIMETRE = 0.001 * RIG.default_scale


def somebody(scale: float = 1.0, shift: float = 0.0) -> RigParams:
    g = torch.Generator().manual_seed(3)
    params = RigParams.neutral(RIG)
    expression = torch.zeros(1, RIG.n_expression)
    for name, value in (("mouthSmileLeft", 0.6), ("mouthSmileRight", 0.6), ("jawOpen", 0.3)):
        expression[0, RIG.expression_names.index(name)] = value
    return params.replace(
        shape=0.8 * torch.randn(1, RIG.n_shape, generator=g), expression=expression,
        head=torch.tensor([[0.05, 0.2, -0.05]]), neck=torch.tensor([[0.0, 0.1, 0.02]]),
        scale=params.scale * scale, translation=params.translation + shift,
    )  # fmt: skip


def landmarks_of(params: RigParams) -> SpatialLandmarks:
    points = Embedding.load().points(RIG.vertices(params)[0])
    return SpatialLandmarks(points, torch.full((len(points),), 0.001), [0, 1], 0.5)


def surface_of(params: RigParams) -> LabelledSurface:
    """The rig itself, its scalp under 10 mm of hair and its torso under 5 mm of cloth."""
    vertices = RIG.vertices(params)[0]
    normals = vertex_normals(vertices[None], RIG.faces)[0]
    outer, torso = outer_vertices(RIG)
    parts = torch.full((len(vertices),), int(Part.SKIN))
    raised = torch.zeros(len(vertices))
    scalp = torch.unique(RIG.faces[RIG.regions["scalp"]])
    parts[scalp], raised[scalp] = int(Part.HAIR), 0.010
    parts[torso], raised[torso] = int(Part.CLOTHES), 0.005
    metre = float(params.scale[0, 0])
    return LabelledSurface((vertices + raised[:, None] * metre * normals)[outer], normals[outer], parts[outer])


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (3.0, 5.0)])
def test_a_rig_is_found_again_in_any_framing(scale: float, shift: float) -> None:
    truth = somebody(scale, shift)
    fitted = fit_rig(RIG, landmarks_of(truth), surface_of(truth))
    error = (RIG.vertices(fitted.params) - RIG.vertices(truth))[0].norm(dim=1) / (MILLIMETRE * scale)
    face = torch.unique(RIG.faces[RIG.regions["face"]])
    assert float(error[face].mean()) < 1.0 and float(error[outer_vertices(RIG)[0]].mean()) < 3.0
    assert fitted.surface_mm < 0.5


def test_sixty_eight_landmarks_will_do() -> None:
    truth = somebody()
    points = RIG.landmarks(truth)[0, :68]
    fitted = fit_rig(RIG, SpatialLandmarks(points, torch.full((68,), 0.001), [0, 1], 0.5), surface_of(truth))
    error = (RIG.vertices(fitted.params) - RIG.vertices(truth))[0].norm(dim=1) / MILLIMETRE
    assert float(error[torch.unique(RIG.faces[RIG.regions["face"]])].mean()) < 2.5


def test_a_body_model_is_fitted_by_its_own_landmarks(tmp_path: Path) -> None:
    rig = BodyModelRig.load(write_flame(tmp_path / "generic_model.pkl"))
    truth = RigParams.neutral(rig)
    truth.shape[0, :20] = 0.8 * torch.randn(20, generator=torch.Generator().manual_seed(0))
    truth = truth.replace(jaw=torch.tensor([[0.1, 0.0, 0.0]]), head=torch.tensor([[0.05, 0.2, 0.0]]))
    vertices = rig.vertices(truth)[0]
    outer, _ = outer_vertices(rig)
    normals = vertex_normals(vertices[None], rig.faces)[0]
    surface = LabelledSurface(vertices[outer], normals[outer], torch.full((len(outer),), int(Part.SKIN)))
    mesh, seen = torch.zeros(478, 3), rig.landmarks(truth)[0]
    mesh[list(IBUG)] = seen
    mesh[[33, 263]] = seen[[36, 45]]
    fitted = fit_rig(rig, SpatialLandmarks(mesh, torch.full((478,), 0.001), [0, 1], 0.5), surface)
    error = (rig.vertices(fitted.params)[0] - vertices).norm(dim=1)[outer] / (0.001 * rig.default_scale)
    assert float(error.mean()) < 1.0


def test_the_scalp_stays_under_the_hair() -> None:
    truth = somebody()
    fitted = fit_rig(RIG, landmarks_of(truth), surface_of(truth))
    scalp = torch.unique(RIG.faces[RIG.regions["scalp"]])
    vertices = RIG.vertices(truth)[0]
    normals = vertex_normals(vertices[None], RIG.faces)[0]
    height = ((RIG.vertices(fitted.params)[0] - vertices) * normals).sum(1)[scalp] / MILLIMETRE
    assert float((height > 9).float().mean()) < 0.02


def test_landmarks_of_no_head_are_refused() -> None:
    points = torch.randn(478, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(RigFitError):
        fit_rig(RIG, SpatialLandmarks(points, torch.full((478,), 0.001), [0, 1], 0.5), None)


def test_a_head_that_looks_away_is_refused() -> None:
    truth = somebody()
    landmarks = landmarks_of(truth)
    turned = landmarks.points * torch.tensor([-1.0, 1.0, -1.0])  # half a turn about y
    with pytest.raises(RigFitError, match="away from"):
        fit_rig(RIG, SpatialLandmarks(turned, landmarks.error, [0, 1], 0.5), None)


def test_a_surface_far_from_the_rig_is_refused() -> None:
    truth = somebody()
    good = surface_of(truth)
    away = LabelledSurface(good.points + 3.0, good.normals, good.parts)
    with pytest.raises(RigFitError, match="skin"):
        fit_rig(RIG, landmarks_of(truth), away)


def test_differences_agree_with_derivatives() -> None:
    params = somebody()
    free = FreeParameters.of(RIG, ("shape", "neck", "head", "scale", "translation"))
    _, jacobian = free.jacobian(RIG, params)
    direction = torch.randn(len(RIG.template), 3, generator=torch.Generator().manual_seed(5))
    values = free.pack(params).requires_grad_()
    (RIG.vertices(free.unpack(values[None], params))[0] * direction).sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    found = torch.einsum("pvc,vc->p", jacobian, direction)
    assert float((found - values.grad).norm()) < 0.02 * float(values.grad.norm())


def test_bounded_solve_agrees_with_scipy() -> None:
    g = torch.Generator().manual_seed(7)
    for _ in range(5):
        a, b = torch.randn(40, 20, generator=g).double(), torch.randn(40, generator=g).double()
        low, high = torch.full((20,), -0.1).double(), torch.full((20,), 0.05).double()
        expected = lsq_linear(a.numpy(), b.numpy(), (low.numpy(), high.numpy()), method="bvls").x
        found = bounded_solve(a.T @ a, a.T @ b, low, high, rounds=60)
        assert torch.allclose(found.double(), torch.from_numpy(expected), atol=1e-4)
