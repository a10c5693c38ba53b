"""Videos to motions: round trips on rendered talking heads whose motion is known, and unusable videos."""

import math
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from torch import Tensor

from ap3d.cli import main
from ap3d.diffusion.conditions import vertex_normals
from ap3d.errors import DataFileError, InputError
from ap3d.framing import full_cameras
from ap3d.motion import Motion
from ap3d.motion.face_fit import solve_actions
from ap3d.motion.procedural import talking
from ap3d.motion.reading import read_motion
from ap3d.motion.rotations import axis_angles, inverse, product, quaternions
from ap3d.motion.video import Track, levelled, motion_from_track, track_video
from ap3d.motion.video_frames import LONGEST_SIDE, open_video
from ap3d.perception import load_landmark_detector
from ap3d.perception.embedding import Embedding
from ap3d.rig.protocol import RigParams
from ap3d.training.portraits import Person, Portraitist, sample_person
from ap3d.video import mp4_bytes

FPS, SECONDS, SIZE = 12.0, 2.25, 224
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


@pytest.fixture(scope="module")
def person(rig) -> Person:  # type: ignore[no-untyped-def]
    drawn = sample_person(np.random.default_rng(0), rig)
    return replace(drawn, attributes=replace(drawn.attributes, hair_style="bald", beard=False))


@pytest.fixture(scope="module")
def truth(rig) -> Motion:  # type: ignore[no-untyped-def]
    return talking(SECONDS, FPS, torch.Generator().manual_seed(1)).to(rig)


@pytest.fixture(scope="module")
def clip(rig, person: Person, truth: Motion, tmp_path_factory: pytest.TempPathFactory) -> Path:  # type: ignore[no-untyped-def]
    """A rendered talking head: the rig's mesh with painted skin and shirt."""
    camera = full_cameras(rig, rig.vertices(person.neutral)[0], [0.0], [0.0], SIZE)
    portraitist = Portraitist(replace(person, params=person.neutral), rig)
    rest = portraitist.mesh

    def frames() -> Iterator[Tensor]:
        for index in range(len(truth)):
            vertices = rig.vertices(truth.params(person.neutral, index))
            attributes = torch.cat([vertex_normals(vertices, rig.faces)[0], rest.attributes[:, 3:]], 1)
            portraitist.mesh = replace(rest, vertices=vertices[0], attributes=attributes)
            yield portraitist.render(camera)[0]

    path = tmp_path_factory.mktemp("clip") / "talk.mp4"
    path.write_bytes(mp4_bytes(frames(), round(FPS)))
    return path


@pytest.fixture(scope="module")
def track(clip: Path) -> Track:
    return track_video(clip, load_landmark_detector())


def flat_video(path: Path, frames: int = 8, grey: float = 0.5, size: int = 64) -> Path:
    path.write_bytes(mp4_bytes((torch.full((3, size, size), grey) for _ in range(frames)), 10))
    return path


def action(motion: Motion, name: str) -> Tensor:
    return motion.expression[:, motion.expression_names.index(name)]


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def head_errors(found: Motion, truth: Motion) -> Tensor:
    """Degrees between the heads' rotations."""
    turn = lambda m: product(quaternions(m.neck), quaternions(m.head))  # noqa: E731
    return torch.rad2deg(axis_angles(product(inverse(turn(truth)), turn(found))).norm(dim=1))


def lip_distance(rig, motion: Motion) -> Tensor:  # type: ignore[no-untyped-def]
    points = rig.landmarks(RigParams.neutral(rig).expand(len(motion)).replace(**motion.tensors()))
    return (points[:, 62] - points[:, 66]).norm(dim=1)


def assert_follows(rig, found: Motion, truth: Motion) -> None:  # type: ignore[no-untyped-def]
    """The figures that the project promises for a rendered talking video."""
    assert found.fps == truth.fps and len(found) == len(truth)
    assert correlation(lip_distance(rig, found), lip_distance(rig, truth)) >= 0.9
    for side in ("Left", "Right"):
        assert correlation(action(found, f"eyeBlink{side}"), action(truth, f"eyeBlink{side}")) >= 0.9
    assert float(head_errors(found, truth).mean()) <= 3.0


