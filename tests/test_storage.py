"""The same promises on a local folder, in memory and on an S3 server: whole writes, exclusive creation, one line."""

import json
import os
import stat
import threading
import urllib.request
from pathlib import Path

import pytest

from ap3d.errors import Ap3dError, DataFileError, InputError, RunError
from ap3d.redaction import redacted
from ap3d.storage import Store


def test_a_store_reads_lists_and_deletes_what_it_wrote(root: str) -> None:
    store = Store(root)
    store.check_writable()
    assert store.list("") == []
    store.write_json("a/b.json", {"x": 1})
    store.write_bytes("a/c/d.bin", b"1")
    store.write_bytes("a/c/d.bin", b"22")
    assert store.read_json("a/b.json") == {"x": 1} and store.read_bytes("a/c/d.bin") == b"22"
    assert store.list("a") == ["a/b.json", "a/c/d.bin"] and store.folders("a") == ["c"]
    assert store.exists("a/c") and not store.exists("b")
    with store.open("a/c/d.bin") as file:
        assert file.read() == b"22"
    store.delete_files(["a/b.json", "a/never"])
    store.delete("a/c")
    store.delete("a/never")
    assert store.list("a") == [] and store.list("nothing") == [] and store.folders("nothing") == []
    with pytest.raises(DataFileError, match="no such file"):
        store.read_bytes("a/c/d.bin")


def test_one_of_many_racing_threads_creates_a_file(root: str) -> None:
    stores = [Store(root) for _ in range(8)]
    stores[0].check_writable()
    for trial in range(6):
        barrier, won = threading.Barrier(len(stores)), []

        def race(number: int, barrier: threading.Barrier, won: list[int], trial: int) -> None:
            barrier.wait()
            if stores[number].exclusive_create(f"lease/{trial}", b"%d" % number * 1000):
                won.append(number)

        threads = [threading.Thread(target=race, args=(n, barrier, won, trial)) for n in range(len(stores))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert stores[0].read_bytes(f"lease/{trial}") == b"%d" % won[0] * 1000


def test_creation_stays_exclusive_where_files_cannot_be_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*args: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    store = Store(str(tmp_path))
    store.check_writable()
    assert store.exclusive_create("a", b"1") and not store.exclusive_create("a", b"2")
    assert store.read_bytes("a") == b"1" and store.list("") == ["a"]


def test_a_storage_without_exclusive_creation_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "exclusive_create", lambda *args: True)
    with pytest.raises(InputError, match="two drivers could spoil it"):
        Store(str(tmp_path)).check_writable()


def test_faults_that_pass_are_tried_again_and_others_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, faults = Store(str(tmp_path)), [ConnectionResetError("reset"), OSError(5, "Input/output error")]
    write = Store._write_local

    def faulty(self: Store, target: str, data: bytes) -> None:
        if faults:
            raise faults.pop()
        write(self, target, data)

    monkeypatch.setattr("ap3d.storage.RETRY_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(Store, "_write_local", faulty)
    store.write_bytes("a", b"1")
    assert store.read_bytes("a") == b"1"
    faults[:] = [OSError(28, "No space left on device")] * 2
    with pytest.raises(RunError, match="the storage is full"):
        store.write_bytes("a", b"2")
    assert len(faults) == 1


def test_a_bucket_that_is_not_there_is_one_line(s3_server: str) -> None:
    with pytest.raises(InputError) as caught:
        Store("s3://no-such-bucket-here/data").check_writable()
    assert "bucket does not exist" in str(caught.value) and "\n" not in str(caught.value)


def test_a_bucket_that_may_only_be_read_is_one_line_and_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    boto3, s3fs = pytest.importorskip("boto3"), pytest.importorskip("s3fs")
    from cluster.run import GenerateOptions, generate
    from tests.s3_server import new_bucket, running

    with running() as address:
        s3fs.S3FileSystem.clear_instance_cache()
        root = f"{new_bucket()}/data"
        Store(root).write_bytes("prompts.txt", b"a man\n")
        iam = boto3.client("iam", endpoint_url=address)
        iam.create_user(UserName="reader")
        allowed = {"Effect": "Allow", "Action": ["s3:Get*", "s3:List*"], "Resource": "*"}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
        key = iam.create_access_key(UserName="reader")["AccessKey"]
        reset = urllib.request.Request(f"{address}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})
        urllib.request.urlopen(reset).close()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(InputError, match="cannot write to 's3://.*/data'") as caught:
            generate(GenerateOptions(prompts=f"{root}/prompts.txt", out=root, preset="smoke", pipeline="no:such"))
        assert Store(root).list("") == ["prompts.txt"]
    s3fs.S3FileSystem.clear_instance_cache()
    assert "denied" in str(caught.value).lower() and key["SecretAccessKey"] not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_line(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(InputError, match="cannot write"):
        Store(str(tmp_path / "below")).check_writable()
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sftp://anna:s3cr3t@host/data", "sftp://***@host/data"),
        ("cannot read s3://AKIAABCDEFGHIJKLMNOP:abc/def+x@b/k", "cannot read s3://***:abc/def+x@b/k"),
        ("https://b.s3.amazonaws.com/p.csv?X-Amz-Credential=AK%2F1&X-Amz-Signature=ab12&x=1",
         "https://b.s3.amazonaws.com/p.csv?X-Amz-Credential=***&X-Amz-Signature=***&x=1"),
        ("https://a.blob.core.windows.net/c/p?sig=Zm9v%3D", "https://a.blob.core.windows.net/c/p?sig=***"),
        ("{'aws_secret_access_key': 'wJalr/x'}", "{'aws_secret_access_key': '***'}"),
        ("ASIAABCDEFGHIJKLMNOP was denied", "*** was denied"),
        ("s3://bucket/path/key=7/seed=3", "s3://bucket/path/key=7/seed=3"),
        ("a man: mail me at anna@example.org", "a man: mail me at anna@example.org"),
    ],
)  # fmt: skip
def test_credentials_are_taken_out_and_nothing_else(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert str(Ap3dError(text)) == shown


def test_files_of_a_deep_and_wide_folder_are_all_found(tmp_path: Path) -> None:
    """Compared with the standard library's walk, with more folders than threads that look through them."""
    for n in range(40):
        (tmp_path / f"work/hash/face-{n}/stage").mkdir(parents=True)
        (tmp_path / f"work/hash/face-{n}/DONE.json").touch()
        (tmp_path / f"work/hash/face-{n}/stage/.tmp-out-{n}").touch()
    (tmp_path / "work" / "loose").touch()
    store = Store(str(tmp_path))
    walked = {f"{at}/{name}" for at, _, names in os.walk(tmp_path) for name in names}
    expected = sorted(name.removeprefix(f"{tmp_path}/") for name in walked)
    assert store.list("", half_written=True) == expected and len(expected) == 81
    assert store.list("work") == [name for name in expected if ".tmp-" not in name]
    assert store.list("work/loose") == ["work/loose"] and store.list("nowhere") == store.list("work/loose/x") == []
    assert store.sweep_below("work") == 40 and store.list("", half_written=True) == store.list("work")
