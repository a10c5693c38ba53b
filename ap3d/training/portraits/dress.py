"""Put a person together: the posed head with beard and shirt raised from the skin, and the hair on it."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ap3d.diffusion.conditions import vertex_normals
from ap3d.rig.builtin import BuiltinRig
from ap3d.rig.regions import beard_zone, label_fields, neckline_distance
from ap3d.training.portraits.hair import build_hair
from ap3d.training.portraits.occlusion import vertex_openness
from ap3d.training.portraits.people import Person

BEARD_DEPTH, CLOTH_DEPTH = 0.0085, 0.0055  # metres


@dataclass(frozen=True)
class DressedMesh:
    """A person's geometry, ready to draw from any camera.

    Attributes:
        bare: ``[V, 3]`` the posed rig without beard, shirt and hair (what conditions show).
        neutral: ``[V, 3]`` the rig without expression and pose.
        vertices: ``[N, 3]`` world units; the rig's vertices first.
        faces: ``[F, 3]``; the rig's faces first, then hair.
        attributes: ``[N, 13]`` normal, template position, masks (lips, ears, mouth), strands, openness to
            ambient light.
    """

    bare: Tensor
    neutral: Tensor
    vertices: Tensor
    faces: Tensor
    attributes: Tensor


def dress(person: Person, rig: BuiltinRig) -> DressedMesh:
    """Build a person's geometry; seeded by ``person.seed``."""
    rng = np.random.default_rng(person.seed)
    bare, neutral = rig.vertices(person.params)[0], rig.vertices(person.neutral)[0]
    size = float(person.params.scale[0, 0])
    raised = bare + vertex_normals(bare[None], rig.faces)[0] * (_relief(person, rig) * size)[:, None]
    normals = vertex_normals(raised[None], rig.faces)[0]
    static = torch.cat([rig.template, label_fields(rig)["masks"]], 1)
    body = torch.cat([normals, static, torch.zeros(len(static), 3)], 1)
    hair = build_hair(person.attributes.hair_style, rig, neutral, vertex_normals(neutral[None], rig.faces)[0], rng)
    if hair is None:
        return DressedMesh(bare, neutral, raised, rig.faces, _with_openness(raised, rig.faces, body))
    moved = _follow_head(rig, neutral, bare, hair.vertices)
    hair_normals = vertex_normals(moved[None], hair.faces)[0]
    outside = torch.zeros(len(moved), 6)
    attributes = torch.cat([body, torch.cat([hair_normals, outside, hair.strands], 1)])
    faces = torch.cat([rig.faces, hair.faces + len(raised)])
    vertices = torch.cat([raised, moved])
    return DressedMesh(bare, neutral, vertices, faces, _with_openness(vertices, faces, attributes))


def _with_openness(vertices: Tensor, faces: Tensor, attributes: Tensor) -> Tensor:
    return torch.cat([attributes, vertex_openness(vertices, faces, attributes[:, :3])[:, None]], 1)


def _relief(person: Person, rig: BuiltinRig) -> Tensor:
    """How far beard and shirt stand off the skin, metres ``[V]``."""
    relief = torch.zeros(len(rig.template))
    if person.attributes.beard:
        relief = relief + beard_zone(rig) * BEARD_DEPTH
    below = (-neckline_distance(rig.template) / 0.006 + 0.5).clamp(0, 1)
    body = (rig.parts == 0) & (rig.template[:, 1] < -0.1)
    return torch.maximum(relief, torch.where(body, below * CLOTH_DEPTH, torch.zeros_like(relief)))


def _follow_head(rig: BuiltinRig, neutral: Tensor, posed: Tensor, points: Tensor) -> Tensor:
    """Carry points of the neutral frame along with the skull (rigid fit to the scalp's back and top)."""
    skull = rig.head_vertices[(rig.template[rig.head_vertices, 1] > 0.02) & (rig.template[rig.head_vertices, 2] < 0.03)]
    a, b = neutral[skull], posed[skull]
    ca, cb = a.mean(0), b.mean(0)
    u, _, vt = torch.linalg.svd((a - ca).T @ (b - cb))
    flip = torch.diag(torch.tensor([1.0, 1.0, float(torch.linalg.det(vt.T @ u.T).sign())]))
    return (points - ca) @ (vt.T @ flip @ u.T).T + cb
