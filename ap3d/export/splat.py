"""The ``.splat`` format of web viewers: 32 bytes a Gaussian, colours without view dependence.

Layout after antimatter15's public viewer: float32 position and scale, 8-bit colour with opacity, 8-bit quaternion.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ap3d.errors import DataFileError
from ap3d.raster.splats import Splats
from ap3d.splats.avatar import SH_C0

_RECORD = np.dtype([("position", "<f4", 3), ("scale", "<f4", 3), ("color", "u1", 4), ("rotation", "u1", 4)])


def write(splats: Splats, notes: Mapping[str, Any] | None = None) -> bytes:
    """Records by falling size times opacity, so that a viewer that is still loading shows the largest first."""
    order = (splats.scales.prod(1) * splats.opacities).argsort(descending=True)
    quaternions = torch.nn.functional.normalize(splats.quaternions[order], dim=1)
    quaternions = torch.where(quaternions[:, :1] < 0, -quaternions, quaternions)
    color = torch.cat([0.5 + SH_C0 * splats.sh[order, 0], splats.opacities[order, None]], 1)
    table = np.empty(len(splats), _RECORD)
    table["position"], table["scale"] = splats.means[order], splats.scales[order]
    table["color"] = (color * 255).round().clamp(0, 255).byte()
    table["rotation"] = (quaternions * 128 + 128).round().clamp(0, 255).byte()
    return table.tobytes()


def read(data: bytes) -> Splats:
    """The Gaussians of such a file, in its order.

    Raises:
        DataFileError: its length does not fit.
    """
    if not data or len(data) % _RECORD.itemsize:
        raise DataFileError(f"this is not a .splat file: {len(data)} bytes are no multiple of {_RECORD.itemsize}")
    table = np.frombuffer(data, _RECORD)
    tensor = lambda name: torch.from_numpy(table[name].astype(np.float32))  # noqa: E731
    color = tensor("color") / 255
    return Splats(
        means=tensor("position"),
        quaternions=(tensor("rotation") - 128) / 128,
        scales=tensor("scale"),
        opacities=color[:, 3],
        sh=((color[:, :3] - 0.5) / SH_C0)[:, None],
    )
