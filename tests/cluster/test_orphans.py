"""Compaction removes what lost workers left, and nothing that a portrait can be resumed from."""

from collections.abc import Callable
from pathlib import Path

from ap3d.config import load_config
from ap3d.storage import Store
from cluster import maintenance


def test_only_what_nobody_needs_is_removed(make: Callable[..., int], tmp_path: Path) -> None:
    assert make("a man", "broken") == 1
    root, config_hash = tmp_path / "out", load_config("smoke").config_hash
    store = Store(str(root))
    (done,) = [p.parent for p in root.glob("work/*/*/DONE.json")]
    (failed,) = [p.parent for p in root.glob("work/*/*/FAILED.json")]
    for folder in (done, failed):
        work = folder.relative_to(root).as_posix()
        store.write_bytes(f"{work}/whole/000001-00/avatar.bin", b"lost")
        store.write_bytes(f"{work}/whole/000001-01/avatar.bin", b"named")
        store.write_bytes(f"{work}/whole/checkpoints/f.safetensors", b"state")
        store.write_json(f"{work}/whole.json", {"folder": f"{work}/whole/000001-01", "outputs": {}})
    (done / ".tmp-publish.json-0").write_bytes(b"half")
    store.write_bytes(f"work/{config_hash}/never-ended/whole/checkpoints/f.safetensors", b"state")
    before = sorted(root.glob("work/**/*"))
    assert "removed" not in maintenance.compact(str(root), sweep=False) and sorted(root.glob("work/**/*")) == before
    assert "files of lost workers removed" in maintenance.compact(str(root))
    assert [p.name for p in done.rglob("*")] == ["DONE.json"]
    left = {p.relative_to(failed).as_posix() for p in failed.rglob("*") if p.is_file() and "seen" not in p.name}
    assert left == {"FAILED.json", "whole.json", "whole/000001-01/avatar.bin", "whole/checkpoints/f.safetensors"}
    assert (root / f"work/{config_hash}/never-ended/whole/checkpoints/f.safetensors").exists()


def test_work_that_was_to_be_kept_is_kept(make: Callable[..., int], tmp_path: Path) -> None:
    assert make("a man", keep_work=True) == 0
    before = sorted(p for p in (tmp_path / "out" / "work").rglob("*"))
    maintenance.compact(str(tmp_path / "out"))
    assert sorted(p for p in (tmp_path / "out" / "work").rglob("*")) == before
