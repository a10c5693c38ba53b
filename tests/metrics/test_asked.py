"""Prompts are read as the captions mean them, in all their wordings."""

import csv
from collections import Counter
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from ap3d.metrics.asked import asked_attributes
from ap3d.training.attributes import PortraitAttributes
from ap3d.training.captions import LABELS, UNSTATED, CaptionWriter, random_person
from ap3d.training.combinations import kept_from_training
from cluster.evaluation import read_attributes

LIST = Path(__file__).parents[2] / "jobs" / "held_out_prompts.csv"
NAMES = [f.name for f in fields(PortraitAttributes)]


def test_what_captions_state_is_read() -> None:
    writer = CaptionWriter(np.random.default_rng(5))
    for _ in range(1500):
        caption = writer.write(random_person(writer.rng))
        stated = {n: LABELS[n][caption.labels[n]] for n in NAMES if caption.labels[n] != UNSTATED}
        if stated.get("build") == "average":  # nobody says it
            del stated["build"]
        found = asked_attributes(caption.text)
        if stated.get("beard") is False and "beard" not in found:
            del stated["beard"]
        assert found == stated, caption.text


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("a dragon", {}),
        ("a woman in a red dress and long hair", {"gender": "woman", "shirt": "red", "hair_style": "long"}),
        ("an old man with a grey beard", {"gender": "man", "age": "old", "beard": True, "hair_colour": "gray"}),
        ("Grey-haired lady, NAVY hoodie", {"gender": "woman", "hair_colour": "gray", "shirt": "blue"}),
        ("a middle-aged man, clean-shaven", {"gender": "man", "age": "middle-aged", "beard": False}),
        ("a brunette with blue eyes", {"hair_colour": "brown", "eye_colour": "blue"}),
    ],
)
def test_free_wordings(prompt: str, asked: dict[str, object]) -> None:
    assert asked_attributes(prompt) == asked


def test_the_held_out_list_holds_what_training_must_not_show() -> None:
    with LIST.open(newline="") as file:
        rows = list(csv.DictReader(file))
    people = read_attributes(str(LIST))
    assert len(rows) == len(people) == len({row["id"] for row in rows}) == 40
    for prompt, asked in people.items():
        person = PortraitAttributes(**asked)  # type: ignore[arg-type]
        assert kept_from_training(person), prompt
        said = {**asked_attributes(prompt), "beard": person.beard, "build": person.build}
        assert said == asked, prompt
    for name in set(NAMES) - {"beard"}:
        assert {p[name] for p in people.values()} == set(LABELS[name]), name


def test_a_seventh_of_all_combinations_is_kept() -> None:
    rng = np.random.default_rng(0)
    kept = Counter(kept_from_training(random_person(rng)) for _ in range(4000))
    assert abs(kept[True] / 4000 - 1 / 7) < 0.02
