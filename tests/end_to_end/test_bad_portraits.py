"""Starting portraits that cannot be used: each is that portrait's failure, named, and the others go on."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from ap3d.checksums import BUILTIN
from ap3d.pipeline import Generator, PortraitJob
from ap3d.portrait.trigrid.tensors import RenderNetworks, TriGrid
from ap3d.portrait.trigrid.writing import write_portrait
from ap3d.storage import Store
from cluster.prompt_files import read_portrait_folder
from cluster.prompts import build_jobs
from tests.portrait.trigrid.ellipsoid import ellipsoid, linear_networks

SHELL = "a man; rm -rf ~ $(touch ran) `touch ran` && <b>'\"|"
FILES = {"truncated": "truncated", "code": "not run", "keys": "trigrids_8", "nan": "trigrids_64", "large": "bytes"}
SEEN = {"egg": "face", "empty": "transparent"}


class _Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.system, ("touch ran",)


def _write(folder: Path, name: str, grid: TriGrid, networks: RenderNetworks) -> None:
    """``NAME.pth`` with its prompt, in a folder of its own, as each has its own decoder."""
    named = TriGrid(grid.levels, grid.ws, SHELL, name)
    write_portrait(folder / name, named, networks, b"")


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("portraits")
    grid, networks = ellipsoid()
    for name in (*FILES, *SEEN):
        _write(folder, name, grid, linear_networks(-9000.0) if name == "empty" else networks)
    file = {name: folder / name / f"{name}.pth" for name in FILES}
    file["truncated"].write_bytes(file["truncated"].read_bytes()[:5000])
    tensors = grid.tensors()
    torch.save({"model": tensors | {"x": _Code()}}, file["code"])
    torch.save({"model": {f"x{k}": v for k, v in tensors.items()}}, file["keys"])
    torch.save({"model": tensors | {"trigrids_64": torch.full_like(tensors["trigrids_64"], torch.nan)}}, file["nan"])
    with file["large"].open("r+b") as opened:
        opened.truncate(10 * 10**9)  # sparse: nothing of it is read
    return folder


@pytest.mark.parametrize(("name", "words"), [*FILES.items(), *SEEN.items()])
def test_a_bad_portrait_is_its_own_failure(
    generator: Generator, portraits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = portraits / name / f"{name}.pth"
    row = generator.run(PortraitJob(name, SHELL, 0, str(path)), Store(str(tmp_path / "out")), "first")
    assert row["status"] == "failed" and row["prompt"] == SHELL
    assert row["error_class"] in ("DataFileError", "InputError", "NoFaceError", "PortraitError")
    assert words in row["error_message"] and "\n" not in row["error_message"]
    assert not (tmp_path / "ran").exists() and not list((tmp_path / "out").glob("avatars/*/avatar.json"))


def test_a_folder_keeps_prompts_as_they_are_and_names_missing_ones(portraits: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.pth").write_bytes((portraits / "egg" / "egg.pth").read_bytes())
    (tmp_path / "a.txt").write_text(SHELL)
    result = build_jobs(read_portrait_folder(str(tmp_path)))
    assert [(job.face_id, job.prompt) for job in result.jobs] == [("a", SHELL)]
    assert ["b.txt" in rejected.reason for rejected in result.rejected] == [True]


@pytest.mark.slow
def test_a_job_makes_the_good_one_and_records_the_rest(portraits: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    example = BUILTIN / "portrait3d"
    for name in ("000.pth", "000.txt", "decoder.safetensors"):
        (folder / name).write_bytes((example / name).read_bytes())
    for name in ("truncated", "code", "nan"):
        (folder / f"{name}.pth").write_bytes((portraits / name / f"{name}.pth").read_bytes())
        (folder / f"{name}.txt").write_text(SHELL)
    (folder / "wordless.pth").write_bytes(b"x")
    options = ["--out", str(tmp_path / "out"), "--preset", "smoke", "--threads-per-worker", "1"]
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "jobs.generate", "--portraits", str(folder), *options]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert result.returncode == 1, result.stdout + result.stderr
    rows = {row["face_id"]: row for row in pq.read_table(tmp_path / "out" / "avatars.parquet").to_pylist()}
    assert rows.pop("000")["status"] == "done"
    assert {row["status"] for row in rows.values()} == {"failed"} and len(rows) == 4
    for words in ("truncated", "not run", "trigrids_64", "wordless.txt"):
        assert any(words in row["error_message"] for row in rows.values()), words
    assert not (root / "ran").exists()
