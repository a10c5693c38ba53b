"""``ap3d animate``: a bundle, or every avatar of a dataset, and a motion to videos."""

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from ap3d.animation import LAYOUTS, PANELS, View, layout_frames
from ap3d.commands.animate_options import COLORS
from ap3d.errors import Ap3dError, DataFileError, InputError
from ap3d.ffmpeg import Audio, read_audio
from ap3d.motion import Motion, load_motion
from ap3d.motion.named import DEFAULT_FPS, DEFAULT_SECONDS
from ap3d.motion.procedural import PROCEDURAL, with_blinks
from ap3d.motion.speech import speaking
from ap3d.motion.timing import cut, looped, resampled, smoothed
from ap3d.portrait_job import checked_seed
from ap3d.splats.bundle import load_bundle
from ap3d.storage import Store
from ap3d.threads import use_threads
from ap3d.video import FORMATS, VideoWriter

_RANGES = {
    "fps": (1, 240), "seconds": (0.1, 86400), "max_seconds": (0.1, 86400), "smooth": (0, 1), "start": (0, 86400),
    "azimuth": (-360, 360), "elevation": (-90, 90),
}  # fmt: skip


@dataclass(frozen=True)
class Target:
    """One video to make: the bundle's location, and the store and name that the video goes to."""

    bundle: str
    store: Store
    name: str
    kind: str

    @property
    def path(self) -> str:
        """Where the video lies, for messages."""
        return f"{self.store.root.rstrip('/')}/{self.name}".removeprefix("./") if self.name else self.store.root


def animate(options: argparse.Namespace) -> int:
    """Render the videos and print the frame rates that were reached; 1 when some avatars of a dataset failed."""
    background = _checked(options)
    use_threads(None)
    batch, targets = _targets(options)
    if not batch:
        load_bundle(targets[0].bundle, options.rig)  # a wrong bundle is said before anything else is read
    targets[0].store.check_writable()
    audio = read_audio(options.audio) if options.audio else None
    motion = _motion(options, audio)
    _say(motion.notes, _audio_note(audio, motion, targets[0].kind))
    failed, said = 0, set(motion.notes)
    for target in targets:
        try:
            said |= _animate_one(options, target, motion, background, said)
        except Ap3dError as error:
            if not batch:
                raise
            failed += 1
            print(f"ap3d: {target.bundle}: {error}", file=sys.stderr)
    if batch:
        print(f"{len(targets) - failed} of {len(targets)} avatars animated")
    return 1 if failed else 0


def _animate_one(
    options: argparse.Namespace, target: Target, motion: Motion, background: Tensor | None, said: set[str]
) -> set[str]:
    """Make one video; returns the notes of its conversion, which are printed unless they were said before."""
    bundle = load_bundle(target.bundle, options.rig)
    driven = motion.to(bundle.rig)
    _say(n for n in driven.notes if n not in said)
    view = View(bundle, options.size, background, options.azimuth, options.elevation)
    columns, rows = PANELS[options.layout]
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (f"video.{target.kind}" if target.kind != "png" else "frames")
        if target.kind == "png":
            path.mkdir()
        with VideoWriter(
            path, target.kind, (columns * options.size, rows * options.size), driven.fps, alpha=background is None,
            audio=options.audio, seconds=driven.seconds,
        ) as writer:  # fmt: skip
            for frame in _tracked(layout_frames(view, driven, options.layout), len(driven)):
                writer.write(frame)
        rate = len(driven) / (time.perf_counter() - started)
        _deliver(path, target)
    print(
        f"{target.path}: {len(driven)} frames at {options.size} px ({options.layout}), {driven.fps:g} frames/s, "
        f"{driven.seconds:.2f} s; rendered at {rate:.1f} frames/s"
    )
    return set(driven.notes)


def _deliver(path: Path, target: Target) -> None:
    if target.kind != "png":
        target.store.write_bytes(target.name, path.read_bytes())
        return
    files = sorted(path.iterdir())
    for old in set(target.store.list(target.name)) - {f"{target.name}/{file.name}".lstrip("/") for file in files}:
        if re.fullmatch(r"\d{5}\.png", old.removeprefix(f"{target.name}/")):
            target.store.delete(old)  # of a longer motion that lay here: a player would show both
    for file in files:
        target.store.write_bytes(f"{target.name}/{file.name}".lstrip("/"), file.read_bytes())


