"""The table of guidance becomes cameras, prompts and protected pixels."""

from types import SimpleNamespace

import pytest
import torch

from ap3d.config import load_config
from ap3d.diffusion.conditions import ConditionBuilder, ConditionSpec
from ap3d.errors import InputError
from ap3d.guidance_config import EditConfig, MatchConfig
from ap3d.motion.expressions import ExpressionSampler
from ap3d.stages.editing import dealt_crops
from ap3d.stages.regions import Crop, RegionPrompts, draw_crops, region_views

PROMPTS = RegionPrompts("an old man with a beard, blue eyes", "an old man")


@pytest.fixture(scope="module")
def resources(rig):
    models = SimpleNamespace(image_size=64, condition_channels=4)
    return SimpleNamespace(rig=rig, models=models, conditions=ConditionBuilder(rig, ConditionSpec.production(), 1))


def views(resources, neutral, preset, names, azimuth):
    config = load_config(preset)
    crops = [Crop(name, azimuth, 2.0) for name in names]
    return region_views(resources, config, config.whole, neutral, PROMPTS, crops)


def test_the_full_frame_leaves_the_face_alone_where_it_is_seen(resources, neutral):
    front = views(resources, neutral, "paper", ["full", "face"], 20.0)
    back = views(resources, neutral, "paper", ["full"], 170.0)
    assert bool((back.free == 1).all()) and bool((front.free[1] == 1).all())
    kept = front.free[0, 0]
    landmarks = resources.rig.landmarks(neutral)[0]
    pixels, _ = front.cameras[[0]].project(landmarks[[30, 8, 48, 68]])
    assert all(kept[int(y), int(x)] == 0 for x, y in pixels[0].tolist())
    assert kept[0, 0] == 1 and 0.1 < float((kept == 0).float().mean()) < 0.9


def test_prompts_and_control_of_the_paper(resources, neutral):
    front = views(resources, neutral, "paper", ["full", "mouth", "left_eye"], 0.0)
    assert front.prompts == [
        "front view an old man with a beard, blue eyes", "front view mouth region, an old man",
        "front view left eye region, an old man",
    ]  # fmt: skip
    assert front.controlled.tolist() == [False, True, True]
    assert PROMPTS.of("{view}, face close-up, {prompt}", "") == "face close-up, an old man with a beard, blue eyes"


def test_the_built_in_models_wording_is_that_of_its_training(resources, neutral):
    from ap3d.diffusion.prompts import framed_prompt

    names = ["full", "face", "mouth", "left_eye", "right_eye"]
    found = views(resources, neutral, "builtin", names, 50.0)
    assert found.prompts == [framed_prompt(PROMPTS.prompt, name, "side view") for name in names]


def test_prompts_say_what_the_face_does(resources, neutral):
    config = load_config("builtin")
    posed = ExpressionSampler(resources.rig).named(neutral, "open")
    crops = [Crop("mouth", 0.0, 0.0), Crop("face", 0.0, 0.0)]
    said = lambda phase: region_views(resources, config, phase, posed, PROMPTS, crops).prompts  # noqa: E731
    assert said(config.whole)[0] == f"mouth region, {PROMPTS.prompt}, mouth open"
    assert said(config.mouth.edit)[0] == "mouth region, an old man, mouth open"


def test_an_eye_fills_its_crop(resources, neutral):
    found = views(resources, neutral, "builtin", ["left_eye", "mouth"], 0.0)
    landmarks = resources.rig.landmarks(neutral)[0]
    pixels, _ = found.cameras.project(landmarks)
    assert float((pixels[0, 69] - 32).abs().max()) < 2
    width = float((pixels[0, 42] - pixels[0, 45]).norm())
    assert 16 < width < 48


@pytest.mark.parametrize(("azimuth", "expected"), [
    (0.0, {"face", "mouth", "left_eye", "right_eye", "full"}), (45.0, {"face", "mouth", "left_eye", "full"}),
    (-45.0, {"face", "mouth", "right_eye", "full"}), (120.0, {"full"}),
])  # fmt: skip
def test_a_camera_gives_the_crops_that_it_sees(azimuth, expected):
    config = load_config("paper")
    phase = MatchConfig(one_camera=True, azimuths=(azimuth, azimuth), back_share=0.0)
    drawn = draw_crops(config.regions, phase, (0.0,), phase.crops, torch.Generator().manual_seed(0))
    assert {c.region for c in drawn} == expected and len({c.azimuth for c in drawn}) == 1


def test_the_papers_cameras():
    config, g = load_config("paper"), torch.Generator().manual_seed(0)
    elevations = config.camera.elevation_range
    drawn = [draw_crops(config.regions, config.whole, elevations, ["full"], g)[0] for _ in range(400)]
    behind = sum(abs(c.azimuth) > 90 for c in drawn) / 400
    assert 0.22 < behind < 0.38 and max(abs(c.elevation) for c in drawn) <= 12.8
    assert config.eyes.azimuths == (-75, 75) and config.mouth.match.azimuths == (-50, 50)


def test_crops_are_dealt_out_evenly():
    phase = EditConfig(crops=("full", "full", "face", "mouth"), views=8, expressions=2)
    dealt = [sorted(names) for face in dealt_crops(phase) for names in face]
    assert dealt == [["face", "full", "full", "mouth"]] * 2
    cameras = dealt_crops(EditConfig(one_camera=True, views=5, expressions=2))
    assert [len(face) for face in cameras] == [3, 2]


def test_an_empty_abstract_prompt_is_refused():
    with pytest.raises(InputError, match="abstract prompt is empty"):
        RegionPrompts.of_portrait({"completed_prompt": "a man", "abstract_prompt": " "})
