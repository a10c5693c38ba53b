"""Where a picture matters: loss weights over the latent grid, and the mirror image of a condition."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ap3d.diffusion.conditions import ConditionSpec
from ap3d.training.attributes import BACKGROUND_COLOUR

BACKGROUND, NEAR, HEAD, BEARD, FEATURES, HAIR = 0.4, 1.0, 1.6, 2.2, 2.2, 1.8
IRIS = 12.0  # a few cells that alone say the eye colour
FEATURE_REGIONS = ("BROW", "EARS", "LIPS", "SCLERA", "IRIS", "PUPIL", "TEETH", "TONGUE", "MOUTH")


class RegionWeights:
    """Loss weights from conditions and pictures.

    The background counts little, the head more, beard zone and facial features most. Pixels that are painted but lie
    outside the condition are hair: buns and curls are few and would be averaged away.
    """

    def __init__(self, spec: ConditionSpec, cell: int) -> None:
        self.cell = cell
        self.table = torch.tensor([[0.0] * spec.region_channels, *spec.codes.values()])
        weights = {
            "CLOTHES": NEAR,
            "BEARD": BEARD,
            **dict.fromkeys(FEATURE_REGIONS, FEATURES),
            "IRIS": IRIS,
            "PUPIL": IRIS / 2,
        }
        self.values = torch.tensor([0.0, *(weights.get(name, HEAD) for name in spec.codes)])

    def __call__(self, conditions: Tensor, pictures: Tensor) -> Tensor:
        """``[B, 1, h, w]`` for ``conditions [B, C, H, W]`` and ``pictures [B, 3, H, W]``, both in 0..1."""
        regions, colours = conditions[:, 3:, ::2, ::2], pictures[:, :, ::2, ::2]
        table = self.table.to(regions)  # nearest code: |c|^2 - 2 c r is least
        distance = table.square().sum(1)[:, None, None] - 2 * torch.einsum("kc,bchw->bkhw", table, regions)
        inside = self.values.to(regions)[distance.argmin(1)][:, None]
        covered = (regions.sum(1, keepdim=True) > 0.05).float()
        background = torch.tensor(BACKGROUND_COLOUR).to(colours)[:, None, None]
        painted = ((colours - background).abs().amax(1, keepdim=True) > 0.08).float()
        near = F.max_pool2d(covered, 9, 1, 4)
        outside = BACKGROUND + (NEAR - BACKGROUND) * near
        outside = torch.where(painted > 0, torch.full_like(outside, HAIR), outside)
        return F.avg_pool2d(torch.where(covered > 0, inside, outside), self.cell // 2)


def mirror_condition(conditions: Tensor) -> Tensor:
    """The condition ``[B, C, H, W]`` of the mirrored scene: columns swapped and normals turned to the other side.

    Antialiased edges hold normals times coverage over black; coverage follows from the unit length of the normals.
    """
    flipped = conditions.flip(-1)
    normals = flipped[:, :3]
    total, squares = normals.sum(1, keepdim=True), normals.square().sum(1, keepdim=True)
    root = (total - (total.square() - 2 * squares).clamp(min=0).sqrt()).clamp(0, 1)
    interior = -F.max_pool2d(-(squares > 0).float(), 3, 1, 1)
    coverage = torch.where(interior > 0, torch.ones_like(root), root)
    sideways = (coverage - normals[:, :1]) * (squares > 0)
    return torch.cat([sideways.clamp(0, 1), flipped[:, 1:]], 1)
