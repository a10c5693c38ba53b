"""One portrait to make, and the checks of what people type for it."""

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from ap3d.errors import InputError

MAX_PROMPT = 2000  # characters; text encoders read some 77 tokens, so anything longer is a mistake
MAX_SEED = 2**63 - 1
_SPACES = bytes(code if chr(code).isalnum() else 32 for code in range(128)) + bytes(128)
_FACE_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class PortraitJob:
    """One portrait to make.

    Attributes:
        face_id: name of the portrait, ``[A-Za-z0-9._-]{1,64}`` without a leading dot.
        prompt: what the user asked for.
        seed: non-negative; fixes everything random.
        portrait: path of a starting portrait for starts other than `text`.
        abstract_prompt: age and gender noun for region prompts; None derives it from the prompt.
        priority: jobs of a higher one start first.
    """

    face_id: str
    prompt: str
    seed: int = 0
    portrait: str | None = None
    abstract_prompt: str | None = None
    priority: int = 0


def checked_prompt(value: Any, name: str = "prompt") -> str:
    """One line of printable text; ``name`` is for the message.

    Raises:
        InputError: empty, too long, not UTF-8, with control characters, or no text at all.
    """
    if not isinstance(value, str):
        raise InputError(f"the {name} must be text, not {type(value).__name__}")
    if len(value) > MAX_PROMPT:
        raise InputError(f"the {name} has {len(value):,} characters; the limit is {MAX_PROMPT:,}")
    text = " ".join(value.split()) if value.isascii() and value.isprintable() else _checked_characters(value, name)
    if not text:
        raise InputError(f"the {name} is empty")
    return text


def _checked_characters(value: str, name: str) -> str:
    if any(0xD800 <= ord(c) <= 0xDFFF for c in value):
        raise InputError(f"the {name} is not valid UTF-8")
    text = " ".join(value.replace("\ufeff", "").split())
    if any(unicodedata.category(c) == "Cc" for c in text):
        raise InputError(f"the {name} holds a control character (such as NUL)")
    return text


def checked_face_id(value: Any) -> str:
    """An id that is safe as a folder's name.

    Raises:
        InputError: it is not.
    """
    face_id = str(value).strip()
    if not _FACE_ID.fullmatch(face_id):
        shown = face_id.encode("utf-8", "replace").decode()[:80]
        raise InputError(f"id {shown!r} must be 1-64 letters, digits, '.', '_' or '-' and not start with a dot")
    return face_id


def content_id(prompt: str, *parts: object) -> str:
    """A readable id: the prompt's words and a short hash of everything that makes the portrait."""
    plain = prompt if prompt.isascii() else unicodedata.normalize("NFKD", prompt)
    words = plain.encode("ascii", "ignore").lower().translate(_SPACES)
    lead = b"-" if words.startswith(b" ") else b""
    slug = (lead + b"-".join(words.split()))[:40].strip(b"-").decode() or "portrait"
    digest = hashlib.sha256("\0".join(map(str, (prompt, *parts))).encode("utf-8", "surrogateescape"))
    return f"{slug}-{digest.hexdigest()[:8]}"


def checked_seed(value: Any, name: str = "seed") -> int:
    """A non-negative whole number.

    Raises:
        InputError: it is not; ``name`` says which one.
    """
    try:
        seed = int(value)
        exact = isinstance(value, str) or seed == value
    except (TypeError, ValueError, OverflowError):
        exact, seed = False, 0
    if not exact or not 0 <= seed <= MAX_SEED:
        raise InputError(f"{name} must be a whole number from 0 to {MAX_SEED}, got {value!r}")
    return seed
