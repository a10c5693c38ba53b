"""Bundles as folder and zip: the same avatar again, and one line for every way to be damaged."""

import io
import json
import random
import time
import zipfile
from pathlib import Path

import pytest
import torch

from ap3d.errors import DataFileError, InputError
from ap3d.splats.avatar import group_counts
from ap3d.splats.bundle import Bundle
from ap3d.splats.facts import SCHEMA_VERSION
from ap3d.splats.frames import triangle_frames
from ap3d.splats.initial import surface_avatar
from ap3d.splats.ply import write_local
from ap3d.tensor_files import pack_tensors


def make_bundle(rig, params, count: int = 2000, triangles: int = 3, sh_degree: int = 1) -> Bundle:  # type: ignore[no-untyped-def]
    g = torch.Generator().manual_seed(0)
    vertices = rig.vertices(params)[0]
    avatar = surface_avatar(rig, vertices, count, g).with_sh_degree(sh_degree)
    avatar.f_rest[:] = torch.randn(avatar.f_rest.shape, generator=g)
    weights = torch.rand(count, triangles, generator=g).sort(1, descending=True)[0]
    ids = torch.randint(len(rig.faces), (count, triangles), generator=g)
    ids[:, 0] = avatar.binding
    avatar = avatar.bound_to(ids, weights / weights.sum(1, keepdim=True))
    facts = {
        "schema_version": SCHEMA_VERSION, "rig": rig.name, "topology_sha256": rig.topology_sha256, "prompt": "someone",
        "metrics": {}, "groups": group_counts(avatar), "triangles": triangles,
    }  # fmt: skip
    return Bundle(facts, avatar, params, rig, triangle_frames(vertices, rig.faces))


@pytest.fixture(scope="module")
def bundle(rig, neutral) -> Bundle:  # type: ignore[no-untyped-def]
    return make_bundle(rig, neutral)


