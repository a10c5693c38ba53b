"""The shipped model does what its card says, on a condition that was never trained on."""

import pytest
import torch

from ap3d.diffusion.conditions import ConditionBuilder
from ap3d.diffusion.loading import BUILTIN
from ap3d.diffusion.models import GuidanceModels
from ap3d.diffusion.prompts import framed_prompt
from ap3d.diffusion.sampling import sample_images
from ap3d.framing import full_cameras
from ap3d.rig import load_rig
from ap3d.rig.protocol import RigParams
from ap3d.training.attributes import BACKGROUND_COLOUR
from ap3d.training.shape_prior import ShapePrior


@pytest.fixture(scope="module")
def models():
    torch.set_num_threads(1)
    return GuidanceModels.load("builtin")


@pytest.fixture(scope="module")
def condition(models):
    rig = load_rig()
    vertices = rig.vertices(RigParams.neutral(rig))[0]
    cameras = full_cameras(rig, vertices, [0.0], 0.0, models.image_size)
    return ConditionBuilder(rig, models.condition_spec).render(vertices[None], cameras)


def test_colours_land_where_the_words_say(models, condition):
    prompts = [
        framed_prompt(text)
        for text in (
            "a young woman with pale skin, short red hair and a blue shirt",
            "an old man with dark skin, short gray hair and a yellow shirt",
            "a woman, dark-skinned, in a red sweater, with cropped blonde hair",
        )
    ]
    pictures = sample_images(
        models, prompts, condition.expand(3, -1, -1, -1), steps=6, generator=torch.Generator().manual_seed(0)
    )
    median = lambda i, region: pictures[i][:, region_mask(models, condition, region)].median(1).values  # noqa: E731
    red, green, blue = median(0, "CLOTHES")
    assert blue > red + 0.15 and blue > green + 0.1
    red, green, blue = median(1, "CLOTHES")
    assert min(red, green) > blue + 0.2
    red, green, blue = median(2, "CLOTHES")
    assert red > max(green, blue) + 0.2
    red, green, blue = median(0, "SCALP")
    assert red > max(green, blue) + 0.15
    red, green, blue = median(2, "SCALP")
    assert min(red, green) > blue + 0.1
    assert median(0, "SKIN").mean() > 0.6 and median(1, "SKIN").mean() < 0.4 and median(2, "SKIN").mean() < 0.4
    corners = pictures[:, :, :8, :8].mean((0, 2, 3))
    assert (corners - torch.tensor(BACKGROUND_COLOUR)).abs().max() < 0.1


def region_mask(models, condition, region):
    code = torch.tensor(models.condition_spec.codes[region])[:, None, None]
    return (condition[0, 3:] - code).abs().amax(0) < 0.05


def test_it_says_what_it_does_not_know(models):
    assert models.unknown_words("a samurai man with chartreuse hair") == ["samurai", "chartreuse"]
    assert models.unknown_words("an old man with grey hair") == []


def test_people_differ_as_asked():
    rig, prior = load_rig(), ShapePrior.load()
    assert prior.rig_sha256 == rig.sha256
    draw = lambda text: prior.sample([text] * 16, torch.Generator().manual_seed(0))  # noqa: E731
    width = lambda text: neck_width(rig, draw(text)).mean()  # noqa: E731
    assert width("a chubby man") > width("a thin man")
    assert width("a man") > width("a woman")


def neck_width(rig, shapes):
    vertices = rig.vertices(RigParams.neutral(rig, len(shapes)).replace(shape=shapes))
    neck = rig.faces[rig.regions["neck"]].unique()
    return (vertices[:, neck, 0].amax(1) - vertices[:, neck, 0].amin(1)) / rig.default_scale


def test_the_shipped_weights_stay_small():
    assert sum(f.stat().st_size for f in (BUILTIN / "diffusion").rglob("*") if f.is_file()) < 14e6
