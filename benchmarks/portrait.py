"""From a portrait to its mesh and assets, against known truth:
python benchmarks/portrait.py [--quick] [--people NAME ...] [--json FILE] [--figures DIR] [--start]

Six procedural people whose surface, parts and rig are known stand for starting portraits: their outer surface on a grid
like Portrait3D's, and 24 exact views. Voxels are 2.1/255 world units (0.7/255 SMPL metres). One thread.

raw, mesh: distance of the raw and the fitted mesh's vertices to the true surface, median, voxels
raw deg, deg: median angle between their normals and the true ones, in six views that the fit has not seen
hair, clothes: intersection over union of labels by area of the fitted mesh, labels of the shipped parser / true labels
"""

import argparse
import json
import os
import resource
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
from ap3d.training.portraits.truth import BENCHMARK_PEOPLE, TruthPortrait, benchmark_portrait
from benchmarks.portrait_start import known_rows, print_header

VOXEL = EXTENT / (RESOLUTION - 1)
UNSEEN = ((112.5, 82), (67.5, 98), (157.5, 90), (22.5, 82), (247.5, 90), (292.5, 98))  # yaw and pitch
PICTURED = 4
LIMITS = {"raw": (1.0, -1), "degrees": (12.0, -1), "hair": (0.85, 1), "clothes": (0.9, 1)}
COLUMNS = ("raw", "mesh", "raw_degrees", "degrees", "hair", "clothes", "hair_truth", "clothes_truth", "mesh_s",
           "assets_s", "memory_mb")  # fmt: skip
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


def mesh_and_assets(name: str, rig: BuiltinRig, size: int, faces: int, steps: int) -> tuple[Row, Tensor]:
    """One row, and pictures: views, raw normals, fitted normals, colours, labels, true labels."""
    portrait = benchmark_portrait(name, rig)
    views, raw = portrait.render(mesh_views(size).cameras), portrait.density_mesh()
    unseen = Cameras.concatenate([portrait3d_camera(yaw, pitch, size=size) for yaw, pitch in UNSEEN])
    held_out = portrait.render(unseen)
    normals = world_normals(FieldNormals().normals(views), views.cameras)
    targets = NormalTargets(views.cameras, views.alpha, normals)
    settings = SurfaceFit.of(faces, size, steps)
    mesh, mesh_s = timed(lambda: fit_surface(raw, targets, settings, torch.Generator().manual_seed(0)))
    colours, colour_s = timed(lambda: vertex_colours(mesh, [views]))
    landmarks, segmenter = rig.landmarks(portrait.params)[0], load_segmenter()
    unlabelled = replace(views, labels=None)
    labels, assets_s = timed(lambda: mesh_labels(mesh, unlabelled, landmarks, segmenter))
    voted, truth = mesh_labels(mesh, views, landmarks, segmenter), true_labels(portrait, mesh)
    row: Row = {
        "case": name, "raw": distance(portrait, raw), "mesh": distance(portrait, mesh),
        "raw_degrees": degrees(held_out, raw), "degrees": degrees(held_out, mesh),
        **{part.name.lower(): overlap(mesh, labels, truth, part) for part in (Part.HAIR, Part.CLOTHES)},
        **{f"{part.name.lower()}_truth": overlap(mesh, voted, truth, part) for part in (Part.HAIR, Part.CLOTHES)},
        "mesh_s": mesh_s + colour_s, "assets_s": assets_s, "faces": len(mesh.faces),
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
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


def missed(row: Row) -> list[str]:
    """The figures of a row that are not what was wanted."""
    wrong = [key for key, (limit, sign) in LIMITS.items() if sign * row[key] < sign * limit]
    return wrong + (["degrees not better than raw"] if row["degrees"] >= row["raw_degrees"] else [])


def save_pictures(pictures: Tensor, path: Path) -> None:
    """Four views a row, as a small JPEG."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(to_uint8(contact_sheet(pictures, PICTURED))).save(path, quality=85)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one person, small pictures and meshes")
    parser.add_argument("--people", nargs="*", default=list(BENCHMARK_PEOPLE), help="of BENCHMARK_PEOPLE")
    parser.add_argument("--start", action="store_true", help="then the rig's fit and the static fit, stage by stage")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--figures", metavar="DIR", help="write pictures of every step there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rig, rows = load_rig("builtin"), []
    assert isinstance(rig, BuiltinRig)
    names, sizes = (["short"], (128, 16000, 24)) if options.quick else (options.people, (256, 60000, 60))
    print(f"{'':8}" + "".join(f"{column:>15}" for column in COLUMNS))
    for name in names:
        row, pictures = mesh_and_assets(name, rig, *sizes)
        rows.append(row)
        note = "  MISSED: " + ", ".join(missed(row)) if missed(row) else ""
        print(f"{name:8}" + "".join(f"{row[column]:15.3f}" for column in COLUMNS) + note, flush=True)
        if options.figures:
            save_pictures(pictures, Path(options.figures) / f"portrait_{name}.jpg")
        if options.json:
            Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")
    if options.start:
        print_header()
        config = load_config("smoke" if options.quick else "builtin")
        with tempfile.TemporaryDirectory() as folder:
            rows += known_rows(names, config, Path(folder))
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
