"""The meshes that a portrait is made of: skin, hair and clothes, as files that other programs read."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ap3d.diffusion.conditions import vertex_normals
from ap3d.perception.protocol import Part
from ap3d.portrait.protocol import Mesh
from ap3d.portrait.surface.cleaning import submesh

ASSETS = {"skin": (Part.SKIN, Part.BEARD), "hair": (Part.HAIR,), "clothes": (Part.CLOTHES, Part.ACCESSORY)}
SHOWN = {Part.SKIN: (0.93, 0.72, 0.60), Part.HAIR: (0.45, 0.26, 0.62), Part.CLOTHES: (0.20, 0.55, 0.70),
         Part.BEARD: (0.80, 0.52, 0.18), Part.ACCESSORY: (0.55, 0.62, 0.25)}  # fmt: skip


@dataclass(frozen=True)
class ColouredMesh:
    """A mesh with a normal ``[V, 3]`` and a colour ``[V, 3]`` in 0..1 at each vertex."""

    mesh: Mesh
    normals: Tensor
    colours: Tensor


def asset_meshes(mesh: Mesh, colours: Tensor, labels: Tensor) -> dict[str, ColouredMesh]:
    """The parts of a mesh by name; a bald head has no ``hair``.

    Args:
        mesh: world units, wound outward.
        colours: ``[V, 3]``.
        labels: ``[F]`` of :class:`Part`.
    """
    normals = vertex_normals(mesh.vertices[None], mesh.faces)[0]
    out = {}
    for name, parts in ASSETS.items():
        keep = torch.isin(labels, torch.tensor([int(p) for p in parts]))
        if bool(keep.any()):
            piece, used = submesh(mesh, keep)
            out[name] = ColouredMesh(piece, normals[used], colours[used])
    return out


def label_colours(labels: Tensor) -> Tensor:
    """A colour ``[F, 3]`` for each label, for pictures."""
    table = torch.zeros(len(Part), 3)
    for part, colour in SHOWN.items():
        table[part] = torch.tensor(colour)
    return table[labels]


def mesh_ply(item: ColouredMesh) -> bytes:
    """A binary PLY: positions in world units, normals, colours as bytes, triangles."""
    vertex = np.zeros(len(item.mesh.vertices), [(n, "<f4") for n in ("x", "y", "z", "nx", "ny", "nz")]
                      + [(n, "u1") for n in ("red", "green", "blue")])  # fmt: skip
    for tensor, names in ((item.mesh.vertices, "x y z"), (item.normals, "nx ny nz")):
        for column, name in zip(tensor.T, names.split(), strict=True):
            vertex[name] = column.numpy()
    for column, name in zip(item.colours.T, ("red", "green", "blue"), strict=True):
        vertex[name] = (column.clamp(0, 1) * 255).round().numpy()
    face = np.zeros(len(item.mesh.faces), [("count", "u1"), ("ids", "<i4", 3)])
    face["count"], face["ids"] = 3, item.mesh.faces.numpy()
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertex)}"]
    lines += [f"property {'uchar' if n in ('red', 'green', 'blue') else 'float'} {n}" for n in vertex.dtype.names or ()]
    lines += [f"element face {len(face)}", "property list uchar int vertex_indices", "end_header"]
    return ("\n".join(lines) + "\n").encode() + vertex.tobytes() + face.tobytes()
