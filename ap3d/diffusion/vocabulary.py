"""Wordings of the built-in world: which phrases say which attribute value.

Training captions draw from these tables and the text encoder learns what the phrases mean. At run time they only
answer "does this prompt say anything about hair colour?" and supply words for what it leaves out: text to text, never
text to a colour or a parameter.
"""

GENDER_NOUNS = {
    "man": ("man", "man", "man", "male", "guy", "gentleman", "male person"),
    "woman": ("woman", "woman", "woman", "female", "lady", "female person"),
}
CHILD_NOUNS = {
    "man": ("boy", "boy", "little boy", "male child", "male kid"),
    "woman": ("girl", "girl", "little girl", "female child", "female kid"),
}
ANY_NOUNS = ("person", "adult", "human")
ANY_CHILD_NOUNS = ("child", "kid", "toddler")
OLD_NOUNS = {"man": ("grandfather", "grandpa"), "woman": ("grandmother", "grandma")}
AGE_WORDS = {
    "child": (),
    "young": ("young", "young", "youthful", "teenage"),
    "middle-aged": ("middle-aged", "middle-aged", "mature"),
    "old": ("old", "old", "elderly", "aged", "senior"),
}
BUILD_WORDS = {
    "thin": ("thin", "thin", "slim", "skinny", "slender"),
    "average": (),
    "chubby": ("chubby", "chubby", "fat", "plump", "overweight", "heavy"),
}
SKIN_WORDS = {
    "pale": ("pale", "pale", "fair", "light", "white"),
    "tan": ("tan", "tan", "tanned", "olive"),
    "brown": ("brown",),
    "dark": ("dark", "dark", "black"),
}
HAIR_COLOUR_WORDS = {
    "black": ("black", "black", "raven"),
    "brown": ("brown", "brown", "brunette", "chestnut"),
    "blonde": ("blonde", "blonde", "blond", "golden"),
    "red": ("red", "red", "ginger"),
    "gray": ("gray", "grey", "silver", "white"),
    "blue": ("blue",),
    "pink": ("pink",),
}
HAIR_STYLE_WORDS = {
    "short": ("short", "short", "cropped"),
    "long": ("long", "long", "flowing"),
    "bald": ("bald", "bald", "bald-headed", "hairless", "no hair", "a shaved head", "a bald head"),
    "curly": ("curly", "curly", "frizzy", "afro"),
    "bun": ("in a bun", "in a bun", "tied in a bun", "tied up in a bun", "in a topknot"),
}
EYE_COLOUR_WORDS = {"brown": ("brown",), "blue": ("blue",), "green": ("green",)}
SHIRT_COLOUR_WORDS = {
    "white": ("white",),
    "black": ("black",),
    "red": ("red",),
    "blue": ("blue",),
    "green": ("green",),
    "yellow": ("yellow",),
    "purple": ("purple", "purple", "violet"),
}
GARMENTS = ("shirt", "shirt", "shirt", "t-shirt", "top", "sweater", "jumper", "blouse", "tee")
BEARD_PHRASES = {
    True: ("beard", "beard", "full beard", "thick beard", "bushy beard"),
    False: ("clean-shaven", "no beard", "beardless"),
}
EXPRESSION_PHRASES = {
    "neutral": ("neutral expression", "neutral"),
    "smiling": ("smiling", "with a smile", "happy"),
    "mouth open": ("mouth open", "with an open mouth", "talking"),
    "angry": ("angry", "frowning"),
    "eyes closed": ("eyes closed", "with closed eyes", "asleep"),
}
VIEWS = ("front view", "side view", "back view")
FRAMING_PREFIXES = {
    "full": "{view}, {prompt}",
    "face": "{view}, face close-up, {prompt}",
    "left_eye": "left eye region, {prompt}",
    "right_eye": "right eye region, {prompt}",
    "mouth": "mouth region, {prompt}",
}
HAIR_NOUNS = frozenset(("hair", "haired", "hairstyle", "bun", "topknot", "afro", "curls", "locks"))
