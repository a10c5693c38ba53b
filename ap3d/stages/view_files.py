"""Pictures with their cameras as named tensors, the form in which stages hand them on."""

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.portrait.protocol import PortraitViews


def view_tensors(views: PortraitViews, name: str) -> dict[str, Tensor]:
    """``NAME.images`` over the background and ``NAME.alpha`` as bytes, ``NAME.cam2world``, ``NAME.intrinsics``; where
    the views have them ``NAME.depth``, ``NAME.normals`` in half precision and ``NAME.labels``."""
    quantised = lambda x: (x * 255).round().clamp(0, 255).to(torch.uint8)  # noqa: E731
    tensors = {
        f"{name}.images": quantised(views.opaque()),
        f"{name}.alpha": quantised(views.alpha),
        f"{name}.cam2world": views.cameras.cam2world,
        f"{name}.intrinsics": views.cameras.intrinsics,
    }
    for key in ("depth", "normals"):
        value = getattr(views, key)
        if value is not None:
            tensors[f"{name}.{key}"] = value.half()
    if views.labels is not None:
        tensors[f"{name}.labels"] = views.labels.byte()
    return tensors


def views_from(tensors: dict[str, Tensor], name: str, background: Tensor) -> PortraitViews:
    """The views that :func:`view_tensors` packed under a name."""
    images = tensors[f"{name}.images"].float() / 255
    alpha = tensors[f"{name}.alpha"].float() / 255
    height, width = images.shape[-2:]
    cameras = Cameras(tensors[f"{name}.cam2world"], tensors[f"{name}.intrinsics"], width, height)
    depth, normals = (tensors.get(f"{name}.{key}") for key in ("depth", "normals"))
    labels = tensors.get(f"{name}.labels")
    return PortraitViews(
        cameras,
        (images - (1 - alpha) * background[:, None, None]).clamp(0, 1),
        alpha,
        background,
        None if depth is None else depth.float(),
        None if normals is None else normals.float(),
        None if labels is None else labels.long(),
    )
