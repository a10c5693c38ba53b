"""The preset `paper` does what sections 6 to 10 of the reference sheet on AnimPortrait3D say."""

from pathlib import Path

import pytest
import torch

from ap3d.config import load_config
from ap3d.diffusion.ism import interval, inversion_timesteps
from ap3d.diffusion.models import GuidanceModels
from ap3d.diffusion.sampling import sdedit
from ap3d.guidance_config import EditConfig, PhaseConfig
from ap3d.splats.density import DensityRule
from ap3d.stages.editing import dealt_crops
from ap3d.stages.matching import crop_names, ism_settings, timestep
from ap3d.stages.regions import draw_crops
from tests.tiny_diffusion import write_tiny_model

PAPER = load_config("paper")
EDITS = {"eyes": PAPER.eyes, "mouth": PAPER.mouth.edit, "refine": PAPER.refine}


def test_timesteps_fall_and_intervals_shrink_as_published() -> None:
    whole, mouth = PAPER.whole, PAPER.mouth.match
    assert (timestep(whole, 0), timestep(whole, 999)) == (300, 15) and whole.iterations == 1000
    assert (timestep(mouth, 0), timestep(mouth, 499)) == (750, 15) and mouth.iterations == 500
    settings = ism_settings(whole)
    assert [interval(i, settings) for i in (0, 200, 400, 999)] == [100, 75, 50, 50]
    assert inversion_timesteps(300, 400, settings) == [100, 150, 200, 250] and inversion_timesteps(
        15, 999, settings
    ) == [0]
    assert (whole.guidance_scale, mouth.guidance_scale, whole.views_per_step, mouth.views_per_step) == (100, 7.5, 3, 3)
    assert not whole.perpendicular  # in the original it has no effect


@pytest.mark.parametrize(("name", "steps", "scale", "views"), [
    ("eyes", 18, 10.0, 500), ("mouth", 7, 7.5, 500), ("refine", 6, 7.5, 750),
])  # fmt: skip
def test_edits_take_the_published_steps(
    name: str, steps: int, scale: float, views: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    models, phase = GuidanceModels.load(model_folder(tmp_path_factory)), EDITS[name]
    before = models.meter.total.unet
    sdedit(
        models, torch.rand(1, 3, 16, 16), ["a man"], None, strength=phase.detail_strength, steps=phase.steps,
        guidance_scale=phase.guidance_scale, generator=torch.Generator(),
    )  # fmt: skip
    assert models.meter.total.unet - before == 2 * steps and phase.strength == phase.detail_strength
    cameras = phase.rounds * sum(len(face) for face in dealt_crops(phase))
    assert (phase.guidance_scale, cameras, phase.rounds * phase.iterations) == (scale, views, views)
    assert phase.reference == "start" and phase.control == (name != "refine")
    assert (phase.loss, phase.perceptual_weight) == (("l2", 0.0) if name == "eyes" else ("l1", 0.2))


def model_folder(factory: pytest.TempPathFactory) -> Path:
    folder = factory.getbasetemp() / "paper-model"
    return folder if folder.exists() else write_tiny_model(folder)


def drawn(phase: PhaseConfig, count: int = 300) -> list[list[tuple[str, float]]]:
    """Crops of many cameras that see anything, as regions and azimuths."""
    generator = torch.Generator().manual_seed(0)
    cameras = [
        draw_crops(PAPER.regions, phase, PAPER.camera.elevation_range, phase.crops, generator) for _ in range(count)
    ]
    return [[(c.region, c.azimuth) for c in crops] for crops in cameras if crops]


def test_cameras_of_eyes_and_mouth_look_from_in_front() -> None:
    for crops in drawn(PAPER.eyes):
        azimuth = crops[0][1]
        seen = {name for name, _ in crops}
        assert ("left_eye" in seen, "right_eye" in seen) == (azimuth >= -30, azimuth <= 30) and abs(azimuth) <= 75
    azimuths = [crops[0][1] for crops in drawn(PAPER.mouth.match)]
    assert -50 <= min(azimuths) < -40 and 40 < max(azimuths) <= 50


def test_whole_heads_are_seen_from_all_round_with_their_crops_in_front() -> None:
    assert crop_names(PAPER.whole, torch.Generator()) == ["full", "face", "mouth", "left_eye", "right_eye"]
    for crops in drawn(PAPER.whole):
        names, azimuth = {name for name, _ in crops}, crops[0][1]
        assert "full" in names and ({"face", "mouth"} <= names) == (abs(azimuth) <= 90)
    behind = [abs(crops[0][1]) > 90 for crops in drawn(PAPER.whole, 1000)]
    assert sum(behind) / 1000 == pytest.approx(0.3, abs=0.05)
    assert PAPER.whole.head_moves and not PAPER.eyes.head_moves and not PAPER.mouth.match.head_moves


def test_words_that_guidance_avoids() -> None:
    avoided = {name: phase.negative_prompt for name, phase in EDITS.items()}
    assert avoided["eyes"].startswith("tattoo, hair, eyelash, make up, oversaturation")
    assert avoided["mouth"] == avoided["refine"] and avoided["mouth"].startswith("oversaturation")
    assert "no-shadow" in PAPER.mouth.match.negative_prompt and "bad hands" in PAPER.whole.negative_prompt
    assert PAPER.whole.view_words and not any(phase.view_words for phase in EDITS.values())


def test_gaussians_multiply_at_the_published_times_and_thresholds() -> None:
    assert PAPER.eyes.densify_at == (1, 101, 201, 301, 401) and PAPER.mouth.match.densify_at == (100,)
    assert PAPER.whole.densify_at == (50, 100) and not PAPER.mouth.edit.densify_at and not PAPER.refine.densify_at
    rule, extent = DensityRule(), 2.9847
    assert rule.gradient == 2e-4 and rule.minimum_opacity == 0.005 and PAPER.gaussians.maximum_count == 2_000_000
    assert rule.split_scale == pytest.approx(0.01 * extent, rel=0.01)
    assert rule.maximum_scale == pytest.approx(0.1 * extent, rel=0.01)


def test_gaze_and_lids() -> None:
    faces = PAPER.expressions
    assert (faces.gaze_pitch, faces.gaze_yaw, faces.closing_share) == (0.3, 0.4, 0.3)
    assert (faces.closing, faces.opening) == ((0.5, 1.1), (-1.0, 0.5))
    assert isinstance(PAPER.eyes, EditConfig) and PAPER.eyes.points == ("eyes", "lids", "sockets")
