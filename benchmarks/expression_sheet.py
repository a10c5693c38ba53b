"""A sheet of one avatar: python benchmarks/expression_sheet.py BUNDLE OUT.jpg [--rig FILE] [--size 208]

Five expressions in rows, each with its own turn of the head; in columns four full views, then the face, an eye and the
mouth from close by, where holes in lids and teeth that leave their jaw would show.
"""

import argparse
import math
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("AP3D_THREADS", "1")

import torch
from PIL import Image
from torch import Tensor

from ap3d.animation import bundle_camera, render
from ap3d.export.gaussians import with_expression
from ap3d.framing import framing_boxes
from ap3d.pictures import contact_sheet, to_uint8
from ap3d.rig.protocol import RigParams
from ap3d.splats.bundle import Bundle, load_bundle

POSES = (  # expression; pitch, yaw and roll of the head in degrees
    ("blink", (0, 0, 0)),
    ("open", (0, 0, 0)),
    ("grin", (0, 15, 5)),
    ("surprise,eyeLookInLeft=0.8,eyeLookOutRight=0.8", (-8, -25, 0)),
    ("frown,blink=0.5", (15, 40, 0)),
)
AZIMUTHS = (0.0, 40.0, -85.0, 180.0)
CLOSE_UPS = ("face", "left_eye", "mouth")
FULL = 512


def row(bundle: Bundle, params: RigParams, size: int) -> list[Tensor]:
    """The seven pictures ``[3, size, size]`` of a pose."""
    splats, degree = bundle.pose(params), bundle.avatar.sh_degree
    cameras = [bundle_camera(bundle, azimuth, 2.0, size) for azimuth in AZIMUTHS]
    front = bundle_camera(
        bundle, math.degrees(float(params.head[0, 1])), 2.0, FULL
    )  # looks the turned head in the face
    landmarks = front.project(bundle.rig.landmarks(params))[0]
    cameras += [front.crop(framing_boxes(landmarks, name, FULL), size) for name in CLOSE_UPS]
    return [render(splats, camera, bundle.background, degree)[0] for camera in cameras]


@torch.no_grad()
def main() -> None:
    """Render and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("out", help="a picture file, e.g. sheet.jpg")
    parser.add_argument("--rig", help="the user's model file, for avatars on one")
    parser.add_argument("--size", type=int, default=208)
    options = parser.parse_args()
    bundle = load_bundle(options.bundle, options.rig)
    pictures = []
    for expression, degrees in POSES:
        params = with_expression(bundle.rig, bundle.params, expression)
        turned = params.replace(head=torch.deg2rad(torch.tensor([degrees], dtype=torch.float32)))
        pictures += row(bundle, turned, options.size)
    sheet = contact_sheet(torch.stack(pictures), len(AZIMUTHS) + len(CLOSE_UPS))
    Image.fromarray(to_uint8(sheet)).save(options.out, quality=88)


if __name__ == "__main__":
    main()
