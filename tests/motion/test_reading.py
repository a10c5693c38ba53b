"""Each format's file, in the layout of the tool that writes it, gives the frames that were put in."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ap3d.errors import DataFileError, InputError
from ap3d.motion import Motion, read_motion
from ap3d.motion.arkit import ARKIT_NAMES
from ap3d.motion.native import save_native
from tests.motion import layouts

T = 90


def weights(frames: int = T) -> np.ndarray:
    return np.abs(layouts.wave(frames, 52))


def same(motion: Motion, parts: dict[str, np.ndarray], expressions: int = 100) -> None:
    """Our neck is FLAME's global rotation, our head its neck."""
    pairs = {"neck": "rotation", "head": "neck_pose", "jaw": "jaw_pose", "eyes": "eyes_pose"}
    for ours, theirs in pairs.items():
        np.testing.assert_allclose(getattr(motion, ours), parts[theirs], atol=1e-6, err_msg=ours)
    np.testing.assert_allclose(motion.expression, parts["expr"][:, :expressions], atol=1e-6)


def test_live_link_face_rows_actions_rate_and_lost_faces(tmp_path: Path) -> None:
    values, angles = weights(), layouts.wave(T, 9, 0.3)
    values[40:43] = np.nan
    motion = read_motion(layouts.live_link_face(tmp_path / "a.csv", values, angles, rate=30))
    assert motion.fps == 30 and len(motion) == T and motion.expression_names == ARKIT_NAMES
    expected = values.copy()
    expected[40:43] = values[39]
    np.testing.assert_allclose(motion.expression, expected, atol=1e-6)
    np.testing.assert_allclose(motion.head[:40], angles[:40, [1, 0, 2]] * [-1, 1, 1], atol=1e-6)
    assert any("lost in 3 of 90 rows" in n for n in motion.notes)
    assert float(motion.eyes.abs().max()) == 0  # the eyeLook actions carry the gaze
    assert not any("frame rate" in n for n in motion.notes)


def test_a_table_without_timecodes_has_the_recorders_rate_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("JawOpen,EyeBlinkLeft\n0.1,0\n0.2,0\n")
    motion = read_motion(tmp_path / "a.csv")
    assert motion.fps == 60 and any("60 a second are assumed" in n for n in motion.notes)
    told = read_motion(tmp_path / "a.csv", fps=24.0)
    assert told.fps == 24 and not any("frame rate" in n for n in told.notes)


