"""The start of an avatar from a portrait (section 3.1 of the paper) against known truth:
python benchmarks/portrait.py [--quick] [--people NAME ...] [--only mesh|start] [--again] [--figures DIR]

The cases are the shipped example, through its tri-grid, and six procedural people whose surface, parts and rig are
known and who are looked at directly: their outer surface on a grid like Portrait3D's, and exact views. Voxels are
2.1/255 world units (0.7/255 SMPL metres). One thread. Rows that ``docs/figures/portrait.json`` has are not made again.

mesh: surface and parts, at the built-in preset's sizes
    raw, mesh: distance of the raw and the fitted mesh's vertices to the true surface, median, voxels
    raw_degrees, degrees: median angle between their normals and the true ones, in six views that the fit has not seen
    hair, clothes: intersection over union of labels by area of the fitted mesh, labels of the shipped parser;
    hair_truth, clothes_truth: by true labels of the pictures
start: all stages up to the fitted Gaussians at the built-in preset
    detector_px: triangulated detections from the true 51 inner landmarks, in Portrait3D's front view of 512 pixels
    inner_px, landmarks_px: the fitted rig's 51 inner, all 68 landmarks from the true ones
    face_mm, scalp_mm, torso_mm: mean distance of corresponding vertices, millimetres (world units / true scale)
    held_out_psnr: of six views that the static fit has not seen, dB
    cpu_s: processor seconds of all these stages; memory_mb: the process's largest
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("AP3D_THREADS", "1")

import torch
from PIL import Image
from scipy.spatial import cKDTree
from torch import Tensor

from ap3d.cameras import Cameras, portrait3d_camera
from ap3d.config import load_config
from ap3d.perception import load_segmenter
from ap3d.perception.normals_field import FieldNormals
from ap3d.perception.protocol import Part
from ap3d.pictures import contact_sheet, to_uint8
from ap3d.portrait.protocol import Mesh, PortraitViews
from ap3d.portrait.surface.assets import label_colours
from ap3d.portrait.surface.cleaning import face_areas
from ap3d.portrait.surface.colours import vertex_colours
from ap3d.portrait.surface.fitting import NormalTargets, SurfaceFit, fit_surface, world_normals
from ap3d.portrait.surface.pictures import camera_normals, shaded
from ap3d.portrait.surface.voting import SPLIT
from ap3d.portrait.view_sets import mesh_views
from ap3d.rig import load_rig
from ap3d.rig.builtin import BuiltinRig
from ap3d.stages.assets import mesh_labels
from ap3d.training.portraits.solid import EXTENT, RESOLUTION
from ap3d.training.portraits.truth import BENCHMARK_PEOPLE, TruthPortrait
from benchmarks.portrait_start import EXAMPLE, known_case, start_row

VOXEL = EXTENT / (RESOLUTION - 1)
UNSEEN = ((112.5, 82), (67.5, 98), (157.5, 90), (22.5, 82), (247.5, 90), (292.5, 98))  # yaw and pitch
PICTURED = 4
KEPT = Path(__file__).resolve().parent.parent / "docs" / "figures" / "portrait.json"
CASES = (EXAMPLE, *BENCHMARK_PEOPLE)
FIGURES = {  # aims: at most (-) or at least (+) so much
    "mesh": {"raw": -1.0, "mesh": None, "raw_degrees": None, "degrees": -12.0, "hair": 0.85, "clothes": 0.9,
             "hair_truth": None, "clothes_truth": None},
    "start": {"detector_px": None, "inner_px": None, "landmarks_px": -4.0, "face_mm": -4.0, "scalp_mm": None,
              "torso_mm": None, "held_out_psnr": 28.0, "portrait_cpu_s": None, "mesh_cpu_s": None,
              "assets_cpu_s": None, "fit_cpu_s": None, "initialise_cpu_s": None, "cpu_s": -480.0, "memory_mb": -8192.0},
}  # fmt: skip
Row = dict[str, Any]


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """A result and the processor seconds it took."""
    start = time.process_time()
    return work(), time.process_time() - start


def distance(portrait: TruthPortrait, mesh: Mesh) -> float:
    """Median distance of vertices above the cut through the body to the true surface, voxels."""
    points = mesh.vertices[mesh.vertices[:, 1] > portrait.surface.floor + 3 * VOXEL]
    found, _ = cKDTree(portrait.surface.points.numpy()).query(points.numpy())
    return float(torch.from_numpy(found).median()) / VOXEL


def degrees(truth: PortraitViews, mesh: Mesh) -> float:
    """Median angle between a mesh's normals and the true ones."""
    wanted = FieldNormals().normals(replace(truth, alpha=(truth.alpha > 0.99).float()))
    seen = camera_normals(mesh, truth.cameras)
    both = (wanted.norm(dim=1) > 0.5) & (seen.norm(dim=1) > 0.5)
    return float(torch.rad2deg(torch.acos((seen * wanted).sum(1)[both].clamp(-1, 1))).median())


