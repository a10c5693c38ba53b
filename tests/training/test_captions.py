import dataclasses
import os
import subprocess
import sys

import numpy as np

from ap3d.diffusion.vocabulary import SHIRT_COLOUR_WORDS
from ap3d.training.attributes import PortraitAttributes
from ap3d.training.captions import (
    LABELS,
    UNSTATED,
    CaptionWriter,
    caption_words,
    plain_caption,
    random_caption,
    random_person,
)

PERSON = PortraitAttributes("man", "old", "average", "pale", "short", "gray", "blue", "red", True)


def says_red(text):
    return any(f"{word} " in text for word in SHIRT_COLOUR_WORDS["red"])


def test_labels_follow_the_words():
    writer = CaptionWriter(np.random.default_rng(0))
    for _ in range(300):
        caption = writer.write(PERSON)
        assert (caption.labels["shirt"] != UNSTATED) == says_red(caption.text)
        assert (caption.labels["beard"] == 1) == ("beard" in caption.text)
        assert caption.labels["gender"] in (UNSTATED, 0)


def test_every_word_is_in_the_vocabulary_and_captions_differ():
    writer, known = CaptionWriter(np.random.default_rng(1)), set(caption_words())
    texts = [random_caption(writer).text for _ in range(500)]
    assert len(set(texts)) > 450
    assert not {w for t in texts for w in t.replace(",", "").replace("-", " ").split()} - known


def test_equal_generators_write_equal_captions():
    texts = [[CaptionWriter(np.random.default_rng(s)).write(PERSON).text for _ in range(5)] for s in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]


def test_close_ups_speak_of_what_is_visible():
    writer = CaptionWriter(np.random.default_rng(2))
    texts = [writer.write(PERSON, framing="left_eye").text for _ in range(200)]
    assert all(t.startswith("left eye region, ") for t in texts)
    assert 0.2 < np.mean([says_red(t) for t in texts]) < 0.6


def test_plain_caption_says_everything():
    text = plain_caption(PERSON, "full", "side view")
    assert text == ("side view, an old man, pale skin, short gray hair, a gray beard, blue eyes, wearing a red shirt")
    assert plain_caption(dataclasses.replace(PERSON, hair_style="bald", beard=False)).count("gray") == 0


def test_random_people_cover_the_vocabulary():
    rng = np.random.default_rng(0)
    people = [random_person(rng) for _ in range(400)]
    assert {p.hair_colour for p in people} == set(LABELS["hair_colour"])
    assert not any(p.beard and (p.gender == "woman" or p.age == "child") for p in people)


def test_captions_depend_on_the_seed_alone_in_every_process() -> None:
    code = (
        "import numpy as np; from ap3d.training.captions import CaptionWriter, random_caption;"
        "writer = CaptionWriter(np.random.default_rng(0), 0.1);"
        "print([random_caption(writer).text for _ in range(60)])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1
