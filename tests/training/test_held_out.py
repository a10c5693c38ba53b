"""The stored held-out portraits : whole, of agreeing parts, and what the shipped networks read in them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ap3d.diffusion.conditions import ConditionSpec
from ap3d.metrics.attribute_probe import AttributeProbe
from ap3d.perception.parsing import CLASSES, FaceParser
from ap3d.rig.builtin import BuiltinRig
from ap3d.training.attributes import FRAMINGS
from ap3d.training.held_out import HeldOut, render_held_out

HELD_OUT = Path(__file__).with_name("held_out.npz")


@pytest.fixture(scope="module")
def held_out() -> HeldOut:
    return HeldOut.load(HELD_OUT)


def test_it_is_whole_and_varied(held_out: HeldOut) -> None:
    count = len(held_out.images)
    assert held_out.images.shape == (count, 128, 128, 3) and held_out.conditions.shape == (count, 128, 128, 6)
    assert held_out.classes.shape == (count, 128, 128) and int(held_out.classes.max()) < len(CLASSES)
    assert {s.framing for s in held_out.scenes} == set(FRAMINGS)
    assert len({s.person for s in held_out.scenes}) == count // 3


def test_conditions_agree_with_class_maps(held_out: HeldOut) -> None:
    """Clothes of the condition are clothes, or hair that hangs over them; outlines may be off by half a pixel."""
    code = np.array(ConditionSpec().codes["CLOTHES"]) * 255
    cloth = np.abs(held_out.conditions[..., 3:] - code).max(-1) < 4
    shown = held_out.classes[cloth]
    assert np.isin(shown, [CLASSES.index("clothes"), CLASSES.index("hair")]).mean() > 0.95
    assert (held_out.classes[held_out.conditions[..., 3:].max(-1) > 0] > 0).mean() > 0.99


def test_a_remade_set_holds_the_same_people(held_out: HeldOut) -> None:
    again = render_held_out(BuiltinRig.load(), 1, size=32)
    assert np.array_equal(again.codes, held_out.codes[:3])
    assert again.images.shape == (3, 32, 32, 3)


def test_the_shipped_parser_finds_the_parts(held_out: HeldOut) -> None:
    rows = [i for i, s in enumerate(held_out.scenes) if s.framing in ("full", "face")]
    pictures = torch.from_numpy(held_out.images[rows]).permute(0, 3, 1, 2).float() / 255
    found, truth = FaceParser.load().parse(pictures).numpy(), held_out.classes[rows]
    for name, least in {
        "background": 0.97,
        "hair": 0.9,
        "clothes": 0.9,
        "skin": 0.88,
        "neck": 0.7,
        "mouth": 0.7,
    }.items():
        one, other = found == CLASSES.index(name), truth == CLASSES.index(name)
        assert (one & other).sum() / (one | other).sum() > least, name


def test_the_shipped_probe_reads_large_attributes(held_out: HeldOut) -> None:
    rows = [i for i, s in enumerate(held_out.scenes) if s.framing == "full" and s.view == "front view"]
    pictures = torch.from_numpy(held_out.images[rows]).permute(0, 3, 1, 2).float() / 255
    read = AttributeProbe.load().read(pictures)
    for name in ("shirt", "skin"):
        right = [value == getattr(held_out.scenes[i].person, name) for value, i in zip(read[name], rows, strict=True)]
        assert np.mean(right) > 0.75, name
