"""Where one portrait's stages keep their outputs, records and checkpoints, in an order that survives a kill.

Outputs of a stage go into a folder of their attempt; its record, written last, names them with their hashes.
A record counts only if its fingerprint matches; a file's mere existence means nothing.
"""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ap3d.errors import DataFileError
from ap3d.storage import Store


@dataclass(frozen=True)
class Locations:
    """Folders of one portrait, relative to the store's root."""

    bundle: str
    work: str

    @property
    def other_works(self) -> tuple[str, str]:
        """The folder of all configurations' work, and this portrait's name in each."""
        folder, _, name = self.work.rpartition("/")
        return folder.rpartition("/")[0], name

    @staticmethod
    def in_dataset(face_id: str, config_hash: str) -> "Locations":
        """The layout of a dataset with many portraits."""
        return Locations(f"avatars/{face_id}-{config_hash[:8]}", f"work/{config_hash}/{face_id}")

    @staticmethod
    def single(face_id: str, config_hash: str) -> "Locations":
        """The root is the bundle itself; its work lies hidden inside."""
        return Locations("", f".work/{config_hash}/{face_id}")


def describe(data: bytes) -> dict[str, Any]:
    """Hash and size of a file's content."""
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


class Workspace:
    """Stage records and outputs of one portrait for one attempt."""

    def __init__(self, store: Store, locations: Locations, attempt: str) -> None:
        self.store = store
        self.locations = locations
        self.attempt = attempt
        self._others: list[str] | None = None
        self._checkpoint_bytes: dict[str, int] = {}

    def _record_in(self, work: str, stage: str) -> dict[str, Any] | None:
        """The record of a finished stage, or None; an unreadable one counts as absent."""
        try:
            record = self.store.read_json(f"{work}/{stage}.json")
        except DataFileError:
            return None
        return record if isinstance(record, dict) and "fingerprint" in record else None

    def finished(self, stage: str, fingerprint: str) -> dict[str, Any] | None:
        """The record of a stage when it matches the fingerprint and its outputs are still whole.

        Work of the same portrait under other configurations counts too: a changed field re-runs only what depends
        on it.
        """
        for work in (self.locations.work, *self._other_works()):
            record = self._record_in(work, stage)
            if record is None or record["fingerprint"] != fingerprint:
                continue
            # Another configuration's bundle has another name, so its publication is not ours.
            mine = work == self.locations.work or record["folder"].startswith(work)
            if mine and self._whole(record):
                return record
        return None

    def _whole(self, record: Mapping[str, Any]) -> bool:
        try:
            return all(
                describe(self.read(record, name))["sha256"] == out["sha256"] for name, out in record["outputs"].items()
            )
        except DataFileError:
            return False

    def _other_works(self) -> list[str]:
        if self._others is None:
            root, name = self.locations.other_works
            works = [f"{root}/{folder}/{name}" for folder in self.store.folders(root)] if root else []
            self._others = [work for work in works if work != self.locations.work]
        return self._others

    def read(self, record: Mapping[str, Any], name: str) -> bytes:
        """One output named by a record."""
        return self.store.read_bytes(f"{record['folder']}/{name}")

    def commit(self, stage: str, outputs: Mapping[str, bytes], details: Mapping[str, Any]) -> dict[str, Any]:
        """Write a stage's outputs into this attempt's folder, then its record."""
        folder = f"{self.locations.work}/{stage}/{self.attempt}"
        return self._commit(stage, folder, outputs, details)

    def commit_bundle(self, stage: str, outputs: Mapping[str, bytes], details: Mapping[str, Any]) -> dict[str, Any]:
        """Write the published files into the bundle, ``avatar.json`` last, then the record."""
        self.store.sweep(self.locations.bundle)
        ordered = {n: outputs[n] for n in sorted(outputs, key=lambda n: n == "avatar.json")}
        return self._commit(stage, self.locations.bundle, ordered, details)

    def _commit(
        self, stage: str, folder: str, outputs: Mapping[str, bytes], details: Mapping[str, Any]
    ) -> dict[str, Any]:
        for name, data in outputs.items():
            self.store.write_bytes(f"{folder}/{name}".lstrip("/"), data)
        record = {
            **details,
            "stage": stage,
            "attempt": self.attempt,
            "folder": folder,
            "outputs": {name: describe(data) for name, data in outputs.items()},
            "checkpoint_bytes": self._checkpoint_bytes.get(stage, 0),
            "finished": time.time(),
        }
        self.store.write_json(f"{self.locations.work}/{stage}.json", record)
        self.store.delete(f"{self.locations.work}/{stage}/checkpoints")
        return record

    def save_checkpoint(self, stage: str, fingerprint: str, data: bytes) -> None:
        """Keep the state of a running stage; each save replaces the last one."""
        self._checkpoint_bytes[stage] = max(len(data), self._checkpoint_bytes.get(stage, 0))
        self.store.write_bytes(self._checkpoint(stage, fingerprint), data)

    def load_checkpoint(self, stage: str, fingerprint: str) -> bytes | None:
        """The state that an interrupted run of the same stage left, if any."""
        try:
            return self.store.read_bytes(self._checkpoint(stage, fingerprint))
        except DataFileError:
            return None

    def _checkpoint(self, stage: str, fingerprint: str) -> str:
        return f"{self.locations.work}/{stage}/checkpoints/{fingerprint[:16]}.safetensors"

    def done_row(self) -> dict[str, Any] | None:
        """The row of a portrait that is finished and whose bundle is still there."""
        try:
            row = self.store.read_json(f"{self.locations.work}/DONE.json")
            self.store.read_bytes(f"{self.locations.bundle}/avatar.json".lstrip("/"))
        except DataFileError:
            return None
        return row if isinstance(row, dict) and row.get("status") == "done" else None

    def write_done(self, row: Mapping[str, Any]) -> None:
        """Record that the portrait is finished; the last write of a portrait."""
        self.store.write_json(f"{self.locations.work}/DONE.json", dict(row))

    def clear_stages(self, stages: tuple[str, ...]) -> None:
        """Remove the records and outputs of stages; ``DONE.json`` stays."""
        for stage in stages:
            self.store.delete(f"{self.locations.work}/{stage}.json")
            self.store.delete(f"{self.locations.work}/{stage}")
