import pytest
import torch

from ap3d.diffusion.prompts import (
    abstract_prompt,
    complete_prompt,
    framed_prompt,
    stated_attributes,
    unknown_words,
    view_word,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("azimuth", "word"),
    [
        (0, "front view"),
        (29, "front view"),
        (-31, "side view"),
        (119, "side view"),
        (-150, "back view"),
        (350, "front view"),
        (540, "back view"),
    ],
)
def test_views_by_azimuth(azimuth, word):
    assert view_word(azimuth) == word


def test_the_view_or_region_comes_first():
    assert framed_prompt("a boy", "full", "back view") == "back view, a boy"
    assert framed_prompt("a boy", "left_eye") == "left eye region, a boy"
    assert framed_prompt("a boy", "face").startswith("front view, face close-up, ")


@pytest.mark.parametrize(
    ("prompt", "short"),
    [
        ("an old man with grey hair", "an old man"),
        ("young woman, pale skin, with a green shirt", "a young woman"),
        ("An elderly gentleman in a red top and his dog", "an elderly gentleman"),
        ("a little girl", "a little girl"),
        ("a wizard", "a person"),
        ("", "a person"),
    ],
)
def test_abstract_prompts(prompt, short):
    assert abstract_prompt(prompt) == short


@pytest.mark.parametrize(
    ("prompt", "stated"),
    [
        ("an old man with grey hair", {"age", "gender", "hair_colour"}),
        ("a man, red shirt and long hair", {"gender", "shirt", "hair_style"}),
        ("a woman with long dark brown hair", {"gender", "hair_colour", "hair_style"}),
        ("a dark-skinned boy", {"age", "child", "gender", "skin"}),
        ("a blonde with green eyes", {"hair_colour", "eye_colour"}),
        ("a woman with hair in a bun in a purple top", {"gender", "hair_style", "shirt"}),
        ("a bald man", {"gender", "hair_style", "bald"}),
        ("", set()),
    ],
)
def test_a_colour_belongs_to_the_noun_of_its_clause(prompt, stated):
    assert stated_attributes(prompt) == stated


def test_completion_leaves_nothing_open_and_touches_nothing_stated():
    prompt = "an old man with grey hair and a green shirt"
    completed, added = complete_prompt(prompt, generator())
    assert completed.startswith(prompt) and all(phrase in completed for phrase in added)
    assert not any("shirt" in phrase or "grey" in phrase or "man" in phrase for phrase in added)
    assert {"skin", "hair_style", "eye_colour"} <= stated_attributes(completed)
    assert complete_prompt(completed, generator(5)) == (completed, [])


def test_completion_names_a_person_where_the_prompt_does_not():
    completed, _ = complete_prompt("wizard", generator(3))
    assert {"gender", "age", "skin", "hair_colour", "hair_style", "eye_colour", "shirt"} <= stated_attributes(completed)
    assert abstract_prompt(completed) != "a person"


def test_the_seed_decides_and_attributes_draw_independently():
    first, second = complete_prompt("a man", generator(1))[1], complete_prompt("a man", generator(1))[1]
    assert first == second
    assert len({complete_prompt("a man", generator(s))[0] for s in range(20)}) > 15
    with_hair = complete_prompt("a man with red curly hair", generator(1))[1]
    assert [p for p in first if "skin" in p or "shirt" in p] == [p for p in with_hair if "skin" in p or "shirt" in p]


@pytest.mark.parametrize(
    ("prompt", "forbidden"),
    [
        ("a redhead woman", "black hair"),
        ("an old lady in white", "wearing"),
        ("a woman wearing a top", "shirt"),
        ("a bearded man", "shaven"),
        ("a woman", "shaven"),
        ("a boy", "shaven"),
    ],
)
def test_completion_contradicts_nothing(prompt: str, forbidden: str) -> None:
    for seed in range(12):
        added = complete_prompt(prompt, generator(seed))[1]
        assert not any(forbidden in phrase for phrase in added)


def test_men_without_a_word_about_it_get_a_beard_or_none_in_words() -> None:
    phrases = {complete_prompt("a man", generator(seed))[1][-1] for seed in range(20)}
    assert phrases == {"clean-shaven", "a beard"}


def test_bald_heads_get_no_hair():
    assert not any("hair" in phrase for phrase in complete_prompt("a bald man", generator())[1])


def test_unknown_words_are_listed_once_in_order():
    known = frozenset(["a", "man", "with", "red", "hair", "dark", "skinned"])
    assert unknown_words("A dark-skinned wizard man, with Emerald hair, wizard!", known) == ["wizard", "emerald"]
    assert unknown_words("a man with red hair", known) == []
