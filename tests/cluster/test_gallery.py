"""The static page: nothing in a prompt or an id can become markup, and what it links to lies in the dataset."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cluster import gallery, schema

HOSTILE = [
    "</script><script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "\"'><svg onload=window.hacked=1>",
    "<!--<script>",
    "@@DATA@@ & \u2028 {{x}} ${y} \\u003c",
]


class Scripts(HTMLParser):
    """Collects the script elements of a page as a browser would split them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[dict[str, str | None], str]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag == "script"
        if self._inside:
            self.found.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.found[-1] = (self.found[-1][0], self.found[-1][1] + data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = False


def hostile_table(**more: Any) -> Any:
    rows = [
        {"face_id": text[:64], "config_hash": "c", "prompt": text, "status": "failed", "error_message": text, **more}
        for text in HOSTILE
    ]
    return schema.with_latest(schema.table_from_rows(schema.row_from_report(row) for row in rows))


def data_of(page: str) -> dict[str, Any]:
    parser = Scripts()
    parser.feed(page)
    assert [attributes.get("type") for attributes, _ in parser.found] == ["application/json", None]
    return json.loads(parser.found[0][1])


def test_prompts_ids_and_errors_stay_text() -> None:
    data = data_of(gallery.page(hostile_table(), title=HOSTILE[0]))
    assert sorted(row["prompt"] for row in data["rows"]) == sorted(HOSTILE)
    assert data["title"] == HOSTILE[0]


def test_the_page_never_sets_html() -> None:
    template = Path(gallery.__file__).with_name("gallery.html").read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", template)


@pytest.mark.parametrize(
    "uri", ["javascript:alert(1)", "https://elsewhere/x", "../../etc/passwd", "/etc", "a/../b", "//x"]
)
def test_links_lead_only_into_the_dataset(uri: str) -> None:
    data = data_of(gallery.page(hostile_table(uri_bundle=uri, uri_preview=uri), title="t"))
    assert all(row["uri_bundle"] is None and row["uri_preview"] is None for row in data["rows"])


def test_numbers_that_json_cannot_hold() -> None:
    data = data_of(gallery.page(hostile_table(metrics={"m": float("nan")}, wall_s=float("inf"), seed=2**63 - 1), "t"))
    assert data["rows"][0]["metrics"] == [["m", None]] and data["rows"][0]["seed"] == str(2**63 - 1)


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
def test_a_browser_shows_every_card_and_runs_nothing_hostile(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(gallery.page(hostile_table(), title=HOSTILE[0]))
    dom = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"--user-data-dir={tmp_path}/profile",
         "--virtual-time-budget=2000", f"file://{tmp_path}/index.html"],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    assert dom.count('class="card failed"') == len(HOSTILE)
    assert "<svg" not in dom and "<img" not in dom
