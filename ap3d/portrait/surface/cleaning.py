"""Clean-up of triangle meshes: components, decimation; edges and neighbours."""

import fast_simplification
import numpy as np
import torch
from scipy import sparse
from scipy.sparse import csgraph
from torch import Tensor

from ap3d.portrait.protocol import Mesh

LEAST_SHARE = 0.03  # of the largest piece's area; smaller pieces of a density are floaters


def face_areas(mesh: Mesh) -> Tensor:
    """``[F]`` in squared world units."""
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    return 0.5 * torch.linalg.cross(b - a, c - a).norm(dim=1)


def submesh(mesh: Mesh, keep: Tensor) -> tuple[Mesh, Tensor]:
    """The triangles ``keep`` (bool ``[F]``) with their vertices alone, and which vertices these are ``[V']``."""
    used, faces = torch.unique(mesh.faces[keep], return_inverse=True)
    return Mesh(mesh.vertices[used], faces.reshape(-1, 3)), used


def clean(mesh: Mesh) -> Mesh:
    """Without degenerate triangles, floaters (pieces of a small area) and hollows (pieces wound inward)."""
    a, b, c = mesh.faces.unbind(1)
    mesh, _ = submesh(mesh, (a != b) & (b != c) & (c != a))
    if not len(mesh.faces):
        return mesh
    piece = torch.from_numpy(_pieces(mesh)).long()[mesh.faces[:, 0]]
    count = int(piece.max()) + 1
    area = torch.zeros(count).index_add_(0, piece, face_areas(mesh))
    a, b, c = (mesh.vertices - mesh.vertices.mean(0))[mesh.faces].unbind(1)
    volume = torch.zeros(count).index_add_(0, piece, (a * torch.linalg.cross(b, c)).sum(1))
    wanted = (area >= LEAST_SHARE * area.max()) & (volume > 0)
    wanted[area.argmax()] = True
    return submesh(mesh, wanted[piece])[0]


def _pieces(mesh: Mesh) -> np.ndarray:
    faces, count = mesh.faces.numpy(), len(mesh.vertices)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = sparse.coo_matrix((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), (count, count))
    labels: np.ndarray = csgraph.connected_components(graph, directed=False)[1]
    return labels


def decimate(mesh: Mesh, faces: int) -> Mesh:
    """At most about ``faces`` triangles, by quadric error (Garland and Heckbert 1997, fast-simplification)."""
    if len(mesh.faces) <= faces:
        return mesh
    points, triangles = fast_simplification.simplify(
        mesh.vertices.numpy().astype(np.float32), mesh.faces.numpy().astype(np.int32), target_count=faces
    )
    return clean(Mesh(torch.from_numpy(points).float(), torch.from_numpy(triangles.astype(np.int64))))


def unique_edges(faces: Tensor) -> tuple[Tensor, Tensor]:
    """Edges ``[E, 2]`` (lower vertex first) of triangles, and which edges those of each triangle are ``[F, 3]``:
    corners 0-1, 1-2, 2-0."""
    edges = torch.stack([faces, faces.roll(-1, 1)], -1).reshape(-1, 2).sort(1).values
    unique, inverse = torch.unique(edges, dim=0, return_inverse=True)
    return unique, inverse.reshape(-1, 3)


def face_neighbours(faces: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs ``[P, 2]`` of triangles that share an edge, and the edges' ids as of :func:`unique_edges` ``[P]``.

    Where more than two triangles meet, they are paired in a row.
    """
    _, of_face = unique_edges(faces)
    order = torch.argsort(of_face.flatten(), stable=True)
    edge, face = of_face.flatten()[order], order // 3
    same = edge[1:] == edge[:-1]
    return torch.stack([face[:-1][same], face[1:][same]], 1), edge[1:][same]
