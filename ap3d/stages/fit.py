"""Stage `fit`: the rig's parameters for a starting portrait, from its landmarks and its labelled surface."""

from typing import Any

import torch
from torch import Tensor

from ap3d.config import Config
from ap3d.diffusion.conditions import vertex_normals
from ap3d.fitting.rig_fit import fit_rig
from ap3d.fitting.triangulation import SpatialLandmarks
from ap3d.pictures import contact_sheet, png_bytes
from ap3d.portrait.protocol import PortraitViews
from ap3d.raster.mesh import interpolate, rasterize_mesh
from ap3d.rig.protocol import Rig, RigParams
from ap3d.stages.asset_files import labelled_surface
from ap3d.stages.base import StageContext, StageResult
from ap3d.stages.view_files import views_from
from ap3d.tensor_files import pack_tensors

PICTURED = 4  # views beside the rig in fit.png


class FitStage:
    """Fits the rig to a portrait that is not one already."""

    name = "fit"
    version = 1
    inputs: tuple[str, ...] = ("portrait", "assets")
    starts: tuple[str, ...] = ("portrait3d",)

    def settings(self, config: Config) -> Any:
        """Nothing beyond the rig and the inputs."""
        return []

    def run(self, context: StageContext) -> StageResult:
        """Outputs: ``params.safetensors``; ``fit.png``, the rig beside and over the views.

        Raises:
            RigFitError: the rig does not come close enough to the portrait.
        """
        rig, notes = context.resources.rig, context.notes("portrait")
        found = context.read_tensors("portrait", "landmarks.safetensors")
        views = notes["landmark_views"]
        landmarks = SpatialLandmarks(found["points"], found["error"], views, notes["landmark_pixels"])
        fitted = fit_rig(rig, landmarks, labelled_surface(context), context.report)
        pictures = context.read_tensors("portrait", "views.safetensors")
        shown = views_from(pictures, "full", torch.tensor(notes["background"]))
        metrics = {"fit_landmarks_mm": fitted.landmark_mm, "fit_surface_mm": fitted.surface_mm}
        outputs = {
            "params.safetensors": pack_tensors(fitted.params.tensors()),
            "fit.png": png_bytes(contact_sheet(rig_over_views(rig, fitted.params, shown, views[:PICTURED]), PICTURED)),
        }
        return StageResult(outputs, metrics)


def rig_over_views(rig: Rig, params: RigParams, views: PortraitViews, chosen: list[int]) -> Tensor:
    """Pictures, then the same with the shaded rig half transparent over them, ``[2 * N, 3, H, W]``."""
    cameras, pictures = views.cameras[chosen], views.opaque()[chosen]
    vertices = rig.vertices(params)
    normals = vertex_normals(vertices, rig.faces)[0]
    clip = torch.nn.functional.pad(vertices, (0, 1), value=1.0) @ cameras.clip_matrices().transpose(1, 2)
    rast = rasterize_mesh(clip, rig.faces, (cameras.height, cameras.width))
    towards = -cameras.cam2world[:, :3, 2]
    shade = (interpolate(normals[None], rast, rig.faces) * towards[:, None, None]).sum(-1)[:, None].clamp(0, 1)
    hit = (rast[..., 3] > 0)[:, None]
    shaded = 0.5 * pictures + 0.5 * (0.15 + 0.85 * shade)
    return torch.cat([pictures, torch.where(hit, shaded, pictures)])
