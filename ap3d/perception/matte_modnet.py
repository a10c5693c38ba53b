"""MODNet portrait matting (Ke et al., arXiv 2011.11961), the matting of AnimPortrait3D.

Weights: the TorchScript or ONNX export of the photographic (or webcam) portrait model by its authors (26 MB,
Apache-2.0).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ap3d.perception.exported import ExportedModel, Wanted, normalised
from ap3d.portrait.protocol import PortraitViews

WANTED = Wanted(
    "perception.matting=modnet",
    "modnet_photographic_portrait_matting.torchscript (or .onnx)",
    "the links of the project ZHKKKe/MODNet",
    "Apache-2.0",
)
REFERENCE, MULTIPLE = 512, 32  # pixels of the shorter side; sides are cut to a multiple
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class ModnetMatting(ExportedModel):
    """Reads the pictures over their background."""

    wanted = WANTED
    name: str = "modnet"

    def matte(self, views: PortraitViews) -> Tensor:
        """See :class:`ap3d.perception.protocol.Matting`."""
        images = views.opaque().clamp(0, 1)
        if not len(images):
            return views.alpha
        pictures = normalised(images, network_size(*images.shape[2:]), HALF, HALF, "area")
        mattes = torch.cat([self.network(picture) for picture in pictures.split(1)])
        return F.interpolate(mattes[:, :1], images.shape[2:], mode="area").clamp(0, 1)


def network_size(height: int, width: int) -> tuple[int, int]:
    """Rows and columns that the network sees: the shorter side becomes 512, both a multiple of 32."""
    scale = REFERENCE / min(height, width)
    return tuple(max(round(n * scale) // MULTIPLE, 1) * MULTIPLE for n in (height, width))  # type: ignore[return-value]
