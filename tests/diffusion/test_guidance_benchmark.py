"""The guidance benchmark runs and reports every case."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "guidance.py"


@pytest.mark.slow
def test_a_quick_run_reports_all_cases(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    command = [sys.executable, str(SCRIPT), "--quick", "--dtypes", "float32", "--preset", "smoke", "--json", str(out)]
    subprocess.run(command, check=True, capture_output=True, timeout=1200)
    rows = json.loads(out.read_text())
    costs = {row["case"]: row for row in rows if "unet" in row}
    stages = ("portrait", "eyes", "mouth", "whole", "refine")
    assert len(rows) == 2 * 4 + 5 + 4 * 6 and len(costs) == 4 * 6
    for preset in ("smoke", "builtin", "draft", "paper"):
        assert sum(costs[f"  {preset}: {name}"]["unet"] for name in stages) == costs[f"preset {preset}"]["unet"]
    assert all(row.get("ms", row.get("ms_a_crop")) > 0 for row in rows if "unet" not in row)
    assert 0 < costs["preset builtin"]["utilisation"] < 1 and costs["preset paper"]["flops"] > 5e16
    assert all(row["error"] == 0 for row in rows if "error" in row)
