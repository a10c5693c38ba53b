"""Face parser and measuring probe: labels that fit the pictures, a smoke run of both trainings, files that reload."""

import dataclasses

import numpy as np
import pytest
import torch

from ap3d.config_sections import GaussiansConfig
from ap3d.errors import DataFileError
from ap3d.framing import full_cameras
from ap3d.metrics.attribute_probe import READ, AttributeProbe
from ap3d.perception.parsing import CLASSES, FaceParser
from ap3d.rig.builtin import BuiltinRig
from ap3d.training.attributes import BACKGROUND_COLOUR, PortraitAttributes
from ap3d.training.portraits import Portraitist, sample_person
from ap3d.training.portraits.people import build_person
from ap3d.training.readers import (
    Labelled,
    augment,
    parser_overlap,
    probe_accuracy,
    probe_targets,
    render_labelled,
    train_parser,
    train_probe,
    whole_heads,
)
from ap3d.training.recipe import save_half
from ap3d.training.splat_truth import AZIMUTHS, ELEVATION, splat_truth


@pytest.fixture(scope="module")
def rig() -> BuiltinRig:
    return BuiltinRig.load()


@pytest.fixture(scope="module")
def data(rig: BuiltinRig) -> Labelled:
    return render_labelled(rig, 6, seed=1, size=64)


def test_classes_agree_with_the_picture(rig: BuiltinRig) -> None:
    plain = PortraitAttributes("man", "young", "average", "pale", "long", "blue", "brown", "red", True)
    shown = {}
    for name, a in (("all", plain), ("bald", dataclasses.replace(plain, hair_style="bald", beard=False))):
        portraitist = Portraitist(build_person(a, "neutral", np.random.default_rng(0), rig), rig)
        cameras = full_cameras(rig, portraitist.mesh.neutral, [0.0], [0.0], 96)
        shown[name] = (portraitist.render(cameras)[0], portraitist.render_classes(cameras)[0])
    picture, classes = shown["all"]
    median = lambda name: picture[:, classes == CLASSES.index(name)].median(1).values  # noqa: E731
    red, green, blue = median("clothes")
    assert red > 2 * max(green, blue)
    red, green, blue = median("hair")
    assert blue > 1.5 * max(red, green)
    red, green, blue = median("beard")
    assert blue > red
    assert torch.allclose(median("background"), torch.tensor(BACKGROUND_COLOUR), atol=1e-6)
    assert set(classes.unique().tolist()) >= {CLASSES.index(n) for n in ("skin", "brows", "eyes", "mouth", "neck")}
    bald = shown["bald"][1]
    assert not ((bald == CLASSES.index("hair")) | (bald == CLASSES.index("beard"))).any()


def test_augmentation_changes_colours_but_not_what_is_where(data: Labelled) -> None:
    pictures = torch.from_numpy(data.images).permute(0, 3, 1, 2).float() / 255
    classes = torch.from_numpy(data.classes).long()
    changed, moved = augment(pictures, classes, torch.Generator().manual_seed(0))
    assert float(changed.min()) >= 0 and float(changed.max()) <= 1
    same = (moved == classes).flatten(1).all(1)
    assert 0 < int(same.sum()) < len(same)  # some are mirrored
    assert torch.equal(moved[~same].flip(-1), classes[~same])


def test_both_trainings_learn_and_their_files_reload(data: Labelled, tmp_path) -> None:
    rows: list[dict[str, float]] = []
    parser = train_parser(data, 30, rows.append, batch=4)
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    save_half(parser, tmp_path / "parser.safetensors")
    again = FaceParser.load(tmp_path / "parser.safetensors")
    pictures = torch.rand(2, 3, 50, 70)
    assert again.parse(pictures).shape == (2, 50, 70)
    assert set(parser_overlap(again, data)) == set(CLASSES)
    bigger = render_like(data)
    probe = train_probe(bigger, 6, rows.append, batch=4)
    save_half(probe, tmp_path / "probe.safetensors")
    read = AttributeProbe.load(tmp_path / "probe.safetensors").read(pictures)
    assert all(values[0] in READ[name] for name, values in read.items())
    assert set(probe_accuracy(probe, bigger)) == set(READ)
    with pytest.raises(DataFileError, match="no attribute probe"):
        AttributeProbe.load(tmp_path / "parser.safetensors")
    with pytest.raises(DataFileError, match="readers"):
        FaceParser.load(tmp_path / "nothing.safetensors")


def render_like(data: Labelled) -> Labelled:
    """The same pictures at the probe's size."""
    return Labelled(
        data.images.repeat(2, 1).repeat(2, 2), data.classes.repeat(2, 1).repeat(2, 2), data.codes, data.frontal
    )


def test_bald_heads_have_no_hair_colour(data: Labelled) -> None:
    bald = Labelled(data.images[:1], data.classes[:1], data.codes[:1].copy(), data.frontal[:1])
    bald.codes[0, list(READ).index("hair_style")] = READ["hair_style"].index("bald")
    targets = probe_targets(bald, np.array([0]))
    assert targets[0, list(READ).index("hair_colour")] == -100
    assert (targets[0, [list(READ).index(n) for n in ("gender", "skin", "shirt")]] >= 0).all()


def test_whole_heads_come_at_the_probes_size_with_their_codes(data: Labelled) -> None:
    heads = whole_heads(data)
    assert heads.images.shape == (int(data.frontal.sum()), 128, 128, 3) and heads.classes.shape[1:] == (128, 128)
    assert np.array_equal(heads.codes, data.codes[data.frontal])
    wide = data.images[data.frontal].astype(float).mean((1, 2, 3))
    assert np.abs(heads.images.astype(float).mean((1, 2, 3)) - wide).max() < 1
    again = whole_heads(heads)
    assert np.array_equal(again.images, heads.images) and np.array_equal(again.classes, heads.classes)


def test_brows_are_as_thick_as_the_persons(rig: BuiltinRig) -> None:
    pixels = {}
    for gender in ("man", "woman"):
        a = PortraitAttributes(gender, "young", "average", "pale", "bald", "black", "brown", "red", False)
        portraitist = Portraitist(build_person(a, "neutral", np.random.default_rng(0), rig), rig)
        camera = full_cameras(rig, portraitist.mesh.neutral, [0.0], [0.0], 256)
        brows = portraitist.render_classes(camera)[0] == CLASSES.index("brows")
        picture = portraitist.render(camera)[0].mean(0)
        pixels[gender] = int(brows.sum())
        forehead = float(picture[portraitist.render_classes(camera)[0] == CLASSES.index("skin")].median())
        assert float(picture[brows].median()) < 0.7 * forehead  # what is labelled is dark
    assert pixels["man"] > 1.25 * pixels["woman"]


def test_splat_truth_looks_like_the_person(rig: BuiltinRig) -> None:
    counts = GaussiansConfig(skin_count=2500, hair_count=1200, clothes_count=500)
    truth = splat_truth(rig, 1, 5, size=48, iterations=60, counts=counts)
    assert truth.images.shape == (3, 48, 48, 3) and truth.codes.shape == (3, len(READ))
    person = sample_person(np.random.default_rng(5), rig)
    portraitist = Portraitist(person, rig)
    cameras = full_cameras(rig, portraitist.mesh.neutral, AZIMUTHS, [ELEVATION], 48)
    drawn = portraitist.render(cameras).permute(0, 2, 3, 1).numpy()
    error = lambda picture: float(((picture - drawn) ** 2).mean())  # noqa: E731
    assert error(truth.images / 255) < 0.5 * error(np.array(BACKGROUND_COLOUR))
