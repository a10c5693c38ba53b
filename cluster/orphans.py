"""Files below ``work/`` that belong to nothing any more: what workers that were lost had begun to write.

Only the lease's holder may sweep. A worker that seemed lost and goes on may leave such files even after its portrait
was finished elsewhere; they harm no reader and go with the next compaction.
"""

from collections import defaultdict

import pyarrow as pa

from ap3d.errors import DataFileError
from ap3d.storage import Store
from cluster.records import DONE

RUNS = "manifest/_runs"


def sweep(store: Store, table: pa.Table) -> int:
    """Remove them; what a failed or unfinished portrait can be resumed from stays, and so does work that was kept.

    Args:
        store: the dataset's root.
        table: the merged manifest.

    Returns:
        Number of files removed.
    """
    columns = (table[name].to_pylist() for name in ("face_id", "config_hash", "status"))
    done = {f"work/{config_hash}/{face_id}" for face_id, config_hash, status in zip(*columns, strict=True)
            if status == "done"}  # fmt: skip
    kept = _kept_configurations(store)
    files, half_written = defaultdict(list), []
    for name in store.list("work", half_written=True, but=DONE):
        _, config_hash, *rest = name.split("/")
        if rest and rest[-1].startswith(".tmp-"):
            half_written.append(name)
        elif config_hash not in kept and len(rest) >= 2:
            files[f"work/{config_hash}/{rest[0]}"].append("/".join(rest[1:]))
    store.delete_files(half_written)
    removed = len(half_written) + store.sweep_below("avatars")
    for folder, names in files.items():
        orphans = names if folder in done else _unnamed(store, folder, names)
        removed += len(orphans)
        for name in _whole_folders(orphans) if folder in done else orphans:
            store.delete(f"{folder}/{name}")
    return removed


def _kept_configurations(store: Store) -> set[str]:
    """Configurations of runs that were to keep their work."""
    kept = set()
    for name in store.list(RUNS):
        try:
            run = store.read_json(name)
            if run["options"]["keep_work"]:
                kept.add(str(run["config_hash"]))
        except (DataFileError, KeyError, TypeError):
            continue
    return kept


def _unnamed(store: Store, folder: str, names: list[str]) -> list[str]:
    """Outputs ``stage/attempt/…`` of attempts that no record of the stage names."""
    stages = {name.split("/")[0] for name in names if name.count("/") >= 2}
    named = {stage: _named(store, f"{folder}/{stage}.json") for stage in stages}
    outputs = [n for n in names if n.count("/") >= 2 and n.split("/")[1] != "checkpoints"]
    return [n for n in outputs if f"{folder}/{n}".rsplit("/", 1)[0] != named[n.split("/")[0]]]


def _named(store: Store, record: str) -> str | None:
    try:
        return str(store.read_json(record)["folder"])
    except (DataFileError, KeyError, TypeError):
        return None


def _whole_folders(names: list[str]) -> list[str]:
    """Files and topmost folders that hold them all."""
    return sorted({name.split("/")[0] for name in names})