@pytest.mark.parametrize("name", ["folder", "one.zip"])
def test_a_saved_bundle_is_the_same_avatar(bundle: Bundle, tmp_path: Path, name: str) -> None:
    bundle.save(str(tmp_path / name), {"preview.png": b"png"})
    again = Bundle.open(str(tmp_path / name))
    for key, value in bundle.avatar.tensors().items():
        if not key.startswith("initial"):
            torch.testing.assert_close(value, again.avatar.tensors()[key], atol=1e-6, rtol=0, msg=key)
    turned = bundle.params.replace(head=torch.tensor([[0.1, 0.8, 0.0]]))
    for one, two in zip(bundle.pose(turned).tensors().values(), again.pose(turned).tensors().values(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
    assert again.facts["groups"] == bundle.facts["groups"]


def test_a_zip_that_a_user_made_of_the_folder_opens(bundle: Bundle, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "mine.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in bundle.files().items():
            archive.writestr(f"my avatar/{name}", data)
    assert len(Bundle.open(str(tmp_path / "mine.zip")).avatar) == len(bundle.avatar)


def test_sixty_thousand_gaussians_are_saved_and_loaded_at_once(rig, neutral, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    large = make_bundle(rig, neutral, 60000, 4, 3)
    seconds = []  # of this process's own work, whatever else the machine does
    for _ in range(3):
        started = time.process_time()
        large.save(str(tmp_path / "large"))
        saved = time.process_time()
        Bundle.open(str(tmp_path / "large"))
        seconds.append((saved - started, time.process_time() - saved))
    assert min(s for s, _ in seconds) < 0.5 and min(s for _, s in seconds) < 0.5


def changed(bundle: Bundle, folder: Path, **changes: object) -> str:
    """A saved bundle in which files were replaced (bytes), removed (None), or facts changed."""
    bundle.save(str(folder))
    for name, value in changes.items():
        path = folder / name.replace("__", ".")
        if value is None:
            path.unlink()
        elif isinstance(value, bytes):
            path.write_bytes(value)
        else:
            facts = json.loads((folder / "avatar.json").read_text())
            (folder / "avatar.json").write_text(json.dumps(facts | {name: value}))
    return str(folder)


DAMAGED = [
    ({"avatar__json": None}, "holds no avatar.json"),
    ({"splats__ply": None}, "splats.ply is missing"),
    ({"binding__safetensors": None}, "binding.safetensors is missing"),
    ({"rig__safetensors": b"\x08\0\0\0\0\0\0\0{}"}, "rig.safetensors"),
    ({"avatar__json": b"[]"}, "not an avatar's description"),
    ({"avatar__json": b"{"}, "not valid JSON"),
    ({"schema_version": SCHEMA_VERSION + 1}, "update ap3d"),
    ({"schema_version": 0}, "schema 0"),
    ({"topology_sha256": "0" * 64}, "topology"),
    ({"rig": "no such rig"}, "no such rig"),
    ({"rotation_order": "sideways"}, "rotation_order 'sideways'"),
    ({"winding": 3}, "winding 3"),
]


@pytest.mark.parametrize(("changes", "message"), DAMAGED)
def test_damage_is_named_in_one_line(bundle: Bundle, tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = changed(bundle, tmp_path / "b", **changes)
    with pytest.raises(InputError, match=message) as caught:
        Bundle.open(path)
    assert "\n" not in str(caught.value)


def test_damaged_gaussians_are_named(bundle: Bundle, tmp_path: Path) -> None:
    data = bundle.files()["splats.ply"]
    count = str(len(bundle.avatar)).encode()
    broken = {
        "cut off": data[:-5],
        "1000000000 vertices": data.replace(b"element vertex " + count, b"element vertex 1000000000", 1),
        "no Gaussian": write_local(bundle.avatar.select(torch.arange(0))),
        "lacks opacity": data.replace(b"property float opacity", b"property float somewhat", 1),
        "f_rest": data.replace(b"property float f_rest_3", b"property float f_rest_x", 1),
        "finite": nan_first(data),
    }
    for message, content in broken.items():
        path = changed(bundle, tmp_path / message.replace(" ", "_"), splats__ply=content)
        with pytest.raises(DataFileError, match=message):
            Bundle.open(path)


def test_parameters_that_no_head_has_are_named(bundle: Bundle, tmp_path: Path) -> None:
    for name, value in {"scale": 0.0, "shape": 1e38}.items():
        tensors = bundle.params.tensors()
        tensors[name] = torch.full_like(tensors[name], value)
        path = changed(bundle, tmp_path / name, rig__safetensors=pack_tensors(tensors))
        with pytest.raises(DataFileError, match="rig.safetensors holds parameters that no head has"):
            Bundle.open(path)


def nan_first(data: bytes) -> bytes:
    body = data.index(b"end_header\n") + len(b"end_header\n")
    return data[:body] + b"\x00\x00\xc0\x7f" + data[body + 4 :]


def test_a_binding_file_of_another_avatar_is_refused(bundle: Bundle, rig, neutral, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    other = make_bundle(rig, neutral, 1500).files()["binding.safetensors"]
    with pytest.raises(DataFileError, match="binding.safetensors"):
        Bundle.open(changed(bundle, tmp_path / "b", binding__safetensors=other))


def write_zip(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> str:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return str(path)


@pytest.mark.parametrize("name", ["../splats.ply", "/etc/x", "a/../../b", "a\\..\\b", "C:x", "./x"])
def test_zip_entries_that_lead_elsewhere_are_refused(bundle: Bundle, tmp_path: Path, name: str) -> None:
    with pytest.raises(DataFileError, match="leads out"):
        Bundle.open(write_zip(tmp_path / "b.zip", {**bundle.files(), name: b"x"}))


def test_zip_bombs_and_broken_zips_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    bomb = write_zip(tmp_path / "bomb.zip", {"splats.ply": bytes(100 << 20)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(DataFileError, match="would unpack"):
        Bundle.open(bomb)
    (tmp_path / "text.zip").write_bytes(b"no zip at all")
    with pytest.raises(DataFileError, match="not a whole zip"):
        Bundle.open(str(tmp_path / "text.zip"))
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, data in bundle.files().items():
            archive.writestr(name, data)
    data = bytearray(whole.getvalue())
    position = data.index(b"end_header")
    data[position + 2000] ^= 0xFF
    (tmp_path / "flipped.zip").write_bytes(data)
    with pytest.raises(DataFileError, match="damaged"):
        Bundle.open(str(tmp_path / "flipped.zip"))
    with pytest.raises(DataFileError, match="no such file"):
        Bundle.open(str(tmp_path / "absent.zip"))


def test_flipped_and_cut_bytes_never_end_in_anything_but_one_line(bundle: Bundle, tmp_path: Path) -> None:
    """Fuzz of the folder's files: a bundle opens, or says what is wrong with it."""
    whole, generator = bundle.files(), random.Random(0)
    bundle.save(str(tmp_path))
    refused = 0
    for trial in range(150):
        name = sorted(whole)[trial % len(whole)]
        data = bytearray(whole[name])
        for _ in range(generator.randint(1, 3)):
            data[generator.randrange(min(len(data), 1500))] = generator.randrange(256)
        if trial % 3 == 0:
            del data[generator.randrange(len(data)) :]
        (tmp_path / name).write_bytes(data)
        try:
            opened = Bundle.open(str(tmp_path))
            assert torch.isfinite(opened.pose(opened.params).means).all() or name == "splats.ply"
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
        (tmp_path / name).write_bytes(whole[name])
    assert 50 < refused < 150
