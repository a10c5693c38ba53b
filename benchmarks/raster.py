"""Times, memory and errors of the rasterisers, side by side.

python benchmarks/raster.py [--quick] [--json FILE] [--figures FOLDER]

Ours with one and two threads and on each instruction set; a plain C++ loop; our torch reference; and what
benchmarks/fetch_alternatives.py has fetched. On a machine with a GPU, gsplat and diff-gaussian-rasterization too.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from benchmarks.rasterisers import animate, mesh_cases, splat_cases, table


def versions() -> dict[str, str]:
    """Of what the figures depend on."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "machine": machine()}
    for package in ("ap3d", "gsplat", "warp-lang"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Processor, cores and GPU."""
    names = [platform.machine()]
    cpu = Path("/proc/cpuinfo")
    if cpu.exists():
        names = [line.split(":")[1].strip() for line in cpu.read_text().splitlines() if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{names[0]}, {cores} cores{gpu}"


def measure(quick: bool, seconds: float, only: str) -> list[dict[str, Any]]:
    """All rows; each is printed as soon as it is there."""
    rows: list[dict[str, Any]] = []
    sources = [splat_cases.rows(quick, seconds, only), animate.rows(seconds), mesh_cases.rows(seconds)]
    for row in (row for source in sources for row in source):
        rows.append(row | {"versions": versions()})
        error = "" if row["error"] is None else f"  error {row['error']:.1e}"
        print(f"{row['case']:46s} {row['backend']:40s} {row['ms']:9.2f} ms  x{row['ratio']:<7g}{error}", flush=True)
    return rows


def main() -> None:
    """Print the rows; write JSON and Markdown where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one scene, a minute")
    parser.add_argument("--seconds", type=float, default=0.6, help="time for repeats of one figure")
    parser.add_argument("--only", default="", metavar="REGEX", help="of the splat rasterisers, those whose name fits")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--figures", type=Path, help="write raster-cpu.json and .md, or raster-gpu, into this folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(options.quick, options.seconds, options.only)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    if options.figures:
        stem = "raster-gpu" if torch.cuda.is_available() else "raster-cpu"
        (options.figures / f"{stem}.json").write_text(json.dumps(rows, indent=1) + "\n")
        (options.figures / f"{stem}.md").write_text(table.markdown(rows, machine()))


if __name__ == "__main__":
    main()
