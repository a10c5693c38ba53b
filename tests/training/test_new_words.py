import shutil

import numpy as np
import pytest
import torch
from transformers import CLIPTextModel, CLIPTokenizer

from ap3d.diffusion import vocabulary as words
from ap3d.training.new_words import TwinWriter, teach_new_words, unknown_to
from ap3d.training.text_pretraining import token_ids


@pytest.fixture
def folder(text_folder, tmp_path):
    for name in ("tokenizer", "text_encoder"):
        shutil.copytree(text_folder[0] / name, tmp_path / name)
    return tmp_path


def load(folder):
    model = CLIPTextModel.from_pretrained(folder / "text_encoder", local_files_only=True).float().eval()
    return model, CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)


def encode(folder, text):
    model, tokenizer = load(folder)
    with torch.no_grad():
        return model(token_ids(tokenizer, [text])).last_hidden_state


def test_a_new_word_comes_to_mean_its_known_wording(folder, monkeypatch):
    table = {**words.SHIRT_COLOUR_WORDS, "red": (*words.SHIRT_COLOUR_WORDS["red"], "vermilion")}
    monkeypatch.setattr(words, "SHIRT_COLOUR_WORDS", table)
    old = "front view, a woman, wearing a red shirt"
    before = encode(folder, old)
    assert unknown_to(load(folder)[1]) == ["vermilion"]
    result = teach_new_words(folder, steps=20, batch=8, report=lambda row: None)
    assert result["words"] == 1 and result["error"] < 0.2
    assert torch.equal(encode(folder, old), before)  # known captions are encoded as ever
    new = encode(folder, old.replace("red", "vermilion"))
    others = [encode(folder, old.replace("red", colour)) for colour in ("blue", "green", "white", "purple")]
    assert (new - before).square().mean() < min((new - other).square().mean() for other in others)
    assert teach_new_words(folder, steps=1, report=lambda row: None)["words"] == 0


def test_twins_differ_in_the_new_words_alone():
    writer = TwinWriter(np.random.default_rng(0), frozenset(("maroon",)))
    pairs = [p for p in (writer.pair() for _ in range(300)) if p is not None]
    assert pairs and all("maroon" in new and new.replace("maroon", "red") == known for new, known in pairs)
