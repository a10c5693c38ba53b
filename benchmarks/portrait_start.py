"""From a starting portrait to its fitted Gaussians, stage by stage, with the errors against a known person:
python benchmarks/portrait_start.py [--quick] [--people NAME ...] [--until fit] [--json FILE]; also with
``benchmarks/portrait.py --start``.

detector_px: triangulated detections from the true 51 inner landmarks, in Portrait3D's front view of 512 pixels
inner_px, landmarks_px: the fitted rig's 51 inner, all 68 landmarks from the true ones
face_mm, scalp_mm, torso_mm: mean distance of corresponding vertices, millimetres (world units over the true scale)
held_out_psnr: of six views that the static fit has not seen, dB
cpu_s: processor seconds of all stages, one thread; memory_mb: the process's largest
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from ap3d.config import Config, load_config, parse_overrides
from ap3d.fitting.triangulation import SpatialLandmarks
from ap3d.metrics.rig_truth import rig_errors
from ap3d.portrait.protocol import Portrait
from ap3d.portrait_job import PortraitJob
from ap3d.resources import Resources
from ap3d.rig.builtin import BuiltinRig
from ap3d.rig.protocol import RigParams
from ap3d.stages import STAGES
from ap3d.stages.base import StageContext
from ap3d.stages.portrait3d import portrait_result
from ap3d.storage import Store
from ap3d.tensor_files import unpack_tensors
from ap3d.training.portraits.truth import BENCHMARK_PEOPLE, benchmark_portrait
from ap3d.workspace import Locations, Workspace

LAST = "initialise"
LIMITS = {"face_mm": (4.0, -1), "landmarks_px": (4.0, -1), "held_out_psnr": (28.0, 1), "memory_mb": (8192.0, -1)}
COLUMNS = (
    "detector_px", "inner_px", "landmarks_px", "face_mm", "scalp_mm", "torso_mm", "held_out_psnr", "portrait_cpu_s",
    "mesh_cpu_s", "assets_cpu_s", "fit_cpu_s", "initialise_cpu_s", "cpu_s", "memory_mb",
)  # fmt: skip


def run_start(
    portrait: Portrait,
    truth: RigParams | None,
    config: Config,
    resources: Resources,
    folder: Path,
    case: str,
    last: str = LAST,
) -> dict[str, Any]:
    """Run the stages of section 3.1 and return one row.

    Args:
        portrait: what is looked at.
        truth: the rig's parameters that it was made from, where they are known.
        config: resolved configuration.
        resources: resident models.
        folder: where the stages' outputs go.
        case: name of the row.
        last: the stage to end with, ``fit`` or a later one.
    """
    job = PortraitJob(case, "a person", 0, portrait=f"{case}.pth")
    workspace = Workspace(Store(str(folder)), Locations.in_dataset(case, config.config_hash), "bench")
    records: dict[str, dict[str, Any]] = {}
    row: dict[str, Any] = {"case": case}
    total = 0.0
    for stage in STAGES:
        if "portrait3d" not in stage.starts:
            continue
        context = StageContext(
            job, config, resources, workspace, records, stage.name, stage.name, lambda step, steps: None
        )
        started = time.process_time()
        result = portrait_result(context, portrait) if stage.name == "portrait" else stage.run(context)
        row[f"{stage.name}_cpu_s"] = round(time.process_time() - started, 1)
        total += row[f"{stage.name}_cpu_s"]
        details = {"fingerprint": stage.name, "notes": dict(result.notes), "metrics": dict(result.metrics)}
        records[stage.name] = workspace.commit(stage.name, result.outputs, details)
        row |= {k: round(float(v), 3) for k, v in result.metrics.items()}
        if stage.name == last:
            break
    row |= {"cpu_s": round(total, 1), "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}
    if truth is not None:
        row |= _rig_row(workspace, records, resources, truth)
    return row


def _rig_row(
    workspace: Workspace, records: dict[str, dict[str, Any]], resources: Resources, truth: RigParams
) -> dict[str, float]:
    read = lambda stage, name: unpack_tensors(workspace.read(records[stage], name), name)  # noqa: E731
    found = read("portrait", "landmarks.safetensors")
    landmarks = SpatialLandmarks(found["points"], found["error"], [], 0.0)
    fitted = RigParams(**read("fit", "params.safetensors"))
    return {k: round(v, 2) for k, v in asdict(rig_errors(resources.rig, fitted, truth, landmarks)).items()}


def known_rows(names: Sequence[str], config: Config, folder: Path, last: str = LAST) -> list[dict[str, Any]]:
    """Rows of procedural people, looked at directly (no tri-grid between)."""
    resources = Resources.load(config)
    assert isinstance(resources.rig, BuiltinRig)
    rows = []
    for name in names:
        person = benchmark_portrait(name, resources.rig)
        rows.append(run_start(person, person.params, config, resources, folder, name, last))
        print_row(rows[-1])
    return rows


def print_header() -> None:
    """Names of the columns."""
    print(f"{'':8}" + "".join(f"{column:>17}" for column in COLUMNS))


def print_row(row: dict[str, Any]) -> None:
    """One person's figures, and which of them miss their aim."""
    missed = [k for k, (limit, sign) in LIMITS.items() if k in row and sign * (row[k] - limit) < 0]
    cells = "".join(f"{row[column]:17.2f}" if column in row else f"{'-':>17}" for column in COLUMNS)
    print(f"{row['case']:8}{cells}" + ("  MISSED: " + ", ".join(missed) if missed else ""), flush=True)


def main() -> None:
    """Print the rows, and write them as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one person, rough")
    parser.add_argument("--people", nargs="*", default=list(BENCHMARK_PEOPLE), help="of BENCHMARK_PEOPLE")
    parser.add_argument("--until", default=LAST, choices=("fit", LAST), help="last stage")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of the configuration")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = load_config("smoke" if options.quick else "builtin", parse_overrides(options.set))
    print_header()
    with tempfile.TemporaryDirectory() as folder:
        people = options.people[:1] if options.quick else options.people
        rows = known_rows(people, config, Path(folder), options.until)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
