"""What a face does, as ratios of its landmarks: how far mouth and eyes are open, how wide the mouth is.

All distances are divided by the distance between the outer eye corners, so they depend on neither the picture's size
nor the head's distance; a head turned aside makes that distance shorter and the openings larger.
"""

import torch
from torch import Tensor

_INNER_LIPS = ((61, 67), (62, 66), (63, 65))
_LIDS = {"right": ((37, 41), (38, 40)), "left": ((43, 47), (44, 46))}


def inter_ocular(points: Tensor) -> Tensor:
    """Distance ``[B]`` between the outer eye corners of landmarks ``[B, 70, 2 or 3]``."""
    return _distance(points, 36, 45)


def mouth_opening(points: Tensor) -> Tensor:
    """Mean distance ``[B]`` of the inner lips over the inter-ocular distance."""
    return torch.stack([_distance(points, a, b) for a, b in _INNER_LIPS]).mean(0) / inter_ocular(points)


def mouth_width(points: Tensor) -> Tensor:
    """Distance ``[B]`` of the mouth corners over the inter-ocular distance."""
    return _distance(points, 48, 54) / inter_ocular(points)


def eye_opening(points: Tensor) -> Tensor:
    """Mean distance ``[B, 2]`` of the lids (right, left eye of the subject) over the inter-ocular distance."""
    sides = [torch.stack([_distance(points, a, b) for a, b in pairs]).mean(0) for pairs in _LIDS.values()]
    return torch.stack(sides, 1) / inter_ocular(points)[:, None]


def _distance(points: Tensor, a: int, b: int) -> Tensor:
    return (points[:, a] - points[:, b]).norm(dim=1)
