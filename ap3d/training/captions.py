"""Captions of procedural portraits in many wordings, with the labels that each wording states."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.random import Generator

from ap3d.diffusion import vocabulary as words
from ap3d.diffusion.prompts import framed_prompt
from ap3d.training.attributes import (
    AGES,
    BUILDS,
    EXPRESSIONS,
    EYE_COLOURS,
    FRAMINGS,
    GENDERS,
    HAIR_COLOURS,
    HAIR_STYLES,
    SHIRT_COLOURS,
    SKINS,
    PortraitAttributes,
)

UNSTATED = -100  # the ignore index of cross entropy
LABELS: dict[str, tuple[object, ...]] = {
    "gender": GENDERS,
    "age": AGES,
    "build": BUILDS,
    "skin": SKINS,
    "hair_style": HAIR_STYLES,
    "hair_colour": HAIR_COLOURS,
    "eye_colour": EYE_COLOURS,
    "shirt": SHIRT_COLOURS,
    "beard": (False, True),
    "expression": EXPRESSIONS,
    "framing": FRAMINGS,
    "view": words.VIEWS,
}
STATE_PROBABILITY = {"skin": 0.94, "hair": 0.94, "shirt": 0.94, "beard": 0.95, "eye_colour": 0.6, "expression": 0.9}
VISIBLE = {  # what a short caption of a close-up speaks of
    "left_eye": {"eye_colour", "skin", "hair"},
    "right_eye": {"eye_colour", "skin", "hair"},
    "mouth": {"skin", "beard", "expression"},
}
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass
class Caption:
    """A caption and, for every attribute of ``LABELS``, the index it states or ``UNSTATED``."""

    text: str
    labels: dict[str, int] = field(default_factory=dict)


class CaptionWriter:
    """Draws captions; one writer owns one random generator.

    Args:
        rng: the only source of randomness.
        noise: probability of one made-up word, which teaches the text encoder to read past words it never saw.
    """

    def __init__(self, rng: Generator, noise: float = 0.0) -> None:
        self.rng = rng
        self.noise = noise

    def write(
        self,
        person: PortraitAttributes,
        *,
        expression: str = "neutral",
        framing: str = "full",
        view: str = "front view",
    ) -> Caption:
        """A caption of ``person`` in one picture; close-ups often get a short one that says what is visible."""
        short = framing in VISIBLE and self._chance(0.6)
        visible = VISIBLE[framing] if short else {"skin", "hair", "eye_colour", "shirt", "beard", "expression"}
        labels = dict.fromkeys(LABELS, UNSTATED)
        labels["framing"], labels["view"] = FRAMINGS.index(framing), words.VIEWS.index(view)
        if framing not in ("full", "face"):
            labels["view"] = UNSTATED
        noun, trailing = self._person(person, labels)
        phrases = trailing + self._phrases(person, expression, framing, visible, labels)
        if self._chance(self.noise):
            phrases.append(self._made_up_word())
        order = self.rng.permutation(len(phrases))
        prefix = self._pick(("", "", "a portrait of ", "a photo of ", "the head of "))
        return Caption(framed_prompt(prefix + self._join(noun, [phrases[i] for i in order]), framing, view), labels)

    def _person(self, person: PortraitAttributes, labels: dict[str, int]) -> tuple[str, list[str]]:
        """The noun phrase with age and build, and now and then one of them as a phrase of its own."""
        state = lambda name, value: labels.__setitem__(name, LABELS[name].index(value))  # noqa: E731
        neutral = self._chance(0.06)
        trailing: list[str] = []
        adjectives: list[str] = []
        if person.age == "child":
            noun = self._pick(words.ANY_CHILD_NOUNS if neutral else words.CHILD_NOUNS[person.gender])
            state("age", "child")
        elif person.age == "old" and self._chance(0.06):
            noun, neutral = self._pick(words.OLD_NOUNS[person.gender]), False
            state("age", "old")
        else:
            noun = self._pick(words.ANY_NOUNS if neutral else words.GENDER_NOUNS[person.gender])
            if self._chance(0.9):
                (trailing if self._chance(0.12) else adjectives).append(self._pick(words.AGE_WORDS[person.age]))
                state("age", person.age)
        if not neutral:
            state("gender", person.gender)
        if words.BUILD_WORDS[person.build]:
            if self._chance(0.9):
                adjectives.append(self._pick(words.BUILD_WORDS[person.build]))
                state("build", person.build)
        else:
            state("build", person.build)
        if noun.startswith("little"):
            adjectives = [a for a in adjectives if a not in ("young",)]
        self.rng.shuffle(adjectives)
        phrase = " ".join([*adjectives, noun])
        article = "" if self._chance(0.1) else "an " if phrase[0] in "aeiou" else "a "
        return article + phrase, trailing

    def _phrases(
        self, person: PortraitAttributes, expression: str, framing: str, visible: set[str], labels: dict[str, int]
    ) -> list[str]:
        """Phrases for what is visible and not dropped; sets the labels of what they say."""
        # Sorted: the order of a set changes from process to process, and each name draws a number.
        said = {name for name in sorted(visible) if self._chance(STATE_PROBABILITY[name])}
        state = lambda name, value: labels.__setitem__(name, LABELS[name].index(value))  # noqa: E731
        out: list[str] = []
        if "skin" in said:
            word = self._pick(words.SKIN_WORDS[person.skin])
            out.append(self._pick((f"with {word} skin", f"{word} skin", f"{word} skin", f"{word}-skinned")))
            state("skin", person.skin)
        if "hair" in said:
            out += self._hair(person, labels)
        if "eye_colour" in said or ("eye" in framing and self._chance(0.7)):
            word = self._pick(words.EYE_COLOUR_WORDS[person.eye_colour])
            out.append(self._pick(("", "with ")) + f"{word} eyes")
            state("eye_colour", person.eye_colour)
        if "shirt" in said:
            garment = f"{self._pick(words.SHIRT_COLOUR_WORDS[person.shirt])} {self._pick(words.GARMENTS)}"
            out.append(self._pick(("wearing a ", "in a ", "a ", "with a ", "")) + garment)
            state("shirt", person.shirt)
        if "beard" in visible:
            out += self._beard(person, "beard" in said, labels)
        if "expression" in said and (expression != "neutral" or self._chance(0.2)):
            out.append(self._pick(words.EXPRESSION_PHRASES[expression]))
        if "expression" in said:
            state("expression", expression)
        return out

    def _hair(self, person: PortraitAttributes, labels: dict[str, int]) -> list[str]:
        """Style and colour of the hair in one phrase, or in two, or only one of them."""
        style, colour = (self._pick(words.HAIR_STYLE_WORDS[person.hair_style]), person.hair_colour)
        labels["hair_style"] = HAIR_STYLES.index(person.hair_style)
        if person.hair_style == "bald":
            return [("with " if style.startswith(("a ", "no ")) else "") + style]
        labels["hair_colour"] = HAIR_COLOURS.index(colour)
        colour = self._pick(words.HAIR_COLOUR_WORDS[colour])
        lead = self._pick(("", "", "with "))
        form = self.rng.random()
        if form < 0.08:
            labels["hair_style"] = UNSTATED
            return [f"{colour}-haired" if form < 0.03 else f"{lead}{colour} hair"]
        if form > 0.94 and person.hair_style == "curly":
            return [f"{lead}{colour} curls"]
        follows = person.hair_style in ("bun", "fringe")  # these words stand behind "hair"
        if form < 0.13:
            labels["hair_colour"] = UNSTATED
            return [f"{lead}hair {style}" if follows else f"{lead}{style} hair"]
        if form < 0.23:
            return [f"{lead}{colour} hair", f"hair {style}" if follows else f"{style} hair"]
        if follows:
            return [f"{lead}{colour} hair {style}" if form < 0.85 else f"with a {colour} {person.hair_style}"]
        pair = f"{style} {colour}" if form < 0.9 else f"{colour} {style}"
        return [f"{lead}{pair} hair"]

    def _beard(self, person: PortraitAttributes, said: bool, labels: dict[str, int]) -> list[str]:
        """A beard is nearly always said where there is one; its absence seldom."""
        if not person.beard:
            labels["beard"] = 0
            adult_man = person.gender == "man" and person.age != "child"
            return [self._pick(words.BEARD_PHRASES[False])] if adult_man and self._chance(0.15) else []
        if not said:
            return []
        labels["beard"] = 1
        if self._chance(0.2):
            return ["bearded"]
        word = self._pick(words.BEARD_PHRASES[True])
        if self._chance(0.5):
            labels["hair_colour"] = HAIR_COLOURS.index(person.hair_colour)
            word = f"{self._pick(words.HAIR_COLOUR_WORDS[person.hair_colour])} {word}"
        return [self._pick(("with a ", "a ", "with a ")) + word]

    def _join(self, noun: str, phrases: list[str]) -> str:
        """String phrases together with commas, "and", or nothing before a preposition."""
        text = noun
        for phrase in phrases:
            bare = phrase.startswith(("with ", "wearing ", "in ")) and self._chance(0.35)
            text += (" " if bare else self._pick((", ", ", ", ", ", " and "))) + phrase
        return text

    def _made_up_word(self) -> str:
        return "".join(self.rng.choice(list(_LETTERS), int(self.rng.integers(3, 9))))

    def _pick(self, options: tuple[str, ...]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def _chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)


def random_person(rng: Generator) -> PortraitAttributes:
    """A person with independent uniform attributes (children and women have no beard); for text-only training."""
    pick = lambda options: options[int(rng.integers(len(options)))]  # noqa: E731
    gender, age = pick(GENDERS), pick(AGES)
    return PortraitAttributes(
        gender=gender,
        age=age,
        build=pick(BUILDS),
        skin=pick(SKINS),
        hair_style=pick(HAIR_STYLES),
        hair_colour=pick(HAIR_COLOURS),
        eye_colour=pick(EYE_COLOURS),
        shirt=pick(SHIRT_COLOURS),
        beard=gender == "man" and age != "child" and bool(rng.random() < 0.4),
    )


def random_caption(writer: CaptionWriter) -> Caption:
    """A caption of a random person in a random framing, view and expression."""
    rng = writer.rng
    framing = FRAMINGS[int(rng.choice(len(FRAMINGS), p=(0.5, 0.2, 0.1, 0.1, 0.1)))]
    expression, view = EXPRESSIONS[int(rng.integers(len(EXPRESSIONS)))], words.VIEWS[int(rng.integers(3))]
    return writer.write(random_person(rng), expression=expression, framing=framing, view=view)


def caption_words() -> list[str]:
    """Every word that a caption can contain, sorted: the vocabulary of ``unknown_words``."""
    tables: list[Mapping[Any, tuple[str, ...]]] = [
        words.GENDER_NOUNS, words.CHILD_NOUNS, words.OLD_NOUNS, words.AGE_WORDS, words.BUILD_WORDS, words.SKIN_WORDS,
        words.HAIR_COLOUR_WORDS, words.HAIR_STYLE_WORDS, words.EYE_COLOUR_WORDS, words.SHIRT_COLOUR_WORDS,
        words.BEARD_PHRASES, words.EXPRESSION_PHRASES,
    ]  # fmt: skip
    phrases = [phrase for table in tables for options in table.values() for phrase in options]
    phrases += [
        *words.ANY_NOUNS,
        *words.ANY_CHILD_NOUNS,
        *words.GARMENTS,
        *words.VIEWS,
        *words.FRAMING_PREFIXES.values(),
    ]
    phrases.append(
        "a an with wearing in and of the portrait photo head skin skinned hair haired curls eyes bearded bun young"
    )
    text = " ".join(phrases).replace("{view}", "").replace("{prompt}", "")
    return sorted({w for phrase in text.split() for w in phrase.replace("-", " ").strip(",").split()})


def plain_caption(person: PortraitAttributes, framing: str = "full", view: str = "front view") -> str:
    """The one fixed wording of a person, used by probes: every attribute is said, the first wording of each."""
    noun = {"man": "boy", "woman": "girl"}[person.gender] if person.age == "child" else person.gender
    adjectives = [person.age] * (person.age != "child") + [person.build] * (person.build != "average")
    subject = " ".join([*adjectives, noun])
    hair = {
        "bald": "bald",
        "bun": f"{person.hair_colour} hair in a bun",
        "fringe": f"{person.hair_colour} hair with a fringe",
    }
    parts = [
        ("an " if subject[0] in "aeiou" else "a ") + subject,
        f"{person.skin} skin",
        hair.get(person.hair_style, f"{person.hair_style} {person.hair_colour} hair"),
        *([f"a {person.hair_colour} beard"] if person.beard else []),
        f"{person.eye_colour} eyes",
        f"wearing a {person.shirt} shirt",
    ]
    return framed_prompt(", ".join(parts), framing, view)
