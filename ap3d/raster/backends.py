"""Which rasterisers there are. A new one is one file and one line here; it is imported when first used."""

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch

from ap3d.errors import InputError

SPLAT_BACKENDS = {
    "cpu": "ap3d.raster.splats_cpu",
    "reference": "ap3d.raster.reference",
    "gsplat": "ap3d.raster.splats_gsplat",
}
MESH_BACKENDS = {
    "cpu": "ap3d.raster.mesh_cpu",
    "nvdiffrast": "ap3d.raster.mesh_nvdiffrast",
}


def splat_backend(name: str | None, device: torch.device) -> Callable[..., Any]:
    """``render(splats, cameras, sh_degree, rule) -> SplatImages`` of a backend, or of the device's default."""
    default = "gsplat" if device.type == "cuda" else "cpu"
    render: Callable[..., Any] = _module(SPLAT_BACKENDS, name or default).render
    return render


def mesh_backend(name: str | None, device: torch.device) -> Any:
    """A module with ``rasterize`` and ``interpolate``; the CPU kernel serves a GPU without nvdiffrast too."""
    if name is None:
        on_gpu = device.type == "cuda" and importlib.util.find_spec("nvdiffrast") is not None
        name = "nvdiffrast" if on_gpu else "cpu"
    return _module(MESH_BACKENDS, name)


def _module(table: dict[str, str], name: str) -> Any:
    if name not in table:
        raise InputError(f"unknown rasteriser {name!r}; there are {', '.join(table)}")
    return importlib.import_module(table[name])
