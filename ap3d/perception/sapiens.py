"""Sapiens body-part segmentation, in this process (Khirodkar et al., arXiv 2408.12569).

Weights: the TorchScript export of the 28-class network, ``facebook/sapiens-seg-1b-torchscript`` (4.7 GB; CC-BY-NC-4.0,
**non-commercial**). It sees 1024 x 768 pixels whatever the picture's shape, as in AnimPortrait3D.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ap3d.errors import DataFileError
from ap3d.perception.exported import ExportedModel, Wanted, normalised
from ap3d.perception.protocol import Part

WANTED = Wanted(
    "perception.segmenter=sapiens",
    "sapiens_1b_goliath_best_goliath_mIoU_7994_epoch_151_torchscript.pt2",
    "the hub's facebook/sapiens-seg-1b-torchscript",
    "CC-BY-NC-4.0, non-commercial",
)
SIZE = (1024, 768)
MEAN, DEVIATION = (123.5 / 255, 116.5 / 255, 103.5 / 255), (58.5 / 255, 57.0 / 255, 57.5 / 255)
CLASSES = (
    "Background", "Apparel", "Face_Neck", "Hair", "Left_Foot", "Left_Hand", "Left_Lower_Arm", "Left_Lower_Leg",
    "Left_Shoe", "Left_Sock", "Left_Upper_Arm", "Left_Upper_Leg", "Lower_Clothing", "Right_Foot", "Right_Hand",
    "Right_Lower_Arm", "Right_Lower_Leg", "Right_Shoe", "Right_Sock", "Right_Upper_Arm", "Right_Upper_Leg", "Torso",
    "Upper_Clothing", "Lower_Lip", "Upper_Lip", "Lower_Teeth", "Upper_Teeth", "Tongue",
)  # fmt: skip
_WORDS = {
    "Background": Part.BACKGROUND, "Face": Part.SKIN, "Hair": Part.HAIR, "Apparel": Part.CLOTHES,
    "Clothing": Part.CLOTHES, "Shoe": Part.CLOTHES, "Sock": Part.CLOTHES, "Lip": Part.MOUTH, "Teeth": Part.MOUTH,
    "Tongue": Part.MOUTH,
}  # fmt: skip


def part_of(name: str) -> Part:
    """Our part for a class of Sapiens; limbs and torso are bare skin below the face."""
    return next((part for word, part in _WORDS.items() if word in name), Part.NECK)


@dataclass(frozen=True)
class SapiensSegmenter(ExportedModel):
    """One picture a pass: the network is large."""

    wanted = WANTED
    name: str = "sapiens"
    parts: frozenset[Part] = frozenset(map(part_of, CLASSES))

    def segment(self, images: Tensor) -> Tensor:
        """See :class:`ap3d.perception.protocol.Segmenter`."""
        table = torch.tensor([part_of(name) for name in CLASSES], device=images.device)
        labels = [table[self._classes(image[None])] for image in images]
        return torch.cat(labels) if labels else torch.zeros(0, *images.shape[2:], dtype=torch.int64)

    def _classes(self, image: Tensor) -> Tensor:
        logits = self.network(normalised(image, SIZE, MEAN, DEVIATION))
        if logits.shape[1] != len(CLASSES):
            raise DataFileError(f"{self.network.name} has {logits.shape[1]} classes, not the {len(CLASSES)} of Sapiens")
        return F.interpolate(logits, image.shape[2:], mode="bilinear").argmax(1)
