"""``ap3d motion``: the face in a video to a motion file."""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from ap3d.errors import InputError
from ap3d.motion.native import write_native
from ap3d.motion.video import FOV_DEGREES, SMOOTH_SECONDS, motion_from_track, track_video
from ap3d.perception import load_landmark_detector
from ap3d.rig.builtin import BuiltinRig
from ap3d.storage import Store
from ap3d.threads import use_threads


def motion(options: argparse.Namespace) -> int:
    """Track the video, fit the rig, write the npz, and print what was found at which rate."""
    fov = FOV_DEGREES if options.fov is None else options.fov
    smooth = SMOOTH_SECONDS if options.smooth is None else options.smooth
    _check(options, fov, smooth)
    out = Path(options.out)
    target = Store(str(out.parent))
    target.check_writable()
    use_threads(None)
    detector = load_landmark_detector(options.detector)
    started = time.perf_counter()
    with _progress() as progress:
        track = track_video(options.video, detector, options.max_seconds, progress)
    result = motion_from_track(track, BuiltinRig.load(), fov_degrees=fov, smooth_seconds=smooth, level=options.level)
    target.write_bytes(out.name, write_native(result))
    for note in result.notes:
        print(f"note: {note}")
    rate = len(result) / (time.perf_counter() - started)
    print(f"{options.out}: {len(result)} frames at {result.fps:g} frames/s, tracked at {rate:.1f} frames/s")
    return 0


def _check(options: argparse.Namespace, fov: float, smooth: float) -> None:
    if not options.out.endswith(".npz"):
        raise InputError(f"--out must end in .npz, got {options.out!r}")
    if not 5 <= fov <= 150:
        raise InputError(f"--fov must lie from 5 to 150 degrees, got {fov:g}")
    if not 0 <= smooth <= 2:
        raise InputError(f"--smooth must lie from 0 to 2 seconds, got {smooth:g}")
    if not 0.1 <= options.max_seconds <= 36000:
        raise InputError(f"--max-seconds must lie from 0.1 to 36000, got {options.max_seconds:g}")


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("frame {task.completed}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("frames", total=None)
        yield lambda done: bar.update(task, completed=done)
