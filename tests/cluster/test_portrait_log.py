"""A portrait's log holds what its worker wrote to standard error, also from compiled code; its end is in the row."""

import ctypes
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ap3d.storage import Store
from cluster.portrait_log import TAIL_CHARACTERS, PortraitLog, read_tail

ROOT = Path(__file__).parents[2]


def test_all_that_is_written_to_standard_error_is_in_the_log(root: str) -> None:
    store = Store(root)
    for attempt in ("first", "second"):
        with PortraitLog(store, "logs/c/a.txt", f"attempt {attempt}") as log:
            ctypes.CDLL(None).perror(b"from C")
            log.stage("refine")
            print("reading sftp://anna:pw@h/x\n" + "x" * 5000, file=sys.__stderr__, flush=True)
            log.say("last line")
    text = store.read_bytes("logs/c/a.txt").decode()
    assert text.count("from C") == 2 and text.count("attempt") == 2 and " refine\n" in text
    tail = read_tail(store, "logs/c/a.txt")
    assert tail and len(tail) <= TAIL_CHARACTERS and tail.endswith("last line\n")
    assert store.is_local or "anna:pw" not in text
    assert read_tail(store, "logs/c/b.txt") is None


def test_the_log_of_an_interpreter_that_dies_is_there(tmp_path: Path) -> None:
    code = (
        "import os; from ap3d.storage import Store; from cluster.portrait_log import PortraitLog\n"
        f"with PortraitLog(Store({str(tmp_path)!r}), 'logs/c/a.txt', 'one'):\n"
        "    os.write(2, b'CUDA error: device-side assert'); os._exit(11)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 11
    assert "device-side assert" in str(read_tail(Store(str(tmp_path)), "logs/c/a.txt"))


def test_a_failed_row_holds_the_end_of_its_log(
    make: Callable[..., int], rows: Callable[[], list[dict[str, Any]]], tmp_path: Path
) -> None:
    assert make("a man", "broken") == 1
    table = {row["prompt"]: row for row in rows()}
    assert "ArithmeticError: a matrix was singular" in table["broken"]["log_tail"]
    assert table["broken"]["log_tail"].count("attempt") == 2 and table["a man"]["log_tail"] is None
    assert (tmp_path / "out" / table["a man"]["uri_log"]).read_text().splitlines()[-1].endswith("done")
