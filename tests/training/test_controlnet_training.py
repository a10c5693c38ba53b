"""Training a ControlNet on a tiny model: it learns, a kill changes nothing, the result loads, bad data is counted."""

import dataclasses
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ap3d.checksums import BUILTIN
from ap3d.diffusion.conditions import ConditionSpec
from ap3d.diffusion.models import GuidanceModels
from ap3d.errors import DataFileError, InputError
from ap3d.storage import Store
from ap3d.training.controlnet_training import (
    ControlNetConfig,
    ControlNetOptions,
    ControlNetTrainer,
    Place,
    train_controlnet,
)
from ap3d.training.denoiser import DenoiserConfig, build_unet
from ap3d.training.pool_triples import open_triples
from ap3d.training.triples import Triples

SIZE, CHANNELS = 32, ConditionSpec().channels
ALONE = Place()
QUICK = ControlNetConfig(samples=32, batch=4, learning_rate=2e-3, warmup_steps=1, autocast=False)


def encoded(array: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    if kind == "npy":
        np.save(buffer, array)
    else:
        Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def rows(count: int, seed: int = 0) -> list[dict[str, object]]:
    """Pictures whose lower part has the colour that the condition says."""
    rng, out = np.random.default_rng(seed), []
    for _ in range(count):
        colour, edge = rng.integers(0, 255, 3), int(rng.integers(8, 24))
        image, condition = np.full((SIZE, SIZE, 3), 255, np.uint8), np.zeros((SIZE, SIZE, CHANNELS), np.uint8)
        image[edge:], condition[edge:, :, :3], condition[edge:, :, 3:] = colour, colour, 255
        out.append({"image": encoded(image), "condition": encoded(condition, "npy"), "caption": "a man"})
    return out


def write_parquet(path: Path, listed: list[dict[str, object]], group: int = 8) -> None:
    schema = pa.schema([("image", pa.binary()), ("condition", pa.binary()), ("caption", pa.string())])
    pq.write_table(pa.Table.from_pylist(listed, schema), path, row_group_size=group)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small UNet for pictures of 32 pixels; text encoder and autoencoder are the shipped ones."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    for name in ("text_encoder", "tokenizer", "vae", "scheduler"):
        shutil.copytree(BUILTIN / "diffusion" / name, folder / name)
    torch.manual_seed(0)
    build_unet(DenoiserConfig(latent_size=8, channels=(16, 16, 32))).save_pretrained(folder / "unet")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triples")
    write_parquet(folder / "a.parquet", rows(16))
    write_parquet(folder / "b.parquet", rows(8, 1))
    return folder


def trainer(model: Path, data: Path, config: ControlNetConfig = QUICK, place: Place = ALONE) -> ControlNetTrainer:
    return ControlNetTrainer(
        config, Triples(str(data), SIZE, CHANNELS), GuidanceModels.load(model), ConditionSpec(), place=place
    )


def test_the_loss_falls_and_the_unet_stays_as_it_is(model: Path, data: Path) -> None:
    learner = trainer(model, data, dataclasses.replace(QUICK, samples=400, batch=8, learning_rate=3e-3))
    before = [p.clone() for p in learner.models.unet.parameters()]
    asked = lambda: float(learner._loss(np.random.default_rng(0)).detach())  # noqa: E731
    at_first = asked()
    for _ in range(25):
        learner.train_step()
    learner.samples = 0  # the same rows, noise and timesteps
    assert asked() < 0.85 * at_first
    assert all(torch.equal(a, b) for a, b in zip(before, learner.models.unet.parameters(), strict=True))


def test_a_resumed_training_goes_on_exactly(model: Path, data: Path, tmp_path: Path) -> None:
    first, store = trainer(model, data), Store(str(tmp_path))
    first.train_step()
    first.save(store)
    expected = [first.train_step() for _ in range(2)]
    again = trainer(model, data)
    assert again.resume(store) and again.samples == 4
    assert [again.train_step() for _ in range(2)] == expected
    assert all(torch.equal(a, b) for a, b in zip(again.ema, first.ema, strict=True))
    write_parquet(tmp_path / "other.parquet", rows(5))
    with pytest.raises(DataFileError, match="another training"):
        trainer(model, tmp_path / "other.parquet").resume(store)


def test_workers_see_other_rows_and_share_their_gradients(model: Path, data: Path) -> None:
    whole = trainer(model, data, dataclasses.replace(QUICK, batch=8))
    shared = [trainer(model, data, place=Place(rank, 2)) for rank in range(2)]
    assert shared[0].rows() + shared[1].rows() == whole.rows()
    seen: list[list[torch.Tensor]] = []
    first = trainer(model, data, place=Place(0, 2, lambda tensors: seen.append(tensors)))
    first.train_step()
    assert len(seen) == 1 and first.samples == 8


def test_every_row_is_seen_once_an_epoch(model: Path, data: Path) -> None:
    learner, seen = trainer(model, data), []
    for _ in range(12):
        seen += learner.rows()
        learner.samples += QUICK.batch
    assert sorted(seen[:24]) == sorted(seen[24:]) == list(range(24)) and seen[:24] != seen[24:]


def test_the_result_guides(model: Path, data: Path, tmp_path: Path) -> None:
    lines: list[dict[str, object]] = []
    options = ControlNetOptions(
        str(data), f"memory://{tmp_path.name}", str(model), config=dataclasses.replace(QUICK, samples=8)
    )
    train_controlnet(options, lines.append)
    assert lines[-1]["samples"] == 8
    store = Store(options.out)
    for name in ("config.json", "condition.json", "diffusion_pytorch_model.safetensors"):
        (tmp_path / name).write_bytes(store.read_bytes(f"controlnet/{name}"))
    models = GuidanceModels.load(model, controlnet=tmp_path)
    assert models.condition_channels == CHANNELS and models.condition_spec == ConditionSpec()
    latents, text = torch.randn(1, *models.latent_shape), models.encode_prompt(["a man"])
    with torch.no_grad():
        plain, _ = models.predict(latents, 500, text)
        guided, _ = models.predict(latents, 500, text, torch.rand(1, CHANNELS, SIZE, SIZE))
    assert not torch.equal(plain, guided)
    train_controlnet(options, lines.append)  # finished: nothing is done again
    assert lines[-1]["step"] == 2 and any(line.get("resumed_at") == 8 for line in lines)


def test_tars_hold_the_same_rows(tmp_path: Path) -> None:
    listed = rows(3)
    write_parquet(tmp_path / "a.parquet", listed)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i, row in enumerate(listed):
            for extension, value in (
                ("png", row["image"]), ("condition.npy", row["condition"]), ("txt", b"a man"), ("json", b"{}"),
            ):  # fmt: skip
                member = tarfile.TarInfo(f"part/{i:03d}.{extension}")
                member.size = len(value)  # type: ignore[arg-type]
                tar.addfile(member, io.BytesIO(value))  # type: ignore[arg-type]
    table, tar_rows = (Triples(str(tmp_path / f"a.{kind}"), SIZE, CHANNELS) for kind in ("parquet", "tar"))
    assert len(table) == len(tar_rows) == 3
    for a, b in zip(table.batch(range(3)), tar_rows.batch(range(3)), strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    resized = Triples(str(tmp_path / "a.tar"), 16, CHANNELS).batch([0])
    assert resized[0].shape == (1, 3, 16, 16) and resized[1].shape == (1, CHANNELS, 16, 16)


def test_bad_rows_and_shards_are_named_counted_and_replaced(tmp_path: Path) -> None:
    listed = rows(12)
    listed[3] = {**listed[3], "image": b"no picture"}
    listed[4] = {**listed[4], "condition": encoded(np.zeros((SIZE, SIZE, 3), np.uint8))}
    listed[5] = {**listed[5], "caption": None}
    write_parquet(tmp_path / "a.parquet", listed, group=12)
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-200])
    data = Triples(str(tmp_path), SIZE, CHANNELS, bad_share=0.5)
    assert [name.rpartition("/")[2] for name in data.bad_shards] == ["b.parquet"]
    good = data.batch([6])
    replaced = data.batch([3])
    assert torch.equal(replaced[0], good[0]) and set(data.bad_rows) == {3, 4, 5}
    assert "caption" in data.bad_rows[5] and "row 4" in data.place(4) and "a.parquet" in data.place(4)
    strict = Triples(str(tmp_path / "a.parquet"), SIZE, CHANNELS, bad_share=0.1)
    with pytest.raises(DataFileError, match=r"2 of 12 rows .* cannot be used"):
        strict.batch([3])
    with pytest.raises(DataFileError, match=r"1 of 2 shards"):
        Triples(str(tmp_path), SIZE, CHANNELS)
    with pytest.raises(InputError, match="no \\*.parquet"):
        Triples(str(tmp_path / "nowhere"), SIZE, CHANNELS)


