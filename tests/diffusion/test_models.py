"""Resident models unlike the built-in: noise prediction, four latents, a KL autoencoder, two ControlNets."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel

from ap3d.diffusion.models import GuidanceModels
from ap3d.diffusion.network_options import NetworkOptions
from ap3d.diffusion.sampling import sample_images, sdedit, trailing_timesteps
from ap3d.errors import DataFileError, InputError
from tests.tiny_diffusion import WIDTH, write_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="module")
def models(folder):
    return GuidanceModels.load(folder)


def test_nothing_about_sizes_is_assumed(models):
    assert (models.image_size, models.vae_scale, models.latent_shape) == (16, 2, (4, 8, 8))
    assert models.encode_prompt(["a man", ""]).shape == (2, 24, WIDTH)
    assert models.condition_spec.channels == models.condition_channels == 4
    assert models.vocabulary is None and models.knows_negatives and models.unknown_words("wizard") == []
    assert models.complete_prompt("a man", torch.Generator()) == ("a man", [])


def test_prompts_are_remembered(models):
    first = models.encode_prompt(["a woman", "a man"])
    models.text_encoder.forward, forward = None, models.text_encoder.forward
    try:
        assert torch.equal(models.encode_prompt(["a man"])[0], first[1])
    finally:
        models.text_encoder.forward = forward


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_perfect_output_gives_back_picture_and_noise(models, kind, monkeypatch):
    monkeypatch.setattr(models, "prediction_type", kind)
    clean, noise = torch.randn(2, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    steps = torch.tensor([100, 700])
    a = models.alphas_cumprod[steps][:, None, None, None]
    noisy = a.sqrt() * clean + (1 - a).sqrt() * noise
    output = {"epsilon": noise, "sample": clean, "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * clean}[kind]
    found, found_noise = models.split(noisy, steps, output)
    assert torch.allclose(found, clean, atol=1e-4) and torch.allclose(found_noise, noise, atol=1e-4)


def test_guidance_is_linear_in_the_two_branches(models):
    z, condition = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.rand(2, 4, 16, 16)
    text, negative = models.encode_prompt(["a man", "a woman"]), models.encode_prompt(["", ""])
    _, with_text = models.predict(z, 500, text, condition)
    _, without = models.predict(z, 500, negative, condition)
    _, guided = models.predict(z, 500, text, condition, guidance_scale=3.0)
    assert torch.allclose(guided, without + 3 * (with_text - without), atol=1e-4)
    _, uncontrolled = models.predict(z, 500, text)
    assert not torch.allclose(with_text, uncontrolled, atol=1e-3)


def test_several_controlnets_add_up(folder, models):
    both = GuidanceModels.load(folder, controlnet=[folder / "controlnet", folder / "controlnet"])
    z, condition = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.rand(1, 4, 16, 16)
    text = models.encode_prompt(["a man"])
    doubled = models.predict(z, 500, text, condition, control_scale=2.0)[1]
    assert torch.allclose(both.predict(z, 500, text, [condition, condition])[1], doubled, atol=1e-4)


def test_sampling_is_ddim_with_trailing_steps(models):
    scheduler = DDIMScheduler.from_config(
        models.scheduler.config, timestep_spacing="trailing", set_alpha_to_one=True, clip_sample=False
    )
    scheduler.set_timesteps(5)
    assert scheduler.timesteps.tolist() == trailing_timesteps(1000, 5)
    noise, text = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2)), models.encode_prompt(["a man"])
    z = noise
    for t in scheduler.timesteps:
        z = scheduler.step(models.predict(z, int(t), text)[1], t, z).prev_sample
    ours = sample_images(models, ["a man"], None, steps=5, guidance_scale=1.0, generator=torch.Generator(), noise=noise)
    assert torch.allclose(ours, models.decode_latents(z), atol=1e-4)


def test_sdedit_keeps_more_of_the_picture_at_less_strength(models):
    picture = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    seen = models.decode_latents(models.encode_images(picture))
    errors = []
    for strength in (0.0, 0.3, 1.0):
        generator = torch.Generator().manual_seed(0)
        new = sdedit(models, picture, ["a man"], None, strength=strength, steps=10, generator=generator)
        errors.append(float((new - seen).abs().mean()))
    assert errors[0] < 1e-6 < errors[1] < errors[2]


def test_latents_have_gradients(models):
    picture = torch.rand(1, 3, 16, 16).requires_grad_()
    models.encode_images(picture).sum().backward()
    assert picture.grad is not None and picture.grad.abs().sum() > 0


def test_the_fingerprint_follows_the_weights(folder, models, tmp_path):
    other = tmp_path / "copy"
    shutil.copytree(folder, other)
    assert GuidanceModels.load(other).fingerprint == models.fingerprint
    config = other / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("0.012", "0.013"))
    assert GuidanceModels.load(other).fingerprint != models.fingerprint


def test_an_fsspec_address_is_a_folder_too(folder, tmp_path, monkeypatch, models):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert GuidanceModels.load(f"file://{folder}").fingerprint == models.fingerprint


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "controlnet"])
def test_truncated_weights_are_one_clear_error(folder, tmp_path, part):
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    weights = next((broken / part).glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(DataFileError, match="truncated") as caught:
        GuidanceModels.load(broken)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", ["/no/such/folder", "nobody/never-fetched", "s4://bucket/model"])
def test_a_missing_model_is_an_input_error(spec):
    with pytest.raises(InputError):
        GuidanceModels.load(spec)


def test_parts_that_do_not_fit_are_refused(folder, tmp_path):
    broken = tmp_path / "other"
    shutil.copytree(folder, broken)
    (broken / "controlnet" / "condition.json").write_text(
        json.dumps({"submesh": "head", "background": "black", "codes": {"SKIN": [1, 0, 0]}})
    )
    with pytest.raises(InputError, match="condition"):
        GuidanceModels.load(broken)


def damaged(folder, tmp_path, part, change):
    """A copy of the model whose tensors of one part were changed."""
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "damaged"
    shutil.copytree(folder, broken)
    file = next((broken / part).glob("*.safetensors"))
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, {"format": "pt"})
    return broken


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "controlnet"])
def test_missing_extra_and_misshapen_tensors_are_named(folder, tmp_path, part):
    def drop(tensors):
        tensors.pop(min(tensors))

    def add(tensors):
        tensors["lora.up.weight"] = torch.zeros(2)

    def bend(tensors):
        tensors[min(tensors)] = torch.zeros(3, 5, 7)

    for change, words in ((drop, "lacks 1 of"), (add, "unknown 1 of"), (bend, "other shapes")):
        with pytest.raises(DataFileError, match=words) as caught:
            GuidanceModels.load(damaged(folder, tmp_path / words[:5], part, change))
        assert "\n" not in str(caught.value) and part in str(caught.value)


def test_autoencoders_with_old_attention_names_are_read(folder, tmp_path, models):
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(tensors):
        for name in list(tensors):
            for new, old in names.items():
                if f".{new}." in name:
                    tensors[name.replace(f".{new}.", f".{old}.")] = tensors.pop(name)

    old = GuidanceModels.load(damaged(folder, tmp_path, "vae", rename))
    pictures = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(old.encode_images(pictures), models.encode_images(pictures))


@pytest.mark.parametrize(
    ("change", "words"),
    [({"addition_embed_type": "text_time"}, "SDXL"), ({"in_channels": 9}, "inpainting"), (None, "transformer")],
)
def test_other_families_are_refused_before_their_weights_are_read(folder, tmp_path, change, words):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    if change is None:
        (other / "transformer").mkdir()
    else:
        config = other / "unet" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(InputError, match=words):
        GuidanceModels.load(other)


def test_condition_channels_that_nobody_explains_are_refused(folder, tmp_path):
    other = tmp_path / "other"
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    net = ControlNetModel.from_unet(unet, conditioning_channels=3, conditioning_embedding_out_channels=(8, 16))
    net.save_pretrained(other)
    with pytest.raises(InputError, match="takes 3 condition channels"):
        GuidanceModels.load(folder, controlnet=other)


def test_weights_of_the_wanted_type_stay_in_the_file(folder, tmp_path):
    for part in ("unet", "vae", "text_encoder", "controlnet"):
        half = tmp_path / "half" / part
        shutil.copytree(folder / part, half)
    for part in ("tokenizer", "scheduler"):
        shutil.copytree(folder / part, tmp_path / "half" / part)
    models = GuidanceModels.load(tmp_path / "half", dtype=torch.bfloat16)
    assert models.dtype == torch.bfloat16 and models.encode_prompt(["a man"]).dtype == torch.bfloat16


@pytest.mark.parametrize("options", [NetworkOptions(channels_last=True), NetworkOptions(attention="math")])
def test_memory_format_and_attention_kernel_change_nothing(folder, models, options):
    other = GuidanceModels.load(folder, options=options)
    z, condition = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.rand(2, 4, 16, 16)
    text = models.encode_prompt(["a man", "a woman"])
    expected = models.predict(z, 500, text, condition)[1]
    torch.testing.assert_close(other.predict(z, 500, text, condition)[1], expected, atol=1e-4, rtol=1e-4)


def test_control_can_be_left_out_for_some_pictures(models):
    z, condition = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.rand(2, 4, 16, 16)
    text = models.encode_prompt(["a man", "a woman"])
    mixed = models.predict(z, 500, text, condition, guidance_scale=3.0, controlled=torch.tensor([True, False]))[1]
    torch.testing.assert_close(mixed[:1], models.predict(z, 500, text, condition, guidance_scale=3.0)[1][:1])
    torch.testing.assert_close(mixed[1:], models.predict(z, 500, text, guidance_scale=3.0)[1][1:])


def test_perp_neg_against_the_positive_itself_is_plain_guidance(models):
    z, text = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)), models.encode_prompt(["a", "b"])
    plain = models.predict(z, 500, text, guidance_scale=3.0)[1]
    against = (text[None], torch.full((1, 2), -2.0))
    torch.testing.assert_close(models.predict(z, 500, text, guidance_scale=3.0, against=against)[1], plain)
    other = (models.encode_prompt(["back view", "back view"])[None], torch.full((1, 2), -2.0))
    assert not torch.allclose(models.predict(z, 500, text, guidance_scale=3.0, against=other)[1], plain, atol=1e-4)


def test_one_of_several_workers_copies_a_remote_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import time
    from concurrent.futures import ThreadPoolExecutor

    from ap3d.diffusion import loading

    source, copies, copy = tmp_path / "model", [], loading._copy_folder
    (source / "unet").mkdir(parents=True)
    (source / "unet" / "config.json").write_text("{}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def counted(uri: str, target: Path) -> None:
        copies.append(uri)
        time.sleep(0.05)
        copy(uri, target)

    monkeypatch.setattr(loading, "_copy_folder", counted)
    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(loading.resolve_model_folder, [f"file://{source}"] * 4))
    assert len(set(folders)) == 1 and len(copies) == 1
    assert (folders[0] / "unet" / "config.json").read_text() == "{}"
