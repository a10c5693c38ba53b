"""A sheet of many avatars, each with an expression of its own: python benchmarks/people_sheet.py ROOT OUT.png [ID ...]

Takes the newest finished avatars of a dataset, or those of the given face_ids in their order.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("AP3D_THREADS", "1")

import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from ap3d.animation import bundle_camera, render
from ap3d.export.gaussians import with_expression
from ap3d.pictures import contact_sheet, to_uint8
from ap3d.splats.bundle import load_bundle

POSES = (  # expression; azimuth of the camera; pitch, yaw and roll of the head in degrees
    ("smile", 18, (0, 0, 4)),
    ("neutral", -25, (0, 0, 0)),
    ("surprise", 8, (-4, 0, 0)),
    ("smirk", -35, (0, 10, -4)),
    ("grin", 28, (3, 0, 0)),
    ("eyeLookInLeft=0.9,eyeLookOutRight=0.9", -10, (0, 0, 5)),
    ("frown", 22, (5, 0, 0)),
    ("open", -18, (0, 0, -3)),
    ("wink", 12, (0, 0, 6)),
    ("oo", -30, (0, 8, 0)),
    ("blink,mouthSmileLeft=0.5,mouthSmileRight=0.5", 15, (6, 0, 0)),
    ("squint,mouthSmileLeft=0.4,mouthSmileRight=0.4", -15, (0, -12, 0)),
)


def finished(root: Path, ids: list[str]) -> list[Path]:
    """Bundle folders of a dataset, newest row of each id.

    Raises:
        SystemExit: an id without a finished avatar.
    """
    rows = pq.read_table(root / "avatars.parquet", columns=["face_id", "uri_bundle", "status", "latest"]).to_pylist()
    found = {r["face_id"]: root / r["uri_bundle"] for r in rows if r["status"] == "done" and r["latest"]}
    missing = [i for i in ids if i not in found]
    if missing:
        raise SystemExit(f"{root} has no finished avatar {missing[0]!r}")
    return [found[i] for i in ids or sorted(found)]


@torch.no_grad()
def picture(folder: Path, pose: tuple[str, float, tuple[float, float, float]], size: int) -> Tensor:
    """One avatar in one pose, ``[3, size, size]``."""
    expression, azimuth, degrees = pose
    bundle = load_bundle(folder)
    params = with_expression(bundle.rig, bundle.params, expression)
    params = params.replace(head=torch.deg2rad(torch.tensor([degrees], dtype=torch.float32)))
    camera = bundle_camera(bundle, azimuth, 2.0, size)
    return render(bundle.pose(params), camera, bundle.background, bundle.avatar.sh_degree)[0]


def main() -> None:
    """Render and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("out", help="a picture file, e.g. sheet.png")
    parser.add_argument("ids", nargs="*", help="face_ids; all where absent")
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--size", type=int, default=256)
    options = parser.parse_args()
    folders = finished(options.root, options.ids)
    pictures = [picture(f, POSES[i % len(POSES)], options.size) for i, f in enumerate(folders)]
    Image.fromarray(to_uint8(contact_sheet(torch.stack(pictures), options.columns))).save(options.out, quality=88)


if __name__ == "__main__":
    main()
