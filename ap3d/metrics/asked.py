"""Which attribute values a prompt asks for, read by the wordings that training captions are made of.

This is a measurement: nothing is generated from it. A colour belongs to the noun that shares its clause.
"""

import re
from collections.abc import Mapping

from ap3d.diffusion import vocabulary as words

Phrases = Mapping[str, tuple[str, ...]]

_CLAUSE = re.compile(r"[,;.]|\b(?:with|wearing|and|in an?|having|has|dressed)\b")
_COMPOUND = re.compile(r"-(haired|skinned|eyed|bearded)\b")
_UPDO = re.compile(r"\b(?:bun|topknot|updo)\b")
_FRINGE = re.compile(r"\b(?:fringe|bangs)\b")
_CURLS = re.compile(r"\b(?:curls|afro)\b")
_BEARD = re.compile(r"\b(?:beard|bearded)\b")
_NO_BEARD = re.compile(r"\b(?:clean-shaven|no beard|beardless)\b")
_GARMENT = re.compile(rf"\b(?:{'|'.join(sorted(set(words.GARMENTS)))}|dress|clothes|coat|jacket|suit)s?\b")
_ALONE = {"blonde": "blonde", "blond": "blonde", "brunette": "brown", "ginger": "red", "redhead": "red"}


def asked_attributes(prompt: str) -> dict[str, object]:
    """Values by attribute name (gender, age, build, skin, hair_style, hair_colour, eye_colour, shirt, beard).

    What a prompt leaves open is absent. Words that training never used say nothing.
    """
    text = _COMPOUND.sub(r" \1", " ".join(prompt.lower().split()))
    asked: dict[str, object] = {**_person(text), **_hair_and_beard(text)}
    for clause in _CLAUSE.split(text):
        for name, noun, table in (
            ("skin", r"skin(?:ned)?", words.SKIN_WORDS), ("eye_colour", r"eye[sd]?", words.EYE_COLOUR_WORDS),
        ):  # fmt: skip
            if re.search(rf"\b{noun}\b", clause):
                _put(asked, name, _first(clause, table))
        if _GARMENT.search(clause):
            _put(asked, "shirt", _first(clause, words.SHIRT_COLOUR_WORDS))
    return asked


def _person(text: str) -> dict[str, object]:
    """Gender, age and build."""
    out: dict[str, object] = {}
    _put(out, "age", "child" if _first(text, {"child": words.ANY_CHILD_NOUNS, **words.CHILD_NOUNS}) else None)
    _put(out, "age", "old" if _first(text, words.OLD_NOUNS) else None)
    _put(out, "age", _first(text, words.AGE_WORDS))
    for table in (words.CHILD_NOUNS, words.OLD_NOUNS, words.GENDER_NOUNS):
        _put(out, "gender", _first(text, table))
    _put(out, "build", _first(text, words.BUILD_WORDS))
    return out


def _hair_and_beard(text: str) -> dict[str, object]:
    out: dict[str, object] = {}
    beard_colour = None
    bald = {"bald": words.HAIR_STYLE_WORDS["bald"]}
    _put(out, "hair_style", _first(text, bald) or ("bun" if _UPDO.search(text) else None))
    _put(out, "hair_style", "curly" if _CURLS.search(text) else None)
    for clause in _CLAUSE.split(text):
        if set(re.findall(r"[a-z]+", clause)) & words.HAIR_NOUNS:
            _put(out, "hair_colour", _first(clause, words.HAIR_COLOUR_WORDS))
            _put(out, "hair_style", _first(clause, words.HAIR_STYLE_WORDS))
            _put(out, "hair_style", "fringe" if _FRINGE.search(clause) else None)
        elif _BEARD.search(clause):
            beard_colour = beard_colour or _first(clause, words.HAIR_COLOUR_WORDS)
    _put(out, "hair_colour", beard_colour)
    for word, colour in _ALONE.items():
        _put(out, "hair_colour", colour if _has(text, word) else None)
    if _NO_BEARD.search(text):
        out["beard"] = False
    elif _BEARD.search(text):
        out["beard"] = True
    return out


def _put(out: dict[str, object], name: str, value: object | None) -> None:
    """The first word that is found counts."""
    if value is not None:
        out.setdefault(name, value)


def _first(text: str, table: Phrases) -> str | None:
    """The value whose phrase comes first in ``text``; of several at one place the longest phrase."""
    found = [(m.start(), -len(p), value) for value, phrases in table.items() for p in phrases if (m := _match(text, p))]
    return min(found)[2] if found else None


def _has(text: str, phrase: str) -> bool:
    return _match(text, phrase) is not None


def _match(text: str, phrase: str) -> "re.Match[str] | None":
    """A phrase between word borders, where a hyphen joins."""
    return re.search(rf"(?<![\w-]){re.escape(phrase)}(?![\w-])", text)
