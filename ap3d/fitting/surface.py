"""What a portrait's labelled surface says about a rig's vertices: skin lies on it, the rest below it."""

from dataclasses import dataclass
from functools import cached_property

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ap3d.perception.protocol import Part
from ap3d.rig.protocol import Rig

# Metres.
SKIN_SIGMA, UNDER_SIGMA, CLOTH_SIGMA = 0.0015, 0.002, 0.008
CLOTH_GAP, CLEARANCE = 0.005, 0.002  # cloth and beards lie so far over the skin on average; nothing may come nearer
LEAST_COSINE = 0.5  # between the normals of a vertex and its place on the surface
SKIN_PARTS = torch.tensor(
    [Part.SKIN, Part.EARS, Part.BROWS, Part.EYES, Part.MOUTH, Part.NECK]
)  # what is not skin lies over it
HUBER = 2.5  # standard deviations from which on a row counts less


@dataclass(frozen=True)
class LabelledSurface:
    """Points of a portrait's surface.

    Attributes:
        points: ``[N, 3]`` world units.
        normals: ``[N, 3]`` unit, outward.
        parts: ``[N]`` int64, see :class:`ap3d.perception.protocol.Part`.
    """

    points: Tensor
    normals: Tensor
    parts: Tensor

    @cached_property
    def tree(self) -> cKDTree:
        """Of the points."""
        return cKDTree(self.points.numpy())


@dataclass(frozen=True)
class SurfaceRows:
    """Linear equations: ``directions . vertex`` should change by ``-residual``.

    Attributes:
        vertices: ``[M]`` ids.
        directions: ``[M, 3]`` unit.
        residual: ``[M]`` world units.
        weights: ``[M]`` one over variance, less for outliers.
        skin: ``[M]`` bool, rows that hold skin to skin.
    """

    vertices: Tensor
    directions: Tensor
    residual: Tensor
    weights: Tensor
    skin: Tensor


def surface_rows(
    surface: LabelledSurface,
    vertices: Tensor,
    normals: Tensor,
    outer: Tensor,
    torso: Tensor,
    metre: float,
    reach: float,
) -> SurfaceRows:
    """Nearest places on the surface of a rig's outer vertices, as equations.

    Args:
        surface: the portrait's.
        vertices: ``[V, 3]`` posed rig, world units.
        normals: ``[V, 3]`` unit.
        outer: ``[M]`` ids of vertices that the surface may show.
        torso: ``[V]`` bool, vertices that cloth may cover closely.
        metre: world units per metre.
        reach: largest distance, world units.
    """
    distance, index = surface.tree.query(vertices[outer].numpy(), distance_upper_bound=reach)
    near = torch.from_numpy(distance < reach)
    outer, place = outer[near], torch.from_numpy(index)[near]
    point, normal, part = surface.points[place], surface.normals[place], surface.parts[place]
    height = ((vertices[outer] - point) * normal).sum(1)
    facing = (normals[outer] * normal).sum(1) > LEAST_COSINE
    is_skin = torch.isin(part, SKIN_PARTS)
    cloth = ((part == Part.CLOTHES) & torso[outer]) | (part == Part.BEARD)
    above = height + CLEARANCE * metre
    residual = torch.where(is_skin, height, torch.where(cloth & (above <= 0), height + CLOTH_GAP * metre, above))
    sigma = torch.where(
        is_skin, SKIN_SIGMA, torch.where(cloth & (above <= 0), CLOTH_SIGMA, UNDER_SIGMA)
    ) * metre  # fmt: skip
    # Under hair the distance is free; above it, and above cloth, is where nothing of the rig may be.
    keep = facing & (is_skin | cloth | (above > 0))
    scaled = (residual / sigma).abs()
    weights = (HUBER / scaled.clamp_min(HUBER)) / sigma.square()
    return SurfaceRows(outer[keep], normal[keep], residual[keep], weights[keep], is_skin[keep])


def outer_vertices(rig: Rig) -> tuple[Tensor, Tensor]:
    """Ids ``[M]`` of the vertices on the outside of head and body, and which vertices are torso (bool ``[V]``)."""
    ids = torch.cat([rig.regions[name] for name in ("scalp", "face", "ears", "neck", "torso")])
    outer = torch.unique(rig.faces[ids])
    torso = torch.zeros(len(rig.template), dtype=torch.bool)
    torso[torch.unique(rig.faces[rig.regions["torso"]])] = True
    return outer, torso