def true_labels(portrait: TruthPortrait, mesh: Mesh) -> Tensor:
    """Labels of the nearest points of the true surface."""
    table = torch.tensor([int(part) if part in SPLIT else int(Part.SKIN) for part in Part])
    _, index = cKDTree(portrait.surface.points.numpy()).query(mesh.vertices[mesh.faces].mean(1).numpy())
    return table[portrait.surface.classes[torch.from_numpy(index)]]


def overlap(mesh: Mesh, labels: Tensor, truth: Tensor, part: Part) -> float:
    """Intersection over union by area; 1 where neither has the part."""
    areas = face_areas(mesh)
    either = float(areas[(labels == part) | (truth == part)].sum())
    return float(areas[(labels == part) & (truth == part)].sum()) / either if either else 1.0


def mesh_row(name: str, rig: BuiltinRig, size: int, faces: int, steps: int) -> tuple[Row, Tensor]:
    """One row, and pictures: views, raw normals, fitted normals, colours, labels, true labels."""
    seen, person = known_case(name, rig)
    cameras = mesh_views(size).cameras
    views, raw = seen.render(cameras), seen.density_mesh()
    assert raw is not None
    unseen = Cameras.concatenate([portrait3d_camera(yaw, pitch, size=size) for yaw, pitch in UNSEEN])
    held_out = person.render(unseen)
    normals = world_normals(FieldNormals().normals(views), cameras)
    targets, settings = NormalTargets(cameras, views.alpha, normals), SurfaceFit.of(faces, size, steps)
    mesh, mesh_s = timed(lambda: fit_surface(raw, targets, settings, torch.Generator().manual_seed(0)))
    colours, colour_s = timed(lambda: vertex_colours(mesh, [views]))
    landmarks, segmenter = rig.landmarks(person.params)[0], load_segmenter()
    labels, assets_s = timed(lambda: mesh_labels(mesh, replace(views, labels=None), landmarks, segmenter))
    voted = mesh_labels(mesh, replace(views, labels=person.render(cameras).labels), landmarks, segmenter)
    truth = true_labels(person, mesh)
    row: Row = {
        "raw": distance(person, raw), "mesh": distance(person, mesh),
        "raw_degrees": degrees(held_out, raw), "degrees": degrees(held_out, mesh),
        **{part.name.lower(): overlap(mesh, labels, truth, part) for part in (Part.HAIR, Part.CLOTHES)},
        **{f"{part.name.lower()}_truth": overlap(mesh, voted, truth, part) for part in (Part.HAIR, Part.CLOTHES)},
        "mesh_cpu_s": mesh_s + colour_s, "assets_cpu_s": assets_s, "faces": len(mesh.faces),
    }  # fmt: skip
    return row, _pictures(held_out, raw, mesh, colours, [labels, truth])


