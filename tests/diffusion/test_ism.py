"""Interval score matching against its formula, with a stand-in for the network whose answer is known."""

from types import SimpleNamespace

import pytest
import torch

from ap3d.diffusion.ism import IsmSettings, interval, inversion_timesteps, ism_gradient


def test_interval_shrinks_from_100_to_50_over_400_iterations() -> None:
    settings = IsmSettings()
    assert interval(0, settings) == 100
    assert interval(200, settings) == 75
    assert interval(400, settings) == 50
    assert interval(5000, settings) == 50


def test_inversion_has_at_most_three_steps_and_ends_before_the_target() -> None:
    settings = IsmSettings()
    for timestep in (15, 120, 300, 750):
        path = inversion_timesteps(timestep, 0, settings)
        assert path == sorted(set(path)) and len(path) <= 4
        assert path[-1] == max(timestep - 100, 0)
    assert inversion_timesteps(15, 0, settings) == [0]
    assert inversion_timesteps(300, 400, settings) == [100, 150, 200, 250]


@pytest.mark.parametrize("timestep", [15, 300, 700])
def test_gradient_is_the_weighted_difference_of_the_two_noise_predictions(timestep: int) -> None:
    alphas = torch.linspace(0.999, 0.01, 1000)
    target, source = torch.full((2, 3, 4, 4), 0.7), torch.full((2, 3, 4, 4), 0.2)
    calls: list[tuple[int, float]] = []

    def predict(noisy, at, text, conditions, guidance_scale=1.0, **options):  # type: ignore[no-untyped-def]
        calls.append((at, guidance_scale))
        noise = target if guidance_scale != 1.0 else source
        return (noisy - (1 - alphas[at]).sqrt() * noise) / alphas[at].sqrt(), noise

    models = SimpleNamespace(alphas_cumprod=alphas, predict=predict, embed_conditions=lambda c: c, device="cpu")
    text = torch.zeros(2, 1, 1)
    gradient = ism_gradient(
        models, torch.randn(2, 3, 4, 4), timestep, text, text, text, None, 400, IsmSettings(guidance_scale=7.5),
        torch.Generator().manual_seed(0),
    )  # fmt: skip
    a = alphas[timestep]
    torch.testing.assert_close(gradient, ((1 - a) / a).sqrt() * (target - source))
    assert calls[-1] == (timestep, 7.5) and calls[-2] == (max(timestep - 50, 0), 1.0)


def test_gradient_does_not_depend_on_the_batch_size() -> None:
    alphas = torch.linspace(0.999, 0.01, 1000)

    def predict(noisy, at, text, conditions, guidance_scale=1.0, **options):  # type: ignore[no-untyped-def]
        noise = torch.tanh(noisy) * guidance_scale
        return (noisy - (1 - alphas[at]).sqrt() * noise) / alphas[at].sqrt(), noise

    models = SimpleNamespace(alphas_cumprod=alphas, predict=predict, embed_conditions=lambda c: c, device="cpu")
    latents = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))

    def first(count: int) -> torch.Tensor:
        text = torch.zeros(count, 1, 1)
        batch = latents.expand(count, -1, -1, -1)
        generator = torch.Generator().manual_seed(0)
        return ism_gradient(models, batch, 300, text, text, text, None, 0, IsmSettings(), generator)[0]

    torch.testing.assert_close(first(1), first(3))
