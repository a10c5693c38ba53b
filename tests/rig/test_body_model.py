"""SMPL-X and FLAME rigs on synthetic files: skinning against `smplx`, crop, lids, teeth, landmarks, regions."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ap3d.cameras import orbit
from ap3d.raster.mesh import rasterize_mesh
from ap3d.rig import load_rig
from ap3d.rig.atlas import atlas
from ap3d.rig.body_model import BodyModelRig
from ap3d.rig.companions import Companions
from ap3d.rig.model_file import read_body_model
from ap3d.rig.protocol import Rig, RigParams
from ap3d.rig.regions import Label, point_labels
from tests.rig import synthetic_models as synthetic


@pytest.fixture(params=["smplx", "flame"])
def model_rig(request: pytest.FixtureRequest, smplx_rig: BodyModelRig, flame_rig: BodyModelRig) -> BodyModelRig:
    return smplx_rig if request.param == "smplx" else flame_rig


def random_params(rig: Rig, batch: int = 2, seed: int = 0) -> RigParams:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda n, size: size * torch.randn(batch, n, generator=generator)  # noqa: E731
    return RigParams.neutral(rig, batch).replace(
        shape=draw(300, 0.5), expression=draw(100, 0.2), neck=draw(3, 0.2), head=draw(3, 0.2), jaw=draw(3, 0.1),
        eyes=draw(6, 0.2), scale=torch.rand(batch, 1, generator=generator) + 1, translation=draw(3, 0.1),
    )  # fmt: skip


def covered(rig: BodyModelRig, params: RigParams, azimuth: float, part: torch.Tensor) -> int:
    """Pixels of a 512-pixel close view of the eyes and mouth that show faces of ``part`` (bool ``[F]``)."""
    centre = rig.landmarks(RigParams.neutral(rig))[0, 17:68].mean(0)
    camera = orbit([azimuth], [0.0], centre, 2.65, 8.0, 512)
    vertices = rig.vertices(params)
    clip = torch.cat([vertices, torch.ones_like(vertices[..., :1])], 2) @ camera.clip_matrices()[0].float().T
    ids = rasterize_mesh(clip, rig.faces, (512, 512))[..., 3].long()
    return int((part[(ids - 1).clamp_min(0)] & (ids > 0)).sum())


def test_sizes_and_names(smplx_rig: BodyModelRig, flame_rig: BodyModelRig, model_folder: Path) -> None:
    assert (smplx_rig.name, smplx_rig.expression_basis) == ("smplx2020", "flame2020")
    assert (flame_rig.name, flame_rig.expression_basis) == ("flame2020", "flame2020")
    assert smplx_rig.n_shape == 300 and smplx_rig.n_expression == 100
    assert load_rig(str(model_folder / "flame2023.pkl")).expression_basis == "flame2023"


def test_smplx_is_cropped_to_head_and_shoulders(smplx_rig: BodyModelRig) -> None:
    """The hand at the end of a T-posed arm hangs below the crop once the arms are lowered."""
    kept = smplx_rig.crop.vertices
    hand = np.arange(10475 - 2 * synthetic.EYE - 52, 10475 - 2 * synthetic.EYE)
    assert not np.isin(hand, kept).any() and np.isin(np.arange(synthetic.SKIN), kept).all()
    assert (smplx_rig.template[:, 1] > -0.15).all()


def test_topology_depends_on_the_model_alone(smplx_rig: BodyModelRig, flame_rig: BodyModelRig) -> None:
    """Bundles name it: crop, mouth and their order may not change without ``PARTS_VERSION``."""
    assert smplx_rig.topology_sha256 != flame_rig.topology_sha256
    assert smplx_rig.faces.shape == (14508, 3) and flame_rig.faces.shape == (9976 + 2852, 3)


def test_stands_like_the_built_in_rig(model_rig: BodyModelRig) -> None:
    built_in = load_rig("builtin")
    there = built_in.landmarks(RigParams.neutral(built_in))[0]
    here = model_rig.landmarks(RigParams.neutral(model_rig))[0]
    assert (here - there).norm(dim=1).mean() < 0.05  # world units: 18 mm
    nose, chin = here[30], here[8]
    assert nose[1] > chin[1] and here[69, 0] > 0 > here[68, 0] and nose[2] > here[68, 2]


def test_landmarks_are_the_files_own_and_the_contour_follows_the_jaw(model_rig: BodyModelRig) -> None:
    head = synthetic.synthetic_head()
    offset = synthetic.SMPLX_OFFSET if model_rig.name == "smplx2020" else synthetic.FLAME_OFFSET
    expected = (head.template[head.faces[head.landmark_faces]] * head.landmark_weights[..., None]).sum(1) + offset
    found = model_rig.landmarks_of(model_rig.template[None])[0].numpy()
    close = 1e-5 if model_rig.name == "smplx2020" else 0.012  # FLAME's file has none: they are derived
    assert np.linalg.norm(found[17:68] - expected, axis=1).max() < close
    assert np.linalg.norm(found[17:68] - expected, axis=1).mean() < 0.004
    assert (np.diff(found[:17, 0]) > 0).all()  # from the subject's right ear round the chin to the left
    assert abs(found[8, 0]) < 0.004 and found[8, 1] < found[57, 1]


def test_lids_close_without_holes_for_every_shape(model_rig: BodyModelRig) -> None:
    eyes = (model_rig.face_parts == 1) | (model_rig.face_parts == 2)
    people = random_params(model_rig, 3).replace(
        neck=torch.zeros(3, 3), head=torch.zeros(3, 3), scale=torch.full((3, 1), 2.78),
        translation=model_rig.default_translation.expand(3, 3),
    )  # fmt: skip
    for index in range(3):
        person = people[index : index + 1]
        for azimuth in (-35.0, 0.0, 35.0):
            shown = covered(model_rig, person, azimuth, eyes)
            hidden = covered(model_rig, person.replace(eyelids=torch.ones(1, 2)), azimuth, eyes)
            wide = covered(model_rig, person.replace(eyelids=torch.full((1, 2), -0.5)), azimuth, eyes)
            assert shown > 500 and hidden <= 0.01 * shown and wide > shown


def test_lids_turn_with_the_head(model_rig: BodyModelRig) -> None:
    """Closing before skinning: a turned head has the same lids, turned."""
    closed = RigParams.neutral(model_rig).replace(eyelids=torch.tensor([[1.0, 0.4]]))
    turned = closed.replace(neck=torch.tensor([[0.0, 0.6, 0.0]]))
    lids = model_rig.regions["lids"]
    skin = model_rig.faces[lids].unique()
    a, b = model_rig.vertices(closed)[0, skin], model_rig.vertices(turned)[0, skin]
    distances = lambda p: torch.cdist(p[:50], p[50:100])  # noqa: E731
    assert torch.allclose(distances(a), distances(b), atol=1e-3)


def test_teeth_stay_with_their_jaws(model_rig: BodyModelRig) -> None:
    still = RigParams.neutral(model_rig)
    opened = still.replace(jaw=torch.tensor([[0.35, 0.0, 0.0]]))
    moved = (model_rig.vertices(opened) - model_rig.vertices(still))[0].norm(dim=1)
    upper, lower = model_rig.parts == 3, model_rig.parts == 4
    assert moved[upper].max() < 1e-6 and moved[lower].min() > 0.02
    teeth = torch.isin(torch.arange(len(model_rig.faces)), model_rig.regions["teeth"])
    assert covered(model_rig, still, 0.0, teeth) < 40 and covered(model_rig, opened, 0.0, teeth) > 300
    rest = model_rig.vertices(still)[0]
    gone = torch.cdist(rest[lower][:40], rest[lower][-40:]) - torch.cdist(
        model_rig.vertices(opened)[0][lower][:40], model_rig.vertices(opened)[0][lower][-40:]
    )
    assert gone.abs().max() < 1e-4


def test_teeth_follow_the_shape_of_the_mouth(model_rig: BodyModelRig) -> None:
    """The second synthetic shape axis stretches the head upwards; teeth stay behind the lips."""
    neutral = RigParams.neutral(model_rig)
    shape = torch.zeros(1, 300)
    shape[0, 1] = 2.0
    lips = lambda p: model_rig.landmarks(p)[0, [48, 54]].mean(0)  # noqa: E731
    teeth = lambda p: model_rig.vertices(p)[0, model_rig.parts == 3].mean(0)  # noqa: E731
    grown = neutral.replace(shape=shape)
    assert torch.allclose(lips(grown) - lips(neutral), teeth(grown) - teeth(neutral), atol=0.01)


def test_regions_lie_where_the_head_says(model_rig: BodyModelRig) -> None:
    head = synthetic.synthetic_head()
    names = (
        "scalp",
        "face",
        "ears",
        "left_eye",
        "right_eye",
        "lids",
        "lips",
        "teeth",
        "tongue",
        "mouth",
        "neck",
        "torso",
    )
    assert all(len(model_rig.regions[name]) > 50 for name in names)
    position = {int(v): i for i, v in enumerate(model_rig.crop.vertices)}
    true_lips = {position[int(v)] for v in head.masks["lips"]}
    found = set(model_rig.faces[model_rig.regions["lips"]].unique().tolist())
    assert len(found & true_lips) > 0.85 * len(true_lips)
    labels = point_labels(model_rig, torch.arange(len(model_rig.faces)), model_rig.template[model_rig.faces].mean(1))
    assert (labels[model_rig.face_parts == 6] == Label.MOUTH).all()
    assert (labels[model_rig.regions["teeth"]] == Label.TEETH).all()


def test_faces_wind_outward_and_mouth_parts_towards_the_opening(model_rig: BodyModelRig) -> None:
    a, b, c = model_rig.template[model_rig.faces].unbind(1)
    normals = torch.linalg.cross(b - a, c - a)
    for part in (1, 2, 3, 4):
        chosen = model_rig.face_parts == part
        volume = (normals[chosen] * (a[chosen] - a[chosen].mean(0))).sum()
        assert volume > 0, part
    centre = model_rig.template[model_rig.parts == 0].mean(0)
    scalp = model_rig.regions["scalp"]
    assert ((normals[scalp] * (a[scalp] - centre)).sum(1) > 0).float().mean() > 0.97


def test_vertices_are_differentiable(model_rig: BodyModelRig) -> None:
    params = random_params(model_rig, 2).map(lambda t: t.requires_grad_())
    closed = params.replace(eyelids=torch.full((2, 2), 0.3, requires_grad=True))
    model_rig.vertices(closed).square().mean().backward()
    for name, value in closed.tensors().items():
        assert value.grad is not None and torch.isfinite(value.grad).all() and value.grad.abs().sum() > 0, name


def test_a_remembered_shape_does_not_leak(model_rig: BodyModelRig) -> None:
    one, two = (random_params(model_rig, 1, seed) for seed in (1, 2))
    both = RigParams(**{k: torch.cat([v, two.tensors()[k]]) for k, v in one.tensors().items()})
    together = model_rig.vertices(both)
    assert torch.allclose(model_rig.vertices(one), together[:1], atol=1e-6)
    assert torch.allclose(model_rig.vertices(two), together[1:], atol=1e-6)
    assert torch.allclose(model_rig.vertices(one), together[:1], atol=1e-6)


def test_companions_are_used(model_folder: Path, tmp_path: Path, flame_rig: BodyModelRig) -> None:
    for name in ("generic_model.pkl", "SMPLX_NEUTRAL_2020.npz"):
        (tmp_path / name).symlink_to(model_folder / name)
    synthetic.write_companions(tmp_path)
    head = synthetic.synthetic_head()
    flame = BodyModelRig.load(tmp_path / "generic_model.pkl")
    expected = (head.template[head.faces[head.landmark_faces]] * head.landmark_weights[..., None]).sum(1)
    found = flame.landmarks_of(flame.template[None])[0, 17:68].numpy() - synthetic.FLAME_OFFSET
    assert np.abs(found - expected).max() < 1e-5
    own, lips = set(torch.nonzero(flame.masks["lips"] > 0.5)[:, 0].tolist()), set(head.masks["lips"].tolist())
    assert len(own & lips) > 0.9 * len(own | lips)
    assert flame.sha256 != flame_rig.sha256 and flame.topology_sha256 == flame_rig.topology_sha256
    model = read_body_model(tmp_path / "SMPLX_NEUTRAL_2020.npz")
    lips = Companions.beside(tmp_path / "SMPLX_NEUTRAL_2020.npz", model).lips
    assert lips is not None and np.array_equal(lips, head.masks["lips"])


def test_registration_is_close_to_the_truth(model_rig: BodyModelRig) -> None:
    """Labels are read in the built-in head's coordinates, which the synthetic head was warped away from."""
    truth = atlas().rig.landmarks_of(atlas().rig.template[None])[0, :68]
    ours = model_rig.landmarks_of(model_rig.canonical[None])[0, :68]
    assert (truth - ours).norm(dim=1).mean() < 0.004


def test_posing_takes_three_milliseconds(model_rig: BodyModelRig, rig: Rig) -> None:
    """Of this thread's own time, so that a busy machine does not count."""
    for tested in (rig, model_rig):
        params = RigParams.neutral(tested).replace(expression=torch.full((1, tested.n_expression), 0.05))
        times = []
        for _ in range(40):
            start = time.thread_time()
            with torch.no_grad():
                tested.vertices(params)
            times.append(time.thread_time() - start)
        assert min(times) < 0.003