def _checked(options: argparse.Namespace) -> Tensor | None:
    """Refuse what makes no sense; the background's colour ``[3]``, None for transparent."""
    for name, (low, high) in _RANGES.items():
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            raise InputError(f"--{name.replace('_', '-')} must lie from {low:g} to {high:g}, got {value:g}")
    checked_seed(options.seed)
    if not options.out:
        raise InputError("--out must name a file or a folder, got ''")
    if options.size < 16 or options.size > 4096 or options.size % 2:
        raise InputError(f"--size must be an even number from 16 to 4096, got {options.size}")
    if options.layout not in LAYOUTS:
        raise InputError(f"unknown layout {options.layout!r}; there are: {', '.join(LAYOUTS)}")
    if options.background == "transparent":
        return None
    text = COLORS.get(options.background, options.background)
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise InputError(
            f"--background must be #rrggbb, transparent or one of {', '.join(COLORS)}, got {options.background!r}"
        )
    return torch.tensor([int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def _targets(options: argparse.Namespace) -> tuple[bool, list[Target]]:
    """Whether this is a dataset, and the videos to make."""
    store = Store(options.bundle)
    if not store.exists("avatar.json") and store.exists("avatars.parquet"):
        kind = options.format or "mp4"
        _check_alpha(options, kind)
        out = Store(options.out)
        suffix = "" if kind == "png" else f".{kind}"
        root = options.bundle.rstrip("/")
        return True, [Target(f"{root}/{uri}", out, face + suffix, kind) for face, uri in _avatars(store)]
    kind = _kind(options.out, options.format)
    _check_alpha(options, kind)
    if kind == "png":
        return False, [Target(options.bundle, Store(options.out), "", kind)]
    folder, _, name = options.out.rpartition("/")
    return False, [Target(options.bundle, Store(folder or "/" if "/" in options.out else "."), name, kind)]


def _kind(out: str, stated: str | None) -> str:
    suffix = Path(out).suffix.lower().removeprefix(".")
    if stated == "png" or out.endswith("/") or (not suffix and stated is None):
        return "png"
    if suffix not in FORMATS[:2] or stated not in (None, suffix):
        raise InputError(f"--out must end in .mp4 or .webm, or be a folder for PNG frames, got {out!r}")
    return suffix


def _check_alpha(options: argparse.Namespace, kind: str) -> None:
    if options.background == "transparent" and kind == "mp4":
        raise InputError("an mp4 holds no transparency: take a .webm, PNG frames, or a background colour")


def _avatars(store: Store) -> list[tuple[str, str]]:
    """Ids and bundles, relative to the root, of a dataset's finished avatars."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = ["face_id", "uri_bundle", "latest"]
        rows = pq.read_table(pa.BufferReader(store.read_bytes("avatars.parquet")), columns=columns).to_pylist()
    except pa.ArrowException as error:
        raise DataFileError(f"{store.root}/avatars.parquet is damaged or no dataset of avatars") from error
    found = sorted((r["face_id"], r["uri_bundle"]) for r in rows if r["latest"] and r["uri_bundle"])
    if not found:
        raise DataFileError(f"{store.root}/avatars.parquet lists no finished avatar")
    return found


def _motion(options: argparse.Namespace, audio: Audio | None) -> Motion:
    """The motion at the video's frame rate, cut, smoothed and closed as asked."""
    if options.motion is None and audio is not None:
        motion = speaking(audio, options.fps or DEFAULT_FPS, options.seed)
    else:
        name, length = options.motion or "talk", options.seconds or (audio.seconds if audio else DEFAULT_SECONDS)
        if name in PROCEDURAL:
            _check_length(length, options)
        motion = load_motion(
            name, seconds=options.start + length, fps=options.fps, seed=options.seed,
            file_fps=options.motion_fps, basis=options.basis,
        )  # fmt: skip
    motion = cut(motion, options.start, options.seconds)
    _check_length(motion.seconds, options)
    motion = smoothed(motion, options.smooth)
    motion = looped(motion) if options.loop else motion
    motion = resampled(motion, options.fps or motion.fps)
    return with_blinks(motion, options.seed) if options.blinks else motion


def _check_length(seconds: float, options: argparse.Namespace) -> None:
    if seconds > options.max_seconds:
        raise InputError(
            f"the motion lasts {seconds:.0f} s, more than --max-seconds {options.max_seconds:g}: "
            "cut it with --start and --seconds, or raise the limit"
        )


def _audio_note(audio: Audio | None, motion: Motion, kind: str) -> str:
    if audio is not None and kind == "png":
        return "PNG frames hold no sound; the audio is left out"
    if audio is None or abs(audio.seconds - motion.seconds) < 1.5 / motion.fps:
        return ""
    what = "its end is cut off" if audio.seconds > motion.seconds else "the end of the video is silent"
    return f"the audio lasts {audio.seconds:.2f} s, the motion {motion.seconds:.2f} s: {what}"


def _say(notes: Iterable[str], *more: str) -> None:
    for note in (*notes, *more):
        if note:
            print(f"note: {note}", file=sys.stderr)


def _tracked(frames: Iterator[Tensor], count: int) -> Iterator[Tensor]:
    console = Console(stderr=True)
    return iter(track(frames, "frames", total=count, console=console, disable=not console.is_terminal))
