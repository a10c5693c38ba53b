"""Stage `assets`: which part of a portrait's mesh is skin, hair and clothes."""

from typing import Any

import torch
from torch import Tensor

from ap3d.config import Config
from ap3d.perception import load_parser
from ap3d.perception.mesh_topology import ibug_points
from ap3d.perception.protocol import Part, Segmenter
from ap3d.pictures import contact_sheet, png_bytes
from ap3d.portrait.protocol import Mesh, PortraitViews
from ap3d.portrait.surface.assets import asset_meshes, label_colours, mesh_ply
from ap3d.portrait.surface.cleaning import face_areas
from ap3d.portrait.surface.head_views import head_views
from ap3d.portrait.surface.pictures import shaded
from ap3d.portrait.surface.voting import face_votes, split_labels
from ap3d.stages.base import StageContext, StageResult
from ap3d.stages.mesh import PICTURED, read_detailed
from ap3d.tensor_files import pack_tensors

WHOLE_WEIGHT = 0.1  # of a vote from a whole view beside one from a crop of the head


class AssetsStage:
    """Labels the mesh by the votes of labelled views and cuts it."""

    name = "assets"
    version = 2
    inputs: tuple[str, ...] = ("portrait", "mesh")
    starts: tuple[str, ...] = ("portrait3d",)

    def settings(self, config: Config) -> Any:
        """Whose labels."""
        return [config.perception.segmenter, config.perception.hair]

    def run(self, context: StageContext) -> StageResult:
        """Outputs: ``assets.safetensors``, the mesh of stage `mesh` with ``labels [F]`` (uint8,
        :class:`ap3d.perception.protocol.Part`: SKIN, HAIR, CLOTHES, BEARD, ACCESSORY); ``skin.ply`` and, where the
        portrait has them, ``hair.ply`` and ``clothes.ply`` with normals and colours; ``assets.png``.

        Raises:
            PortraitError: no view shows a labelled pixel of the mesh.
        """
        stored = context.read_tensors("mesh", "mesh.safetensors")
        mesh, colours = Mesh(stored["vertices"], stored["faces"]), stored["colours"]
        segmenter = load_parser(context.config.perception, context.resources.device)
        full = read_detailed(context)
        landmarks = ibug_points(context.read_tensors("portrait", "landmarks.safetensors")["points"])
        labels = mesh_labels(mesh, full, landmarks, segmenter)
        middle = len(full.alpha) // 3
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


def mesh_labels(mesh: Mesh, views: PortraitViews, landmarks: Tensor, segmenter: Segmenter) -> Tensor:
    """``Part`` of each triangle ``[F]``: crops of the head, the size at which parsers know heads, decide; whole views
    speak for what those do not show.

    Args:
        mesh: world units, wound outward.
        views: all round the portrait.
        landmarks: ``[70, 3]`` in world units, which say where the head is; NaN: unknown.
        segmenter: for views without labels of their own.
    """
    votes = face_votes(mesh, views.cameras, view_labels(views, segmenter))
    if views.labels is None and bool(landmarks.isfinite().all()):
        head = head_views(views, landmarks)
        votes = WHOLE_WEIGHT * votes + face_votes(mesh, head.cameras, view_labels(head, segmenter))
    return split_labels(mesh, votes)


def view_labels(views: PortraitViews, segmenter: Segmenter) -> Tensor:
    """``Part`` of each pixel ``[B, H, W]``: the portrait's own labels where it has them, else the segmenter's;
    background where the matte says so."""
    labels = segmenter.segment(views.opaque()) if views.labels is None else views.labels
    return torch.where(views.alpha[:, 0] > 0.5, labels, int(Part.BACKGROUND))
