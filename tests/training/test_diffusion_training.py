import dataclasses

import pytest
import torch

from ap3d.diffusion.conditions import ConditionSpec
from ap3d.diffusion.models import GuidanceModels
from ap3d.diffusion.sampling import sample_images, sdedit
from ap3d.training.denoiser import DenoiserConfig, build_controlnet, scale_condition_embedding
from ap3d.training.denoising import FrozenParts, run_training
from ap3d.training.diffusion_training import DiffusionConfig, DiffusionTrainer
from ap3d.training.probe import ColourReader, Probe, examples
from ap3d.training.recipe import export_denoiser, train_autoencoder

SMALL = DiffusionConfig(
    samples=16, batch=4, warmup_steps=1, denoiser=DenoiserConfig(channels=(16, 16, 32), text_width=64)
)


@pytest.fixture(scope="module")
def folder(text_folder, pool):
    train_autoencoder(text_folder[0].parent, pool, 2, lambda row: None)
    return text_folder[0]


@pytest.fixture(scope="module")
def trainer(folder, pool):
    return DiffusionTrainer(SMALL, pool, FrozenParts.load(folder), ConditionSpec())


def test_a_resumed_training_goes_on_exactly(trainer, folder, pool, tmp_path):
    trainer.train_step()
    trainer.save(tmp_path / "state.pt")
    expected = [trainer.train_step() for _ in range(2)]
    again = DiffusionTrainer(dataclasses.replace(SMALL, seed=5), pool, FrozenParts.load(folder), ConditionSpec())
    assert again.resume(tmp_path / "state.pt")
    assert [again.train_step() for _ in range(2)] == expected
    assert all(torch.equal(a, b) for a, b in zip(again.ema, trainer.ema, strict=True))


def test_training_runs_to_its_end_and_the_export_is_a_resident_model(trainer, folder, tmp_path):
    seen = []
    run_training(trainer, checkpoint=tmp_path / "state.pt", every={1e9: lambda t: seen.append(t.samples)})
    assert seen == [16] and (tmp_path / "state.pt").exists()
    export_denoiser(trainer, folder)
    models = GuidanceModels.load(folder)
    assert models.image_size == 128 and models.latent_shape == (18, 32, 32) and models.condition_channels == 6
    assert models.unknown_words("a man with chartreuse hair") == ["chartreuse"]
    completed, added = models.complete_prompt("a man", torch.Generator().manual_seed(0))
    assert completed.startswith("a man, ") and len(added) >= 4
    pictures = sample_images(
        models, ["a man", "a woman"], torch.zeros(2, 6, 128, 128), steps=2, generator=torch.Generator().manual_seed(0)
    )
    assert pictures.shape == (2, 3, 128, 128) and pictures.isfinite().all()
    again = sdedit(models, pictures, ["a", "b"], None, strength=0.0, generator=torch.Generator())
    assert (again - pictures).square().mean() < 1e-3  # the autoencoder's own error


def test_the_schedule_follows_samples_or_time_whichever_ends_first(folder, pool):
    config = dataclasses.replace(SMALL, samples=1000, minutes=10.0, decay_from=0.5)
    trainer = DiffusionTrainer(config, pool, FrozenParts.load(folder), ConditionSpec())
    trainer.step, trainer.samples, trainer.seconds = 10, 100, 450.0
    assert trainer.done() == pytest.approx(0.75)
    assert trainer._learning_rate() == pytest.approx(0.5 * config.learning_rate)
    trainer.samples = 1000
    assert trainer.done() == 1.0


def test_a_training_can_begin_from_another_model(trainer, folder, pool):
    export_denoiser(trainer, folder)
    models = GuidanceModels.load(folder)
    again = DiffusionTrainer(dataclasses.replace(SMALL, seed=9), pool, FrozenParts.load(folder), ConditionSpec())
    again.begin_from(models)
    expected = models.unet.state_dict()
    assert all(torch.equal(v.float(), expected[k].float()) for k, v in again.unet.state_dict().items())
    assert all(torch.equal(a, b) for a, b in zip(again.ema, again.parameters, strict=True))


def test_the_condition_embedding_starts_at_unit_scale():
    net = build_controlnet(SMALL.denoiser)
    noise = torch.rand(4, 6, 128, 128, generator=torch.Generator().manual_seed(0))
    assert abs(scale_condition_embedding(net, noise) - 0.7) < 0.05


def test_the_probe_reads_real_pictures_and_refuses_wrong_ones(pool):
    known, asked = examples(pool, ("full",), 128), examples(pool, ("full",), 192)[128:]
    reader = ColourReader(known, ConditionSpec())
    shirts = [reader.read(e.picture / 255, e, "shirt") for e in asked]
    assert len(shirts) == 64
    scores = Probe(known, asked, ConditionSpec(), net_steps=2).score_real()
    assert scores["shirt"] > 0.9 and scores["skin"] > 0.9 and scores["hair_colour"] > 0.9
    assert scores["net_shirt"] < 0.9  # two steps teach nothing: the readers are independent
