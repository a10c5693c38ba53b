"""What a prompt file may hold, and what each kind of bad input does."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ap3d.errors import InputError
from ap3d.portrait_job import MAX_SEED, PortraitJob
from ap3d.storage import Store
from cluster.prompt_files import read_portrait_folder, read_records
from cluster.prompts import PromptSet, build_jobs
from cluster.work_queue import WorkQueue


def read(path: Path, content: bytes | str, seed: int = 0) -> PromptSet:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return build_jobs(read_records(str(path)), seed)


def test_txt_takes_a_prompt_a_line_whatever_the_line_ends_and_mark(tmp_path: Path) -> None:
    result = read(tmp_path / "p.txt", b"\xef\xbb\xbf  an old  man \r\n\r\na woman\n\n \t\nein M\xc3\xa4dchen\rlast")
    assert [job.prompt for job in result.jobs] == ["an old man", "a woman", "ein Mädchen", "last"]
    assert not result.rejected and not result.notes


def test_unusual_line_separators_stay_inside_a_prompt(tmp_path: Path) -> None:
    assert len(read(tmp_path / "p.txt", "a\u2028b\u0085c\n").jobs) == 1


def test_csv_with_quotes_commas_newlines_and_optional_columns(tmp_path: Path) -> None:
    text = 'ID, Prompt ,seed,abstract_prompt\r\nanna,"a ""young"" woman,\nsmiling",7,woman\r\n,"plain",,\r\n'
    result = read(tmp_path / "p.csv", "\ufeff" + text)
    assert result.jobs[0] == PortraitJob("anna", 'a "young" woman, smiling', 7, None, "woman")
    assert result.jobs[1].prompt == "plain" and result.jobs[1].seed == 0 and result.jobs[1].abstract_prompt is None


def test_jobs_of_a_higher_priority_start_first(tmp_path: Path) -> None:
    result = read(tmp_path / "p.csv", "prompt,priority\nlast,-1\nplain,\nfirst,5\nwrong,high\n")
    assert [(job.prompt, job.priority) for job in result.jobs] == [("last", -1), ("plain", 0), ("first", 5)]
    assert "priority must be a whole number" in result.rejected[0].reason
    queue = WorkQueue(result.jobs, {result.jobs[0].face_id: 1000.0})
    assert [queue.take().prompt for _ in range(3)] == ["first", "plain", "last"]


def test_a_bucket_of_portraits(s3_server: str) -> None:
    from tests.s3_server import new_bucket

    root = new_bucket()
    for name, data in {"a.pth": b"x", "a.txt": b"a man", "a.png": b"", "b.pth": b"x", "deep/c.pth": b"x"}.items():
        Store(root).write_bytes(f"in/{name}", data)
    result = build_jobs(read_portrait_folder(f"{root}/in"))
    assert result.jobs == [PortraitJob("a", "a man", 0, f"{root}/in/a.pth")]
    assert ["b.txt" in r.reason for r in result.rejected] == [True]


def test_jsonl_takes_objects_and_strings(tmp_path: Path) -> None:
    lines = [
        json.dumps({"id": "a", "prompt": "x y", "seed": 3, "other": [1]}),
        json.dumps("only text"),
        "",
        "{broken",
        "[1]",
    ]
    result = read(tmp_path / "p.jsonl", "\n".join(lines))
    assert [job.prompt for job in result.jobs] == ["x y", "only text"]
    assert [r.reason for r in result.rejected] == [
        "line 4: not valid JSON",
        "line 5: neither a JSON object nor a string",
    ]


def test_parquet_with_nulls_and_number_ids(tmp_path: Path) -> None:
    table = pa.table({"id": [7, None], "prompt": ["a", "b"], "seed": pa.array([1.0, None])})
    pq.write_table(table, tmp_path / "p.parquet")
    jobs = build_jobs(read_records(str(tmp_path / "p.parquet")), seed=5).jobs
    assert (jobs[0].face_id, jobs[0].seed) == ("7", 1)
    assert jobs[1].seed == 5


def test_prompts_are_read_over_fsspec() -> None:
    import fsspec

    with fsspec.open("memory://in/p.txt", "wb") as file:
        file.write(b"a man\n")
    assert build_jobs(read_records("memory://in/p.txt")).jobs[0].prompt == "a man"


def test_a_portrait_path_is_relative_to_the_prompt_file(tmp_path: Path) -> None:
    jobs = read(tmp_path / "p.csv", "prompt,portrait\na,x/000.pth\nb,s3://bucket/1.pth\n").jobs
    assert jobs[0].portrait == f"{tmp_path}/x/000.pth"
    assert jobs[1].portrait == "s3://bucket/1.pth"


def test_workers_get_whole_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "000.pth").write_bytes(b"x")
    (tmp_path / "in" / "000.txt").write_text("a man\n")
    monkeypatch.chdir(tmp_path)
    assert build_jobs(read_portrait_folder("in")).jobs[0].portrait == f"{tmp_path}/in/000.pth"


def test_portrait_folder(tmp_path: Path) -> None:
    (tmp_path / "000.pth").write_bytes(b"x")
    (tmp_path / "000.txt").write_text("a man\n")
    (tmp_path / "001.pth").write_bytes(b"x")
    (tmp_path / "7_pyramid_trigrid.pth").write_bytes(b"x")
    (tmp_path / "7_prompt.txt").write_text("a woman")
    (tmp_path / "8.safetensors").write_bytes(b"x")
    (tmp_path / "8.txt").write_text("$(touch x); `id`")
    (tmp_path / "decoder.safetensors").write_bytes(b"x")
    result = build_jobs(read_portrait_folder(str(tmp_path)))
    assert result.jobs == [
        PortraitJob("000", "a man", 0, f"{tmp_path}/000.pth"),
        PortraitJob("7", "a woman", 0, f"{tmp_path}/7_pyramid_trigrid.pth"),
        PortraitJob("8", "$(touch x); `id`", 0, f"{tmp_path}/8.safetensors"),
    ]
    assert "001.txt" in result.rejected[0].reason


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b'"",,', "empty"),
        (b'"\n \n",,', "empty"),
        (b"caf\xe9,,", "not valid UTF-8"),
        (b"a\x00b,,", "control character"),
        (b"x" * 10_000 + b",,", "10,000 characters"),
        (b"fine,../up,", "'../up'"),
        (b"fine,a/b,", "'a/b'"),
        (b"fine,..,", "'..'"),
        (b"fine,.hidden,", "'.hidden'"),
        (b"fine,sp ace,", "'sp ace'"),
        (b"fine," + b"i" * 65 + b",", "1-64"),
        (b"fine,,-1", "seed"),
        (b"fine,,1.5", "seed"),
        (b"fine,,many", "seed"),
        (b"fine,,99999999999999999999", "seed"),
        (b"one, two,,5", "commas in quotes"),
    ],
)
def test_one_bad_entry_is_rejected_and_the_rest_goes_on(tmp_path: Path, row: bytes, reason: str) -> None:
    result = read(tmp_path / "p.csv", b"prompt,id,seed\ngood one,,\n" + row + b"\ngood two,,\n")
    assert [job.prompt for job in result.jobs] == ["good one", "good two"]
    assert len(result.rejected) == 1 and reason in result.rejected[0].reason
    face_id = result.rejected[0].job.face_id
    assert "/" not in face_id and not face_id.startswith(".") and 0 < len(face_id) <= 64
    result.rejected[0].job.prompt.encode()  # can be stored


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", b"", "holds no prompts"),
        ("p.txt", b"\xef\xbb\xbf\n \r\n", "holds no prompts"),
        ("p.txt", "a man".encode("utf-16"), "UTF-16"),
        ("p.csv", b"text,seed\na,1\n", "no column 'prompt'"),
        ("p.csv", b"", "no column 'prompt'"),
        ("p.csv", b"prompt,prompt\na,b\n", "more than one column"),
        ("p.csv", b'prompt\n"never closed\nx\n', "unexpected end of data"),
        ("p.csv", b"prompt,id\na,one\nb,one\n", "two different portraits (line 2 and line 3)"),
        ("p.csv", b"prompt,id\na,Anna\nb,anna\n", "differ only in case"),
        ("p.csv", b"prompt,id\n,one\n", "no usable prompt"),
        ("p.parquet", b"PAR1 truncated", "not a whole Parquet file"),
        ("p.docx", b"a man", "cannot tell the format"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path / name, content)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file_folder_and_negative_seed(tmp_path: Path) -> None:
    for path, message in [
        (tmp_path / "none.txt", "does not exist"),
        (tmp_path, "cannot tell"),
        ("nope://x.txt", "nope"),
    ]:
        with pytest.raises(InputError, match=message):
            read_records(str(path))
    with pytest.raises(InputError, match="--seed"):
        read(tmp_path / "p.txt", b"a", seed=-1)
    with pytest.raises(InputError, match="--seed"):
        read(tmp_path / "p.txt", b"a", seed=MAX_SEED + 1)


def test_equal_prompts_get_their_own_seed_and_id_and_that_is_said(tmp_path: Path) -> None:
    result = read(tmp_path / "p.txt", b"a man\na woman\na man\na man\n", seed=10)
    men = [job for job in result.jobs if job.prompt == "a man"]
    assert [job.seed for job in men] == [10, 11, 12]
    assert len({job.face_id for job in result.jobs}) == 4
    assert len(result.notes) == 2 and "line 3" in result.notes[0] and men[1].face_id in result.notes[0]


def test_ids_come_from_content_not_from_the_place(tmp_path: Path) -> None:
    first = read(tmp_path / "a.txt", "a man\na woman\n陽気な人\n").jobs
    again = read(tmp_path / "b.txt", "new\n陽気な人\na woman\na man\n").jobs
    assert {job.face_id for job in first} < {job.face_id for job in again}
    assert first[0].face_id.startswith("a-man-")


def test_the_same_entry_twice_is_made_once(tmp_path: Path) -> None:
    result = read(tmp_path / "p.csv", b"prompt,id,seed\na,one,3\na,one,3\nb,,4\nb,,4\n")
    assert [job.prompt for job in result.jobs] == ["a", "b"] and len(result.notes) == 2
