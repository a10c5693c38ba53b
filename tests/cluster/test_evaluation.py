"""Evaluation of a dataset: what was measured is kept, what changed is measured again, damage is no end."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ap3d.errors import InputError, NumericalError
from ap3d.metrics.protocol import Measured, Summary, Values, mean_figure
from ap3d.metrics.subject import Subject, Tools
from ap3d.rig.protocol import Rig
from ap3d.storage import Store
from cluster import evaluation, evaluation_report, manifest, schema
from jobs import evaluate as command
from tests.tiny_avatar import write_tiny_bundle

HASH = "0123456789ab"


class Counting:
    """Counts what it measures; fails for one avatar."""

    name, version, needs = "counting", 1, ()

    def __init__(self, fails: str = "") -> None:
        self.calls, self.fails = 0, fails

    def evaluate(self, subject: Subject) -> Values:
        self.calls += 1
        if subject.bundle.facts["face_id"] == self.fails:
            raise NumericalError("no such number")
        return {"gaussians": float(len(subject.bundle.avatar)), "list": [1.0, 2.0]}

    def summarise(self, measured: Sequence[Measured]) -> Summary:
        return Summary(mean_figure("gaussians", measured, "gaussians", 1000))


@pytest.fixture
def root(tmp_path: Path, rig: Rig) -> Store:
    """Two finished portraits and a failed one."""
    store = Store(str(tmp_path / "root"))
    writer = manifest.ManifestWriter(store, 1)
    for name in ("a", "b"):
        write_tiny_bundle(tmp_path / "root" / "avatars" / name, rig, 500)
        writer.add([row(name, uri_bundle=f"avatars/{name}", prompt="a bald man in a blue shirt")])
    writer.add([row("c", status="failed")])
    writer.flush()
    return store


def row(face_id: str, **more: object) -> dict[str, object]:
    facts = {"face_id": face_id, "config_hash": HASH, "status": "done", "seed": 3, "finished": schema.now(), **more}
    return schema.row_from_report(facts, epoch=1, attempt=1)


def test_records_are_kept_and_skipped(root: Store) -> None:
    metric, tools = Counting(), Tools()
    avatars = evaluation.dataset_avatars(root)
    assert [a.face_id for a in avatars] == ["a", "b"]
    first = evaluation.evaluate(avatars, [metric], tools, store=root)
    assert metric.calls == 2 and root.exists("metrics/counting-1/a-01234567.json")
    record = root.read_json("metrics/counting-1/a-01234567.json")
    assert record["asked"] == {"gender": "man", "hair_style": "bald", "shirt": "blue"}
    again = evaluation.evaluate(avatars, [metric], tools, store=root)
    assert metric.calls == 2 and again.measured == first.measured
    evaluation.evaluate(avatars, [metric], tools, store=root, redo=True)
    assert metric.calls == 4


def test_what_changed_is_measured_again(root: Store) -> None:
    metric, tools = Counting(), Tools()
    avatars = evaluation.dataset_avatars(root)
    evaluation.evaluate(avatars, [metric], tools, store=root)
    asked = {avatars[0].prompt: {"shirt": "red"}}
    evaluation.evaluate(avatars, [metric], tools, store=root, asked=asked)
    assert metric.calls == 4
    root.write_bytes("metrics/counting-1/a-01234567.json", b"{half")
    evaluation.evaluate(avatars, [metric], tools, store=root, asked=asked)
    assert metric.calls == 5


def test_one_failure_does_not_stop_the_others(root: Store) -> None:
    found = evaluation.evaluate(evaluation.dataset_avatars(root), [Counting("a")], Tools(), store=root)
    assert found.failures == ["a: counting: no such number"]
    assert [m.face_id for m in found.measured["counting"]] == ["b"]
    assert not root.exists("metrics/counting-1/a-01234567.json")


def test_a_missing_bundle_is_a_failure(root: Store) -> None:
    root.delete("avatars/a")
    found = evaluation.evaluate(evaluation.dataset_avatars(root), [Counting()], Tools(), store=root)
    assert len(found.failures) == 1 and "avatar.json" in found.failures[0]


def test_the_report_says_what_is_below_its_target(root: Store) -> None:
    metric = Counting()
    found = evaluation.evaluate(evaluation.dataset_avatars(root), [metric], Tools(), store=root)
    summaries = evaluation_report.summarise(found.measured, [metric])
    evaluation_report.write_report(root, summaries, found.measured)
    assert "| counting | gaussians | 500 | >= 1000 |  | 2 | no |" in root.read_bytes("evaluation.md").decode()
    rows = pq.read_table(root.path("evaluation.parquet")).to_pylist()
    assert [(r["face_id"], r["key"], r["value"]) for r in rows] == [("a", "gaussians", 500), ("b", "gaussians", 500)]


def test_the_command_measures_a_dataset(root: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([root.root, "--metrics", "colours,integrity,identity"]) == 0
    shown = capsys.readouterr()
    assert "hair_colour" not in shown.out and "Gaussians finite" in shown.out and "evaluation.md" in shown.out
    assert command.main([root.root, "--metrics", "integrity"]) == 0
    assert "(measured before)" in capsys.readouterr().err


def test_the_command_measures_bundles(root: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [root.path("avatars/a"), root.path("avatars/b")]
    assert command.main([*paths, "--metrics", "integrity", "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "evaluation.parquet").is_file() and not (tmp_path / "root" / "evaluation.md").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [("id,shirt\na,red\n", "needs a column prompt"), ("prompt,shirt\na man,mauve\n", "line 2: shirt is one of white")],
)
def test_bad_attributes_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        evaluation.read_attributes(str(tmp_path / "a.csv"))


def test_bad_options_are_named(root: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown metric 'beauty'"):
        command.main([root.root, "--metrics", "beauty"])
    with pytest.raises(InputError, match="see --probe"):
        command.main([root.root, "--metrics", "attributes", "--probe", str(tmp_path)])
    with pytest.raises(InputError, match=r"not an avatar bundle"):
        command.main([str(tmp_path / "nowhere")])
