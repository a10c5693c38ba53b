"""``ap3d export``: a bundle at any expression and pose as a file for other programs."""

import argparse
import math
import sys
from pathlib import Path

import torch

from ap3d.errors import InputError
from ap3d.export.formats import MESH_FORMAT, export_format
from ap3d.export.gaussians import export_gaussians, with_expression
from ap3d.motion import Motion, load_motion
from ap3d.portrait_job import checked_seed
from ap3d.rig.protocol import RigParams
from ap3d.splats.bundle import Bundle, load_bundle
from ap3d.storage import Store

MOST_FRAMES = 36_000  # ten minutes at 60 a second


def export(options: argparse.Namespace) -> int:
    """Write the file and say what it holds."""
    _check(options)
    out = Path(options.out)
    target = Store(str(out.parent))
    target.check_writable()
    bundle = load_bundle(options.bundle, options.rig)
    motion = _motion(options, bundle)
    params = _posed(bundle, options, motion)
    data, about = (
        _mesh(bundle, params, options, motion) if options.format == MESH_FORMAT else _splats(bundle, params, options)
    )
    target.write_bytes(out.name, data)
    print(f"{options.out}: {about}, {len(data) / 1e6:.1f} MB")
    return 0


def _splats(bundle: Bundle, params: RigParams, options: argparse.Namespace) -> tuple[bytes, str]:
    _, axes = export_format(options.format, options.axes)
    data = export_gaussians(bundle, params, options.format, options.axes)
    flat = " without view dependence" if options.format == "splat" and bundle.avatar.sh_degree else ""
    return data, f"{len(bundle.avatar):,} Gaussians as {options.format}{flat}, {axes}"


def _mesh(bundle: Bundle, params: RigParams, options: argparse.Namespace, motion: Motion | None) -> tuple[bytes, str]:
    from ap3d.export.mesh_glb import export_mesh, target_names

    data = export_mesh(bundle, params, motion if options.frame is None else None, options.texture_size)
    moving = f" and {len(motion)} frames of motion" if motion is not None and options.frame is None else ""
    targets = len(target_names(bundle.rig))
    return data, f"mesh of rig {bundle.rig.name} with {targets} morph targets{moving}"


def _posed(bundle: Bundle, options: argparse.Namespace, motion: Motion | None) -> RigParams:
    params = bundle.params
    if motion is not None:
        frame = options.frame or 0
        if not 0 <= frame < len(motion):
            raise InputError(f"--frame must lie from 0 to {len(motion) - 1} for this motion, got {frame}")
        params = motion.params(params, frame)
    if options.expression is not None:
        params = with_expression(bundle.rig, params, options.expression)
    if options.head is not None:
        params = params.replace(head=torch.tensor([[math.radians(angle) for angle in options.head]]))
    return params


def _motion(options: argparse.Namespace, bundle: Bundle) -> Motion | None:
    """The motion in the rig's own basis; what the conversion dropped is said."""
    if options.motion is None:
        return None
    motion = load_motion(
        options.motion, seconds=options.seconds, seed=options.seed, file_fps=options.motion_fps, basis=options.basis
    ).to(bundle.rig)
    if len(motion) > MOST_FRAMES:
        raise InputError(f"the motion has {len(motion)} frames, more than {MOST_FRAMES}: cut it into parts")
    for note in motion.notes:
        print(f"note: {note}", file=sys.stderr)
    return motion


def _check(options: argparse.Namespace) -> None:
    if options.format == MESH_FORMAT:
        suffix = ".glb"
        if options.axes is not None and options.axes != "y-up":
            raise InputError("the specification of glTF fixes its axes to y-up; leave out --axes")
    else:
        suffix = export_format(options.format, options.axes)[0].suffix
    if not options.out.lower().endswith(suffix):
        raise InputError(f"--out must end in {suffix} for format {options.format}, got {options.out!r}")
    if options.expression is not None and options.motion is not None:
        raise InputError("--expression and --motion exclude each other")
    if options.frame is not None and options.motion is None:
        raise InputError("--frame needs --motion")
    if options.head is not None and not all(abs(angle) <= 90 for angle in options.head):
        raise InputError(f"--head takes angles from -90 to 90 degrees, got {options.head}")
    if options.seconds is not None and not 0.1 <= options.seconds <= 600:
        raise InputError(f"--seconds must lie from 0.1 to 600, got {options.seconds:g}")
    checked_seed(options.seed)
    if not 64 <= options.texture_size <= 4096:
        raise InputError(f"--texture-size must lie from 64 to 4096, got {options.texture_size}")
