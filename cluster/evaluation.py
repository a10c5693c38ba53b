"""Run metrics over avatars: of a whole dataset with records that are kept, or of single bundles.

A record is one JSON file a metric and avatar, so that an interrupted evaluation goes on where it was. It counts as
long as metric, version, bundle, networks and what was asked are the same.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ap3d.errors import Ap3dError, DataFileError, InputError
from ap3d.metrics.asked import asked_attributes
from ap3d.metrics.protocol import Measured, Metric
from ap3d.metrics.subject import Subject, Tools
from ap3d.splats.bundle import Bundle
from ap3d.storage import Store
from ap3d.training.captions import LABELS
from cluster import manifest, schema

FOLDER = "metrics"
_ATTRIBUTES = ("gender", "age", "build", "skin", "hair_style", "hair_colour", "eye_colour", "shirt", "beard")


@dataclass(frozen=True)
class Avatar:
    """One avatar to measure.

    Attributes:
        face_id, config_hash, prompt, seed: as in the manifest or in ``avatar.json``.
        path: of the bundle.
        bundle: the bundle's name in records; a new try at an avatar has a new one.
    """

    face_id: str
    config_hash: str
    prompt: str
    seed: int
    path: str
    bundle: str

    def record(self, metric: Metric) -> str:
        """Name of the record below a dataset's root."""
        return f"{FOLDER}/{metric.name}-{metric.version}/{self.face_id}-{self.config_hash[:8]}.json"


@dataclass
class Evaluation:
    """What was measured, by metric, and what could not be."""

    measured: dict[str, list[Measured]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def dataset_avatars(store: Store) -> list[Avatar]:
    """The newest finished avatar of each portrait in a dataset.

    Raises:
        InputError: there is none.
    """
    manifest.check_schema(store)
    table = schema.with_latest(manifest.read_all(store))
    rows = [row for row in table.to_pylist() if row["status"] == "done" and row["latest"]]
    if not rows:
        raise InputError(f"{store.shown!r} holds no finished avatar; make some with jobs.generate")
    return [
        Avatar(
            row["face_id"], row["config_hash"], row["prompt"] or "", row["seed"] or 0,
            store.path(row["uri_bundle"]), row["uri_bundle"],
        )
        for row in rows
    ]  # fmt: skip


def bundle_avatars(paths: Sequence[str]) -> list[Avatar]:
    """Avatars of single bundles.

    Raises:
        DataFileError: one is not a bundle.
    """
    out = []
    for path in paths:
        facts = Bundle.open(path).facts
        text = {name: str(facts.get(name) or "") for name in ("face_id", "config_hash", "prompt")}
        out.append(Avatar(**text, seed=int(facts.get("seed") or 0), path=path, bundle=path))
    return out


def evaluate(
    avatars: Sequence[Avatar],
    metrics: Sequence[Metric],
    tools: Tools,
    *,
    store: Store | None = None,
    asked: Mapping[str, Mapping[str, object]] | None = None,
    redo: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Measure what has no record yet.

    Args:
        avatars: what to measure.
        metrics: by what; all their networks must be there.
        tools: the networks.
        store: dataset that keeps the records; None keeps none.
        asked: attributes by prompt, for prompts that are not to be parsed.
        redo: measure again what has a record.
        report: called with a line for every avatar.
    """
    out = Evaluation({metric.name: [] for metric in metrics})
    for number, avatar in enumerate(avatars, 1):
        wanted = dict((asked or {}).get(avatar.prompt) or asked_attributes(avatar.prompt))
        facts = {"bundle": avatar.bundle, "asked": wanted}
        subject: Subject | None = None
        for metric in metrics:
            record = {**facts, "tools": {name: tools.fingerprint(name) for name in metric.needs}}
            values = None if redo or store is None else _recorded(store, avatar.record(metric), record)
            try:
                if values is None:
                    subject = subject or Subject(Bundle.open(avatar.path), wanted, tools)
                    values = metric.evaluate(subject)
                    if store is not None:
                        store.write_json(avatar.record(metric), {**record, "values": values})
            except Ap3dError as error:
                out.failures.append(f"{avatar.face_id}: {metric.name}: {error}")
                continue
            out.measured[metric.name].append(Measured(avatar.face_id, avatar.prompt, avatar.seed, values))
        report(f"{number}/{len(avatars)} {avatar.face_id}{'' if subject else ' (measured before)'}")
    return out


def _recorded(store: Store, name: str, record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The values of a record that still holds."""
    if not store.exists(name):
        return None
    try:
        found = store.read_json(name)
        same = all(found.get(key) == json.loads(json.dumps(value)) for key, value in record.items())
        return dict(found["values"]) if same else None
    except (DataFileError, AttributeError, KeyError, TypeError, ValueError):
        return None


def read_attributes(path: str) -> dict[str, dict[str, object]]:
    """Attributes by prompt from a CSV with ``prompt`` and columns named after attributes; empty cells are open.

    Raises:
        InputError: unreadable, without those columns, or with a value that is none of an attribute's.
    """
    folder, _, name = path.rpartition("/")
    try:
        text = Store(folder or ".").read_bytes(name).decode("utf-8-sig")
    except (DataFileError, UnicodeDecodeError) as error:
        raise InputError(f"attributes file {path!r} cannot be read: {error}") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = [name for name in _ATTRIBUTES if name in (reader.fieldnames or ())]
    if "prompt" not in (reader.fieldnames or ()) or not columns:
        raise InputError(f"attributes file {path!r} needs a column prompt and some of: {', '.join(_ATTRIBUTES)}")
    return {row["prompt"]: dict(_values(row, columns, f"{path}, line {reader.line_num}")) for row in reader}


def _values(row: Mapping[str, str | None], columns: Sequence[str], where: str) -> Iterator[tuple[str, object]]:
    for name in columns:
        word = (row[name] or "").strip()
        known = {str(value).lower(): value for value in LABELS[name]}
        if word and word.lower() not in known:
            raise InputError(f"{where}: {name} is one of {', '.join(known)}, not {word!r}")
        if word:
            yield name, known[word.lower()]
