"""The ``ap3d`` command: one avatar at a time. Heavy packages are imported by the command that needs them."""

import argparse
import sys
from collections.abc import Sequence

from ap3d import __version__
from ap3d.commands.animate_options import add_animate
from ap3d.errors import Ap3dError
from ap3d.export.formats import AXES, FORMAT_NAMES, FORMATS, MESH_FORMAT
from ap3d.threads import prepare_environment


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    prepare_environment()
    try:
        return int(options.run(options))
    except Ap3dError as error:
        print(f"ap3d: {error}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        print("ap3d: interrupted; run the same command again to go on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ap3d", description="Text prompts to animatable 3D Gaussian head avatars.")
    parser.add_argument("--version", action="version", version=f"ap3d {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_generate(commands)
    add_animate(commands, _animate)
    _add_export(commands)
    _add_motion(commands)
    _add_inspect(commands)
    return parser


def _add_generate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    generate = commands.add_parser("generate", help="make one avatar from a prompt")
    generate.add_argument("prompt", help='for example "an old man with short gray hair, wearing a blue shirt"')
    generate.add_argument(
        "--out", required=True, metavar="DIR", help="folder of the bundle; its work lies in DIR/.work"
    )
    generate.add_argument("--preset", default="builtin", help="smoke, builtin (default), draft or paper")
    generate.add_argument("--config", metavar="FILE", help="YAML file with fields that replace the preset's")
    generate.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="replace one field, e.g. refine.rounds=1"
    )
    generate.add_argument("--seed", type=int, default=0, help="non-negative; fixes everything random")
    generate.add_argument(
        "--threads",
        type=int,
        default=None,
        help="CPU threads (default: 1 for the networks, all cores for the rasterisers)",
    )
    generate.add_argument("--device", default=None, help="torch device (default: cuda when there is one)")
    generate.add_argument("--keep-work", action="store_true", help="keep what the stages wrote")
    generate.set_defaults(run=_generate)


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    about = "; ".join([*(f"{name}: {f.about}" for name, f in FORMATS.items()), f"{MESH_FORMAT}: rigged mesh as glTF"])
    export = commands.add_parser("export", help="write a bundle, posed, for other programs", epilog=about)
    export.add_argument("bundle", help="folder of an avatar bundle")
    export.add_argument("--format", required=True, metavar="FORMAT", help=", ".join(FORMAT_NAMES))
    export.add_argument("--out", required=True, metavar="FILE", help="its ending fits the format")
    export.add_argument(
        "--expression", metavar="NAME[=VALUE],...", help="e.g. smile, or jawOpen=0.6,eyeBlinkLeft (default: neutral)"
    )
    export.add_argument(
        "--head", type=float, nargs=3, metavar=("PITCH", "YAW", "ROLL"), help="degrees; down, to the left, tilted"
    )
    export.add_argument("--motion", metavar="FILE", help="as for animate; with --frame one pose of it")
    export.add_argument(
        "--frame", type=int, default=None, help=f"of the motion (default: 0; {MESH_FORMAT}: all, as an animation)"
    )
    export.add_argument("--seed", type=int, default=0, help="of the built-in motion")
    export.add_argument(
        "--axes", metavar="AXES", help=f"{', '.join(AXES)} (default: what the format's viewers expect; docs/exports.md)"
    )
    export.add_argument("--texture-size", type=int, default=1024, help=f"side in pixels, for {MESH_FORMAT}")
    export.set_defaults(run=_export)


def _add_motion(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    motion = commands.add_parser("motion", help="track a face in a video: a motion file for animate")
    motion.add_argument("video", help="video file that shows one face from the front")
    motion.add_argument("--out", required=True, metavar="M.npz")
    motion.add_argument(
        "--fov", type=float, default=None, metavar="DEGREES", help="camera's field of view along the longer side (37)"
    )
    motion.add_argument(
        "--smooth", type=float, default=None, metavar="SECONDS", help="filter on head and gaze (0.03; 0: none)"
    )
    motion.add_argument("--max-seconds", type=float, default=600.0, help="refuse longer videos (600)")
    motion.add_argument("--detector", default="builtin", help="landmark detector (builtin)")
    motion.set_defaults(run=_motion)


def _add_inspect(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    inspect = commands.add_parser("inspect", help="say what a bundle holds")
    inspect.add_argument("bundle", help="folder of an avatar bundle")
    inspect.add_argument("--json", action="store_true", help="print avatar.json")
    inspect.set_defaults(run=_inspect)


def _generate(options: argparse.Namespace) -> int:
    from ap3d.commands.generate import generate

    return generate(options)


def _animate(options: argparse.Namespace) -> int:
    from ap3d.commands.animate import animate

    return animate(options)


def _export(options: argparse.Namespace) -> int:
    from ap3d.commands.export import export

    return export(options)


def _motion(options: argparse.Namespace) -> int:
    from ap3d.commands.motion import motion

    return motion(options)


def _inspect(options: argparse.Namespace) -> int:
    from ap3d.commands.inspect import inspect

    return inspect(options)


if __name__ == "__main__":
    sys.exit(main())
