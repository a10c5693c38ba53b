"""Operations against arithmetic, shapes against each other, and columns of a row."""

import pytest
import torch
from torch import nn

from ap3d.diffusion.cost import Cost, CostMeter, counted, peak_flops, summed_columns
from ap3d.diffusion.models import GuidanceModels


def test_operations_are_those_of_the_formula() -> None:
    convolution = nn.Conv2d(3, 5, 3, padding=1)
    x = torch.rand(2, 3, 8, 8)
    assert counted(convolution, x)[1] == 2 * (3 * 3 * 3) * 5 * 8 * 8 * 2
    assert counted(nn.Linear(7, 11), torch.rand(4, 7))[1] == 2 * 7 * 11 * 4
    q, k = torch.rand(1, 2, 10, 4), torch.rand(1, 2, 6, 4)
    assert counted(nn.functional.scaled_dot_product_attention, q, k, k)[1] == 2 * 2 * (10 * 6 * 4) * 2


def test_a_network_is_counted_once_a_shape_and_gives_the_same_numbers() -> None:
    meter, network = CostMeter(), nn.Linear(4, 4)
    x = torch.rand(3, 4)
    outputs = [meter.call("unet", network, x) for _ in range(2)]
    assert torch.equal(outputs[0], network(x)) and torch.equal(outputs[0], outputs[1])
    assert meter.total == Cost(6, 0, 2 * 2 * 16 * 3)
    meter.call("controlnet", network, torch.rand(5, 4))
    assert meter.total == Cost(6, 5, 2 * 16 * 11)
    assert Cost.from_tensor(meter.total.tensor()) == meter.total


def test_the_way_back_through_an_autoencoder_counts() -> None:
    meter, network = CostMeter(), nn.Linear(4, 4).requires_grad_(False)
    x = torch.rand(2, 4, requires_grad=True)
    meter.call("autoencoder", network, x).sum().backward()
    assert meter.total.flops == 2 * (2 * 16 * 2) and x.grad is not None


def test_guidance_counts_both_branches_and_every_controlnet() -> None:
    models = GuidanceModels.load()
    latents, text = torch.zeros(2, *models.latent_shape), models.encode_prompt(["a man"] * 2)
    conditions = torch.zeros(2, models.condition_channels, models.image_size, models.image_size)
    with torch.no_grad():
        models.predict(latents, 500, text, conditions, guidance_scale=3.0)
        with_control = models.meter.total
        models.predict(latents, 500, text, None)
    assert (with_control.unet, with_control.controlnet) == (4, 4)
    rest = models.meter.total - with_control
    assert (rest.unet, rest.controlnet) == (2, 0) and 0 < rest.flops < with_control.flops / 2


def test_utilisation_leaves_out_phases_without_networks() -> None:
    phase = {"unet_evaluations": 3, "controlnet_evaluations": 1, "flops": 50.0, "seconds": 2.0, "peak_memory_mb": 9.0}
    idle = {"unet_evaluations": 0, "controlnet_evaluations": 0, "flops": 0.0, "seconds": 8.0, "peak_memory_mb": 7.0}
    columns = summed_columns([phase, idle], peak=100.0)
    assert columns == pytest.approx(
        {"unet_evaluations": 3, "controlnet_evaluations": 1, "flops": 50, "utilisation": 0.25, "peak_memory_mb": 9}
    )


def test_the_peak_is_that_of_a_matrix_product() -> None:
    assert 1e9 < peak_flops("cpu", torch.float32) < 1e13
