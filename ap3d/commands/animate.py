"""``ap3d animate``: a bundle and a motion to a video."""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from ap3d.animation import motion_frames
from ap3d.errors import InputError
from ap3d.motion import Motion, read_motion
from ap3d.motion.procedural import talking
from ap3d.pictures import mp4_bytes
from ap3d.splats.bundle import Bundle, load_bundle
from ap3d.storage import Store


def animate(options: argparse.Namespace) -> int:
    """Render the video and print the frame rate that was reached."""
    _check(options)
    bundle = load_bundle(options.bundle)
    motion = _motion(options, bundle)
    fps = options.fps or motion.fps
    out = Path(options.out)
    target = Store(str(out.parent))
    target.check_writable()
    started = time.perf_counter()
    video = mp4_bytes(_tracked(motion_frames(bundle, motion, options.size, options.azimuth), len(motion)), round(fps))
    target.write_bytes(out.name, video)
    rate = len(motion) / (time.perf_counter() - started)
    print(f"{options.out}: {len(motion)} frames at {options.size} px, rendered at {rate:.1f} frames/s")
    return 0


def _check(options: argparse.Namespace) -> None:
    if not options.out.endswith(".mp4"):
        raise InputError(f"--out must end in .mp4, got {options.out!r}")
    if options.size < 16 or options.size > 4096 or options.size % 2:
        raise InputError(f"--size must be an even number from 16 to 4096, got {options.size}")
    if options.fps is not None and not 1 <= options.fps <= 240:
        raise InputError(f"--fps must lie from 1 to 240, got {options.fps}")
    if not 0.1 <= options.seconds <= 600:
        raise InputError(f"--seconds must lie from 0.1 to 600, got {options.seconds}")


def _motion(options: argparse.Namespace, bundle: Bundle) -> Motion:
    names = tuple(bundle.rig.expression_names)
    if options.motion == "talk":
        generator = torch.Generator().manual_seed(options.seed)
        return talking(names, options.seconds, options.fps or 25.0, generator)
    return read_motion(options.motion, fps=options.fps)


def _tracked(frames: Iterator[Tensor], count: int) -> Iterator[Tensor]:
    console = Console(stderr=True)
    return iter(track(frames, "frames", total=count, console=console, disable=not console.is_terminal))
