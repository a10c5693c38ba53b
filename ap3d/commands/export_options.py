"""The options of ``ap3d export``; nothing heavy is imported here."""

import argparse
from collections.abc import Callable

from ap3d.commands.animate_options import MOTIONS
from ap3d.export.formats import AXES, FORMAT_NAMES, FORMATS, MESH_FORMAT


def add_export(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", run: Callable[[argparse.Namespace], int]
) -> None:
    """Add the command to a parser."""
    about = "; ".join([*(f"{name}: {f.about}" for name, f in FORMATS.items()), f"{MESH_FORMAT}: rigged mesh as glTF"])
    export = commands.add_parser("export", help="write a bundle, posed, for other programs", epilog=about)
    add = export.add_argument
    add("bundle", help="folder or zip of an avatar bundle")
    add(
        "--rig",
        metavar="FILE",
        help="model file of the rig that the bundle was made for, where $AP3D_RIGS does not name it",
    )
    add("--format", required=True, metavar="FORMAT", help=", ".join(FORMAT_NAMES))
    add("--out", required=True, metavar="FILE", help="its ending fits the format")
    pose = export.add_argument_group("pose")
    add = pose.add_argument
    add("--expression", metavar="NAME[=VALUE],...", help="e.g. smile, or jawOpen=0.6,eyeBlinkLeft (default: neutral)")
    angles = ("PITCH", "YAW", "ROLL")
    add("--head", type=float, nargs=3, metavar=angles, help="degrees: down, to the subject's left, to the right ear")
    add("--motion", help=f"{', '.join(MOTIONS)}, or a motion file as for animate")
    add("--frame", type=int, help=f"of the motion (default: 0; {MESH_FORMAT}: all of them, as the file's animation)")
    add("--motion-fps", type=float, metavar="F", help="rate that the file was recorded at, where it does not say")
    add("--basis", help="flame2020 or flame2023: what a FLAME file was tracked with, where the usual does not hold")
    add("--seconds", type=float, metavar="S", help="length of a built-in motion (default 4)")
    add("--seed", type=int, default=0, help="of built-in motions")
    output = export.add_argument_group("output")
    add = output.add_argument
    add("--axes", help=f"{', '.join(AXES)} (default: what the format's viewers expect; docs/exports.md)")
    add("--texture-size", type=int, default=1024, metavar="N", help=f"side in texels, for {MESH_FORMAT} (default 1024)")
    export.set_defaults(run=run)
