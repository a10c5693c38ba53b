"""Stage `portrait` of the `portrait3d` start: pictures, landmarks and surface of a tri-grid."""

from dataclasses import replace

import torch
from torch import Tensor

from ap3d.cameras import Cameras, portrait3d_camera
from ap3d.diffusion.prompts import abstract_prompt
from ap3d.errors import InputError, PortraitError
from ap3d.fitting.triangulation import SpatialLandmarks, triangulate
from ap3d.framing import framing_boxes
from ap3d.perception import load_landmark_detector
from ap3d.perception.mesh_topology import ibug_points
from ap3d.pictures import contact_sheet, png_bytes
from ap3d.portrait.protocol import Portrait, PortraitViews
from ap3d.portrait.sharpening import sharpen_views
from ap3d.portrait.trigrid import load_trigrid
from ap3d.portrait.view_sets import gaussian_views, mesh_views
from ap3d.stages.base import StageContext, StageResult
from ap3d.stages.view_files import view_tensors
from ap3d.tensor_files import pack_tensors

# Nominal yaw and pitch between the cameras of the view sets, for measuring what the fit has not seen.
HELD_OUT = ((112.5, 82), (67.5, 98), (157.5, 90), (22.5, 82), (247.5, 90), (292.5, 98))
FACE_VIEWS = 6
LEAST_COVERAGE = 0.01  # of the pictures; less is an empty portrait
WHITE = (1.0, 1.0, 1.0)


def trigrid_portrait(context: StageContext) -> StageResult:
    """Outputs: ``views.safetensors`` (24 views ``full``, crops ``face``, maybe 120 ``more``), ``held_out.safetensors``,
    ``landmarks.safetensors``, ``raw_mesh.safetensors``, ``views.png``.

    Raises:
        DataFileError: the tri-grid or its networks cannot be read.
        PortraitError: nothing is to be seen, or no face.
    """
    job, own = context.job, context.config.portrait3d
    assert job.portrait is not None  # or it would be another start
    portrait = load_trigrid(job.portrait, own.decoder, resolution=own.resolution)
    return portrait_result(context, portrait)


def portrait_result(context: StageContext, portrait: Portrait) -> StageResult:
    """The stage's result for any portrait with a density; see :func:`trigrid_portrait`."""
    own, job = context.config.portrait3d, context.job
    camera = _Camera(context, portrait, 24 + FACE_VIEWS + len(HELD_OUT) + own.more_views)
    around = mesh_views(own.view_size)
    full = camera.views(around.cameras)
    if float(full.alpha.mean()) < LEAST_COVERAGE:
        raise PortraitError(f"all {len(full.alpha)} views of {job.portrait} are transparent; there is no head in it")
    landmarks = find_landmarks(full, context.config.perception.landmarks)
    face = camera.views(face_cameras(full.cameras, landmarks))
    sets = {"full": full, "face": face}
    if own.sharpen > 0:
        sets["full_sharp"] = _sharpened(context, full, around.directions)
    if own.more_views:
        sets["more"] = camera.views(gaussian_views(own.view_size).cameras)
    held_out = camera.views(Cameras.concatenate([portrait3d_camera(y, p, size=own.view_size) for y, p in HELD_OUT]))
    mesh = portrait.density_mesh()
    if mesh is None:
        raise PortraitError(f"{job.portrait} has no surface: its density stays low everywhere")
    tensors: dict[str, Tensor] = {}
    for name, views in sets.items():
        tensors |= view_tensors(views, name)
    outputs = {
        "views.safetensors": pack_tensors(tensors),
        "held_out.safetensors": pack_tensors(view_tensors(held_out, "held_out")),
        "landmarks.safetensors": pack_tensors({"points": landmarks.points, "error": landmarks.error}),
        "raw_mesh.safetensors": pack_tensors({"vertices": mesh.vertices, "faces": mesh.faces}),
        "views.png": png_bytes(contact_sheet(torch.cat([full.opaque(), face.opaque()]), 8)),
    }
    notes = {
        "completed_prompt": job.prompt,  # the portrait itself says what the words leave open
        "added_phrases": [],
        "abstract_prompt": job.abstract_prompt or abstract_prompt(job.prompt),
        "unknown_words": context.resources.models.unknown_words(job.prompt),
        "background": [float(c) for c in camera.background],
        "landmark_views": landmarks.views,
        "landmark_pixels": landmarks.pixels,
        "licences": {"portrait": "of the starting portrait, which the user gave"},
    }
    metrics = {"landmark_pixels": landmarks.pixels, "landmark_views": float(len(landmarks.views))}
    return StageResult(outputs, metrics, notes)


def _sharpened(context: StageContext, views: PortraitViews, directions: list[str]) -> PortraitViews:
    tile = context.resources.tile
    if tile is None:
        raise InputError("portrait3d.sharpen needs models.tile_controlnet, a ControlNet that takes a picture")
    prompts = [f"{direction}, {context.job.prompt}" for direction in directions]
    return sharpen_views(tile, views, prompts, strength=context.config.portrait3d.sharpen, seed=context.job.seed)


def find_landmarks(views: PortraitViews, detector: str = "builtin") -> SpatialLandmarks:
    """Landmarks of a portrait's views in space.

    Raises:
        NoFaceError: too few views show the same face.
    """
    found = load_landmark_detector(detector).detect(views.opaque())
    return triangulate(found, views.cameras, torch.ones(len(views.cameras), dtype=torch.bool))


def face_cameras(cameras: Cameras, landmarks: SpatialLandmarks) -> Cameras:
    """Crops of the views that showed the face, those from most nearly level first."""
    level = sorted(landmarks.views, key=lambda i: abs(float(cameras.cam2world[i, 1, 2])))[:FACE_VIEWS]
    chosen = cameras[level]
    pixels, _ = chosen.project(ibug_points(landmarks.points))
    return chosen.crop(framing_boxes(pixels, "face", cameras.width), cameras.width)


class _Camera:
    """Renders a portrait over the models' background and reports how far it is."""

    def __init__(self, context: StageContext, portrait: Portrait, total: int) -> None:
        flat = context.resources.models.flat_background
        self.background = torch.tensor(WHITE) if flat is None else flat.cpu()
        self.context, self.portrait, self.total, self.done = context, portrait, total, 0

    def views(self, cameras: Cameras) -> PortraitViews:
        """Pictures from some cameras."""
        parts = []
        for index in range(len(cameras)):
            parts.append(self.portrait.render(cameras[index]))
            self.done += 1
            self.context.report(self.done, self.total)
        return join_views(parts, cameras, self.background)


def join_views(parts: list[PortraitViews], cameras: Cameras, background: Tensor) -> PortraitViews:
    """Single views as one batch over another background."""
    joined = {}
    for key in ("depth", "normals", "labels"):
        values = [getattr(part, key) for part in parts]
        joined[key] = None if any(v is None for v in values) else torch.cat(values)
    color, alpha = torch.cat([p.color for p in parts]), torch.cat([p.alpha for p in parts])
    return replace(parts[0], cameras=cameras, color=color, alpha=alpha, background=background, **joined)
