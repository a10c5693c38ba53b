"""``ap3d animate`` on a tiny avatar: layouts, formats, frame rates, sound, datasets, and what it refuses."""

import re
import subprocess
import wave
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ap3d.cli import main
from ap3d.ffmpeg import ffmpeg_path, read_audio
from ap3d.motion import load_motion
from ap3d.motion.native import save_native
from tests.motion import layouts
from tests.tiny_avatar import write_tiny_bundle

QUICK = ["--size", "48", "--seconds", "0.4"]


@pytest.fixture(scope="module")
def bundle(rig, tmp_path_factory: pytest.TempPathFactory) -> str:  # type: ignore[no-untyped-def]
    return str(write_tiny_bundle(tmp_path_factory.mktemp("avatars") / "plain", rig))


def sound(path: Path, seconds: float) -> str:
    """A humming WAV file of 16 bits."""
    t = np.arange(int(seconds * 16_000)) / 16_000
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes((12_000 * np.sin(2 * np.pi * 220 * t) * np.sin(9 * t) ** 2).astype("<i2").tobytes())
    return str(path)


def streams(path: Path) -> str:
    """What ffmpeg says about a file."""
    return subprocess.run([ffmpeg_path(), "-hide_banner", "-i", str(path)], capture_output=True, text=True).stderr


@pytest.mark.parametrize(
    ("layout", "shape"),
    [("front", (48, 48)), ("orbit", (48, 48)), ("four-view", (96, 96)), ("mesh-overlay", (48, 96))],
)
def test_layouts(layout: str, shape: tuple[int, int], bundle: str, tmp_path: Path) -> None:
    out = tmp_path / "x.mp4"
    assert main(["animate", bundle, "--layout", layout, "--out", str(out), *QUICK]) == 0
    frames = imageio.imread(out).astype(float)
    assert frames.shape == (10, *shape, 3)
    described = streams(out)
    assert "h264" in described and "yuv420p" in described and "25 fps" in described
    data = out.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")  # starts while it loads
    if layout == "orbit":  # the shirt's and the face's colours change places as the camera goes round
        assert np.abs(frames[0] - frames[5]).mean() > 4
    if layout == "mesh-overlay":
        assert np.abs(frames[0, :, :48] - frames[0, :, 48:]).mean() > 8
    if layout == "four-view":
        profiles = frames[0, 48:, :48], frames[0, 48:, 48:][:, ::-1]
        assert np.abs(profiles[0] - profiles[1]).mean() < np.abs(frames[0, :48, :48] - profiles[0]).mean()


def test_the_background_has_the_colour_that_was_asked_for(bundle: str, tmp_path: Path) -> None:
    out = tmp_path / "x.mp4"
    assert main(["animate", bundle, "--background", "#20a060", "--out", str(out), *QUICK]) == 0
    corner = imageio.imread(out)[0, :6, :6].reshape(-1, 3).mean(0)
    np.testing.assert_allclose(corner, [0x20, 0xA0, 0x60], atol=5)


def test_png_frames_and_webm_are_transparent_round_the_head(bundle: str, tmp_path: Path) -> None:
    transparent = ["--background", "transparent", "--size", "96", "--seconds", "0.2"]
    assert main(["animate", bundle, *transparent, "--out", str(tmp_path / "frames")]) == 0
    names = sorted(p.name for p in (tmp_path / "frames").iterdir())
    assert names == [f"{i:05d}.png" for i in range(5)]
    frame = imageio.imread(tmp_path / "frames" / "00000.png")
    assert frame.shape == (96, 96, 4) and frame[2, 2, 3] == 0 and frame[48, 48, 3] > 240
    edge = (frame[..., 3] > 60) & (frame[..., 3] < 190)
    skin = frame[48, 48, :3].astype(float)
    assert edge.sum() > 20 and np.abs(frame[edge][:, :3] - skin).mean() < 90  # straight alpha: no dark fringe
    assert main(["animate", bundle, *transparent, "--out", str(tmp_path / "x.webm")]) == 0
    alpha = subprocess.run(
        [ffmpeg_path(), "-v", "error", "-c:v", "libvpx-vp9", "-i", str(tmp_path / "x.webm"), "-frames:v", "1", "-f",
         "rawvideo", "-pix_fmt", "rgba", "-"], capture_output=True, check=True,
    ).stdout  # fmt: skip
    decoded = np.frombuffer(alpha, np.uint8).reshape(96, 96, 4)
    assert decoded[2, 2, 3] < 8 and decoded[48, 48, 3] > 240