def test_points_of_a_known_motion_give_it_back(rig, person: Person) -> None:  # type: ignore[no-untyped-def]
    truth = talking(2.0, 25.0, torch.Generator().manual_seed(2)).to(rig)
    params = person.neutral.expand(len(truth)).replace(**truth.tensors())
    camera = full_cameras(rig, rig.vertices(person.neutral)[0], [0.0], [0.0], 512)
    points = Embedding.load().points(rig.vertices(params))
    pixels, depth = (values[0].unflatten(0, (len(truth), -1)) for values in camera.project(points.reshape(-1, 3)))
    depth = (depth - depth.mean()) * float(camera.intrinsics[0, 0] / depth.mean())
    pixels = pixels + 0.5 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    mesh = torch.cat([pixels, depth[..., None]], 2)
    track = Track(mesh, torch.zeros(len(truth), 2), torch.ones(len(truth)), (512, 512), 25.0)
    found = motion_from_track(track, rig, fov_degrees=20.0)
    assert_follows(rig, found, truth)
    assert float(head_errors(found, truth).mean()) < 1.5
    assert correlation(action(found, "jawOpen"), action(truth, "jawOpen")) > 0.95
    assert float((found.eyes[:, 1] - truth.eyes[:, 1]).abs().mean()) < 0.02


def test_a_rendered_talking_head_gives_its_motion_back(rig, track: Track, truth: Motion) -> None:  # type: ignore[no-untyped-def]
    found = motion_from_track(track, rig)
    assert_follows(rig, found, truth)
    assert correlation(found.eyes[:, 1], truth.eyes[:, 1]) > 0.7
    assert float(found.expression.min()) >= 0 and float(found.expression.max()) <= 1
    assert len(found.notes) == 1 and "counts as straight ahead" in found.notes[0]


def test_frames_without_a_face_are_interpolated_and_told(rig, track: Track, truth: Motion) -> None:  # type: ignore[no-untyped-def]
    mesh, white, faces = track.mesh.clone(), track.white.clone(), track.faces.clone()
    gone = torch.tensor([0, 11, 12, len(mesh) - 1])
    mesh[gone], white[gone], faces[gone], faces[5] = float("nan"), float("nan"), 0, 2
    found = motion_from_track(replace(track, mesh=mesh, white=white, faces=faces), rig)
    assert len(found) == len(truth) and float(head_errors(found, truth).mean()) <= 3.0
    assert found.notes[:2] == (
        f"no face in 4 of {len(mesh)} frames; they are interpolated",
        f"several faces in 1 of {len(mesh)} frames; the largest was followed",
    )


def test_a_head_that_looks_aside_stays_so(rig, track: Track) -> None:  # type: ignore[no-untyped-def]
    kept = motion_from_track(track, rig, level=False)
    assert not kept.notes and float((kept.neck + kept.head).mean(0).norm()) < math.radians(6)
    aside = math.radians(20) * torch.tensor([[0.0, 1.0, 0.0]]) + torch.zeros(10, 3)
    turn, note = levelled(aside)
    assert torch.equal(turn, aside) and "20 degrees away" in note
    turn, note = levelled(aside / 2)
    assert float(turn.norm(dim=1).max()) < 1e-3 and "10 degrees" in note


def test_actions_reach_the_least_of_their_quadratic() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(1, 6, 6, generator=generator, dtype=torch.float64)
    normal, target = root @ root.transpose(1, 2), torch.randn(1, 6, generator=generator, dtype=torch.float64) * 4
    found = solve_actions(normal, target, torch.zeros(1, 6, dtype=torch.float64), 0.0, iterations=3000)
    from ap3d.motion.face_fit import ACTION_COST, ACTION_WEIGHT

    gradient = normal @ found[..., None] + (ACTION_WEIGHT * found - target + ACTION_COST)[..., None]
    gradient = gradient[..., 0]
    assert bool((gradient[found == 0] >= 0).all()) and bool((gradient[found == 1] <= 0).all())
    inside = (found > 0) & (found < 1)
    assert float(gradient[inside].abs().max()) < 1e-6


