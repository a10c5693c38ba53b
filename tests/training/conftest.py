"""Flat stand-ins for rendered portraits: right types, right region codes, colours that say the attributes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from ap3d.diffusion.conditions import ConditionSpec
from ap3d.training.attributes import BACKGROUND_COLOUR, HAIR_COLOURS, SHIRT_COLOURS, SKINS, PortraitAttributes
from ap3d.training.captions import random_person

SIZE = 128


@dataclass
class FlatPortrait:
    """The fields of a portrait sample."""

    image: np.ndarray
    condition: np.ndarray
    attributes: PortraitAttributes
    expression: str = "neutral"
    framing: str = "full"
    view: str = "front view"


def palette(count: int, index: int) -> np.ndarray:
    """Distinct colours for the values of an attribute."""
    return np.array([index / count, ((index * 2) % count) / count, 1 - index / count])


def flat_portrait(rng: np.random.Generator) -> FlatPortrait:
    """Hair above, skin in the middle, shirt below, background at the sides."""
    person = random_person(rng)
    spec, columns = ConditionSpec(), slice(24, 104)
    image = np.tile(np.array(BACKGROUND_COLOUR), (SIZE, SIZE, 1))
    condition = np.zeros((SIZE, SIZE, 6))
    bands = [
        ("SCALP", slice(10, 40), palette(7, HAIR_COLOURS.index(person.hair_colour))),
        ("SKIN", slice(40, 90), palette(4, SKINS.index(person.skin))),
        ("CLOTHES", slice(90, 128), palette(7, SHIRT_COLOURS.index(person.shirt))),
    ]
    for region, rows, colour in bands:
        image[rows, columns] = colour
        condition[rows, columns] = (0.5, 0.5, 1.0, *spec.codes[region])
    image = image + rng.normal(0, 0.01, image.shape)
    as_bytes = lambda a: (a.clip(0, 1) * 255).round().astype(np.uint8)  # noqa: E731
    return FlatPortrait(as_bytes(image), as_bytes(condition), person)


def render(rng: np.random.Generator, count: int) -> list[Any]:
    return [flat_portrait(rng) for _ in range(count)]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pool(tmp_path_factory):
    from ap3d.training.portrait_pool import PortraitPool

    pool = PortraitPool(tmp_path_factory.mktemp("pool"), 192)
    pool.fill(render)
    return pool


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory):
    """A briefly pretrained tokenizer and text encoder."""
    from ap3d.training.text_pretraining import TextConfig, pretrain_text_encoder

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("model") / "diffusion"
    rows: list[dict[str, float]] = []
    config = TextConfig(width=64, heads=2, layers=1, feedforward=128, steps=51, batch=24)
    accuracy = pretrain_text_encoder(folder, config, rows.append)
    return folder, rows, accuracy