def _pictures(views: PortraitViews, raw: Mesh, mesh: Mesh, colours: Tensor, labels: list[Tensor]) -> Tensor:
    """``[6 * PICTURED, 3, H, W]``."""
    cameras = views.cameras[:PICTURED]
    empty = lambda picture: torch.where(picture.norm(dim=1, keepdim=True) > 0.1, picture * 0.5 + 0.5, torch.ones(()))  # noqa: E731
    rows = [views.color[:PICTURED] + 1 - views.alpha[:PICTURED]]
    rows += [empty(camera_normals(m, cameras)) for m in (raw, mesh)]
    rows += [shaded(mesh, cameras, colours, lit=False)] + [shaded(mesh, cameras, label_colours(x)) for x in labels]
    return torch.cat(rows)


def missed(part: str, row: Row) -> set[str]:
    """The figures of a row that are not what was wanted."""
    aims = {key: aim for key, aim in FIGURES[part].items() if aim is not None and key in row}
    wrong = {key for key, aim in aims.items() if (row[key] > -aim if aim < 0 else row[key] < aim)}
    return wrong | ({"degrees"} if part == "mesh" and row["degrees"] >= row["raw_degrees"] else set())


def table(kept: dict[str, dict[str, Row]]) -> str:
    """All figures of all cases as Markdown; those that miss their aim are bold."""
    cases = [name for name in CASES if name in kept]
    lines = ["| figure | aim | " + " | ".join(cases) + " |", "|---|---|" + "---|" * len(cases)]
    for part, figures in FIGURES.items():
        for key, aim in figures.items():
            cells = [_cell(part, key, kept[name].get(part)) for name in cases]
            wanted = "" if aim is None else f"{'<=' if aim < 0 else '>='} {abs(aim):g}"
            lines.append(f"| {part}: {key} | {wanted} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(part: str, key: str, row: Row | None) -> str:
    if row is None or key not in row:
        return ""
    text = f"{row[key]:.0f}" if key == "memory_mb" else f"{row[key]:.3f}" if row[key] < 1 else f"{row[key]:.1f}"
    return f"**{text}**" if key in missed(part, row) else text


def made(part: str, name: str, quick: bool, figures: Path | None) -> Row:
    """One part's row of one case."""
    config = load_config("smoke" if quick else "builtin")
    if part == "start":
        with tempfile.TemporaryDirectory() as folder:
            return start_row(name, config, Path(folder), figures)
    rig, own = load_rig("builtin"), config.portrait3d
    assert isinstance(rig, BuiltinRig)
    row, pictures = mesh_row(name, rig, own.view_size, own.mesh_faces, own.mesh_steps)
    if figures is not None:
        sheet = to_uint8(contact_sheet(pictures, PICTURED))
        Image.fromarray(sheet).save(figures / f"{name}_parts.jpg", quality=85)
    return row


def read_kept(path: Path) -> dict[str, dict[str, Row]]:
    """Rows by case and part."""
    rows: dict[str, dict[str, Row]] = json.loads(path.read_text()) if path.exists() else {}
    return rows


def main() -> None:
    """Make what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one person at the preset `smoke`; nothing is kept")
    parser.add_argument("--people", nargs="*", default=list(CASES), choices=CASES)
    parser.add_argument("--only", choices=tuple(FIGURES), help="make rows of this part alone")
    parser.add_argument("--again", action="store_true", help="make rows anew that are kept")
    parser.add_argument("--kept", type=Path, default=KEPT, help="JSON file of rows")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="write pictures of every step there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.figures is not None:
        options.figures.mkdir(parents=True, exist_ok=True)
    kept = read_kept(options.kept) if not options.quick else {}
    for name in ["short"] if options.quick else options.people:
        for part in (options.only,) if options.only else FIGURES:
            if options.again or part not in kept.get(name, {}):
                row = made(part, name, options.quick, options.figures)
                kept = kept if options.quick else read_kept(options.kept)  # others may have added theirs
                kept.setdefault(name, {})[part] = row
                if not options.quick:
                    options.kept.write_text(json.dumps(kept, indent=1) + "\n")
    print(table(kept))


if __name__ == "__main__":
    main()
