"""Validated portrait jobs: prompts, ids and seeds.

Ids come from content, never from the position in a file, so that a file may be sorted or extended between two runs.
"""

import gc
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ap3d.errors import InputError
from ap3d.portrait_job import MAX_PROMPT, PortraitJob, checked_face_id, checked_prompt, checked_seed, content_id
from cluster.prompt_files import Record

MAX_PRIORITY = 1_000_000
MANY = 100_000  # jobs that are kept out of the sight of the garbage collector


@dataclass(frozen=True)
class Rejected:
    """One entry that cannot become a job; it ends as a failed row with this reason."""

    job: PortraitJob
    reason: str


@dataclass
class PromptSet:
    """What a prompt file asks for, and what there is to say about it."""

    jobs: list[PortraitJob] = field(default_factory=list)
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
    checked_seed(seed, "--seed")
    builder, collects = _Builder(seed), gc.isenabled()
    gc.disable()  # a million jobs are no garbage, and looking through them again and again takes half the time
    try:
        for record in records:
            builder.add(record)
    finally:
        if collects:
            gc.enable()
        if len(builder.result.jobs) > MANY:
            gc.freeze()
    result = builder.result
    if not result.jobs:
        first = result.rejected[0].reason
        more = f" (and {len(result.rejected) - 1} more unusable entries)" if len(result.rejected) > 1 else ""
        raise InputError(f"no usable prompt: {first}{more}")
    return result


class _Builder:
    """Keeps what was seen so far while a file is read."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.result = PromptSet()
        self._by_id: dict[str, tuple[PortraitJob, str]] = {}  # casefolded id -> job and its place
        self._repetitions: dict[str | tuple[str, str | None, str | None], int] = {}

    def add(self, record: Record) -> None:
        try:
            if record.error:
                raise InputError(record.error)
            job = self._job(record)
        except InputError as error:
            self._reject(record, str(error))
            return
        folded = job.face_id.casefold()
        key = job.face_id if folded == job.face_id else folded  # one text less for each of a million
        seen = self._by_id.setdefault(key, (job, record.where))
        if seen[0] is job:
            self.result.jobs.append(job)
        elif seen[0] == job:
            self.result.notes.append(f"{record.where}: the same as {seen[1]}; made once")
        else:
            raise InputError(_clash(seen, (job, record.where)))

    def _job(self, record: Record) -> PortraitJob:
        values = record.values
        prompt = checked_prompt(values.get("prompt"))
        abstract = checked_prompt(values["abstract_prompt"], "abstract prompt") if "abstract_prompt" in values else None
        portrait = str(values["portrait"]) if "portrait" in values else None
        seed = checked_seed(values["seed"]) if "seed" in values else self.seed
        priority = _checked_priority(values["priority"]) if "priority" in values else 0
        if "face_id" in values:
            return PortraitJob(
                checked_face_id(values["face_id"]), prompt, seed, _absolute(portrait), abstract, priority
            )
        if "seed" not in values:
            seed = self._own_seed(record, prompt, portrait, abstract)
        face_id = content_id(prompt, seed, portrait or "", abstract or "")
        return PortraitJob(face_id, prompt, seed, _absolute(portrait), abstract, priority)

    def _own_seed(self, record: Record, prompt: str, portrait: str | None, abstract: str | None) -> int:
        """The run's seed; for the k-th repetition of a prompt, k more."""
        key = prompt if portrait is None and abstract is None else (prompt, portrait, abstract)
        count = self._repetitions.get(key, 0)
        self._repetitions[key] = count + 1
        seed = self.seed
        if count:
            seed = checked_seed(self.seed + count)
            face_id = content_id(prompt, seed, portrait or "", abstract or "")
            self.result.notes.append(f"{record.where}: a prompt that was there before; seed {seed}, id {face_id}")
        return seed

    def _reject(self, record: Record, reason: str) -> None:
        raw = str(record.values.get("prompt", ""))
        shown = raw[:MAX_PROMPT].encode("utf-8", "replace").decode()
        try:
            face_id = checked_face_id(record.values["face_id"])
        except (KeyError, InputError):
            face_id = content_id(raw[:200], "rejected", record.values.get("face_id", ""), raw, reason)
        repetition = 0
        while face_id.casefold() in self._by_id:
            repetition += 1
            face_id = content_id(face_id[:40], "rejected", repetition, raw)
        job = PortraitJob(face_id, shown, 0)
        self._by_id[face_id.casefold()] = (job, record.where)
        self.result.rejected.append(Rejected(job, f"{record.where}: {reason}"))


def _checked_priority(value: Any) -> int:
    """A whole number; jobs of a higher one start first.

    Raises:
        InputError: it is none, or beyond a million.
    """
    try:
        priority = int(value)
        exact = isinstance(value, str) or priority == value
    except (TypeError, ValueError, OverflowError):
        exact, priority = False, 0
    if not exact or abs(priority) > MAX_PRIORITY:
        raise InputError(f"priority must be a whole number from {-MAX_PRIORITY} to {MAX_PRIORITY}, got {value!r}")
    return priority


def _absolute(portrait: str | None) -> str | None:
    """The path as workers in other folders can open it."""
    return portrait if portrait is None or "://" in portrait else os.path.abspath(portrait)


def _clash(first: tuple[PortraitJob, str], second: tuple[PortraitJob, str]) -> str:
    (a, where_a), (b, where_b) = first, second
    if a.face_id != b.face_id:
        return f"ids {a.face_id!r} ({where_a}) and {b.face_id!r} ({where_b}) differ only in case; rename one"
    return f"id {a.face_id!r} stands for two different portraits ({where_a} and {where_b}); rename one"
