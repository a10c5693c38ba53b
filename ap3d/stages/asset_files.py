"""What stage `assets` hands on, ``assets.safetensors``, as surfaces to fit to and as places where Gaussians begin.

The file holds the portrait's mesh: ``vertices [V, 3]`` in world units, ``faces [F, 3]`` wound outward, ``labels [F]``
(see :class:`ap3d.perception.protocol.Part`) and ``colours [V, 3]`` from 0 to 1.
"""

import torch
from torch import Tensor

from ap3d.diffusion.conditions import vertex_normals
from ap3d.fitting.surface import LabelledSurface
from ap3d.perception.protocol import Part
from ap3d.splats.avatar import Group
from ap3d.splats.initial import Seeds
from ap3d.stages.base import StageContext

GROUPS = {Group.HAIR: (Part.HAIR, Part.BEARD, Part.ACCESSORY), Group.CLOTHES: (Part.CLOTHES,)}


def labelled_surface(context: StageContext) -> LabelledSurface:
    """Centres of the mesh's triangles with their normals and parts."""
    return surface_of(context.read_tensors("assets", "assets.safetensors"))


def surface_of(assets: dict[str, Tensor]) -> LabelledSurface:
    """As :func:`labelled_surface`, from the file's tensors."""
    vertices, faces = assets["vertices"].float(), assets["faces"].long()
    normals = vertex_normals(vertices[None], faces)[0][faces].mean(1)
    return LabelledSurface(
        vertices[faces].mean(1), torch.nn.functional.normalize(normals, dim=1), assets["labels"].long()
    )


def asset_seeds(context: StageContext, counts: dict[Group, int], generator: torch.Generator) -> dict[Group, Seeds]:
    """Points spread evenly over the meshes of hair and of clothes."""
    return seeds_of(context.read_tensors("assets", "assets.safetensors"), counts, generator)


def seeds_of(assets: dict[str, Tensor], counts: dict[Group, int], generator: torch.Generator) -> dict[Group, Seeds]:
    """As :func:`asset_seeds`, from the file's tensors."""
    vertices, faces = assets["vertices"].float(), assets["faces"].long()
    corners, colours = vertices[faces], assets["colours"].float()[faces]
    area = 0.5 * torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1)
    seeds = {}
    for group, parts in GROUPS.items():
        chosen = torch.isin(assets["labels"].long(), torch.tensor([int(part) for part in parts]))
        weight = (area * chosen).double()
        if counts[group] < 1 or float(weight.sum()) <= 0:
            continue
        total = torch.cumsum(weight, 0)
        start = torch.rand((), generator=generator, dtype=torch.float64)
        places = (torch.arange(counts[group], dtype=torch.float64) + start) * total[-1] / counts[group]
        face = torch.searchsorted(total, places).clamp(max=len(faces) - 1)
        shares = _barycentrics(len(face), generator)[..., None]
        spacing = float((total[-1] / counts[group]).sqrt())
        seeds[group] = Seeds((corners[face] * shares).sum(1), spacing, (colours[face] * shares).sum(1))
    return seeds


def _barycentrics(count: int, generator: torch.Generator) -> Tensor:
    """Uniform random weights ``[N, 3]``."""
    square = torch.rand(count, 2, generator=generator)
    folded = torch.where(square.sum(1, keepdim=True) > 1, 1 - square, square)
    return torch.cat([folded, 1 - folded.sum(1, keepdim=True)], 1)