def test_frames_of_a_longer_motion_are_not_left_behind(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (tmp_path, tmp_path / "other"):  # the user's own files stay
        folder.mkdir(exist_ok=True)
        (folder / "note.txt").write_text("mine")
        (folder / "123.png").write_text("mine")
    for folder, seconds in ((tmp_path, 0.4), (tmp_path, 0.2)):
        command = ["animate", bundle, "--motion", "nod", "--out", str(folder), "--format", "png", "--size", "32"]
        assert main([*command, "--seconds", str(seconds), "--audio", sound(tmp_path / "a.wav", 0.4)]) == 0
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {*(f"{i:05d}.png" for i in range(5)), "note.txt", "123.png", "other", "a.wav"}
    assert sorted(p.name for p in (tmp_path / "other").iterdir()) == ["123.png", "note.txt"]
    assert "PNG frames hold no sound" in capsys.readouterr().err


@pytest.mark.parametrize("fps", [25, 30, 60])
def test_frame_rates_keep_the_motions_time(
    fps: int, bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_native(load_motion("nod", seconds=0.5, fps=40.0), tmp_path / "m.npz")
    out = tmp_path / "x.mp4"
    command = [
        "animate",
        bundle,
        "--motion",
        str(tmp_path / "m.npz"),
        "--fps",
        str(fps),
        "--size",
        "32",
        "--out",
        str(out),
    ]
    assert main(command) == 0
    assert len(imageio.imread(out)) == round(0.5 * fps) and f"{fps} fps" in streams(out)
    assert re.search(r"rendered at [\d.]+ frames/s", capsys.readouterr().out)


@pytest.mark.parametrize(("seconds", "note"), [(0.25, "silent"), (0.4, ""), (0.9, "cut off")])
def test_sound_is_muxed_in_and_never_longer_than_the_motion(
    seconds: float, note: str, bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audio = sound(tmp_path / "a.wav", seconds)
    for out in (tmp_path / "x.mp4", tmp_path / "x.webm"):
        assert main(["animate", bundle, "--motion", "talk", "--audio", audio, "--out", str(out), *QUICK]) == 0
        said = [line for line in capsys.readouterr().err.splitlines() if "audio" in line]
        assert (len(said) == 1 and note in said[0]) if note else not said
        assert "Audio: " in streams(out) and len(imageio.imread(out)) == 10
        assert read_audio(out).seconds == pytest.approx(min(seconds, 0.4), abs=0.09)


def test_sound_alone_drives_the_mouth_and_says_that_it_is_simple(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audio, out = sound(tmp_path / "a.wav", 0.6), tmp_path / "x.mp4"
    assert main(["animate", bundle, "--audio", audio, "--out", str(out), "--size", "48"]) == 0
    assert len(imageio.imread(out)) == 15 and "simple" in capsys.readouterr().err


def test_all_motion_families_play_and_say_what_was_dropped(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = layouts.flame(6)
    weights = np.abs(layouts.wave(6, 52))
    files = {
        "arkit": layouts.live_link_face(tmp_path / "a.csv", weights, layouts.wave(6, 9, 0.2)),
        "vhap": layouts.vhap_export(tmp_path / "vhap", parts),
        "animportrait3d": layouts.animportrait3d(tmp_path / "pair", parts),
        "smplx": layouts.beat2(tmp_path / "b.npz", parts),
    }
    for name, file in files.items():
        out = tmp_path / f"{name}.mp4"
        assert main(["animate", bundle, "--motion", str(file), "--out", str(out), "--size", "48", "--blinks"]) == 0
        frames = imageio.imread(out).astype(float)
        assert len(frames) == 6 and np.abs(frames[5] - frames[0]).max() > 20
        assert ("coefficients were dropped" in capsys.readouterr().err) == (name != "arkit")


def test_a_dataset_is_animated_avatar_by_avatar(rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    root = tmp_path / "root"
    for name in ("ann", "bob"):
        write_tiny_bundle(root / "avatars" / f"{name}-0", rig, 800)
    rows = [
        {"face_id": "ann", "uri_bundle": "avatars/ann-0", "latest": True},
        {"face_id": "bob", "uri_bundle": "avatars/bob-0", "latest": True},
        {"face_id": "cy", "uri_bundle": "avatars/cy-0", "latest": True},  # its folder is gone
        {"face_id": "dan", "uri_bundle": None, "latest": False},
    ]
    pq.write_table(pa.Table.from_pylist(rows), root / "avatars.parquet")
    command = ["animate", str(root), "--out", str(tmp_path / "videos"), *QUICK]
    assert main(command) == 1
    said = capsys.readouterr()
    assert "2 of 3 avatars" in said.out and "cy-0" in said.err and "Traceback" not in said.err
    assert sorted(p.name for p in (tmp_path / "videos").iterdir()) == ["ann.mp4", "bob.mp4"]
    pq.write_table(pa.Table.from_pylist(rows[:2]), root / "avatars.parquet")
    assert main([*command, "--format", "png"]) == 0
    assert (tmp_path / "videos" / "bob" / "00009.png").is_file()


def wrong(folder: Path) -> list[tuple[list[str], str]]:
    (folder / "broken.wav").write_bytes(b"RIFF nothing that sounds")
    save_native(load_motion("blink", seconds=120.0, fps=1.0), folder / "long.npz")
    (folder / "empty.csv").write_text("JawOpen\n")
    return [
        (["--layout", "sideways"], "unknown layout 'sideways'"),
        (["--fps", "0"], "--fps"), (["--fps", "-25"], "--fps"), (["--seconds", "0"], "--seconds"),
        (["--size", "7"], "--size"), (["--background", "sky"], "--background"),
        (["--background", "transparent"], "no transparency"),
        (["--motion", "sing"], "talk, blink"), (["--motion", "gone.csv"], "no such file"),
        (["--motion", str(folder / "empty.csv")], "no frames"),
        (["--motion", str(folder / "long.npz"), "--max-seconds", "60"], "--max-seconds"),
        (["--seconds", "36000"], "--max-seconds"),
        (["--motion", str(folder / "long.npz"), "--motion-fps", "0"], "--motion-fps"),
        (["--motion", str(folder / "long.npz"), "--basis", "flame1999"], "flame1999"),
        (["--audio", str(folder / "broken.wav")], "damaged or holds no sound"),
        (["--audio", "gone.wav"], "no such file"),
        (["--seed", "9" * 20], "seed"), (["--seed", "-1"], "seed"), (["--start", "-1"], "--start"),
        (["--azimuth", "nan"], "--azimuth"), (["--elevation", "91"], "--elevation"), (["--out", ""], "--out"),
        (["--motion", str(folder / "long.npz"), "--start", "1000"], "nothing is left"),
        (["--seconds", "80000", "--max-seconds", "86400"], "an hour"),
    ]  # fmt: skip


def test_bad_input_is_one_line_and_leaves_no_file(
    bundle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "x.mp4"
    for arguments, message in wrong(tmp_path):
        full = ["animate", bundle, "--out", str(out), "--motion", "talk", "--size", "32", *arguments]
        status, error = main(full), capsys.readouterr().err
        assert status == 2 and message in error and len(error.strip().splitlines()) == 1, (arguments, error)
    for path, message in (("x.avi", "must end in .mp4"), ("/proc/nowhere/x.mp4", "cannot write")):
        assert main(["animate", bundle, "--out", path]) == 2
        assert message in capsys.readouterr().err
    assert not out.exists()
