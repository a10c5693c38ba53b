"""``ap3d import``: a finished avatar of GaussianAvatars or AnimPortrait3D to a bundle."""

import argparse

from ap3d.animation import bundle_camera, render
from ap3d.bundle_files import open_files
from ap3d.errors import DataFileError, InputError
from ap3d.importing import import_avatar
from ap3d.pictures import png_bytes

PREVIEW_SIZE = 512


def run_import(options: argparse.Namespace) -> int:
    """Write the bundle and say what could not come along."""
    _refuse_existing(options.out)
    imported = import_avatar(
        options.path, options.rig, options.params, historic=options.historic, vertex_list=options.vertex_list,
        teeth=options.teeth,
    )  # fmt: skip
    bundle = imported.bundle
    camera = bundle_camera(bundle, 0.0, 2.0, PREVIEW_SIZE)
    picture = render(bundle.pose(bundle.params), camera, bundle.background, bundle.avatar.sh_degree)[0]
    bundle.save(options.out, {"preview.png": png_bytes(picture)})
    for note in imported.notes:
        print(f"note: {note}")
    print(f"{options.out}: {len(bundle.avatar)} Gaussians on rig {bundle.rig.name}")
    return 0


def _refuse_existing(out: str) -> None:
    try:
        held = open_files(out).exists("avatar.json")
    except DataFileError:
        return  # a zip that is not there yet
    if held:
        raise InputError(f"{out} holds an avatar already; choose another --out or remove it")
