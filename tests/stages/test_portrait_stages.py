"""The stages from a Portrait3D result to its first Gaussians, run one after another on the shipped example, small."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import trimesh
from PIL import Image
from torch import Tensor

from ap3d.checksums import BUILTIN
from ap3d.config import load_config
from ap3d.fitting.triangulation import SpatialLandmarks
from ap3d.metrics.rig_truth import rig_errors
from ap3d.perception.protocol import Part
from ap3d.portrait_job import PortraitJob
from ap3d.resources import Resources
from ap3d.rig.builtin import BuiltinRig
from ap3d.rig.protocol import RigParams
from ap3d.splats.avatar import GaussianAvatar, Group
from ap3d.stages import STAGES
from ap3d.stages.base import StageContext, StageResult
from ap3d.storage import Store
from ap3d.tensor_files import unpack_tensors
from ap3d.training.example_portrait import example_truth
from ap3d.workspace import Locations, Workspace

SIZE = 112
SMALL = {
    "portrait3d.resolution": 96, "portrait3d.view_size": SIZE, "portrait3d.mesh_faces": 5000,
    "portrait3d.mesh_steps": 4, "portrait3d.fit_iterations": 25, "gaussians.skin_count": 3000,
    "gaussians.hair_count": 1500, "gaussians.clothes_count": 1000,
}  # fmt: skip
NAMES = ("portrait", "mesh", "assets", "fit", "initialise")


@dataclass
class Made:
    """The results of the stages, and how to run one of them again."""

    results: dict[str, StageResult]
    again: Callable[[str], StageResult]
    progress: dict[str, list[int]]

    def tensors(self, stage: str, name: str) -> dict[str, Tensor]:
        return unpack_tensors(self.results[stage].outputs[name], name)

    def picture(self, stage: str) -> Image.Image:
        (name,) = (n for n in self.results[stage].outputs if n.endswith(".png"))
        return Image.open(io.BytesIO(self.results[stage].outputs[name]))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    config = load_config("smoke", SMALL)
    resources = Resources.load(config)
    job = PortraitJob("000", "a woman", 3, str(BUILTIN / "portrait3d" / "000.pth"))
    folder = tmp_path_factory.mktemp("stages")
    workspace = Workspace(Store(str(folder)), Locations.in_dataset("000", config.config_hash), "first")
    records: dict[str, dict[str, Any]] = {}
    progress: dict[str, list[int]] = {name: [] for name in NAMES}
    stages = {stage.name: stage for stage in STAGES if stage.name in NAMES}

    def run(name: str) -> StageResult:
        heard = lambda step, steps: progress[name].append(step) if step <= steps else pytest.fail(name)  # noqa: E731
        return stages[name].run(StageContext(job, config, resources, workspace, records, name, name, heard))

    results = {}
    for name in NAMES:
        results[name] = run(name)
        details = {"fingerprint": name, "notes": dict(results[name].notes), "metrics": dict(results[name].metrics)}
        records[name] = workspace.commit(name, results[name].outputs, details)
    return Made(results, run, progress)


def test_portrait_has_views_landmarks_and_a_surface(made: Made) -> None:
    views = made.tensors("portrait", "views.safetensors")
    assert views["full.images"].shape == (24, 3, SIZE, SIZE) and len(views["face.images"]) >= 3
    assert len(made.tensors("portrait", "held_out.safetensors")["held_out.images"]) == 6
    assert bool(made.tensors("portrait", "landmarks.safetensors")["points"].isfinite().all())
    raw = made.tensors("portrait", "raw_mesh.safetensors")
    volume = trimesh.Trimesh(raw["vertices"].numpy(), raw["faces"].numpy(), process=False).volume
    assert 0.1 < volume < 1.5  # cubic world units, positive: wound outward
    notes = made.results["portrait"].notes
    assert notes["completed_prompt"] == "a woman" and len(notes["landmark_views"]) >= 2
    assert made.picture("portrait").size == (8 * SIZE, 4 * SIZE)
    assert max(made.progress["portrait"]) == 36


def test_mesh_is_fitted_and_coloured(made: Made) -> None:
    mesh, result = made.tensors("mesh", "mesh.safetensors"), made.results["mesh"]
    assert 3000 < len(mesh["faces"]) <= 5000 and int(mesh["faces"].max()) < len(mesh["vertices"])
    assert mesh["colours"].shape == mesh["vertices"].shape
    assert bool(((mesh["colours"] >= 0) & (mesh["colours"] <= 1)).all())
    assert result.metrics["mesh_degrees"] < 14
    assert made.picture("mesh").size == (4 * SIZE, 3 * SIZE) and made.progress["mesh"]


def test_assets_are_hair_above_skin_above_clothes(made: Made) -> None:
    stored = made.tensors("assets", "assets.safetensors")
    height = stored["vertices"][stored["faces"].long()].mean(1)[:, 1]
    labels = stored["labels"].long()
    middle = [float(height[labels == int(part)].median()) for part in (Part.HAIR, Part.SKIN, Part.CLOTHES)]
    assert middle[0] > middle[1] > middle[2]
    assert not bool((labels == int(Part.BEARD)).any())  # a woman
    files = made.results["assets"].outputs
    sizes = [
        len(trimesh.load(io.BytesIO(files[f"{n}.ply"]), file_type="ply").faces) for n in ("skin", "hair", "clothes")
    ]
    assert sum(sizes) == len(labels) and min(sizes) > 100
    assert made.results["assets"].notes["assets"] == ["clothes", "hair", "skin"]
    assert made.results["assets"].metrics["hair_area"] > 0.1 and made.picture("assets").size[0] == 4 * SIZE


def test_fit_places_the_rig_on_the_person(made: Made) -> None:
    rig = BuiltinRig.load()
    found = made.tensors("portrait", "landmarks.safetensors")
    landmarks = SpatialLandmarks(found["points"], found["error"], [], 0.0)
    fitted = RigParams(**made.tensors("fit", "params.safetensors"))
    errors = rig_errors(rig, fitted, example_truth(rig).params, landmarks)
    assert errors.face_mm < 4 and errors.landmarks_px < 4
    assert made.results["fit"].metrics["fit_landmarks_mm"] < 6 and made.picture("fit").size == (4 * SIZE, 2 * SIZE)


def test_initialise_fits_gaussians_of_every_part(made: Made) -> None:
    avatar = GaussianAvatar(**made.tensors("initialise", "avatar.safetensors"))
    for group in (Group.SKIN, Group.HAIR, Group.CLOTHES):
        assert int((avatar.group == int(group)).sum()) > 300, group
    metrics = made.results["initialise"].metrics
    assert metrics["held_out_psnr"] > 16 and metrics["gaussians"] == len(avatar)
    assert max(made.progress["initialise"]) == 25


def test_stages_give_the_same_again(made: Made) -> None:
    for name in ("mesh", "fit"):
        assert made.again(name).outputs == made.results[name].outputs, name
