"""How unlike two pictures look: structural dissimilarity, or LPIPS where it is installed."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ap3d.errors import MissingDependencyError
from ap3d.metrics.ssim import ssim


def dissimilarity(kind: str, first: Tensor, second: Tensor) -> Tensor:
    """Mean over pictures ``[B, 3, H, W]`` in 0 to 1; differentiable, 0 for equal ones.

    Args:
        kind: ``ssim`` (1 - SSIM) or ``lpips`` (Zhang et al. 2018, arXiv 1801.03924, with VGG features).
        first: pictures.
        second: others.

    Raises:
        MissingDependencyError: LPIPS is asked for and not installed.
    """
    if kind == "ssim":
        return 1 - ssim(first, second)
    distances: Tensor = lpips_network(str(first.device))(first * 2 - 1, second * 2 - 1)
    return distances.mean()


@lru_cache(maxsize=2)
def lpips_network(device: str) -> Any:
    """The network, once a process.

    Raises:
        MissingDependencyError: the package or its weights are not there.
    """
    try:
        import lpips

        network = lpips.LPIPS(net="vgg", verbose=False)
    except (ImportError, OSError) as error:
        raise MissingDependencyError(
            "'perceptual: lpips' needs the lpips package and torchvision's VGG weights (pip install 'ap3d[lpips]'); "
            f"'ssim' needs nothing ({type(error).__name__})"
        ) from error
    return network.to(torch.device(device)).eval().requires_grad_(False)
