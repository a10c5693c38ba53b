"""Stage `assets`: which part of a portrait's mesh is skin, hair and clothes."""

from typing import Any

import torch
from torch import Tensor

from ap3d.config import Config
from ap3d.perception import load_segmenter
from ap3d.perception.protocol import Part, Segmenter
from ap3d.pictures import contact_sheet, png_bytes
from ap3d.portrait.protocol import Mesh, PortraitViews
from ap3d.portrait.surface.assets import asset_meshes, label_colours, mesh_ply
from ap3d.portrait.surface.cleaning import face_areas
from ap3d.portrait.surface.pictures import shaded
from ap3d.portrait.surface.voting import face_votes, split_labels
from ap3d.stages.base import StageContext, StageResult
from ap3d.stages.mesh import PICTURED, read_views
from ap3d.tensor_files import pack_tensors


class AssetsStage:
    """Labels the mesh by the votes of labelled views and cuts it."""

    name = "assets"
    version = 1
    inputs: tuple[str, ...] = ("portrait", "mesh")
    starts: tuple[str, ...] = ("portrait3d",)

    def settings(self, config: Config) -> Any:
        """Whose labels."""
        return [config.perception.segmenter]

    def run(self, context: StageContext) -> StageResult:
        """Outputs: ``assets.safetensors``, the mesh of stage `mesh` with ``labels [F]`` (uint8,
        :class:`ap3d.perception.protocol.Part`: SKIN, HAIR, CLOTHES, BEARD, ACCESSORY); ``skin.ply`` and, where the
        portrait has them, ``hair.ply`` and ``clothes.ply`` with normals and colours; ``assets.png``.

        Raises:
            PortraitError: no view shows a labelled pixel of the mesh.
        """
        stored = context.read_tensors("mesh", "mesh.safetensors")
        mesh, colours = Mesh(stored["vertices"], stored["faces"]), stored["colours"]
        segmenter = load_segmenter(context.config.perception.segmenter, context.resources.device)
        sets = [read_views(context, name) for name in ("full", "face")]
        votes = torch.zeros(len(mesh.faces), 0)
        for views in sets:
            found = face_votes(mesh, views.cameras, view_labels(views, segmenter))
            votes = found if not votes.numel() else votes + found
        labels = split_labels(mesh, votes)
        full, middle = sets[0], len(sets[0].alpha) // 3
        cameras = full.cameras[list(range(middle, middle + PICTURED))]
        parts = asset_meshes(mesh, colours, labels)
        outputs = {
            "assets.safetensors": pack_tensors({**stored, "labels": labels.to(torch.uint8)}),
            "assets.png": png_bytes(contact_sheet(shaded(mesh, cameras, label_colours(labels)), PICTURED)),
        } | {f"{name}.ply": mesh_ply(part) for name, part in parts.items()}
        areas = face_areas(mesh)
        metrics = {f"{name}_area": float(areas[labels == part].sum() / areas.sum())
                   for name, part in (("hair", Part.HAIR), ("clothes", Part.CLOTHES))}  # fmt: skip
        return StageResult(outputs, metrics, {"assets": sorted(parts)})


def view_labels(views: PortraitViews, segmenter: Segmenter) -> Tensor:
    """``Part`` of each pixel ``[B, H, W]``: the portrait's own labels where it has them, else the segmenter's;
    background where the matte says so."""
    labels = segmenter.segment(views.opaque()) if views.labels is None else views.labels
    return torch.where(views.alpha[:, 0] > 0.5, labels, int(Part.BACKGROUND))
