"""The ``ap3d`` command: one avatar at a time. Heavy packages are imported by the command that needs them."""

import argparse
import sys
from collections.abc import Sequence

from ap3d import __version__
from ap3d.commands.animate_options import add_animate
from ap3d.commands.export_options import add_export
from ap3d.errors import Ap3dError
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
    add_export(commands, _export)
    _add_motion(commands)
    _add_inspect(commands)
    _add_import(commands)
    _add_convert(commands)
    return parser


def _add_generate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    generate = commands.add_parser("generate", help="make one avatar from a prompt, or from a Portrait3D result")
    generate.add_argument(
        "prompt", nargs="?", help='for example "an old man with short gray hair, wearing a blue shirt"'
    )
    generate.add_argument(
        "--portrait", metavar="ID.pth", help="start from this Portrait3D result; the prompt is that of ID.txt beside it"
    )
    generate.add_argument(
        "--abstract-prompt",
        metavar="TEXT",
        help='age and gender for close-ups ("an old man"); by default the prompt\'s',
    )
    generate.add_argument(
        "--out", required=True, metavar="DIR", help="folder of the bundle; its work lies in DIR/.work"
    )
    generate.add_argument("--preset", default="builtin", help="smoke, builtin (default), draft or paper")
    generate.add_argument("--config", metavar="FILE", help="YAML file with fields that replace the preset's")
    generate.add_argument(
        "--rig",
        metavar="FILE",
        help="your SMPL-X 2020 or FLAME model file (default: the built-in head); see docs/rigs.md",
    )
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
    motion.add_argument(
        "--no-level", dest="level", action="store_false", help="keep the head's mean turn (default: taken as straight)"
    )
    motion.add_argument("--max-seconds", type=float, default=600.0, help="refuse longer videos (600)")
    motion.add_argument("--detector", default="builtin", help="landmark detector (builtin)")
    motion.set_defaults(run=_motion)


def _add_inspect(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    inspect = commands.add_parser("inspect", help="say what a bundle holds")
    inspect.add_argument("bundle", help="folder or zip of an avatar bundle")
    inspect.add_argument(
        "--rig",
        metavar="FILE",
        help="model file of the rig that the bundle was made for, where $AP3D_RIGS does not name it",
    )
    inspect.add_argument("--json", action="store_true", help="print avatar.json")
    inspect.set_defaults(run=_inspect)


def _add_import(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    add = commands.add_parser("import", help="make a bundle of an avatar of GaussianAvatars or AnimPortrait3D")
    add.add_argument("path", help="the avatar's PLY, or the folder that holds it and its parameters")
    add.add_argument("--rig", required=True, metavar="FILE", help="your FLAME 2023 or SMPL-X 2020 model file")
    add.add_argument("--out", required=True, metavar="DIR", help="folder of the bundle, or a name that ends in .zip")
    add.add_argument("--params", metavar="FILE", help="flame_param.npz or fitted_params.pkl, where it lies elsewhere")
    add.add_argument(
        "--historic", action=argparse.BooleanOptionalAction, default=None,
        help="quaternions are local before triangle (default: yes for AnimPortrait3D, no for GaussianAvatars)",
    )  # fmt: skip
    add.add_argument("--vertex-list", metavar="FILE", help="AnimPortrait3D's valid_vert_id.npy")
    add.add_argument("--teeth", metavar="DIR", help="folder of AnimPortrait3D's upper_teeth.obj and lower_teeth.obj")
    add.set_defaults(run=_import)


def _add_convert(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    convert = commands.add_parser("convert-weights", help="networks of Portrait3D's tri-grids to safetensors")
    convert.add_argument("source", metavar="FILE", help="model_512.pkl or decoder_512.ckpt of 3DPortraitGAN_pyramid")
    convert.add_argument("out", metavar="OUT.safetensors")
    convert.set_defaults(run=_convert)


def _convert(options: argparse.Namespace) -> int:
    from ap3d.commands.convert_weights import convert_weights

    return convert_weights(options)


def _import(options: argparse.Namespace) -> int:
    from ap3d.commands.import_avatar import run_import

    return run_import(options)


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
