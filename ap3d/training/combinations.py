"""Which combinations of attributes no training picture may show, so that evaluation can ask for something new."""

from ap3d.training.attributes import HAIR_COLOURS, HAIR_STYLES, SHIRT_COLOURS, SKINS, PortraitAttributes

_KEPT_APART = 3  # of the seven sums: a seventh of all combinations


def kept_from_training(person: PortraitAttributes) -> bool:
    """Whether a combination of skin, hair style, hair colour and shirt is kept for evaluation.

    The positions of the four values in their lists are added; one sum modulo 7 is kept apart. Each value, and each
    pair and triple of values, stays in training, but for triples that a fourth attribute completes.
    """
    places = (
        SKINS.index(person.skin),
        HAIR_STYLES.index(person.hair_style),
        HAIR_COLOURS.index(person.hair_colour),
        SHIRT_COLOURS.index(person.shirt),
    )
    return sum(places) % len(SHIRT_COLOURS) == _KEPT_APART
