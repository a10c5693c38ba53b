"""Gaussians as glTF: the extension ``KHR_gaussian_splatting``, ellipse kernel.

Scales and opacities are linear, quaternions x y z w, lengths metres, axes those of glTF (y up, face to +z). Programs
without the extension show the same points in their plain colours.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ap3d.errors import DataFileError
from ap3d.export.glb import ARRAY_BUFFER, GlbReader, GlbWriter
from ap3d.raster.splats import Splats
from ap3d.splats.avatar import SH_C0

EXTENSION = "KHR_gaussian_splatting"


def write(splats: Splats, notes: Mapping[str, Any] | None = None) -> bytes:
    """The Gaussians as one point primitive; ``notes`` go to the asset's extras."""
    glb = GlbWriter(notes)
    array = lambda t: np.ascontiguousarray(t.detach().numpy(), "<f4")  # noqa: E731
    unit = torch.nn.functional.normalize(splats.quaternions, dim=1)
    columns = {"ROTATION": unit[:, [1, 2, 3, 0]], "SCALE": splats.scales, "OPACITY": splats.opacities.clamp(0, 1)}
    columns |= {_harmonic(index): splats.sh[:, index] for index in range(splats.sh.shape[1])}
    attributes = {
        "POSITION": glb.accessor(array(splats.means), target=ARRAY_BUFFER, bounds=True),
        "COLOR_0": glb.accessor(_point_colors(splats), target=ARRAY_BUFFER, normalized=True),
    }
    for name, tensor in columns.items():
        attributes[f"{EXTENSION}:{name}"] = glb.accessor(array(tensor), target=ARRAY_BUFFER)
    extension = {
        "kernel": "ellipse", "colorSpace": "srgb_rec709_display", "projection": "perspective",
        "sortingMethod": "cameraDistance",
    }  # fmt: skip
    primitive = {"attributes": attributes, "mode": 0, "extensions": {EXTENSION: extension}}
    glb.document |= {
        "extensionsUsed": [EXTENSION],
        "meshes": [{"name": "gaussians", "primitives": [primitive]}],
        "nodes": [{"name": "avatar", "mesh": 0}],
        "scenes": [{"nodes": [0]}],
        "scene": 0,
    }
    return glb.finish()


def read(data: bytes) -> Splats:
    """The Gaussians of the first primitive that has the extension; the node's transform is not applied.

    Raises:
        DataFileError: damaged, or without such a primitive.
    """
    glb = GlbReader(data)
    try:
        primitives = [p for mesh in glb.document["meshes"] for p in mesh["primitives"]]
        attributes = next(p["attributes"] for p in primitives if EXTENSION in p.get("extensions", {}))
        value = lambda name: torch.from_numpy(glb.accessor(attributes[f"{EXTENSION}:{name}"]).astype(np.float32))  # noqa: E731
        held = next(n for n in (16, 9, 4, 1) if f"{EXTENSION}:{_harmonic(n - 1)}" in attributes)
        return Splats(
            means=torch.from_numpy(glb.accessor(attributes["POSITION"]).astype(np.float32)),
            quaternions=value("ROTATION")[:, [3, 0, 1, 2]],
            scales=value("SCALE"),
            opacities=value("OPACITY")[:, 0],
            sh=torch.stack([value(_harmonic(index)) for index in range(held)], 1),
        )
    except (KeyError, TypeError, AttributeError, StopIteration, ValueError) as error:
        raise DataFileError(f"this glTF file holds no whole {EXTENSION} primitive: {error}") from None


def _harmonic(index: int) -> str:
    """Name of the attribute of the ``index``-th coefficient."""
    degree = int(index**0.5)
    return f"SH_DEGREE_{degree}_COEF_{index - degree * degree}"


def _point_colors(splats: Splats) -> np.ndarray:
    """Linear RGB and opacity ``[N, 4]``, 16 bits, for programs that show plain points."""
    display = (0.5 + SH_C0 * splats.sh[:, 0]).clamp(0, 1)
    linear = torch.where(display <= 0.04045, display / 12.92, ((display + 0.055) / 1.055) ** 2.4)
    table = torch.cat([linear, splats.opacities.clamp(0, 1)[:, None]], 1)
    return (table.detach().numpy() * 65535).round().astype("<u2")
