"""What a face does, from its landmarks: how far mouth and eyes are open, how wide the mouth is, how white the eyes are.

All distances are divided by the distance between the outer eye corners, so they depend on neither the picture's size
nor the head's distance; a head turned aside makes that distance shorter and the openings larger.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_INNER_LIPS = ((61, 67), (62, 66), (63, 65))
# On the shipped detector's mesh: corners of the right and the left eye, the one on the picture's left first; cheeks.
_CORNERS = ((33, 133), (362, 263))
_CHEEKS = (50, 205, 280, 425, 101, 330)
_GRID = (8, 20)  # samples across an eye: rows, columns
_HALF_HEIGHT = 0.24  # of the sampled strip, over the eye's width
_BRIGHTEST = 0.2  # share of an eye's samples that tell its white
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


def eye_whiteness(images: Tensor, mesh: Tensor) -> Tensor:
    """How much less red than skin the whitest part of each eye is: ``[B, 2]``, logarithmic, about 0 when shut.

    Args:
        images: ``[B, 3, H, W]`` in 0 to 1.
        mesh: ``[B, 478, 2 or more]`` pixels; NaN gives NaN.
    """
    points = mesh[..., :2]
    skin = _sample(images, points[:, _CHEEKS])
    reference = _blueness(skin.median(2).values[..., None])[:, 0]
    out = []
    for left, right in _CORNERS:
        along = points[:, right] - points[:, left]
        down = torch.stack([-along[:, 1], along[:, 0]], 1)
        rows, columns = torch.meshgrid(
            torch.linspace(-_HALF_HEIGHT, _HALF_HEIGHT, _GRID[0]), torch.linspace(0.12, 0.88, _GRID[1]), indexing="ij"
        )
        where = columns.reshape(-1, 1) * along[:, None] + rows.reshape(-1, 1) * down[:, None] + points[:, None, left]
        blue = _blueness(_sample(images, where))
        count = round(_BRIGHTEST * blue.shape[1])
        out.append(blue.topk(count, dim=1).values.mean(1) - reference)
    return torch.stack(out, 1)


def _blueness(colours: Tensor) -> Tensor:
    """Logarithm of blue over red of colours ``[B, 3, N]``: ``[B, N]``."""
    return ((colours[:, 2] + 0.04) / (colours[:, 0] + 0.04)).log()


def _sample(images: Tensor, points: Tensor) -> Tensor:
    """Colours ``[B, 3, N]`` at pixels ``[B, N, 2]``."""
    size = points.new_tensor([images.shape[3], images.shape[2]])
    grid = (2 * points / size - 1)[:, None]
    return F.grid_sample(images, grid, "bilinear", "border", align_corners=False)[:, :, 0]


def _distance(points: Tensor, a: int, b: int) -> Tensor:
    return (points[:, a] - points[:, b]).norm(dim=1)