def test_arrays_that_claim_too_much_are_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 20, 1 << 20, 6)}
    )
    pickled = encoded(np.array([{}], dtype=object), "npy")
    listed = rows(4)
    listed[0] = {**listed[0], "condition": header.getvalue()}
    listed[1] = {**listed[1], "condition": pickled}
    write_parquet(tmp_path / "a.parquet", listed)
    data = Triples(str(tmp_path), SIZE, CHANNELS, bad_share=0.6)
    data.batch([0])
    assert set(data.bad_rows) == {0, 1}


def test_a_wrong_start_is_refused(model: Path, data: Path, tmp_path: Path) -> None:
    spec = json.loads((BUILTIN / "diffusion" / "controlnet" / "condition.json").read_text())
    spec["codes"] = {name: code[:1] for name, code in spec["codes"].items()}
    (tmp_path / "condition.json").write_text(json.dumps(spec))
    options = ControlNetOptions(
        str(data), str(tmp_path / "out"), str(model), str(tmp_path / "condition.json"),
        str(BUILTIN / "diffusion" / "controlnet"), QUICK,
    )  # fmt: skip
    with pytest.raises(InputError, match="condition channels"):
        train_controlnet(options, lambda row: None)


def test_the_pool_of_the_built_in_training_serves_too(pool) -> None:  # type: ignore[no-untyped-def]
    source = open_triples(str(pool.folder), pool.size, CHANNELS, 0.1)
    assert len(source) == len(pool) and sorted(source.order(0, 1)) == list(range(len(pool)))
    pictures, conditions, captions = source.batch([5, 3])
    assert pictures.shape == (2, 3, pool.size, pool.size) and conditions.shape[1] == CHANNELS
    assert np.allclose(pictures[0].permute(1, 2, 0) * 255, pool.images[5], atol=0.01)
    assert captions == source.batch([5, 3])[2] and captions[0] != captions[1]
    with pytest.raises(InputError, match="the model needs 64"):
        open_triples(str(pool.folder), 64, CHANNELS, 0.1)
