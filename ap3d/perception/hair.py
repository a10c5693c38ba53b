"""Hair masks: what a segmenter says, or a network for hair alone.

``pspnet`` is the hair network that AnimPortrait3D uses (PSPNet, arXiv 1612.01105, on ResNet-101, Figaro-1k; MIT),
exported to TorchScript or ONNX from the weights of the project ``pytorch-hair-segmentation``.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ap3d.perception.exported import IMAGENET, ExportedModel, Wanted, normalised
from ap3d.perception.protocol import HairMasker, Part, Segmenter

WANTED = Wanted(
    "perception.hair=pspnet",
    "pspnet_resnet101 and export it with torch.jit.trace",
    "the project pytorch-hair-segmentation",
    "MIT code",
)
MULTIPLE = 32


@dataclass(frozen=True)
class SegmenterHair:
    """The hair of a segmenter."""

    segmenter: Segmenter
    name: str = "segmenter"

    @property
    def licence(self) -> str:
        """The segmenter's."""
        return self.segmenter.licence

    @property
    def fingerprint(self) -> str:
        """The segmenter's."""
        return self.segmenter.fingerprint

    def hair(self, images: Tensor) -> Tensor:
        """See :class:`ap3d.perception.protocol.HairMasker`."""
        return self.segmenter.segment(images) == Part.HAIR


@dataclass(frozen=True)
class SegmenterWithHair:
    """A segmenter whose hair is what a masker says; what it alone took for hair is skin."""

    segmenter: Segmenter
    masker: HairMasker

    @property
    def name(self) -> str:
        """Both names."""
        return f"{self.segmenter.name}+{self.masker.name}"

    @property
    def licence(self) -> str:
        """Both licences."""
        return f"{self.segmenter.licence}; {self.masker.licence}"

    @property
    def fingerprint(self) -> str:
        """Both hashes."""
        return f"{self.segmenter.fingerprint}+{self.masker.fingerprint}"

    @property
    def parts(self) -> frozenset[Part]:
        """The segmenter's, and hair."""
        return self.segmenter.parts | {Part.HAIR}

    def segment(self, images: Tensor) -> Tensor:
        """See :class:`ap3d.perception.protocol.Segmenter`."""
        labels, hair = self.segmenter.segment(images), self.masker.hair(images).to(images.device)
        labels = torch.where(labels == Part.HAIR, int(Part.SKIN), labels)
        return torch.where(hair, int(Part.HAIR), labels)


@dataclass(frozen=True)
class PspnetHair(ExportedModel):
    """Full size, padded to a multiple of 32 pixels; hair where the network says at least one half."""

    wanted = WANTED
    name: str = "pspnet"

    def hair(self, images: Tensor) -> Tensor:
        """See :class:`ap3d.perception.protocol.HairMasker`."""
        height, width = images.shape[2:]
        masks = [self._mask(image[None]) for image in images]
        return torch.cat(masks) if masks else torch.zeros(0, height, width, dtype=torch.bool)

    def _mask(self, image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        pictures = F.pad(normalised(image, (height, width), *IMAGENET), (0, -width % MULTIPLE, 0, -height % MULTIPLE))
        logits = F.interpolate(self.network(pictures), pictures.shape[2:], mode="bilinear")
        return logits[:, 0, :height, :width] >= 0  # sigmoid of one half
