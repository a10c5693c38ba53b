"""The dataset's table: merging, compaction while others read, rebuilding, other versions."""

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ap3d.errors import DataFileError, InputError
from ap3d.storage import Store
from cluster import manifest, schema
from cluster.manifest import ManifestWriter


def row(face_id: str, status: str = "done", config: str = "c1", day: int = 1, **more: Any) -> dict[str, Any]:
    given = {"finished": datetime(2026, 1, day, tzinfo=UTC), "epoch": 1, "attempt": 0, **more}
    return schema.row_from_report({"face_id": face_id, "config_hash": config, "status": status, **given})


def written(store: Store, *parts: list[dict[str, Any]], epoch: int = 1) -> ManifestWriter:
    writer = ManifestWriter(store, epoch)
    for part in parts:
        writer.add(part)
        writer.flush()
    return writer


@pytest.fixture
def store(root: str) -> Store:
    return Store(root)


def test_done_beats_failed_then_epoch_then_attempt(store: Store) -> None:
    written(
        store,
        [row("a", "failed", epoch=1), row("b", epoch=1, prompt="old"), row("c", "failed", attempt=0, error_class="X")],
        [row("a", "done", epoch=1, attempt=1), row("b", epoch=2, prompt="new"), row("c", "failed", attempt=1)],
        [row("a", "failed", epoch=3)],
    )
    table = {r["face_id"]: r for r in manifest.read_all(store).to_pylist()}
    assert table["a"]["status"] == "done" and table["b"]["prompt"] == "new" and table["c"]["attempt"] == 1
    assert len(table) == 3


def test_latest_is_the_newest_done_row_of_a_face(store: Store) -> None:
    rows = [row("a", day=1), row("a", config="c2", day=3), row("a", "failed", config="c3", day=5), row("b", "failed")]
    written(store, rows).write_table()
    table = pq.read_table(io.BytesIO(store.read_bytes("avatars.parquet"))).to_pylist()
    assert [(r["face_id"], r["config_hash"]) for r in table if r["latest"]] == [("a", "c2")]
    assert len(table) == 4


def test_nested_columns_survive(store: Store) -> None:
    stages = [{"name": "portrait", "status": "done", "seconds": 1.5}]
    written(store, [row("a", metrics={"psnr": 30}, stages=stages, unknown_words=["zork"], novelty=4)])
    got = manifest.read_all(store).to_pylist()[0]
    assert got["metrics"] == [("psnr", 30.0)] and got["unknown_words"] == ["zork"]
    assert got["stages"][0]["seconds"] == 1.5 and got["stages"][0]["skipped"] is None
    assert got["extra_json"] == '{"novelty": 4}'


def test_compaction_keeps_what_readers_see(store: Store) -> None:
    written(store, *[[row(f"f{i:03d}", prompt=str(i))] for i in range(20)])
    before = manifest.read_all(store)
    assert manifest.compact(store) == (20, 1)
    assert manifest.read_all(store).equals(before)
    assert manifest.compact(store) == (1, 1)


def test_a_reader_lists_again_when_compaction_took_its_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written(store, [row("a")], [row("b")])
    read_part, compacted = manifest._read_part, []

    def late(store: Store, name: str) -> pa.Table | None:
        if not compacted:
            compacted.append(True)
            manifest.compact(store)
        return read_part(store, name)

    monkeypatch.setattr(manifest, "_read_part", late)
    assert manifest.read_all(store)["face_id"].to_pylist() == ["a", "b"]


def test_rows_count_once_while_inputs_of_a_compaction_remain(store: Store) -> None:
    written(store, [row("a")], [row("b")])
    parts = {name: store.read_bytes(name) for name in store.list("manifest/parts")}
    manifest.compact(store)
    for name, data in parts.items():
        store.write_bytes(name, data)
    assert len(manifest.read_all(store)) == 2


def test_parts_of_older_and_newer_minor_versions_are_read(store: Store) -> None:
    old = pa.table({"face_id": ["old"], "config_hash": ["c"], "status": ["done"]})
    new = schema.table_from_rows([row("new")]).append_column("future", pa.array([1]))
    for name, table in [("old", old), ("new", new)]:
        sink = io.BytesIO()
        pq.write_table(table, sink)
        store.write_bytes(f"manifest/parts/{name}.parquet", sink.getvalue())
    assert manifest.read_all(store)["face_id"].to_pylist() == ["new", "old"]


def test_another_schema_version_is_refused(store: Store) -> None:
    written(store, [row("a")])
    manifest.check_schema(store)
    store.write_json(manifest.SCHEMA_FILE, {"schema_version": 99})
    with pytest.raises(InputError, match="version 99"):
        manifest.check_schema(store)
    store.write_bytes(manifest.SCHEMA_FILE, b"{}")
    with pytest.raises(InputError, match="cannot be understood"):
        manifest.check_schema(store)


def test_a_damaged_part_is_named(store: Store) -> None:
    written(store, [row("a")])
    store.write_bytes("manifest/parts/bad.parquet", b"PAR1 nonsense")
    with pytest.raises(DataFileError, match=r"bad\.parquet is damaged"):
        manifest.read_all(store)


def test_the_table_is_not_rewritten_too_often(store: Store) -> None:
    writer = written(store, [row("a")])
    assert writer.table_due()
    writer.write_table()
    assert not writer.table_due()


def test_a_hundred_thousand_rows_are_merged_fast(tmp_path: Path) -> None:
    import time

    store = Store(str(tmp_path))
    written(store, [row(f"f{i:06d}") for i in range(10_000)])
    data = store.read_bytes(store.list("manifest/parts")[0])
    for i in range(9):
        store.write_bytes(f"manifest/parts/copy{i}.parquet", data)
    started = time.perf_counter()
    assert len(schema.with_latest(manifest.read_all(store))) == 10_000
    assert time.perf_counter() - started < 5
