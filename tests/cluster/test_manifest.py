"""The dataset's table: merging, compaction while others read, rebuilding, other versions."""

import io
import json
import subprocess
import sys
import threading
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

ROOT = Path(__file__).parents[2]


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
    assert manifest.compact(store)[:2] == (20, 1)
    assert manifest.read_all(store).equals(before)
    assert manifest.compact(store)[:2] == (1, 1)


def test_a_reader_lists_again_when_compaction_took_its_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written(store, [row("a")], [row("b")])
    read_part, compacted = manifest._read_part, []

    def late(store: Store, name: str, *rest: Any) -> pa.Table | None:
        if not compacted:
            compacted.append(True)
            manifest.compact(store)
        return read_part(store, name, *rest)

    monkeypatch.setattr(manifest, "_read_part", late)
    assert manifest.read_all(store)["face_id"].to_pylist() == ["a", "b"]


def test_rows_count_once_while_inputs_of_a_compaction_remain(store: Store) -> None:
    written(store, [row("a")], [row("b")])
    parts = {name: store.read_bytes(name) for name in store.list("manifest/parts")}
    manifest.compact(store)
    for name, data in parts.items():
        store.write_bytes(name, data)
    assert len(manifest.read_all(store)) == 2


def test_readers_are_right_all_the_while_a_compaction_runs(store: Store) -> None:
    writer = written(store, *[[row(f"f{i:02d}")] for i in range(12)])
    expected, seen, ended = [f"f{i:02d}" for i in range(12)], [], threading.Event()

    def read() -> None:
        while not ended.is_set():
            seen.append(manifest.read_all(store)["face_id"].to_pylist())

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(3):
        manifest.compact(store)
        writer.add([row("f00")])
        writer.flush()
    ended.set()
    for reader in readers:
        reader.join()
    assert seen and all(ids == expected for ids in seen)


def test_parts_of_older_and_newer_minor_versions_are_read_and_nothing_of_them_is_lost(store: Store) -> None:
    old_stage = pa.array([[{"name": "refine", "seconds": 2.0}]])  # before stages told their memory
    old = pa.table({"face_id": ["old"], "config_hash": ["c"], "status": ["done"], "stages": old_stage})
    new = schema.table_from_rows([row("new")])
    new_stage = pa.array([[{**dict.fromkeys(schema._STAGE.names), "name": "refine", "joules": 7}]])
    new = new.set_column(new.column_names.index("stages"), "stages", new_stage).append_column("future", pa.array([1]))
    for name, table in [("old", old), ("new", new)]:
        sink = io.BytesIO()
        pq.write_table(table, sink)
        store.write_bytes(f"manifest/parts/{name}.parquet", sink.getvalue())
    manifest.compact(store)
    table = manifest.write_table(store, 1)
    assert table["face_id"].to_pylist() == ["new", "old"] and table["future"].to_pylist() == [1, None]
    assert [stages[0]["name"] for stages in table["stages"].to_pylist()] == ["refine", "refine"]
    assert table["stages"].to_pylist()[1][0]["peak_memory_mb"] is None
    few = manifest.read_all(store, ("prompt",))
    assert set(few.column_names) == {"prompt", *schema.DECIDING}


def test_metrics_are_columns_of_the_table(store: Store) -> None:
    rows = [row("a", metrics={"clip": 0.3, "psnr": 20}), row("b"), row("c", metrics={"clip": 0.1})]
    table = written(store, rows).write_table()
    assert table["metric_clip"].to_pylist() == [0.3, None, 0.1] and table["metric_psnr"].to_pylist() == [20, None, None]
    assert manifest.read_all(store).column_names == schema.ROW_SCHEMA.names


def test_a_curator_asks_the_table_with_sql(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    rows = [row(f"f{i}", "done" if i % 3 else "failed", metrics={"clip": i / 100}) for i in range(30)]
    written(Store(str(tmp_path)), rows).write_table()
    table = f"'{tmp_path}/avatars.parquet'"
    assert duckdb.sql(f"SELECT status, count(*) FROM {table} GROUP BY 1 ORDER BY 1").fetchall() == [
        ("done", 20), ("failed", 10),
    ]  # fmt: skip
    best = duckdb.sql(f"SELECT face_id FROM {table} WHERE latest ORDER BY metric_clip DESC LIMIT 2").fetchall()
    assert best == [("f29",), ("f28",)]


def test_a_driver_merges_parts_that_have_become_many(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "PARTS_TO_MERGE", 5)
    writer = written(store, *[[row(f"f{i}")] for i in range(6)])
    writer.write_table()
    assert len(store.list("manifest/parts")) == 0 and len(manifest.read_all(store)) == 6


def test_rows_hold_no_credentials() -> None:
    made = row("a", "failed", error_message="cannot read sftp://anna:pw@h/x", portrait="sftp://anna:pw@h/1.pth")
    assert made["error_message"] == "cannot read sftp://***@h/x" and made["portrait"] == "sftp://***@h/1.pth"


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


def test_plan_compaction_and_question_at_twenty_thousand_rows(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    command = [sys.executable, "benchmarks/manifest.py", "--quick", "--json", str(file)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    figures = {f["case"]: f for f in json.loads(file.read_text())}
    assert figures["plan and resume"]["note"] == "18,000 done, 2,000 to make"
    assert "20000 rows" in figures["compaction"]["note"]
    assert all(f["memory_mb"] < 1000 and f["ms"] < 60_000 for f in figures.values())
