"""Bound Gaussians: python benchmarks/binding.py [--quick] [--json FILE] [--bundle DIR] [--figure FILE.png]

Times of posing 60,000 Gaussians with one triangle and with four (one thread unless AP3D_THREADS says more), and of a
bundle's way to the disk and back. With a bundle: how far neighbouring Gaussians of its hair are pulled apart by a head
turn of 60 degrees, carried by the nearest triangle of the scalp and by all of theirs, and a picture of both.
"""

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("AP3D_THREADS", "1")

import torch
from scipy.spatial import cKDTree

from ap3d.animation import bundle_camera, render
from ap3d.pictures import contact_sheet, png_bytes
from ap3d.rig import load_rig
from ap3d.rig.protocol import RigParams
from ap3d.splats.avatar import GaussianAvatar, Group, group_counts
from ap3d.splats.bundle import Bundle
from ap3d.splats.carriers import moved_to
from ap3d.splats.facts import SCHEMA_VERSION
from ap3d.splats.frames import triangle_frames
from ap3d.splats.initial import surface_avatar

COUNT, TURN = 60_000, math.radians(60)


def synthetic(degree: int, triangles: int, count: int) -> Bundle:
    """Gaussians on the built-in rig; with more triangles than one, every Gaussian is blended."""
    rig, g = load_rig("builtin"), torch.Generator().manual_seed(0)
    params = RigParams.neutral(rig)
    vertices = rig.vertices(params)[0]
    avatar = surface_avatar(rig, vertices, count, g).with_sh_degree(degree)
    others = torch.randint(len(rig.faces), (count, triangles - 1), generator=g)
    ids = torch.cat([avatar.binding[:, None], others], 1)
    avatar = avatar.bound_to(ids, torch.full((count, triangles), 1 / triangles))
    facts = {
        "schema_version": SCHEMA_VERSION, "rig": rig.name, "topology_sha256": rig.topology_sha256, "prompt": "",
        "metrics": {}, "groups": group_counts(avatar), "triangles": triangles,
    }  # fmt: skip
    return Bundle(facts, avatar, params, rig, triangle_frames(vertices, rig.faces))


def best(function: Callable[[], object], repeats: int) -> float:
    """Shortest time in milliseconds."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def timings(count: int, repeats: int) -> list[dict[str, object]]:
    """Rows of the first table."""
    rows = []
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        for degree, triangles in ((0, 1), (0, 4), (3, 1), (3, 4)):
            bundle = synthetic(degree, triangles, count)
            vertices, faces = bundle.rig.vertices(bundle.params)[0], bundle.rig.faces
            work: dict[str, Callable[[], object]] = {
                "frames and posing": lambda b=bundle, v=vertices, f=faces: b.avatar.pose(
                    triangle_frames(v, f), b.neutral
                ),
                "save": lambda b=bundle: b.save(f"{folder}/b"),
                "load": lambda: Bundle.open(f"{folder}/b"),
            }
            case = f"degree {degree}, {triangles} triangles"
            rows += [{"case": f"{case}: {name}", "ms": best(f, repeats)} for name, f in work.items()]
    return rows


def stretches(bundle: Bundle, avatar: GaussianAvatar, params: RigParams) -> torch.Tensor:
    """By what factor the distances of a hair Gaussian to its four neighbours at rest grow."""
    hair = avatar.group == int(Group.HAIR)
    rest, moved = (Bundle(bundle.facts, avatar, bundle.params, bundle.rig, bundle.neutral).pose(p).means[hair]
                   for p in (bundle.params, params))  # fmt: skip
    _, near = cKDTree(rest.numpy()).query(rest.numpy(), k=5)
    index = torch.from_numpy(near[:, 1:])
    length = lambda x: (x[index] - x[:, None]).norm(dim=2)  # noqa: E731
    return length(moved) / length(rest).clamp(min=1e-4)


def on_scalp(bundle: Bundle) -> GaussianAvatar:
    """Hair on the nearest triangle of the scalp alone, as AnimPortrait3D binds it."""
    avatar, scalp = bundle.avatar, bundle.rig.regions["scalp"]
    hair = avatar.group == int(Group.HAIR)
    points = bundle.pose(bundle.params).means[hair]
    binding = avatar.binding.clone()
    binding[hair] = scalp[torch.from_numpy(cKDTree(bundle.neutral.origin[scalp].numpy()).query(points.numpy())[1])]
    return moved_to(avatar.single(), binding, bundle.neutral)


def tearing(bundle: Bundle, figure: str | None) -> list[dict[str, object]]:
    """Rows of the second table, and the picture."""
    turned = bundle.params.replace(
        neck=torch.tensor([[0.0, 0.4 * TURN, 0.0]]), head=torch.tensor([[0.0, 0.6 * TURN, 0.0]])
    )
    rows, pictures = [], []
    cases = {"nearest triangle of the scalp": on_scalp(bundle), "all triangles": bundle.avatar}
    for case, avatar in cases.items():
        stretch = stretches(bundle, avatar, turned)
        rows.append({"case": case, "p99": float(stretch.quantile(0.99)), "max": float(stretch.max())})
        shown = Bundle(bundle.facts, avatar, bundle.params, bundle.rig, bundle.neutral)
        for params, azimuth in ((bundle.params, 0.0), (turned, 0.0), (turned, 60.0), (turned, 150.0)):
            camera = bundle_camera(bundle, azimuth, 2.0, 256)
            pictures.append(render(shown.pose(params), camera, bundle.background, avatar.sh_degree)[0])
    if figure:
        Path(figure).write_bytes(png_bytes(contact_sheet(torch.stack(pictures), 4)))
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--bundle", metavar="DIR")
    parser.add_argument("--figure", metavar="FILE.png")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = timings(COUNT // 10 if options.quick else COUNT, 2 if options.quick else 7)
    for row in rows:
        print(f"{row['case']:45} {row['ms']:8.1f} ms")
    if options.bundle:
        torn = tearing(Bundle.open(options.bundle), options.figure)
        for row in torn:
            print(f"60 degrees, {row['case']:30} stretch: 99 % under {row['p99']:.2f}, largest {row['max']:.1f}")
        rows += torn
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
