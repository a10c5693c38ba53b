"""The first Gaussians: on the rig's surface, and between skin and hull for hair and clothes."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ap3d.rig.protocol import Rig
from ap3d.rig.regions import Label, point_labels
from ap3d.splats.avatar import SH_C0, GaussianAvatar, Group
from ap3d.splats.carriers import cloth_carriers, hair_carriers, strongest_first
from ap3d.splats.frames import TriangleFrames, triangle_frames

# How much denser than average a region is sampled, by area.
REGION_DENSITY = {
    "scalp": 0.6, "face": 2.0, "ears": 1.2, "left_eye": 3.0, "right_eye": 3.0, "lids": 4.0, "lips": 4.0,
    "teeth": 2.0, "tongue": 1.0, "mouth": 0.8, "neck": 1.2, "torso": 0.7,
}  # fmt: skip
COVERAGE = 0.75  # sigma over mean spacing: opaque skin without holes
FLATNESS = 0.15  # sigma along the normal over sigma along the surface
SKIN_OPACITY, SEED_OPACITY = 0.97, 0.3
# Anatomy that no view of a closed mouth shows, in the shade that it lies in (medians of ten synthetic people with
# open mouths); later stages refine it. Brighter, an open mouth between lips of its own colour reads as closed.
PAINT = {
    Label.TEETH: (0.60, 0.58, 0.54),
    Label.TONGUE: (0.45, 0.21, 0.22),
    Label.MOUTH: (0.08, 0.02, 0.02),
}


@dataclass(frozen=True)
class Seeds:
    """Where Gaussians of hair or cloth begin.

    Attributes:
        points: ``[M, 3]`` world units.
        spacing: distance of neighbours, world units.
        colours: ``[M, 3]`` or None where they are unknown.
    """

    points: Tensor
    spacing: float
    colours: Tensor | None = None


def surface_avatar(
    rig: Rig, vertices: Tensor, count: int, generator: torch.Generator, stretched: Tensor | None = None
) -> GaussianAvatar:
    """Flat opaque Gaussians spread over the rig's surface, denser where people look.

    Args:
        rig: its faces and regions.
        vertices: ``[V, 3]`` posed mesh.
        count: number of Gaussians.
        generator: draws positions.
        stretched: ``[V, 3]`` another pose; triangles that are larger there get as many Gaussians as they need there.
    """
    frames = triangle_frames(vertices, rig.faces)
    corners, area = vertices[rig.faces], _areas(vertices, rig)
    largest = area if stretched is None else torch.maximum(area, _areas(stretched, rig))
    density = torch.ones(len(rig.faces))
    for name, factor in REGION_DENSITY.items():
        density[rig.regions[name]] = factor
    cumulative = torch.cumsum(largest.double() * density, 0)
    # Systematic sampling: every stretch of equal weight receives exactly one point.
    offset = torch.rand((), generator=generator, dtype=torch.float64)
    positions = (torch.arange(count, dtype=torch.float64) + offset) * cumulative[-1] / count
    binding = torch.searchsorted(cumulative, positions).clamp(max=len(rig.faces) - 1)
    weights = _spread_barycentrics(binding)
    points = (corners[binding] * weights[..., None]).sum(1)
    spacing = (cumulative[-1].float() / (count * density[binding]) * (area / largest.clamp(min=1e-12))[binding]).sqrt()
    template = (rig.template[rig.faces[binding]] * weights[..., None]).sum(1)
    labels = point_labels(rig, binding, template)
    avatar = bind(points, binding, frames, spacing * COVERAGE, FLATNESS, SKIN_OPACITY, _groups(labels))
    return _painted(avatar, labels)


def _areas(vertices: Tensor, rig: Rig) -> Tensor:
    """Areas ``[F]`` of the triangles, square world units."""
    corners = vertices[rig.faces]
    return 0.5 * torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1)


def hull_seeds(rig: Rig, vertices: Tensor, hull_points: Tensor, surface: Tensor, surface_binding: Tensor,
               clearance: float) -> dict[Group, Tensor]:  # fmt: skip
    """Sort the points of a hull's shell that lie outside the skin into hair and clothes, ``[M, 3]`` each.

    Args:
        rig: its faces, regions and labels.
        vertices: ``[V, 3]`` posed mesh.
        hull_points: ``[M, 3]`` world positions.
        surface: ``[N, 3]`` points on the rig.
        surface_binding: ``[N]`` their triangles.
        clearance: distance from the skin, in world units, from which on a point is hair or cloth.
    """
    frames = triangle_frames(vertices, rig.faces)
    distance, nearest = cKDTree(surface.numpy()).query(hull_points.numpy())
    triangle = surface_binding[torch.from_numpy(nearest)]
    height = ((hull_points - surface[torch.from_numpy(nearest)]) * frames.rotation[triangle][:, :, 1]).sum(1)
    outside = (torch.from_numpy(distance).float() > clearance) & (height > 0.5 * clearance)
    points, triangle, gap = hull_points[outside], triangle[outside], torch.from_numpy(distance).float()[outside]
    centre = rig.template[rig.faces[triangle]].mean(1)
    labels = point_labels(rig, triangle, centre)
    is_cloth = (labels == Label.CLOTHES) & (gap < 4 * clearance)
    return {Group.HAIR: points[~is_cloth], Group.CLOTHES: points[is_cloth]}


def seeds_avatar(
    rig: Rig, vertices: Tensor, seeds: Seeds, count: int, group: Group, triangles: int,
    generator: torch.Generator,
) -> GaussianAvatar:  # fmt: skip
    """Round, half transparent Gaussians jittered round seed points; at most ``count``, at most four a seed.

    Args:
        rig: what they are bound to.
        vertices: ``[V, 3]`` its neutral mesh.
        seeds: on a grid or a surface.
        count: number of Gaussians.
        group: hair or clothes.
        triangles: how many carry each Gaussian, 1 to 4.
        generator: draws which seeds, and the jitter.
    """
    points = seeds.points
    wanted = min(count, 4 * len(points))
    order = torch.randperm(len(points), generator=generator)
    chosen = order.repeat(wanted // max(len(points), 1) + 1)[:wanted]
    jittered = points[chosen] + (torch.rand(wanted, 3, generator=generator) - 0.5) * seeds.spacing
    spacing = seeds.spacing * (len(points) / max(wanted, 1)) ** 0.5
    carriers = hair_carriers if group == Group.HAIR else cloth_carriers
    ids, weights = carriers(rig, vertices, jittered)
    frames = triangle_frames(vertices, rig.faces)
    sigma, groups = torch.full((wanted,), COVERAGE * spacing), torch.full((wanted,), int(group))
    avatar = bind(jittered, ids[:, 0], frames, sigma, 1.0, SEED_OPACITY, groups)
    if seeds.colours is not None:
        avatar.f_dc.copy_((seeds.colours[chosen] - 0.5) / SH_C0)
    return avatar.bound_to(*strongest_first(ids[:, :triangles], weights[:, :triangles]))


def bind(
    points: Tensor, binding: Tensor, frames: TriangleFrames, sigma: Tensor, flatness: float, opacity: float,
    group: Tensor,
) -> GaussianAvatar:  # fmt: skip
    """Grey Gaussians at world points in the frames of their triangles."""
    rotation, scale = frames.rotation[binding], frames.scale[binding]
    local = (rotation.transpose(1, 2) @ (points - frames.origin[binding])[..., None])[..., 0] / scale[:, None]
    sizes = torch.log(sigma / scale)[:, None].repeat(1, 3)
    sizes[:, 1] += torch.log(torch.tensor(flatness))
    count = len(points)
    identity = torch.zeros(count, 4)
    identity[:, 0] = 1
    return GaussianAvatar(
        xyz=local, rotation=identity, scaling=sizes,
        opacity=torch.full((count, 1), float(np.log(opacity / (1 - opacity)))),
        f_dc=torch.zeros(count, 3), f_rest=torch.zeros(count, 0, 3), binding=binding, group=group.long(),
        initial_xyz=local.clone(), initial_scaling=sizes.clone(),
    )  # fmt: skip


def _spread_barycentrics(binding: Tensor) -> Tensor:
    """Barycentric weights ``[N, 3]``: each triangle's first point at its centre, more along an R2 sequence.

    ``binding`` is ascending. Random points would leave holes that nothing fills at these counts.
    """
    first = torch.searchsorted(binding, binding)
    rank = (torch.arange(len(binding)) - first)[:, None].double()
    steps = torch.tensor([0.7548776662466927, 0.5698402909980532], dtype=torch.float64)
    square = (1 / 3 + rank * steps) % 1.0
    folded = torch.where(square.sum(1, keepdim=True) > 1, 1 - square, square).float()
    return torch.cat([folded, 1 - folded.sum(1, keepdim=True)], 1)


def _groups(labels: Tensor) -> Tensor:
    groups = torch.full_like(labels, int(Group.SKIN))
    for label in (Label.TEETH, Label.TONGUE, Label.MOUTH):
        groups[labels == label] = int(Group.TEETH)
    for label in (Label.SCLERA, Label.IRIS, Label.PUPIL):
        groups[labels == label] = int(Group.EYES)
    groups[labels == Label.CLOTHES] = int(Group.CLOTHES)
    return groups


def _painted(avatar: GaussianAvatar, labels: Tensor) -> GaussianAvatar:
    for label, colour in PAINT.items():
        avatar.f_dc[labels == label] = (torch.tensor(colour) - 0.5) / SH_C0
    return avatar
