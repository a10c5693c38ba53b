"""Prompt rewriting: view and region prefixes, the abstract prompt, completion of what a prompt leaves out.

The same functions word the captions in training and the prompts of guidance, so that the two always agree. The view or
region comes first: what a tokenizer truncates is the end of a long prompt, never the view. Region prompts follow
reference/animportrait3d-avatar-and-guidance.md, section 6 ("left eye region, a boy").
"""

import re
from collections.abc import Mapping

import torch

from ap3d.diffusion import vocabulary as words

Tables = Mapping[str, tuple[str, ...]]

FRONT_LIMIT, BACK_LIMIT = 30.0, 120.0  # degrees of azimuth between front and side, side and back
_OTHER_GARMENTS = frozenset(("dress", "clothes", "hoodie", "coat", "jacket", "suit"))
_GARMENT_PARTS = {part for g in words.GARMENTS for part in g.split("-") if part != "t"} | _OTHER_GARMENTS
_BEARD_WORDS = ("beard", "shaven", "moustache", "mustache", "goatee", "stubble", "whiskers")
_CLAUSE = re.compile(r"[,;.]|\b(?:with|wearing|and|in an?|in(?= \w+ \w+)|has|having|dressed)\b")


def view_word(azimuth: float) -> str:
    """The view phrase for a camera ``azimuth`` in degrees (0 looks at the face, positive to the subject's left)."""
    turn = abs((azimuth + 180) % 360 - 180)
    return words.VIEWS[0 if turn < FRONT_LIMIT else 1 if turn < BACK_LIMIT else 2]


def framed_prompt(prompt: str, framing: str = "full", view: str = "front view") -> str:
    """Put the view (``full``, ``face``) or region (``left_eye``, ``right_eye``, ``mouth``) before a prompt."""
    return words.FRAMING_PREFIXES[framing].format(view=view, prompt=prompt)


def tokens(prompt: str) -> list[str]:
    """Lower-case words of a prompt; a hyphen joins, other punctuation separates."""
    return re.findall(r"[^\W_]+(?:['-][^\W_]+)*", prompt.lower())


def unknown_words(prompt: str, vocabulary: frozenset[str] | set[str]) -> list[str]:
    """Words of a prompt that are not in ``vocabulary`` (each half of a hyphenated word counts), in order, once each."""
    out: list[str] = []
    for word in tokens(prompt):
        parts = [p for p in re.split(r"['-]", word) if p]
        if word not in vocabulary and not all(p in vocabulary for p in parts) and word not in out:
            out.append(word)
    return out


def abstract_prompt(prompt: str) -> str:
    """The age and gender words of a prompt as a noun phrase ("an old man"); "a person" where it names nobody."""
    ages = {w for table in words.AGE_WORDS.values() for w in table} | {"little"}
    nouns = _person_words()
    found = [w for w in tokens(prompt) if w in ages or w in nouns]
    first_noun = next((i for i, w in enumerate(found) if w in nouns), None)
    found = [*found, "person"] if first_noun is None else found[: first_noun + 1]
    if found[-1] in ("male", "female"):
        found.append("person")
    return _with_article(" ".join(found))


def complete_prompt(prompt: str, generator: torch.Generator) -> tuple[str, list[str]]:
    """Append words for every attribute that a prompt leaves open, so that a stated colour does not bleed into it.

    Args:
        prompt: any text.
        generator: the portrait's generator; the same seed gives the same words.

    Returns:
        The completed prompt and the phrases that were added.
    """
    stated = stated_attributes(prompt)
    draw = lambda table: _draw(table, generator)  # noqa: E731
    chosen = {
        "gender": draw(("man", "woman")),
        "age": draw(("young", "middle-aged", "old")),
        "skin": draw(tuple(words.SKIN_WORDS)),
        "hair_style": draw(("short", "long", "curly", "bun", "fringe")),
        "hair_colour": draw(("black", "brown", "blonde", "red", "gray")),
        "eye_colour": draw(tuple(words.EYE_COLOUR_WORDS)),
        "shirt": draw(tuple(words.SHIRT_COLOUR_WORDS)),
        "beard": draw(("clean-shaven", "clean-shaven", "a beard")),
    }
    added = []
    if "gender" not in stated:
        age = "" if "age" in stated else chosen["age"] + " "
        noun = {"man": "boy", "woman": "girl"}[chosen["gender"]] if "child" in stated else chosen["gender"]
        added.append(_with_article(age + noun))
    elif "age" not in stated:
        added.append(chosen["age"])
    if "skin" not in stated:
        added.append(f"{chosen['skin']} skin")
    added += _hair_phrases(stated, chosen)
    if "eye_colour" not in stated:
        added.append(f"{chosen['eye_colour']} eyes")
    if "shirt" not in stated:
        added.append(f"wearing a {chosen['shirt']} {_garment(prompt)}")
    if "beard" not in stated and "child" not in stated and _is_man(prompt, stated, chosen):
        added.append(chosen["beard"])
    return ", ".join([prompt.strip().rstrip(",."), *added]), added


