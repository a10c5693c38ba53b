"""Sharpening of a portrait's views by a ControlNet that takes a picture."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel

from ap3d.config import load_config
from ap3d.diffusion.models import GuidanceModels
from ap3d.errors import InputError
from ap3d.portrait.protocol import PortraitViews
from ap3d.portrait.sharpening import sharpen_views
from ap3d.portrait.view_sets import mesh_views
from ap3d.resources import Resources


@pytest.fixture(scope="module")
def tile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ControlNet of the built-in UNet that takes a picture, with random weights."""
    folder = tmp_path_factory.mktemp("tile")
    models = GuidanceModels.load("builtin")
    torch.manual_seed(0)
    control = ControlNetModel.from_unet(
        models.unet, conditioning_channels=3,
        conditioning_embedding_out_channels=models.controlnets[0].config.conditioning_embedding_out_channels,
    )  # fmt: skip
    torch.nn.init.normal_(control.controlnet_cond_embedding.conv_out.weight, std=0.2)
    for layer in control.controlnet_down_blocks:
        torch.nn.init.normal_(layer.weight, std=0.05)
    control.save_pretrained(folder)
    return folder


def _views(size: int) -> PortraitViews:
    cameras = mesh_views(size).cameras[[8, 9]]
    alpha = torch.zeros(2, 1, size, size)
    alpha[:, :, size // 4 :, size // 4 : -size // 4] = 1
    return PortraitViews(cameras, alpha * torch.tensor([0.8, 0.6, 0.5])[:, None, None], alpha, torch.ones(3))


def test_views_are_painted_over_inside_their_own_matte(tile: Path) -> None:
    config = load_config("builtin", {"models.tile_controlnet": str(tile), "portrait3d.sharpen": 0.4})
    resources = Resources.load(config)
    assert resources.tile is not None and resources.tile.unet is resources.models.unet
    assert "tile" in resources.fingerprints and "tile" in resources.licences
    views = _views(resources.models.image_size)
    run = lambda v: sharpen_views(resources.tile, v, ["front view, a man", "side view, a man"], steps=5)  # noqa: E731
    sharp = run(views)
    assert torch.equal(sharp.alpha, views.alpha) and (sharp.color <= sharp.alpha).all()
    assert (sharp.color - views.color).abs().max() > 0.02
    assert torch.equal(sharp.color, run(views).color), "the same seed paints the same"
    darker = run(replace(views, color=views.color * 0.3))
    assert darker.color.mean() < sharp.color.mean()


def test_unsuitable_sizes_and_control_nets_are_refused(tile: Path, tmp_path: Path) -> None:
    models = GuidanceModels.load("builtin")
    with pytest.raises(InputError, match="multiple of"):
        sharpen_views(models.with_controlnet(tile), _views(36 + 1), ["a", "b"])
    control = ControlNetModel.from_unet(models.unet, conditioning_channels=5)
    control.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="5 condition channels"):
        models.with_controlnet(tmp_path)


def test_it_is_off_unless_asked_for() -> None:
    assert json.loads(json.dumps(load_config("paper").to_dict()))["portrait3d"]["sharpen"] == 0
    with pytest.raises(InputError, match="portrait3d.sharpen"):
        load_config("builtin", {"portrait3d.sharpen": 1.5})
