"""The GAN's picture behind the portrait: a StyleGAN2 synthesis network (arXiv 1912.04958) without its noise draws."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ap3d.errors import DataFileError
from ap3d.portrait.trigrid.tensors import STYLE

SIDES = (4, 8, 16, 32, 64, 128)
_GAIN, _SLOPE = math.sqrt(2), 0.2


def background_features(tensors: Mapping[str, Tensor], ws: Tensor) -> Tensor:
    """Features ``[32, 128, 128]`` of the background.

    Args:
        tensors: of the network, named as in ``bcg_synthesis`` (``b8.conv0.weight``, ...).
        ws: ``[14, 512]``; the first twelve are used.

    Raises:
        DataFileError: a tensor is missing or does not fit.
    """
    try:
        return _synthesise(tensors, ws)
    except (KeyError, RuntimeError) as error:
        raise DataFileError(f"the background network is not whole: {str(error).splitlines()[0]}") from None


def _synthesise(tensors: Mapping[str, Tensor], ws: Tensor) -> Tensor:
    x, image, index = tensors["b4.const"].reshape(1, -1, 4, 4), None, 0
    for side in SIDES:
        block = {name[len(f"b{side}.") :]: v for name, v in tensors.items() if name.startswith(f"b{side}.")}
        if side > 4:
            x = styled_convolution(block, "conv0", x, ws[index], up=True)
            index += 1
        x = styled_convolution(block, "conv1", x, ws[index])
        index += 1
        colour = to_image(block, x, ws[index])  # shares its style with the next block's first convolution
        image = colour if image is None else upsample(image) + colour
    assert image is not None
    return image[0]


def styled_convolution(t: Mapping[str, Tensor], name: str, x: Tensor, w: Tensor, up: bool = False) -> Tensor:
    """Modulated, demodulated 3 x 3 convolution with stored noise, bias and leaky ReLU; doubles the size if ``up``."""
    weight = t[f"{name}.weight"] * _style(t, name, w)[None, :, None, None]
    weight = weight * (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).rsqrt()
    if up:
        x = torch.nn.functional.conv2d(upsample(x, (3, 2)), weight)
    else:
        x = torch.nn.functional.conv2d(x, weight, padding=1)
    x = x + t[f"{name}.noise_const"] * t[f"{name}.noise_strength"] + t[f"{name}.bias"][:, None, None]
    return torch.nn.functional.leaky_relu(x, _SLOPE) * _GAIN


def to_image(t: Mapping[str, Tensor], x: Tensor, w: Tensor) -> Tensor:
    """Modulated 1 x 1 convolution without demodulation."""
    weight = t["torgb.weight"]
    style = _style(t, "torgb", w) / math.sqrt(weight.shape[1])
    return torch.nn.functional.conv2d(x, weight * style[None, :, None, None]) + t["torgb.bias"][:, None, None]


def _style(t: Mapping[str, Tensor], name: str, w: Tensor) -> Tensor:
    return t[f"{name}.affine.weight"] @ w / math.sqrt(STYLE) + t[f"{name}.affine.bias"]


def upsample(x: Tensor, padding: tuple[int, int] = (2, 1)) -> Tensor:
    """Zeros between the pixels, ``padding`` before and behind, then the filter [1, 3, 3, 1] with gain 4."""
    batch, channels, height, width = x.shape
    stuffed = torch.zeros(batch, channels, height, 2, width, 2)
    stuffed[:, :, :, 0, :, 0] = x
    padded = torch.nn.functional.pad(stuffed.reshape(batch, channels, height * 2, width * 2), padding * 2)
    line = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = (torch.outer(line, line) * (4 / 64))[None, None].repeat(channels, 1, 1, 1)
    return torch.nn.functional.conv2d(padded, kernel, groups=channels)
