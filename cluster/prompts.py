"""Validated portrait jobs: prompts, ids and seeds.

Ids come from content, never from the position in a file, so that a file may be sorted or extended between two runs.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ap3d.errors import InputError
from cluster.prompt_files import Record

MAX_PROMPT = 2000  # characters; text encoders read some 77 tokens, so anything longer is a mistake
MAX_SEED = 2**63 - 1
_FACE_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Job:
    """One portrait to make; the fields are those of ``ap3d.pipeline.PortraitJob``."""

    face_id: str
    prompt: str
    seed: int = 0
    portrait: str | None = None
    abstract_prompt: str | None = None


@dataclass(frozen=True)
class Rejected:
    """One entry that cannot become a job; it ends as a failed row with this reason."""

    job: Job
    reason: str


@dataclass
class PromptSet:
    """What a prompt file asks for, and what there is to say about it."""

    jobs: list[Job] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def build_jobs(records: Iterable[Record], seed: int = 0) -> PromptSet:
    """Validate entries, give ids and seeds to those without, and set equal ones apart.

    Args:
        records: entries of a prompt file.
        seed: for entries without their own; the k-th repetition of a prompt without id and seed gets ``seed + k``.

    Raises:
        InputError: a negative seed; one id for two different portraits; ids that differ only in case; no usable
            entry at all.
    """
    _checked_seed(seed, "--seed")
    builder = _Builder(seed)
    for record in records:
        builder.add(record)
    result = builder.result
    if not result.jobs:
        first = result.rejected[0].reason
        more = f" (and {len(result.rejected) - 1} more unusable entries)" if len(result.rejected) > 1 else ""
        raise InputError(f"no usable prompt: {first}{more}")
    return result


def checked_prompt(value: Any) -> str:
    """One line of printable text.

    Raises:
        InputError: empty, too long, not UTF-8, with control characters, or no text at all.
    """
    if not isinstance(value, str):
        raise InputError(f"the prompt must be text, not {type(value).__name__}")
    if len(value) > MAX_PROMPT:
        raise InputError(f"the prompt has {len(value):,} characters; the limit is {MAX_PROMPT:,}")
    if any(0xD800 <= ord(c) <= 0xDFFF for c in value):
        raise InputError("the prompt is not valid UTF-8")
    text = " ".join(value.replace("\ufeff", "").split())
    if any(unicodedata.category(c) == "Cc" for c in text):
        raise InputError("the prompt holds a control character (such as NUL)")
    if not text:
        raise InputError("the prompt is empty")
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
    ascii_text = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_text)[:40].strip("-") or "portrait"
    digest = hashlib.sha256("\0".join(map(str, (prompt, *parts))).encode("utf-8", "surrogateescape"))
    return f"{slug}-{digest.hexdigest()[:8]}"


def _checked_seed(value: Any, name: str = "seed") -> int:
    try:
        seed = int(value)
        exact = isinstance(value, str) or seed == value
    except (TypeError, ValueError, OverflowError):
        exact, seed = False, 0
    if not exact or not 0 <= seed <= MAX_SEED:
        raise InputError(f"{name} must be a whole number from 0 to {MAX_SEED}, got {value!r}")
    return seed


class _Builder:
    """Keeps what was seen so far while a file is read."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.result = PromptSet()
        self._by_id: dict[str, tuple[Job, str]] = {}  # casefolded id -> job and its place
        self._repetitions: dict[tuple[str, str | None, str | None], int] = {}

    def add(self, record: Record) -> None:
        try:
            if record.error:
                raise InputError(record.error)
            job = self._job(record)
        except InputError as error:
            self._reject(record, str(error))
            return
        seen = self._by_id.setdefault(job.face_id.casefold(), (job, record.where))
        if seen[0] is job:
            self.result.jobs.append(job)
        elif seen[0] == job:
            self.result.notes.append(f"{record.where}: the same as {seen[1]}; made once")
        else:
            raise InputError(_clash(seen, (job, record.where)))

    def _job(self, record: Record) -> Job:
        values = record.values
        prompt = checked_prompt(values.get("prompt"))
        abstract = checked_prompt(values["abstract_prompt"]) if "abstract_prompt" in values else None
        portrait = str(values["portrait"]) if "portrait" in values else None
        seed = _checked_seed(values["seed"]) if "seed" in values else self.seed
        if "face_id" in values:
            return Job(checked_face_id(values["face_id"]), prompt, seed, portrait, abstract)
        if "seed" not in values:
            seed = self._own_seed(record, (prompt, portrait, abstract))
        face_id = content_id(prompt, seed, portrait or "", abstract or "")
        return Job(face_id, prompt, seed, portrait, abstract)

    def _own_seed(self, record: Record, key: tuple[str, str | None, str | None]) -> int:
        """The run's seed; for the k-th repetition of a prompt, k more."""
        count = self._repetitions.get(key, 0)
        self._repetitions[key] = count + 1
        seed = _checked_seed(self.seed + count)
        if count:
            face_id = content_id(key[0], seed, key[1] or "", key[2] or "")
            self.result.notes.append(f"{record.where}: a prompt that was there before; seed {seed}, id {face_id}")
        return seed

    def _reject(self, record: Record, reason: str) -> None:
        raw = str(record.values.get("prompt", ""))
        shown = raw[:MAX_PROMPT].encode("utf-8", "replace").decode()
        try:
            face_id = checked_face_id(record.values["face_id"])
        except (KeyError, InputError):
            face_id = content_id(raw[:200], "rejected", record.values.get("face_id", ""), raw, record.where)
        if face_id.casefold() in self._by_id:
            face_id = content_id(face_id[:40], "rejected", record.where, raw)
        job = Job(face_id, shown, 0)
        self._by_id[face_id.casefold()] = (job, record.where)
        self.result.rejected.append(Rejected(job, f"{record.where}: {reason}"))


def _clash(first: tuple[Job, str], second: tuple[Job, str]) -> str:
    (a, where_a), (b, where_b) = first, second
    if a.face_id != b.face_id:
        return f"ids {a.face_id!r} ({where_a}) and {b.face_id!r} ({where_b}) differ only in case; rename one"
    return f"id {a.face_id!r} stands for two different portraits ({where_a} and {where_b}); rename one"