def test_turned_large_and_odd_videos_are_read(tmp_path: Path, clip: Path) -> None:
    def convert(name: str, *arguments: str) -> Path:
        path = tmp_path / name
        subprocess.run([FFMPEG, "-v", "error", *arguments, str(path)], check=True)
        return path

    turned = convert("turned.mp4", "-display_rotation", "90", "-i", str(clip), "-c", "copy")
    large = convert("large.mp4", "-i", str(clip), "-vf", "scale=900:1200,fps=30", "-frames:v", "4")
    odd = convert("odd.mp4", "-i", str(clip), "-vf", "scale=257:193", "-pix_fmt", "yuv444p", "-frames:v", "3")
    upright = next(open_video(clip).batches(1))
    other = next(open_video(turned).batches(1))
    assert float((torch.rot90(upright, 1, (2, 3)) - other).abs().mean()) < 0.02
    video = open_video(large)
    frames = torch.cat(list(video.batches(3)))
    assert frames.shape == (4, 3, LONGEST_SIDE, LONGEST_SIDE * 3 // 4) and video.fps == 30
    assert next(open_video(odd).batches(2)).shape == (2, 3, 192, 256)


def test_unusable_videos_are_refused_in_one_line(
    tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, text, short = tmp_path / "empty.mp4", tmp_path / "text.mp4", tmp_path / "short.mp4"
    empty.write_bytes(b"")
    text.write_text("no video at all\n" * 50)
    short.write_bytes(clip.read_bytes()[:3000])
    playlist = tmp_path / "list.m3u8"
    playlist.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n")
    out = str(tmp_path / "m.npz")
    grey = flat_video(tmp_path / "grey.mp4")
    cases = [
        ([str(tmp_path / "absent.mp4")], "no such file"),
        ([str(tmp_path)], "no such file"),
        *(([str(p)], "no video that can be read") for p in (empty, text, short, playlist)),
        ([str(grey)], "none of the 8 frames"),
        ([str(flat_video(tmp_path / "tiny.mp4", 2, size=16))], "16 x 16"),
        ([str(clip), "--max-seconds", "1"], "cut it to 1 seconds"),
        ([str(clip), "--fov", "0"], "--fov"),
        ([str(clip), "--smooth", "-1"], "--smooth"),
        ([str(clip), "--detector", "dlib"], "there are: builtin"),
        ([str(clip), "--out", "/proc/m.npz"], "cannot write"),
        ([str(clip), "--out", "m.csv"], "must end in .npz"),
    ]
    for arguments, message in cases:
        given = arguments if "--out" in arguments else [*arguments, "--out", out]
        assert main(["motion", *given]) == 2, arguments
        error = capsys.readouterr().err
        assert message in error and len(error.strip().splitlines()) == 1, error
    assert not Path(out).exists()


def test_a_video_that_lies_about_its_length_is_stopped(clip: Path) -> None:
    with pytest.raises(InputError, match="too long"):
        for _ in open_video(clip).batches(4, longest_seconds=1.0):
            pass
    with pytest.raises(DataFileError):
        open_video(clip.with_name("absent.mp4"))


def test_the_command_writes_a_motion_that_animate_reads(clip: Path, tmp_path: Path, truth: Motion) -> None:
    out = tmp_path / "m.npz"
    assert main(["motion", str(clip), "--out", str(out)]) == 0
    assert len(read_motion(out)) == len(truth) and read_motion(out).expression_basis == "arkit52"


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["a young woman with long brown hair, red shirt", "an old man with short grey hair"])
def test_an_avatars_talking_video_gives_its_motion_back(rig, prompt: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from ap3d.animation import motion_frames
    from ap3d.splats.bundle import load_bundle

    folder, video, out = tmp_path / "avatar", tmp_path / "talk.mp4", tmp_path / "m.npz"
    assert main(["generate", prompt, "--seed", "3", "--out", str(folder)]) == 0
    truth = talking(4.0, 25.0, torch.Generator().manual_seed(1)).to(rig)
    video.write_bytes(mp4_bytes(motion_frames(load_bundle(str(folder)), truth, 512), 25))
    assert main(["motion", str(video), "--out", str(out)]) == 0
    assert_follows(rig, read_motion(out), truth)
