"""Configuration and storage: overrides, refusals, atomic and exclusive writes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ap3d.config import PRESETS, load_config
from ap3d.errors import DataFileError, InputError
from ap3d.storage import Store


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_survive_a_round_trip_through_their_own_values(preset: str, tmp_path: Path) -> None:
    config = load_config(preset)
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(config.to_dict()))
    assert load_config("builtin", file=file) == config
    assert load_config(preset).config_hash == config.config_hash


def test_every_changed_field_changes_the_hash_and_only_then() -> None:
    base = load_config("smoke")
    assert load_config("smoke", {"refine.rounds": base.refine.rounds}).config_hash == base.config_hash
    assert load_config("smoke", {"refine.rounds": 7}).config_hash != base.config_hash


@pytest.mark.parametrize(
    "overrides",
    [
        {"nothing": 1},
        {"refine": 3},
        {"refine.rounds": "a"},
        {"refine.rounds": 1.5},
        {"refine.rounds": True},
        {"camera.elevation_range": 3},
        {"whole.gradient_scale": float("nan")},
        {"refine.expressions": 0},
        {"whole.restraint.form": "other"},
        {"initialise.optimizer.beta2": 1.0},
        {"eyes.optimizer.xyz": -0.1},
        {"refine.rounds": -1},
        {"refine.strength": 1.5},
        {"models.dtype": "int32"},
        {"portrait": "foo"},
        {"whole.crops": ["nose"]},
        {"eyes.faces": "sad"},
        {"regions.face.wording": "{name}"},
        {"mouth.edit.wording": "{name}"},
        {"mouth.edit.azimuths": [3]},
        {"whole.one_camera": 1},
        {"views.full_azimuths": []},
        {"publish.size": 101},
    ],
)
def test_wrong_overrides_are_refused(overrides: dict[str, object]) -> None:
    with pytest.raises(InputError):
        load_config("smoke", overrides)


@pytest.mark.parametrize("content", ["- a\n", "{", "a: [\n", "\x00"])
def test_wrong_files_are_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(content)
    with pytest.raises(InputError) as caught:
        load_config("smoke", file=file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("root", ["local", "memory://ap3d-test"])
def test_store_reads_what_it_wrote(root: str, tmp_path: Path) -> None:
    store = Store(str(tmp_path / root) if root == "local" else root)
    store.check_writable()
    store.write_json("a/b.json", {"x": 1})
    store.write_bytes("a/c/d.bin", b"1")
    store.write_bytes("a/c/d.bin", b"22")
    assert store.read_json("a/b.json") == {"x": 1} and store.read_bytes("a/c/d.bin") == b"22"
    assert store.list("a") == ["a/b.json", "a/c/d.bin"] and store.folders("a") == ["c"]
    assert store.exclusive_create("a/once", b"1") and not store.exclusive_create("a/once", b"2")
    assert store.read_bytes("a/once") == b"1"
    store.delete("a/c")
    store.delete("a/never")
    assert not store.exists("a/c/d.bin") and store.list("nothing") == []
    with pytest.raises(DataFileError):
        store.read_bytes("a/c/d.bin")
    store.write_bytes("bad.json", b"{")
    with pytest.raises(DataFileError, match="not valid JSON"):
        store.read_json("bad.json")


def test_unknown_protocols_and_unwritable_roots_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        Store("nosuch://bucket/x")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(InputError, match="cannot write"):
        Store(str(blocked / "below")).check_writable()


def test_one_process_of_many_wins_an_exclusive_create(tmp_path: Path) -> None:
    code = f"from ap3d.storage import Store; print(Store({str(tmp_path)!r}).exclusive_create('lease', b'x' * 1000))"
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(6)]
    outcomes = [r.communicate()[0].strip() for r in runs]
    assert sorted(outcomes) == ["False"] * 5 + ["True"]
    assert [p.name for p in tmp_path.iterdir()] == ["lease"]
