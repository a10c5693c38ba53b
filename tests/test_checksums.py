"""The recorded checksums are those of the shipped files, and no card is missing."""

from ap3d.checksums import BUILTIN, compute_sums, read_sums, shipped_files


def test_recorded_sums_are_those_of_the_files() -> None:
    assert read_sums() == compute_sums()


def test_shipped_files_stay_within_the_budget() -> None:
    assert sum(p.stat().st_size for p in shipped_files()) <= 20e6


def test_every_shipped_model_has_a_card() -> None:
    folders = {p.relative_to(BUILTIN).parts[0] for p in shipped_files()}
    names = {f.split(".")[0] for f in folders}
    cards = {p.stem if p.parent == BUILTIN else p.parent.name for p in BUILTIN.rglob("*.md")}
    assert names <= cards
