"""Procedural portraits: exact background, seeds, colours that captions promise, framings that show their part."""

import dataclasses

import numpy as np
import pytest
import torch

from ap3d.framing import full_cameras
from ap3d.rig.builtin import BuiltinRig
from ap3d.training.attributes import BACKGROUND_COLOUR, HAIR_STYLES, SHIRT_COLOURS, PortraitAttributes
from ap3d.training.portraits import Portraitist, render_portrait, render_samples, sample_person
from ap3d.training.portraits.people import build_person
from ap3d.training.portraits.render import visible_framings
from ap3d.training.portraits.surface import HAIR, SHIRT

PLAIN = PortraitAttributes("man", "young", "average", "pale", "short", "brown", "blue", "red", False)


@pytest.fixture(scope="module")
def rig() -> BuiltinRig:
    return BuiltinRig.load()


def picture(rig: BuiltinRig, azimuth: float = 0.0, size: int = 96, **changes: object) -> torch.Tensor:
    person = build_person(dataclasses.replace(PLAIN, **changes), "neutral", np.random.default_rng(3), rig)
    cameras = full_cameras(rig, rig.vertices(person.neutral)[0], [azimuth], [0.0], size)
    return render_portrait(person, cameras, rig)[0]


def is_background(image: torch.Tensor) -> torch.Tensor:
    return (image - torch.tensor(BACKGROUND_COLOUR)[:, None, None]).abs().amax(0) < 1e-6


def test_background_is_exact_and_surrounds_the_head(rig: BuiltinRig) -> None:
    image = picture(rig)
    assert image.shape == (3, 96, 96) and float(image.min()) >= 0 and float(image.max()) <= 1
    empty = is_background(image)
    assert empty[0, 0] and empty[0, -1] and not empty[48, 48]
    assert 0.3 < float(empty.float().mean()) < 0.8


@pytest.mark.parametrize("word", SHIRT_COLOURS)
def test_shirts_have_their_colour(rig: BuiltinRig, word: str) -> None:
    cloth = picture(rig, shirt=word)[:, 90:95, 30:66].reshape(3, -1).median(1).values
    hue = lambda colour: torch.nn.functional.normalize(colour + 0.05, dim=0)  # noqa: E731
    distance = {}
    for name, colour in ((k, torch.tensor(v)) for k, v in SHIRT.items()):
        brightness = abs(float(cloth.mean()) - 0.85 * float(colour.mean()))
        distance[name] = float((hue(colour) - hue(cloth)).norm()) + brightness
    assert min(distance, key=distance.__getitem__) == word


@pytest.mark.parametrize("word", tuple(HAIR))
def test_hair_has_its_colour(rig: BuiltinRig, word: str) -> None:
    hair = picture(rig, azimuth=180.0, hair_colour=word)[:, 24:40, 38:58].reshape(3, -1).median(1).values
    distance = {k: float((torch.tensor(v) * 0.9 - hair).norm()) for k, v in HAIR.items()}
    assert min(distance, key=distance.__getitem__) == word


def test_hair_styles_change_the_silhouette(rig: BuiltinRig) -> None:
    filled = {s: float((~is_background(picture(rig, 150.0, hair_style=s))).float().mean()) for s in HAIR_STYLES}
    assert filled["bald"] < filled["short"] < filled["curly"] < filled["long"] and filled["bald"] < filled["bun"]


def test_beards_are_unmistakable(rig: BuiltinRig) -> None:
    with_beard, without = picture(rig, beard=True), picture(rig, beard=False)
    changed = (with_beard - without).abs().sum(0) > 0.3
    assert 0.01 < float(changed.float().mean()) < 0.2


def test_same_seed_same_samples(rig: BuiltinRig) -> None:
    first = render_samples(rig, np.random.default_rng(7), 8, size=48)
    second = render_samples(rig, np.random.default_rng(7), 8, size=48)
    assert len(first) == 8
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.image, b.image) and np.array_equal(a.condition, b.condition)
        assert (a.attributes, a.framing, a.view) == (b.attributes, b.framing, b.view)
    assert first[0].image.shape == (48, 48, 3) and first[0].condition.shape == (48, 48, 6)


def test_frequencies(rig: BuiltinRig) -> None:
    rng = np.random.default_rng(0)
    people = [sample_person(rng, rig) for _ in range(1500)]
    share = lambda test: float(np.mean([test(p.attributes) for p in people]))  # noqa: E731
    assert all(share(lambda a, s=s: a.hair_style == s) > 0.13 for s in HAIR_STYLES if s != "bald")
    assert 0.08 < share(lambda a: a.hair_style == "bald") < 0.16
    men = [p.attributes.beard for p in people if p.attributes.gender == "man" and p.attributes.age != "child"]
    assert 0.38 < float(np.mean(men)) < 0.52
    assert not any(p.attributes.beard for p in people if p.attributes.gender == "woman" or p.attributes.age == "child")


def test_framings_and_views_follow_the_camera() -> None:
    assert visible_framings(180.0) == ["full", "face"] and "left_eye" in visible_framings(50.0)
    assert "right_eye" not in visible_framings(50.0) and len(visible_framings(0.0)) == 5


def test_geometry_is_built_once_and_finite(rig: BuiltinRig) -> None:
    for seed in range(10):
        person = sample_person(np.random.default_rng(seed), rig)
        mesh = Portraitist(person, rig).mesh
        assert torch.isfinite(mesh.vertices).all() and torch.isfinite(mesh.attributes).all()
        assert int(mesh.faces.max()) < len(mesh.vertices) == len(mesh.attributes)
