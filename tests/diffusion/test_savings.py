"""What saves work must not change what comes out, or by little."""

import pytest
import torch
from torch.nn.functional import cosine_similarity

from ap3d.config import load_config
from ap3d.diffusion.ism import IsmSettings, ism_gradient, sds_gradient
from ap3d.diffusion.models import GuidanceModels
from ap3d.diffusion.sampling import sdedit


@pytest.fixture(scope="module")
def models() -> GuidanceModels:
    return GuidanceModels.load()


def gradient(models: GuidanceModels, conditions: torch.Tensor) -> torch.Tensor:
    latents = torch.randn(2, *models.latent_shape, generator=torch.Generator().manual_seed(1))
    words = [models.encode_prompt([text] * 2) for text in ("front view, an old man", "", "")]
    return ism_gradient(models, latents, 300, *words, conditions, 0, IsmSettings(3.0, 1), torch.Generator()).float()


def conditions_of(models: GuidanceModels) -> torch.Tensor:
    shape = (2, models.condition_channels, models.image_size, models.image_size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_an_embedding_made_once_changes_no_bit(models: GuidanceModels) -> None:
    conditions = conditions_of(models)
    embedded = models.embed_conditions(conditions)
    assert isinstance(embedded, list) and embedded[0].shape[-2:] == torch.Size(models.latent_shape[1:])
    assert models.embed_conditions(embedded)[0] is embedded[0]  # type: ignore[index]
    once, before = gradient(models, conditions), models.meter.total
    models.embed_once = False
    try:
        plain = gradient(models, conditions)
    finally:
        models.embed_once = True
    assert torch.equal(once, plain) and models.embed_conditions(None) is None
    again = models.meter.total
    gradient(models, conditions)
    assert (models.meter.total - again).flops < (again - before).flops


def test_branches_apart_and_crops_by_themselves_change_nothing(models: GuidanceModels) -> None:
    conditions = conditions_of(models)
    together, before = gradient(models, conditions), models.meter.total.unet
    models.branches_together = False
    try:
        apart, spent = gradient(models, conditions), models.meter.total.unet - before
    finally:
        models.branches_together = True
    torch.testing.assert_close(apart, together, atol=1e-3, rtol=1e-3)
    before = models.meter.total.unet
    gradient(models, conditions)
    assert models.meter.total.unet - before == spent
    pictures = torch.rand(3, 3, models.image_size, models.image_size, generator=torch.Generator().manual_seed(0))
    edit = lambda chunk: sdedit(  # noqa: E731
        models, pictures, ["a man", "a woman", "a man"], None, strength=0.5, steps=4,
        generator=torch.Generator().manual_seed(0), chunk=chunk,
    )  # fmt: skip
    torch.testing.assert_close(edit(1), edit(8), atol=1e-3, rtol=1e-3)


def test_bfloat16_on_a_cpu_is_near_and_keeps_the_autoencoder_exact(models: GuidanceModels) -> None:
    half = GuidanceModels.load(dtype=torch.bfloat16)
    conditions, pictures = conditions_of(models), torch.rand(1, 3, models.image_size, models.image_size)
    near = cosine_similarity(gradient(half, conditions).flatten(1), gradient(models, conditions).flatten(1))
    assert float(near.min()) > 0.98
    assert torch.equal(half.encode_images(pictures), models.encode_images(pictures))
    assert not load_config("builtin", {"models.dtype": "bfloat16"}).needs_gpu


def test_score_distillation_is_its_formula(models: GuidanceModels) -> None:
    latents, a = torch.randn(1, *models.latent_shape), models.alphas_cumprod[300]
    text, negative = models.encode_prompt(["a man"]), models.encode_prompt([""])
    found = sds_gradient(models, latents, 300, text, negative, None, 3.0, torch.Generator().manual_seed(2))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(2))
    noisy = a.sqrt() * latents + (1 - a).sqrt() * noise
    with torch.no_grad():
        branches = [models.predict(noisy, 300, words)[1] for words in (negative, text)]
    expected = ((1 - a) / a).sqrt() * (branches[0] + 3.0 * (branches[1] - branches[0]) - noise)
    assert torch.allclose(found, expected, atol=2e-4, rtol=1e-3)
