"""A static page over a dataset: opens from a folder or a bucket, loads pictures and videos as they come into view.

Prompts, ids and errors are data from outside: they travel as JSON whose markup characters are escaped, and the page
puts them in as text, never as HTML.
"""

import json
import re
from importlib import resources
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ap3d.storage import Store

PAGE = "index.html"
SHOWN = 5000  # rows; a page is for looking, the table for all
_COLUMNS = (
    "face_id", "config_hash", "prompt", "abstract_prompt", "seed", "preset", "status", "latest", "error_class",
    "error_message", "uri_bundle", "uri_preview", "unknown_words", "metrics", "stages", "wall_s", "finished",
)  # fmt: skip
_SAFE_URI = re.compile(r"(?!.*\.\.)[A-Za-z0-9_-][A-Za-z0-9._/-]*")


def write(store: Store, table: pa.Table) -> None:
    """Write ``index.html`` for the rows of ``avatars.parquet``."""
    store.write_bytes(PAGE, page(table, title=store.shown.rstrip("/").rsplit("/", 1)[-1]).encode())


def page(table: pa.Table, title: str) -> str:
    """The page as text; every value in it is escaped."""
    newest = pc.sort_indices(table["finished"], sort_keys=[("", "descending")])[:SHOWN]
    rows = [_entry(row) for row in table.select(list(_COLUMNS)).take(newest).to_pylist()]
    if len(table) > SHOWN:
        title = f"{title}: the newest {SHOWN:,} of {len(table):,} rows"
    template = resources.files("cluster").joinpath("gallery.html").read_text(encoding="utf-8")
    return template.replace("@@DATA@@", script_json({"title": title, "rows": rows}))


def script_json(value: Any) -> str:
    """JSON that cannot end or open anything inside a script element."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    for name in ("uri_bundle", "uri_preview"):
        row[name] = row[name] if row[name] and _SAFE_URI.fullmatch(row[name]) else None
    row["metrics"] = [[k, _rounded(v)] for k, v in row["metrics"] or []]
    row["stages"] = [[s["name"], _rounded(s["seconds"])] for s in row["stages"] or []]
    row["wall_s"] = _rounded(row["wall_s"])
    row["finished"] = row["finished"].isoformat(timespec="seconds") if row["finished"] else ""
    row["seed"] = None if row["seed"] is None else str(row["seed"])  # beyond what a JavaScript number holds
    return row


def _rounded(value: float | None) -> float | None:
    """Whole numbers as they are, others with four digits; None for what is not finite, as JSON has no word for it."""
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return None
    return value if float(value).is_integer() else float(f"{value:.4g}")