@pytest.mark.parametrize("write", [layouts.audio2face, layouts.lam])
def test_json_exports(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    values = weights()
    motion = read_motion(write(tmp_path / "a.json", values, 24.0))
    assert motion.fps == 24 and motion.notes == ()
    np.testing.assert_allclose(motion.expression, values, atol=1e-6)


def test_lam_frame_times_stand_in_for_the_rate(tmp_path: Path) -> None:
    assert read_motion(layouts.lam(tmp_path / "a.json", weights(), 50.0, metadata=False)).fps == pytest.approx(50)


def test_vhap_exports_by_folder_index_and_tracked_file(tmp_path: Path) -> None:
    parts = layouts.flame(12)
    root = layouts.vhap_export(tmp_path / "export", parts)
    for path in (root, root / "flame_param", root / "transforms.json"):
        motion = read_motion(path, fps=30)
        assert motion.expression_basis == "flame2023" and motion.fps == 30
        same(motion, parts)
    (root / "transforms.json").unlink()
    same(read_motion(root), parts)  # in the order of the file names
    tracked = read_motion(layouts.vhap_tracked(tmp_path / "t.npz", parts), basis="flame2020")
    assert tracked.expression_basis == "flame2020" and tracked.fps == 25
    assert any("--motion-fps" in n for n in tracked.notes) and not any("--basis" in n for n in tracked.notes)
    same(tracked, parts)


def test_animportrait3d_pair_by_folder_and_by_either_file(tmp_path: Path) -> None:
    parts = layouts.flame(10)
    folder = layouts.animportrait3d(tmp_path / "m", parts)
    for path in (folder, folder / "expressions.npy", folder / "poses.npy"):
        motion = read_motion(path)
        assert motion.expression_basis == "flame2020"
        same(motion, parts)
    (folder / "poses.npy").unlink()
    alone = read_motion(folder)
    assert float(alone.jaw.abs().max()) == 0 and any("no poses" in n for n in alone.notes)


def test_smplx_sequences_of_amass_beat2_and_model_arguments(tmp_path: Path) -> None:
    parts = layouts.flame(14)
    silent = parts | {"expr": np.zeros((14, 100), np.float32)}
    amass = read_motion(layouts.amass(tmp_path / "a.npz", parts))
    assert amass.fps == 120 and any("no expression" in n for n in amass.notes)
    same(amass, silent)
    beat = read_motion(layouts.beat2(tmp_path / "b.npz", parts))
    assert beat.fps == 30 and beat.expression_basis == "flame2020"
    same(beat, parts)
    same(read_motion(layouts.smplx_arguments(tmp_path / "c.npz", parts)), parts, 50)


def test_a_tracker_that_looks_from_behind_is_turned_to_the_front(tmp_path: Path) -> None:
    parts = layouts.flame(12)
    straight = parts["rotation"] * [0, 1, 0]
    turned = parts | {"rotation": (straight + [0, np.pi, 0]).astype(np.float32)}
    motion = read_motion(layouts.vhap_tracked(tmp_path / "t.npz", turned))
    assert any("degrees from the front" in n for n in motion.notes)
    yaw = motion.neck[:, 1].numpy()
    np.testing.assert_allclose(yaw - yaw.mean(), straight[:, 1] - straight[:, 1].mean(), atol=1e-3)
    assert abs(yaw.mean()) < 0.02


def test_our_own_file_comes_back_unchanged(tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(1)
    still = Motion.still(7, 23.976, "arkit52", ARKIT_NAMES)
    motion = replace(still, **{k: torch.rand(v.shape, generator=g) for k, v in still.tensors().items()})
    save_native(motion, tmp_path / "m.npz")
    again = read_motion(tmp_path / "m.npz")
    assert again.fps == 23.976 and again.expression_names == ARKIT_NAMES
    for name, value in motion.tensors().items():
        assert torch.equal(value, getattr(again, name)), name


def broken(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that must be refused, with a part of the sentence."""
    out: dict[str, tuple[Path, str]] = {}
    parts = layouts.flame(6)
    nan = {k: v.copy() for k, v in parts.items()}
    nan["jaw_pose"][4, 0] = np.nan
    out["nan"] = layouts.vhap_tracked(folder / "nan.npz", nan), "frame 4 of jaw"
    empty = {k: v[:0] for k, v in parts.items()}
    out["empty"] = layouts.animportrait3d(folder / "empty", empty), "0 frames"
    out["columns"] = layouts.animportrait3d(folder / "columns", parts | {"eyes_pose": parts["eyes_pose"][:, :4]}), "15"
    out["wide"] = layouts.animportrait3d(folder / "wide", parts | {"expr": np.zeros((6, 130))}), "130 columns"
    ragged = layouts.animportrait3d(folder / "ragged", parts)
    np.save(ragged / "expressions.npy", parts["expr"][:5])
    out["ragged"] = ragged, "5 frames of expressions, but 6"
    degrees = parts | {"rotation": parts["rotation"] * 180}
    out["degrees"] = layouts.vhap_tracked(folder / "degrees.npz", degrees), "radians"
    out["poses"] = folder / "poses.npz", "poses has 100 columns"
    np.savez(out["poses"][0], poses=np.zeros((3, 100)))
    out["object"] = folder / "object_poses.npy", "Python objects"
    np.save(out["object"][0], np.array([{}], dtype=object), allow_pickle=True)
    out["unnamed"] = folder / "a.npy", "expressions.npy"
    np.save(out["unnamed"][0], np.zeros((3, 15)))
    cut = folder / "cut_poses.npy"
    np.save(cut, np.zeros((300, 15), np.float32))
    cut.write_bytes(cut.read_bytes()[:2000])
    out["cut"] = cut, "cut off"
    save_native(Motion.still(2, 25.0, "arkit52", ARKIT_NAMES), folder / "own.npz")
    with np.load(folder / "own.npz") as own:
        np.savez(folder / "schema.npz", **(dict(own) | {"ap3d_motion": np.nan}))
        np.savez(folder / "newer.npz", **(dict(own) | {"ap3d_motion": 99}))
        np.savez(folder / "less.npz", **{k: v for k, v in own.items() if k != "jaw"})
    out |= {
        "schema": (folder / "schema.npz", "one whole number"), "newer": (folder / "newer.npz", "motion schema 99"),
        "less": (folder / "less.npz", "lacks jaw"),
    }  # fmt: skip
    zipped = layouts.vhap_tracked(folder / "zip.npz", parts)
    zipped.write_bytes(zipped.read_bytes()[:-400])
    out["zip"] = zipped, "damaged"
    rows = json.loads(layouts.audio2face(folder / "rows.json", weights(4)).read_text())
    rows["weightMat"][2] = rows["weightMat"][2][:50]
    out["rows"] = folder / "rows.json", "frame 2 has 50 weights"
    out["rows"][0].write_text(json.dumps(rows))
    out["rate"] = layouts.audio2face(folder / "rate.json", weights(4), 0.0), "positive"
    out["no frames"] = layouts.lam(folder / "none.json", weights(0)), "0 frames"
    for name, text, message in (
        ("json", "{", "not valid JSON"), ("other", "hello", "no known format"), ("csv", "a,b\n1,2\n", "52 ARKit"),
        ("header", "JawOpen\n", "no frames"), ("word", "JawOpen\n0\nwide\n", "line 3"), ("unit", "JawOpen\n80\n", "80"),
        ("lost", "Timecode,BlendShapeCount,JawOpen\n1,0,\n", "no frame with a face"),
    ):  # fmt: skip
        out[name] = folder / f"{name}.{'csv' if name not in ('json', 'other') else 'txt'}", message
        out[name][0].write_text(text)
    gone = layouts.vhap_export(folder / "gone", parts)
    (gone / "flame_param" / "00003.npz").unlink()
    out["gone"] = gone, "00003.npz, which is not there"
    out["folder"] = folder / "nothing", "no known format"
    out["folder"][0].mkdir()
    out["absent"] = folder / "absent.npz", "no such file"
    return out


def test_bad_files_are_refused_in_one_line_that_names_them(tmp_path: Path) -> None:
    for name, (path, message) in broken(tmp_path).items():
        with pytest.raises(DataFileError) as caught:
            read_motion(path)
        text = str(caught.value)
        assert message in text and path.name in text and "\n" not in text, (name, text)


def test_a_bomb_of_zeros_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ap3d.array_files.LARGEST_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "bomb.npz", poses=np.zeros((10_000, 165), np.float32))
    assert (tmp_path / "bomb.npz").stat().st_size < 100_000
    with pytest.raises(DataFileError, match="unpacks to more"):
        read_motion(tmp_path / "bomb.npz")


@pytest.mark.parametrize(("option", "value"), [("fps", 0.0), ("fps", -5.0), ("basis", "flame2019")])
def test_stated_facts_must_make_sense(option: str, value: object, tmp_path: Path) -> None:
    path = layouts.audio2face(tmp_path / "a.json", weights(3))
    with pytest.raises(InputError):
        read_motion(path, **{option: value})  # type: ignore[arg-type]


def test_a_stated_basis_cannot_contradict_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="arkit52"):
        read_motion(layouts.audio2face(tmp_path / "a.json", weights(3)), basis="flame2020")


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed, cut out or pushed in at random places."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 3, 30])):
        at = rng.randrange(len(out))
        kind = rng.randrange(3)
        if kind == 0:
            out[at] = rng.randrange(256)
        elif kind == 1 and len(out) > 64:
            del out[at : at + rng.randrange(1, 40)]
        else:
            out[at:at] = rng.randbytes(rng.randrange(8))
    return bytes(out)


def test_damaged_files_are_read_or_refused_but_never_crash(tmp_path: Path) -> None:
    parts, values = layouts.flame(3), weights(3)
    save_native(Motion.still(3, 25.0, "arkit52", ARKIT_NAMES), tmp_path / "n.npz")
    files = [
        tmp_path / "n.npz", layouts.live_link_face(tmp_path / "a.csv", values, layouts.wave(3, 9, 0.2)),
        layouts.audio2face(tmp_path / "a.json", values), layouts.lam(tmp_path / "l.json", values),
        layouts.vhap_tracked(tmp_path / "t.npz", parts), layouts.amass(tmp_path / "m.npz", parts),
        layouts.smplx_arguments(tmp_path / "s.npz", parts), layouts.animportrait3d(tmp_path / "p", parts) / "poses.npy",
    ]  # fmt: skip
    rng = random.Random(0)
    for file in files:
        whole, refused = file.read_bytes(), 0
        for _ in range(40):
            file.write_bytes(damaged(whole, rng))
            try:
                read_motion(file)
            except DataFileError as error:
                refused += 1
                assert len(str(error).splitlines()) == 1
        assert refused > 3, file.name


@pytest.mark.parametrize(
    "text",
    [
        '{"names": 3, "frames": []}', '{"names": ["jawOpen"], "frames": [{"weights": [1e999]}]}',
        '{"names": ["jawOpen"], "frames": [{"weights": [%s]}]}' % ("9" * 400), "[" * 100_000, "[1]",
        '{"facsNames": ["jawOpen"], "weightMat": {"a": 1}}', '{"facsNames": ["up"], "weightMat": [[1]]}',
        '{"facsNames": ["jawOpen"], "weightMat": [[1]], "exportFps": "30"}',
        '{"facsNames": ["jawOpen"], "weightMat": [[1]], "exportFps": %s}' % ("9" * 400),
    ],
)  # fmt: skip
def test_strange_json_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataFileError):
        read_motion(tmp_path / "a.json")
