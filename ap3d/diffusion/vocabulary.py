"""Wordings of the built-in world: which phrases say which attribute value.

Training captions draw from these tables and the text encoder learns what the phrases mean. At run time they only
answer "does this prompt say anything about hair colour?" and supply words for what it leaves out: text to text, never
text to a colour or a parameter.
"""

GENDER_NOUNS = {
    "man": ("man", "man", "man", "male", "guy", "gentleman", "fellow", "bloke", "dude", "chap", "male person"),
    "woman": ("woman", "woman", "woman", "female", "lady", "gal", "female person"),
}
CHILD_NOUNS = {
    "man": ("boy", "boy", "little boy", "schoolboy", "male child", "male kid"),
    "woman": ("girl", "girl", "little girl", "schoolgirl", "female child", "female kid"),
}
ANY_NOUNS = ("person", "adult", "human", "individual")
ANY_CHILD_NOUNS = ("child", "kid", "toddler", "youngster", "infant", "baby")
OLD_NOUNS = {"man": ("grandfather", "grandpa", "grandad"), "woman": ("grandmother", "grandma", "granny")}
AGE_WORDS = {
    "child": (),
    "young": ("young", "young", "youthful", "teenage", "adolescent", "juvenile"),
    "middle-aged": ("middle-aged", "middle-aged", "mature", "forty-year-old"),
    "old": ("old", "old", "elderly", "aged", "senior", "ancient", "ageing", "venerable"),
}
BUILD_WORDS = {
    "thin": (
        "thin",
        "thin",
        "slim",
        "skinny",
        "slender",
        "lean",
        "bony",
        "slight",
        "lanky",
        "gaunt",
        "scrawny",
        "willowy",
    ),
    "average": (),
    "chubby": (
        "chubby",
        "chubby",
        "fat",
        "plump",
        "overweight",
        "heavy",
        "stout",
        "round-faced",
        "obese",
        "portly",
        "tubby",
        "hefty",
        "corpulent",
    ),  # fmt: skip
}
SKIN_WORDS = {
    "pale": ("pale", "pale", "fair", "light", "white", "ivory", "porcelain", "milky", "creamy"),
    "tan": ("tan", "tan", "tanned", "olive", "bronze", "suntanned", "swarthy"),
    "brown": ("brown", "brown", "caramel", "honey", "mocha"),
    "dark": ("dark", "dark", "black", "ebony", "mahogany"),
}
HAIR_COLOUR_WORDS = {
    "black": ("black", "black", "raven", "jet-black", "inky"),
    "brown": ("brown", "brown", "brunette", "chestnut", "chocolate", "mousy", "hazelnut"),
    "blonde": ("blonde", "blonde", "blond", "golden", "platinum", "sandy", "flaxen", "gold"),
    "red": ("red", "red", "ginger", "auburn", "copper", "orange", "russet", "mahogany"),
    "gray": ("gray", "grey", "silver", "white", "greying", "snowy"),
    "blue": ("blue", "blue", "azure", "turquoise"),
    "pink": ("pink", "pink", "magenta", "rose", "fuchsia"),
}
HAIR_STYLE_WORDS = {
    "short": ("short", "short", "cropped", "trimmed", "buzzed"),
    "long": ("long", "long", "flowing", "shoulder-length", "flowy"),
    "bald": ("bald", "bald", "bald-headed", "hairless", "no hair", "a shaved head", "a bald head"),
    "curly": ("curly", "curly", "frizzy", "afro", "wavy", "curled"),
    "bun": ("in a bun", "in a bun", "tied in a bun", "tied up in a bun", "in a topknot", "in an updo"),
    "fringe": ("with a fringe", "with a fringe", "with bangs", "and a fringe"),
}
EYE_COLOUR_WORDS = {
    "brown": ("brown", "brown", "brown", "hazel", "amber"),
    "blue": ("blue", "blue", "blue", "azure", "sapphire"),
    "green": ("green", "green", "green", "jade", "emerald"),
}
SHIRT_COLOUR_WORDS = {
    "white": ("white", "white", "ivory", "cream"),
    "black": ("black", "black", "charcoal", "onyx"),
    "red": ("red", "red", "crimson", "scarlet", "maroon", "burgundy", "ruby", "cherry"),
    "blue": ("blue", "blue", "navy", "cobalt", "sapphire", "indigo", "turquoise"),
    "green": ("green", "green", "lime", "forest green", "emerald", "mint"),
    "yellow": ("yellow", "yellow", "mustard", "gold", "amber", "lemon"),
    "purple": ("purple", "purple", "violet", "lilac", "lavender", "plum"),
}
GARMENTS = (
    "shirt", "shirt", "shirt", "t-shirt", "top", "sweater", "jumper", "blouse", "tee", "hoodie", "pullover",
    "sweatshirt", "jacket", "dress", "coat", "cardigan", "tunic", "vest", "polo", "jersey", "turtleneck", "robe",
)  # fmt: skip
BEARD_PHRASES = {
    True: ("beard", "beard", "full beard", "thick beard", "bushy beard", "big beard"),
    False: ("clean-shaven", "no beard", "beardless"),
}
EXPRESSION_PHRASES = {
    "neutral": ("neutral expression", "neutral", "calm", "serene", "relaxed"),
    "smiling": ("smiling", "with a smile", "happy", "grinning", "cheerful", "joyful", "glad", "laughing"),
    "mouth open": (
        "mouth open",
        "with an open mouth",
        "talking",
        "shouting",
        "speaking",
        "singing",
        "yelling",
        "screaming",
    ),
    "angry": ("angry", "frowning", "scowling", "furious", "mad", "annoyed", "grumpy", "enraged"),
    "eyes closed": ("eyes closed", "with closed eyes", "asleep", "sleeping", "dozing", "napping"),
}
VIEWS = ("front view", "side view", "back view")
FRAMING_PREFIXES = {
    "full": "{view}, {prompt}",
    "face": "{view}, face close-up, {prompt}",
    "left_eye": "left eye region, {prompt}",
    "right_eye": "right eye region, {prompt}",
    "mouth": "mouth region, {prompt}",
}
HAIR_NOUNS = frozenset(
    ("hair", "haired", "hairstyle", "bun", "topknot", "updo", "afro", "curls", "locks", "fringe", "bangs")
)
