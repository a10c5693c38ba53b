"""The vocabulary of the built-in world: what a procedural portrait can look like."""

from dataclasses import dataclass

GENDERS = ("man", "woman")
AGES = ("child", "young", "middle-aged", "old")
BUILDS = ("thin", "average", "chubby")
SKINS = ("pale", "tan", "brown", "dark")
HAIR_STYLES = ("short", "long", "bald", "curly", "bun", "fringe")
HAIR_COLOURS = ("black", "brown", "blonde", "red", "gray", "blue", "pink")
EYE_COLOURS = ("brown", "blue", "green")
SHIRT_COLOURS = ("white", "black", "red", "blue", "green", "yellow", "purple")
EXPRESSIONS = ("neutral", "smiling", "mouth open", "angry", "eyes closed")
FRAMINGS = ("full", "face", "left_eye", "right_eye", "mouth")
BACKGROUND_COLOUR = (0.45, 0.80, 0.78)  # flat, far from every skin, hair and shirt colour, so that mattes need no model


@dataclass(frozen=True)
class PortraitAttributes:
    """One synthetic person; every value is one of the words above.

    ``hair_colour`` is set for bald heads too: brows and beards take it.
    """

    gender: str
    age: str
    build: str
    skin: str
    hair_style: str
    hair_colour: str
    eye_colour: str
    shirt: str
    beard: bool
