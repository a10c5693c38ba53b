"""BiRefNet matting (Zheng et al., arXiv 2401.03407).

Weights: an ONNX export such as ``BiRefNet-portrait-epoch_150.onnx`` (MIT). Its hub folder would run its own Python
code and needs torchvision, so that the export is what is read here.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ap3d.perception.exported import IMAGENET, ExportedModel, Wanted, normalised
from ap3d.portrait.protocol import PortraitViews

WANTED = Wanted(
    "perception.matting=birefnet",
    "BiRefNet-portrait-epoch_150.onnx",
    "the releases of the project ZhengPeng7/BiRefNet",
    "MIT",
)
SIZE = (1024, 1024)


@dataclass(frozen=True)
class BirefnetMatting(ExportedModel):
    """Reads the pictures over their background, one a pass."""

    wanted = WANTED
    name: str = "birefnet"

    def matte(self, views: PortraitViews) -> Tensor:
        """See :class:`ap3d.perception.protocol.Matting`."""
        images = views.opaque().clamp(0, 1)
        mattes = [self.network(normalised(i, SIZE, *IMAGENET)).sigmoid() for i in images.split(1) if len(i)]
        if not mattes:
            return views.alpha
        return F.interpolate(torch.cat(mattes)[:, :1], images.shape[2:], mode="bilinear").clamp(0, 1)
