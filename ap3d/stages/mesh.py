"""Stage `mesh`: a portrait's surface as a mesh, fitted to its views' normals and silhouettes, with colours."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ap3d.config import Config
from ap3d.perception import load_matting, load_normals
from ap3d.pictures import contact_sheet, png_bytes
from ap3d.portrait.protocol import Mesh, PortraitViews
from ap3d.portrait.surface.colours import vertex_colours
from ap3d.portrait.surface.fitting import NormalTargets, SurfaceFit, fit_surface, world_normals
from ap3d.portrait.surface.pictures import camera_normals, shaded
from ap3d.stages.base import StageContext, StageResult
from ap3d.stages.view_files import views_from
from ap3d.tensor_files import pack_tensors

PICTURED = 4  # views in mesh.png


class MeshStage:
    """Makes the mesh of a starting portrait that has a density."""

    name = "mesh"
    version = 1
    inputs: tuple[str, ...] = ("portrait",)
    starts: tuple[str, ...] = ("portrait3d",)

    def settings(self, config: Config) -> Any:
        """Triangles and steps, and whose mattes and normals."""
        own = config.portrait3d
        return [own.mesh_faces, own.mesh_steps, config.perception.matting, config.perception.normals]

    def run(self, context: StageContext) -> StageResult:
        """Outputs: ``mesh.safetensors`` (``vertices [V, 3]`` in world units, ``faces [F, 3]`` wound outward,
        ``colours [V, 3]``); ``mesh.png``, raw normals, fitted normals and colours of a few views.

        Raises:
            PortraitError: the density has no surface, or the views are transparent.
        """
        own, device = context.config.portrait3d, context.resources.device
        raw_mesh = context.read_tensors("portrait", "raw_mesh.safetensors")
        raw = Mesh(raw_mesh["vertices"].float(), raw_mesh["faces"].long())
        full, face = read_views(context, "full"), read_views(context, "face")
        detailed = read_detailed(context)
        full = replace(full, alpha=load_matting(context.config.perception.matting, device).matte(detailed))
        normals = load_normals(context.config.perception.normals, device).normals(replace(detailed, alpha=full.alpha))
        targets = NormalTargets(full.cameras, full.alpha, world_normals(normals, full.cameras))
        settings = SurfaceFit.of(own.mesh_faces, full.cameras.width, own.mesh_steps)
        mesh = fit_surface(raw, targets, settings, context.generator, context.report)
        colours = vertex_colours(mesh, [full, face])
        outputs = {
            "mesh.safetensors": pack_tensors({"vertices": mesh.vertices, "faces": mesh.faces, "colours": colours}),
            "mesh.png": png_bytes(contact_sheet(_pictures(raw, mesh, colours, full), PICTURED)),
        }
        before, after = (normal_error(m, full.cameras[list(range(0, len(normals), 4))], normals[::4])
                         for m in (raw, mesh))  # fmt: skip
        metrics = {"mesh_faces": float(len(mesh.faces)), "mesh_degrees": after, "raw_mesh_degrees": before}
        return StageResult(outputs, metrics)


def read_views(context: StageContext, name: str) -> PortraitViews:
    """Views that stage `portrait` left."""
    background = torch.tensor(context.notes("portrait")["background"])
    return views_from(context.read_tensors("portrait", "views.safetensors"), name, background)


def read_detailed(context: StageContext) -> PortraitViews:
    """The ``full`` views as networks should see them: sharpened where stage `portrait` did so."""
    return read_views(context, "full_sharp" if context.config.portrait3d.sharpen > 0 else "full")


def normal_error(mesh: Mesh, cameras: Any, normals: Tensor) -> float:
    """Median angle in degrees between a mesh's normals and camera-space ones ``[B, 3, H, W]``, where both are."""
    seen = camera_normals(mesh, cameras)
    both = (seen.norm(dim=1) > 0.5) & (normals.norm(dim=1) > 0.5)
    cosine = (seen * normals).sum(1)[both]
    return float(torch.rad2deg(torch.acos(cosine.clamp(-1, 1))).median()) if len(cosine) else float("nan")


def _pictures(raw: Mesh, mesh: Mesh, colours: Tensor, views: PortraitViews) -> Tensor:
    middle = len(views.alpha) // 3  # the level ones of the 24
    cameras = views.cameras[list(range(middle, middle + PICTURED))]
    rows = [camera_normals(m, cameras) * 0.5 + 0.5 for m in (raw, mesh)]
    return torch.cat([*rows, shaded(mesh, cameras, colours, lit=False)])
