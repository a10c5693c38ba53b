"""Structural similarity (Wang et al. 2004) with an 11 x 11 Gaussian window of sigma 1.5."""

import torch
from torch import Tensor

_C1, _C2 = 0.01**2, 0.03**2


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Mean structural similarity of pictures ``[B, C, H, W]`` in 0 to 1; differentiable."""
    channels = first.shape[1]
    offsets = torch.arange(11, dtype=first.dtype) - 5
    line = torch.exp(-offsets.square() / (2 * 1.5**2))
    line = line / line.sum()

    def blur(x: Tensor) -> Tensor:
        rows = line.view(1, 1, 11, 1).expand(channels, 1, 11, 1)
        columns = line.view(1, 1, 1, 11).expand(channels, 1, 1, 11)
        x = torch.nn.functional.conv2d(x, rows, padding=(5, 0), groups=channels)
        return torch.nn.functional.conv2d(x, columns, padding=(0, 5), groups=channels)

    mean_1, mean_2 = blur(first), blur(second)
    variance_1 = blur(first * first) - mean_1 * mean_1
    variance_2 = blur(second * second) - mean_2 * mean_2
    covariance = blur(first * second) - mean_1 * mean_2
    numerator = (2 * mean_1 * mean_2 + _C1) * (2 * covariance + _C2)
    denominator = (mean_1.square() + mean_2.square() + _C1) * (variance_1 + variance_2 + _C2)
    return (numerator / denominator).mean()
