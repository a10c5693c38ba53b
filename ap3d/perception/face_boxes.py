"""Faces of a picture as turned squares: decoding of the shipped detector, and squares round landmarks.

The detector is BlazeFace (Bazarevsky et al. 2019) as MediaPipe ships it: 896 anchors on a 128-pixel picture.
"""

import torch
from torch import Tensor

SIZE = 128
THRESHOLD = 0.5
OVERLAP = 0.3
MARGIN = 1.5  # side of the square over the face's own extent
_GRIDS = ((16, 2), (8, 6))  # cells a side, anchors a cell


def anchors() -> Tensor:
    """Centres ``[896, 2]`` of the anchors, in pixels of the detector's picture."""
    parts = []
    for cells, repeats in _GRIDS:
        steps = (torch.arange(cells) + 0.5) * (SIZE / cells)
        rows, columns = torch.meshgrid(steps, steps, indexing="ij")
        parts.append(torch.stack([columns, rows], 2).reshape(-1, 1, 2).expand(-1, repeats, 2).reshape(-1, 2))
    return torch.cat(parts)


def decode(regressors: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Corners ``[B, N, 4]`` and six key points ``[B, N, 6, 2]`` in pixels; key points 0 and 1 are the eyes."""
    middle, size = regressors[..., :2] + centres, regressors[..., 2:4]
    points = regressors[..., 4:].unflatten(-1, (6, 2)) + centres[:, None]
    return torch.cat([middle - size / 2, middle + size / 2], -1), points


def distinct_faces(corners: Tensor, points: Tensor, scores: Tensor) -> list[tuple[Tensor, Tensor, float]]:
    """Faces of one picture as box, key points and score; boxes of one face are averaged by their scores."""
    keep = torch.nonzero(scores > THRESHOLD)[:, 0]
    order = keep[scores[keep].argsort(descending=True)]
    faces = []
    while len(order):
        same = _overlap(corners[order[0]], corners[order]) > OVERLAP
        same[0] = True
        group = order[same]
        weight = (scores[group] / scores[group].sum())[:, None]
        box = (corners[group] * weight).sum(0)
        faces.append((box, (points[group] * weight[..., None]).sum(0), float(scores[order[0]])))
        order = order[~same]
    return faces


def _overlap(box: Tensor, boxes: Tensor) -> Tensor:
    low, high = torch.maximum(box[:2], boxes[:, :2]), torch.minimum(box[2:], boxes[:, 2:])
    shared = (high - low).clamp_min(0).prod(1)
    area = lambda b: (b[..., 2:] - b[..., :2]).clamp_min(0).prod(-1)  # noqa: E731
    return shared / (area(box) + area(boxes) - shared).clamp_min(1e-6)


def square(low: Tensor, high: Tensor, right: Tensor, left: Tensor, margin: float = MARGIN) -> Tensor:
    """Turned squares ``[B, 4]`` (centre x, y, side, angle) round boxes, upright along the line between the eyes.

    Args:
        low, high: ``[B, 2]`` corners of the box.
        right, left: ``[B, 2]`` the subject's right and left eye.
        margin: side over the box's longer side.
    """
    along = left - right
    side = margin * (high - low).amax(1)
    return torch.cat([(low + high) / 2, side[:, None], torch.atan2(along[:, 1], along[:, 0])[:, None]], 1)


def square_round(mesh: Tensor) -> Tensor:
    """Turned squares ``[B, 4]`` round landmarks ``[B, K, 2 or more]`` of the shipped mesh."""
    points = mesh[:, :468, :2]
    return square(points.amin(1), points.amax(1), points[:, 33], points[:, 263])


def square_maps(squares: Tensor, size: int) -> Tensor:
    """Affine maps ``[B, 2, 3]`` from pixels of a crop of ``size`` to pixels of the picture."""
    step, angle = squares[:, 2] / size, squares[:, 3]
    cosine, sine = step * angle.cos(), step * angle.sin()
    linear = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1)
    shift = squares[:, :2] - linear.sum(2) * size / 2
    return torch.cat([linear, shift[..., None]], 2)
