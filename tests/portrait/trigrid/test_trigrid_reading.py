"""Files of a portrait: both naming schemes and the safetensors form; what is wrong is named and refused."""

import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from ap3d.errors import DataFileError, InputError
from ap3d.portrait.trigrid import load_trigrid
from ap3d.portrait.trigrid.reading import read_prompt, read_trigrid
from ap3d.portrait.trigrid.tensors import LEVELS
from ap3d.portrait.trigrid.writing import networks_bytes, round_mantissa, trigrid_bytes, write_portrait
from ap3d.tensor_files import pack_tensors
from tests.portrait.trigrid.ellipsoid import ellipsoid


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    grid, networks = ellipsoid()
    write_portrait(tmp_path, grid, networks, b"")
    return tmp_path


def test_every_form_gives_the_same_portrait(folder: Path) -> None:
    grid, networks = ellipsoid()
    gallery = folder / "gallery"
    gallery.mkdir()
    (gallery / "012_pyramid_trigrid.pth").write_bytes(trigrid_bytes(grid))
    (gallery / "012_prompt.txt").write_text("upper body photo, an egg")
    (folder / "tensors.safetensors").write_bytes(pack_tensors(grid.tensors()))
    (folder / "tensors.txt").write_text("an egg")
    torch.save({"model": {k: torch.nn.Parameter(v[0]) for k, v in grid.tensors().items()}}, folder / "plain.pth")
    (folder / "plain.txt").write_text("an egg")
    decoder = str(folder / "decoder.safetensors")
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)) * 0.2
    expected = load_trigrid(str(folder / "egg.pth")).density(points)
    for path in (gallery / "012_pyramid_trigrid.pth", folder / "tensors.safetensors", folder / "plain.pth"):
        found = load_trigrid(str(path), decoder)
        assert torch.equal(found.density(points), expected), path
    assert load_trigrid(str(gallery / "012_pyramid_trigrid.pth"), decoder).grid.name == "012"
    assert (decoder, networks_bytes(networks)) == (decoder, Path(decoder).read_bytes())


def test_uris_are_read(folder: Path) -> None:
    import fsspec

    for name in ("egg.pth", "egg.txt", "decoder.safetensors"):
        with fsspec.open(f"memory://portraits/{name}", "wb") as file:
            file.write((folder / name).read_bytes())
    assert load_trigrid("memory://portraits/egg.pth").prompt == "upper body photo, an egg"


class _Code:
    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch ran",)


def _damage(folder: Path, kind: str) -> None:
    grid, _ = ellipsoid()
    tensors = grid.tensors()
    path = folder / "egg.pth"
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "code":
        torch.save({"model": tensors | {"x": _Code()}}, path)
    elif kind == "plain pickle":
        path.write_bytes(pickle.dumps({"model": _Code()}))
    elif kind == "wrong keys":
        torch.save({"model": {f"x{k}": v for k, v in tensors.items()}}, path)
    elif kind == "no model":
        torch.save({"state_dict": tensors}, path)
    elif kind == "NaN":
        tensors["trigrids_16"] = torch.full_like(tensors["trigrids_16"], torch.nan)
        torch.save({"model": tensors}, path)
    elif kind == "wrong shape":
        torch.save({"model": tensors | {"trigrids_8": torch.zeros(1, 3, 32, 8, 8)}}, path)
    elif kind == "expanded":
        torch.save({"model": tensors | {"trigrids_8": torch.zeros(1).expand(1, 3, 36, 60000, 60000)}}, path)
    elif kind == "10 GB":
        with path.open("r+b") as file:
            file.truncate(10 * 10**9)
    elif kind == "bomb":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("data/0", "w") as entry:
            for _ in range(600):
                entry.write(bytes(1 << 20))
    elif kind == "integers":
        torch.save({"model": tensors | {"ws": torch.zeros(1, 14, 512, dtype=torch.int32)}}, path)


@pytest.mark.parametrize(
    "kind, words",
    [
        ("truncated", "truncated"), ("code", "not run"), ("plain pickle", "plain pickles"),
        ("wrong keys", "trigrids_8"), ("no model", "'model'"), ("NaN", "trigrids_16"), ("wrong shape", "trigrids_8"),
        ("expanded", "trigrids_8"), ("10 GB", "10,000,000,000 bytes"), ("bomb", "unpacks"), ("integers", "ws"),
    ],
)  # fmt: skip
def test_bad_files_are_named_and_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, words: str) -> None:
    monkeypatch.chdir(folder)
    _damage(folder, kind)
    with pytest.raises(DataFileError) as caught:
        read_trigrid(str(folder / "egg.pth"))
    assert words in str(caught.value) and "egg.pth" in str(caught.value) and "\n" not in str(caught.value)
    assert not (folder / "ran").exists()


def test_prompts_are_data(folder: Path) -> None:
    text = "an egg; rm -rf ~ $(touch ran) `id` && <b>'\"|"
    (folder / "egg.txt").write_text(text)
    assert read_prompt(str(folder / "egg.pth")) == text
    for bad in (b"", b"two\nlines", b"a\x00b", b"\xff\xfe\x00", b"x" * 5000):
        (folder / "egg.txt").write_bytes(bad)
        with pytest.raises(DataFileError, match="egg.txt"):
            read_prompt(str(folder / "egg.pth"))
    (folder / "egg.txt").unlink()
    with pytest.raises(DataFileError, match="egg.txt is missing"):
        load_trigrid(str(folder / "egg.pth"))


def test_bad_names_and_missing_files(folder: Path) -> None:
    for name in ("a b.pth", "$(id).pth", "..pth", "egg.pkl"):
        with pytest.raises(InputError):
            read_trigrid(str(folder / name))
    with pytest.raises(DataFileError, match="does not exist"):
        read_trigrid(str(folder / "none.pth"))
    (folder / "decoder.safetensors").unlink()
    with pytest.raises(DataFileError, match="convert-weights"):
        load_trigrid(str(folder / "egg.pth"))


def test_rounding_keeps_the_bits_asked_for() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    rounded = round_mantissa(values, 10)
    assert ((rounded - values).abs() <= values.abs() * 2**-11).all()
    assert (rounded.view(torch.int32) & ((1 << 13) - 1) == 0).all()


def test_a_file_of_true_size_loads_in_seconds_and_little_memory(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    levels = {f"trigrids_{n}": torch.randn(1, 3, 36, n, n, generator=generator) for n in LEVELS}
    torch.save({"model": levels | {"ws": torch.zeros(1, 14, 512)}}, tmp_path / "000.pth")
    (tmp_path / "000.txt").write_text("noise")
    assert (tmp_path / "000.pth").stat().st_size > 150e6
    code = f"""if True:
        import resource, time
        from ap3d.portrait.trigrid.reading import read_trigrid
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        before, begin = peak(), time.process_time()
        found = read_trigrid({str(tmp_path / "000.pth")!r})
        print(time.process_time() - begin, peak() - before, float(found.levels[512].double().sum()))
    """
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    seconds, megabytes, total = map(float, out.split())
    assert seconds < 10 and megabytes < 800  # the file is 151 MB
    assert total == pytest.approx(float(levels["trigrids_512"].double().sum()))
