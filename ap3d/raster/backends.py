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
    "diff_gaussian_rasterization": "ap3d.raster.splats_diff_gaussian",
}
MESH_BACKENDS = {
    "cpu": "ap3d.raster.mesh_cpu",
    "nvdiffrast": "ap3d.raster.mesh_nvdiffrast",
}


def splat_backend_name(name: str | None, device: torch.device) -> str:
    """The name asked for, else the device's default: on a GPU whichever package is installed, gsplat first."""
    if name is not None:
        return name
    if device.type != "cuda":
        return "cpu"
    other = "diff_gaussian_rasterization"
    return other if not _installed("gsplat") and _installed(other) else "gsplat"


def splat_backend(name: str) -> Callable[..., Any]:
    """``render(splats, cameras, sh_degree, rule) -> SplatImages`` of a backend."""
    render: Callable[..., Any] = _module(SPLAT_BACKENDS, name).render
    return render


def mesh_backend(name: str | None, device: torch.device) -> Any:
    """A module with the five functions of ``mesh_cpu``; the CPU kernel serves a GPU without nvdiffrast too."""
    if name is None:
        name = "nvdiffrast" if device.type == "cuda" and _installed("nvdiffrast") else "cpu"
    return _module(MESH_BACKENDS, name)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _module(table: dict[str, str], name: str) -> Any:
    if name not in table:
        raise InputError(f"unknown rasteriser {name!r}; there are {', '.join(table)}")
    return importlib.import_module(table[name])
