"""Pictures cropped to the head, as parsers of heads were trained on."""

from dataclasses import replace

import torch
from torch import Tensor

from ap3d.framing import EYES_TO_CHIN, HEAD_FRACTION
from ap3d.portrait.protocol import PortraitViews

EYES_TO_CENTRE = (0.0, -0.05, -0.35)  # from the middle of the eyes to that of a full frame, in head heights
CROP_SIZE = 192


def head_views(views: PortraitViews, landmarks: Tensor, size: int = CROP_SIZE) -> PortraitViews:
    """The views cropped to the full frame of ``ap3d.framing``, whatever share of them the head takes.

    Args:
        views: square pictures; beyond their edges lies their background.
        landmarks: ``[70, 3]`` of iBUG and the eyes, world units; the face looks about along +z.
        size: pixels of the crops.
    """
    eyes = landmarks[68:70].mean(0)
    height = (landmarks[8] - eyes).norm() / EYES_TO_CHIN
    pixels, depth = views.cameras.project((eyes + torch.tensor(EYES_TO_CENTRE) * height)[None])
    side = height / HEAD_FRACTION * views.cameras.intrinsics[:, 0] / depth[:, 0]
    corner = pixels[:, 0] - side[:, None] / 2
    cameras = views.cameras.crop(torch.cat([corner, side[:, None]], 1), size)
    steps = (torch.arange(size) + 0.5) / size
    places = [
        (corner[:, k, None] + side[:, None] * steps) / n * 2 - 1
        for k, n in enumerate((views.cameras.width, views.cameras.height))
    ]
    grid = torch.stack(torch.broadcast_tensors(places[0][:, None], places[1][:, :, None]), -1)

    def cut(image: Tensor, mode: str) -> Tensor:
        return torch.nn.functional.grid_sample(image, grid, mode=mode, align_corners=False)

    labels = None if views.labels is None else cut(views.labels[:, None].float(), "nearest")[:, 0].long()
    return replace(
        views, cameras=cameras, color=cut(views.color, "bilinear"), alpha=cut(views.alpha, "bilinear"), depth=None,
        normals=None, labels=labels,
    )  # fmt: skip
