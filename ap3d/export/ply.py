"""The PLY of 3D Gaussian Splatting (Kerbl et al. 2023), as its viewers and converters read it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ap3d.errors import DataFileError
from ap3d.raster.splats import Splats
from ap3d.splats.ply_table import read_table, write_table

_POSITION, _NORMAL, _CONSTANT = ["x", "y", "z"], ["nx", "ny", "nz"], ["f_dc_0", "f_dc_1", "f_dc_2"]
_SCALE, _ROTATION = ["scale_0", "scale_1", "scale_2"], ["rot_0", "rot_1", "rot_2", "rot_3"]


def write(splats: Splats, notes: Mapping[str, Any] | None = None) -> bytes:
    """x y z, normals of zero, colours channel by channel, opacity logit, log scales, quaternion w x y z.

    As many ``f_rest`` properties are written as the degree needs; ``notes`` have no place in this format.
    """
    rest = splats.sh[:, 1:].transpose(1, 2).reshape(len(splats), -1)
    columns = [
        splats.means, torch.zeros_like(splats.means), splats.sh[:, 0], rest,
        torch.logit(splats.opacities, 1e-6)[:, None], splats.scales.clamp(min=1e-9).log(),
        torch.nn.functional.normalize(splats.quaternions, dim=1),
    ]  # fmt: skip
    higher = [f"f_rest_{i}" for i in range(rest.shape[1])]
    names = [*_POSITION, *_NORMAL, *_CONSTANT, *higher, "opacity", *_SCALE, *_ROTATION]
    return write_table(torch.cat(columns, 1).detach().numpy(), names)


def read(data: bytes) -> Splats:
    """The Gaussians of such a file, with any number of whole bands of harmonics.

    Raises:
        DataFileError: damaged, or without the properties of Gaussians.
    """
    vertex = read_table(data)
    missing = {*_POSITION, *_CONSTANT, "opacity", *_SCALE, *_ROTATION} - set(vertex)
    if missing:
        raise DataFileError(f"this PLY does not hold Gaussians: it lacks {', '.join(sorted(missing))}")
    column = lambda names: torch.from_numpy(np.stack([np.asarray(vertex[n], np.float32) for n in names], 1))  # noqa: E731
    higher = sum(name.startswith("f_rest_") for name in vertex)
    if higher not in (0, 9, 24, 45) or any(f"f_rest_{i}" not in vertex for i in range(higher)):
        raise DataFileError(f"this PLY has {higher} f_rest properties; Gaussians have 0, 9, 24 or 45")
    sh = column(_CONSTANT)[:, None]
    if higher:
        rest = column([f"f_rest_{i}" for i in range(higher)]).reshape(len(sh), 3, -1)
        sh = torch.cat([sh, rest.transpose(1, 2)], 1)
    return Splats(
        means=column(_POSITION),
        quaternions=column(_ROTATION),
        scales=column(_SCALE).exp(),
        opacities=torch.sigmoid(column(["opacity"])[:, 0]),
        sh=sh,
    )
