"""Wordings of the built-in world: which phrases say which attribute value.

Training captions draw from these tables and the text encoder learns what the phrases mean. At run time they only
answer "does this prompt say anything about hair colour?" and supply words for what it leaves out: text to text, never
text to a colour or a parameter.
"""

GENDER_NOUNS = {
    "man": ("man", "man", "man", "male", "guy", "gentleman", "fellow", "male person"),
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
    "young": ("young", "young", "youthful", "teenage", "adolescent"),
    "middle-aged": ("middle-aged", "middle-aged", "mature", "forty-year-old"),
    "old": ("old", "old", "elderly", "aged", "senior", "ancient"),
}
BUILD_WORDS = {
    "thin": ("thin", "thin", "slim", "skinny", "slender", "lean", "bony"),
    "average": (),
    "chubby": ("chubby", "chubby", "fat", "plump", "overweight", "heavy", "stout", "round-faced"),
}
SKIN_WORDS = {
    "pale": ("pale", "pale", "fair", "light", "white", "ivory", "porcelain"),
    "tan": ("tan", "tan", "tanned", "olive", "bronze"),
    "brown": ("brown", "brown", "caramel"),
    "dark": ("dark", "dark", "black", "ebony"),
}
HAIR_COLOUR_WORDS = {
    "black": ("black", "black", "raven", "jet-black"),
    "brown": ("brown", "brown", "brunette", "chestnut", "chocolate"),
    "blonde": ("blonde", "blonde", "blond", "golden", "platinum"),
    "red": ("red", "red", "ginger", "auburn", "copper"),
    "gray": ("gray", "grey", "silver", "white"),
    "blue": ("blue", "blue", "azure"),
    "pink": ("pink", "pink", "magenta"),
}
HAIR_STYLE_WORDS = {
    "short": ("short", "short", "cropped", "trimmed"),
    "long": ("long", "long", "flowing", "shoulder-length"),
    "bald": ("bald", "bald", "bald-headed", "hairless", "no hair", "a shaved head", "a bald head"),
    "curly": ("curly", "curly", "frizzy", "afro", "wavy"),
    "bun": ("in a bun", "in a bun", "tied in a bun", "tied up in a bun", "in a topknot", "in an updo"),
    "fringe": ("with a fringe", "with a fringe", "with bangs", "and a fringe"),
}
EYE_COLOUR_WORDS = {
    "brown": ("brown", "brown", "brown", "hazel"),
    "blue": ("blue", "blue", "blue", "azure"),
    "green": ("green", "green", "green", "jade"),
}
SHIRT_COLOUR_WORDS = {
    "white": ("white", "white", "ivory"),
    "black": ("black", "black", "charcoal"),
    "red": ("red", "red", "crimson", "scarlet"),
    "blue": ("blue", "blue", "navy", "cobalt"),
    "green": ("green", "green", "lime", "forest green"),
    "yellow": ("yellow", "yellow", "mustard"),
    "purple": ("purple", "purple", "violet", "lilac"),
}
GARMENTS = (
    "shirt",
    "shirt",
    "shirt",
    "t-shirt",
    "top",
    "sweater",
    "jumper",
    "blouse",
    "tee",
    "hoodie",
    "pullover",
    "sweatshirt",
)
BEARD_PHRASES = {
    True: ("beard", "beard", "full beard", "thick beard", "bushy beard", "big beard"),
    False: ("clean-shaven", "no beard", "beardless"),
}
EXPRESSION_PHRASES = {
    "neutral": ("neutral expression", "neutral", "calm"),
    "smiling": ("smiling", "with a smile", "happy", "grinning", "cheerful"),
    "mouth open": ("mouth open", "with an open mouth", "talking", "shouting"),
    "angry": ("angry", "frowning", "scowling", "furious"),
    "eyes closed": ("eyes closed", "with closed eyes", "asleep", "sleeping"),
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
