"""Colours of a mesh's vertices from pictures of it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ap3d.diffusion.conditions import vertex_normals
from ap3d.portrait.protocol import Mesh, PortraitViews
from ap3d.portrait.surface.cleaning import unique_edges
from ap3d.raster.mesh import interpolate, rasterize_mesh

SHARPNESS = 4.0  # power of the cosine between a surface and the view that colours it
SEEN = 1e-3  # total weight from which on a vertex counts as seen
DEPTH_TOLERANCE = 0.012  # world units behind the nearest surface at which a vertex is still seen
OPAQUE = 0.98


@torch.no_grad()
def vertex_colours(mesh: Mesh, views: Sequence[PortraitViews]) -> Tensor:
    """Colours ``[V, 3]`` in 0..1: means over the views that see a vertex, weighted by how squarely.

    Vertices that no view sees take the colours of their neighbours.

    Args:
        mesh: world units, wound outward.
        views: sets of pictures of any size.
    """
    normals = vertex_normals(mesh.vertices[None], mesh.faces)[0]
    total, colour = torch.zeros(len(mesh.vertices), 1), torch.zeros(len(mesh.vertices), 3)
    for pictures in views:
        for index in range(len(pictures.cameras)):
            weight, sample = _seen_by(mesh, normals, pictures, index)
            total, colour = total + weight, colour + weight * sample
    seen = total[:, 0] > SEEN
    return filled(colour / total.clamp_min(SEEN), seen, mesh.faces)


def _seen_by(mesh: Mesh, normals: Tensor, views: PortraitViews, index: int) -> tuple[Tensor, Tensor]:
    """How squarely one view sees each vertex ``[V, 1]``, and the colour there ``[V, 3]``."""
    camera = views.cameras[index]
    pixels, depth = camera.project(mesh.vertices)
    clip = torch.nn.functional.pad(mesh.vertices, (0, 1), value=1.0) @ camera.clip_matrices()[0].T
    rast = rasterize_mesh(clip[None], mesh.faces, (camera.height, camera.width))
    surface = interpolate(depth[0][None, :, None], rast, mesh.faces).permute(0, 3, 1, 2)
    unit = (pixels[0] / torch.tensor([camera.width, camera.height]) * 2 - 1)[None, None]
    look = lambda image, mode: torch.nn.functional.grid_sample(image, unit, mode=mode, align_corners=False)[0, :, 0].T  # noqa: E731
    alpha = look(views.alpha[[index]], "bilinear")
    straight = views.color[[index]] / views.alpha[[index]].clamp_min(0.05)
    front = look(surface, "nearest")[:, 0]
    visible = (front > 0) & (depth[0] < front + DEPTH_TOLERANCE) & (alpha[:, 0] > OPAQUE)
    towards = torch.nn.functional.normalize(camera.positions - mesh.vertices, dim=1)
    cosine = (normals * towards).sum(1).clamp_min(0)
    return (cosine**SHARPNESS * visible)[:, None], look(straight, "bilinear").clamp(0, 1)


def filled(values: Tensor, known: Tensor, faces: Tensor) -> Tensor:
    """Values ``[V, C]`` where ``known [V]``; elsewhere means of what neighbours have, ring by ring.

    Pieces without any known vertex get the mean of all known ones.
    """
    if not bool(known.any()):
        return torch.full_like(values, 0.5)
    edges = unique_edges(faces)[0]
    both = torch.cat([edges, edges.flip(1)])
    values, known = torch.where(known[:, None], values, 0.0), known.clone()
    average = values[known].mean(0)
    while not bool(known.all()):
        reach = both[known[both[:, 0]] & ~known[both[:, 1]]]
        if not len(reach):
            break
        total = torch.zeros_like(values).index_add_(0, reach[:, 1], values[reach[:, 0]])
        count = torch.zeros(len(values)).index_add_(0, reach[:, 1], torch.ones(len(reach)))
        fresh = count > 0
        values[fresh] = total[fresh] / count[fresh, None]
        known |= fresh
    values[~known] = average
    return values
