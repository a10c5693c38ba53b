"""The options of ``ap3d animate``; nothing heavy is imported here."""

import argparse
from collections.abc import Callable

MOTIONS = ("talk", "blink", "look", "express", "nod")
LAYOUTS = ("front", "orbit", "four-view", "mesh-overlay")
FORMATS = ("mp4", "webm", "png")
COLORS = {
    "grey": "#ebebed", "white": "#ffffff", "black": "#000000", "green": "#00b140", "blue": "#0047bb",
}  # fmt: skip


def add_animate(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", run: Callable[[argparse.Namespace], int]
) -> None:
    """Add the command to a parser."""
    animate = commands.add_parser(
        "animate",
        help="render a bundle, or every avatar of a dataset, along a motion",
        description="Render an avatar along a motion file, a built-in motion, or sound.",
    )
    add = animate.add_argument
    add("bundle", help="folder or zip of an avatar bundle, or a dataset's root (every avatar in its avatars.parquet)")
    add("--rig", metavar="FILE", help="SMPL-X or FLAME file of the user's, for avatars made on one (or set AP3D_RIGS)")
    motion = animate.add_argument_group("motion")
    add = motion.add_argument
    add(
        "--motion",
        help=f"{', '.join(MOTIONS)} (built in; talk is the default), or a file: ARKit-52 CSV (Live Link Face), "
        "Audio2Face or LAM JSON, VHAP export folder or tracked npz, folder with expressions.npy and poses.npy "
        "(AnimPortrait3D), "
        "SMPL-X npz, ap3d motion npz",
    )
    add("--audio", metavar="FILE", help="sound for the video; without --motion it also drives jaw and lips (simple)")
    add("--motion-fps", type=float, metavar="F", help="rate that the file was recorded at, where it does not say")
    add("--basis", help="flame2020 or flame2023: what a FLAME file was tracked with, where the usual does not hold")
    add("--start", type=float, default=0.0, metavar="S", help="begin at this second of the motion")
    add("--seconds", type=float, metavar="S", help="length (built-in motions: 4 by default; files: to their end)")
    add("--max-seconds", type=float, default=600.0, metavar="S", help="refuse longer motions (default 600)")
    add(
        "--smooth",
        type=float,
        default=0.0,
        metavar="S",
        help="width of a Gaussian over time, seconds (0.03: trembling)",
    )
    add("--loop", action="store_true", help="fade the end into the start, so that the video can be repeated")
    add("--blinks", action="store_true", help="add blinks, for motions without lids (FLAME trackers)")
    add("--seed", type=int, default=0, help="of built-in motions and added blinks")
    picture = animate.add_argument_group("picture")
    add = picture.add_argument
    add("--layout", default="front", help=f"{', '.join(LAYOUTS)} (default: front)")
    add("--size", type=int, default=512, help="side of one panel in pixels, even (default 512)")
    add("--fps", type=float, help="frames per second of the video, e.g. 25, 30, 60 (default: the motion's own)")
    add("--azimuth", type=float, default=0.0, help="camera, degrees to the subject's left")
    add("--elevation", type=float, default=2.0, help="camera, degrees upwards")
    add("--background", default="grey", help=f"#rrggbb, {', '.join(COLORS)}, or transparent (WebM, PNG); default grey")
    output = animate.add_argument_group("output")
    add = output.add_argument
    add("--out", required=True, metavar="PATH", help="X.mp4, X.webm, or a folder: PNG frames; datasets: a folder")
    add("--format", choices=FORMATS, help="of a dataset's videos (default mp4), or png frames into the folder --out")
    animate.set_defaults(run=run)
