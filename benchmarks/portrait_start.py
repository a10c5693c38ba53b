"""The stages from a starting portrait to its fitted Gaussians, with the errors against a known person; a part of
``benchmarks/portrait.py``, which says what the figures are.
"""

import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from ap3d.checksums import BUILTIN
from ap3d.config import Config
from ap3d.fitting.triangulation import SpatialLandmarks
from ap3d.metrics.rig_truth import rig_errors
from ap3d.portrait.protocol import Portrait
from ap3d.portrait.trigrid import load_trigrid
from ap3d.portrait_job import PortraitJob
from ap3d.resources import Resources
from ap3d.rig.builtin import BuiltinRig
from ap3d.rig.protocol import RigParams
from ap3d.stages import STAGES
from ap3d.stages.base import StageContext
from ap3d.stages.portrait3d import portrait_result
from ap3d.storage import Store
from ap3d.tensor_files import unpack_tensors
from ap3d.training.example_portrait import example_truth
from ap3d.training.portraits.truth import TruthPortrait, benchmark_portrait
from ap3d.workspace import Locations, Workspace

LAST = "initialise"
EXAMPLE = "example"


def known_case(name: str, rig: BuiltinRig) -> tuple[Portrait, TruthPortrait]:
    """What is looked at, and the person behind it: the shipped tri-grid, or a person looked at directly."""
    if name == EXAMPLE:
        return load_trigrid(str(BUILTIN / "portrait3d" / "000.pth")), example_truth(rig)
    person = benchmark_portrait(name, rig)
    return person, person


def run_start(
    portrait: Portrait,
    truth: RigParams | None,
    config: Config,
    resources: Resources,
    folder: Path,
    case: str,
    figures: Path | None = None,
) -> dict[str, Any]:
    """Run the stages of section 3.1 and return one row.

    Args:
        portrait: what is looked at.
        truth: the rig's parameters that it was made from, where they are known.
        config: resolved configuration.
        resources: resident models.
        folder: where the stages' outputs go.
        case: name of the row.
        figures: where the stages' pictures go.
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
        for picture in (n for n in result.outputs if figures is not None and n.endswith(".png")):
            assert figures is not None
            (figures / f"{case}_{stage.name}.png").write_bytes(result.outputs[picture])
        if stage.name == LAST:
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


def start_row(name: str, config: Config, folder: Path, figures: Path | None = None) -> dict[str, Any]:
    """The row of one known case."""
    resources = Resources.load(config)
    assert isinstance(resources.rig, BuiltinRig)
    portrait, truth = known_case(name, resources.rig)
    return run_start(portrait, truth.params, config, resources, folder, name, figures)