def stated_attributes(prompt: str) -> set[str]:
    """Which attributes a prompt speaks of, by membership in the caption wordings.

    A colour belongs to the noun that shares its clause: "a red shirt and long hair" states shirt and hair style.
    """
    text = " ".join(prompt.lower().split())
    every = set(tokens(text))
    stated: set[str] = set()
    if every & _person_words(neutral=False):
        stated.add("gender")
    if every & _any(words.AGE_WORDS, every) or every & {"grandfather", "grandpa", "grandmother", "grandma"}:
        stated.add("age")
    if every & {"boy", "girl", "child", "kid", "toddler"}:
        stated |= {"age", "child"}
    if any(phrase in text for phrase in words.HAIR_STYLE_WORDS["bald"]):
        stated |= {"hair_style", "bald"}
    if any(p in every for p in ("bun", "topknot", "updo", "fringe", "bangs")):
        stated.add("hair_style")
    if any(word in text for word in _BEARD_WORDS):
        stated.add("beard")
    if re.search(rf"\bin (?:all )?(?:{'|'.join(_shirt_colours())})(?=$|[,.;]| and\b)", text):
        stated.add("shirt")
    for clause in _CLAUSE.split(text):
        stated |= _stated_in_clause(set(re.findall(r"[a-z]+", clause)))
    return stated


def _stated_in_clause(found: set[str]) -> set[str]:
    """Attributes said by one clause, given its words."""
    stated: set[str] = set()
    if found & words.HAIR_NOUNS:
        stated |= {"hair_colour"} if found & _any(words.HAIR_COLOUR_WORDS, found) else set()
        stated |= {"hair_style"} if found & _any(words.HAIR_STYLE_WORDS, found) else set()
    if found & {"blonde", "blond", "brunette", "ginger", "redhead", "redheaded", "redhaired"}:
        stated.add("hair_colour")
    if found & {"skin", "skinned"} and found & _any(words.SKIN_WORDS, found):
        stated.add("skin")
    if found & {"eye", "eyes", "eyed"} and found & _any(words.EYE_COLOUR_WORDS, found):
        stated.add("eye_colour")
    if found & _GARMENT_PARTS and found & _any(words.SHIRT_COLOUR_WORDS, found):
        stated.add("shirt")
    return stated


def _garment(prompt: str) -> str:
    """The garment that a prompt names without a colour, else a shirt."""
    named = [w for w in tokens(prompt) if w in words.GARMENTS or w in _OTHER_GARMENTS]
    return named[0] if named else "shirt"


def _is_man(prompt: str, stated: set[str], chosen: dict[str, str]) -> bool:
    if "gender" not in stated:
        return chosen["gender"] == "man"
    male = {w for table in (words.GENDER_NOUNS, words.OLD_NOUNS) for noun in table["man"] for w in noun.split()}
    return bool(set(tokens(prompt)) & (male - {"person"}))


def _shirt_colours() -> list[str]:
    return sorted({colour for table in words.SHIRT_COLOUR_WORDS.values() for colour in table})


def _hair_phrases(stated: set[str], chosen: dict[str, str]) -> list[str]:
    """Words for open hair attributes; nothing for the colour of a bald head."""
    if "bald" in stated or {"hair_style", "hair_colour"} <= stated:
        return []
    style = "" if "hair_style" in stated else chosen["hair_style"]
    colour = "" if "hair_colour" in stated else chosen["hair_colour"]
    if style in ("bun", "fringe"):
        return [" ".join(filter(None, (colour, {"bun": "hair in a bun", "fringe": "hair with a fringe"}[style])))]
    return [" ".join(filter(None, (style, colour, "hair")))]


def _person_words(neutral: bool = True) -> set[str]:
    """Single words that name a person; without the neutral ones, words that also say a gender."""
    tables = [*words.GENDER_NOUNS.values(), *words.CHILD_NOUNS.values(), *words.OLD_NOUNS.values()]
    out = {w for table in tables for noun in table for w in noun.split()} - {"little", "person", "child", "kid"}
    return out | {*words.ANY_NOUNS, *words.ANY_CHILD_NOUNS} if neutral else out


def _any(tables: Tables, found: set[str]) -> set[str]:
    """The words of ``found`` that some phrase of the tables uses as a content word."""
    skip = {"a", "an", "in", "no", "up", "head", "hair", "tied", "with", "and"}
    return {w for table in tables.values() for phrase in table for w in re.split(r"[ -]", phrase)} & found - skip | {
        phrase for table in tables.values() for phrase in table if "-" in phrase and phrase in found
    }


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _draw(options: tuple[str, ...], generator: torch.Generator) -> str:
    """One option, uniformly; every call takes one number, so that attributes draw independently of the prompt."""
    return options[int(torch.randint(1 << 30, (1,), generator=generator)) % len(options)]
