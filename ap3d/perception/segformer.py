"""SegFormer face parsing (Xie et al., arXiv 2105.15203), trained on CelebAMask-HQ's 19 classes.

Weights: ``jonathandinu/face-parsing`` on the hub (340 MB) or any such folder. Both the data set and the backbone that
it was tuned from (NVIDIA's MiT) are **non-commercial**.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ap3d.errors import DataFileError
from ap3d.perception.exported import IMAGENET, normalised
from ap3d.perception.hub_folder import HubFolder
from ap3d.perception.protocol import Part

FOLDER = HubFolder("perception.segmenter=segformer", "jonathandinu/face-parsing", "non-commercial", "SegFormer")
SIZE = (512, 512)
CHUNK = 4
PARTS = {
    "background": Part.BACKGROUND, "skin": Part.SKIN, "nose": Part.SKIN, "eye_g": Part.ACCESSORY, "l_eye": Part.EYES,
    "r_eye": Part.EYES, "l_brow": Part.BROWS, "r_brow": Part.BROWS, "l_ear": Part.EARS, "r_ear": Part.EARS,
    "mouth": Part.MOUTH, "u_lip": Part.MOUTH, "l_lip": Part.MOUTH, "hair": Part.HAIR, "hat": Part.ACCESSORY,
    "ear_r": Part.ACCESSORY, "neck_l": Part.ACCESSORY, "neck": Part.NECK, "cloth": Part.CLOTHES,
}  # fmt: skip


@dataclass(frozen=True)
class SegformerSegmenter:
    """A transformers model whose configuration names its classes.

    Attributes:
        network: of class ``SegformerForSemanticSegmentation``.
        table: ``[K]`` our part for each of its classes.
    """

    network: Any
    table: Tensor
    fingerprint: str
    device: str = "cpu"
    name: str = "segformer"
    licence: str = "CelebAMask-HQ and NVIDIA SegFormer terms, non-commercial"

    @classmethod
    def load(cls, path: str | Path | None = None, device: str = "cpu") -> "SegformerSegmenter":
        """Read a model folder, or a hub id that was fetched before.

        Raises:
            InputError: nothing is there, or the device is absent.
            DataFileError: it holds no face parser.
        """
        from transformers import SegformerForSemanticSegmentation

        folder = FOLDER.find(path, device)
        network, digest = FOLDER.read(SegformerForSemanticSegmentation, folder)
        names = [network.config.id2label[k] for k in range(network.config.num_labels)]
        if unknown := [name for name in names if name not in PARTS]:
            raise DataFileError(f"{folder} is no face parser: its class {unknown[0]!r} is not of CelebAMask-HQ")
        network = network.float().eval().requires_grad_(False).to(device)
        return cls(network, torch.tensor([PARTS[name] for name in names]), digest, device)

    @property
    def parts(self) -> frozenset[Part]:
        """The parts that its classes map to."""
        return frozenset(Part(int(k)) for k in self.table)

    def segment(self, images: Tensor) -> Tensor:
        """See :class:`ap3d.perception.protocol.Segmenter`."""
        labels = [self._segment(chunk) for chunk in images.split(CHUNK)] if len(images) else []
        return torch.cat(labels) if labels else torch.zeros(0, *images.shape[2:], dtype=torch.int64)

    @torch.inference_mode()
    def _segment(self, images: Tensor) -> Tensor:
        logits = self.network(normalised(images.to(self.device), SIZE, *IMAGENET)).logits
        classes = F.interpolate(logits, images.shape[2:], mode="bilinear").argmax(1)
        return self.table.to(images.device)[classes.to(images.device)]
