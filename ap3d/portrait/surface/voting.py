"""What each triangle of a portrait's mesh shows, by the votes of labelled views.

A triangle that no view sees takes the label of the nearest one that was seen, over the mesh or through a thin sheet.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.errors import PortraitError
from ap3d.perception.protocol import Part
from ap3d.portrait.protocol import Mesh
from ap3d.portrait.surface.cleaning import face_areas, face_neighbours, unique_edges
from ap3d.raster.mesh import rasterize_mesh

# What meshes are split into; every other part of a head is skin.
SPLIT = (Part.SKIN, Part.HAIR, Part.CLOTHES, Part.BEARD, Part.ACCESSORY)

SHEET = 0.02  # world units: two sides nearer than this are of one stuff


@dataclass(frozen=True)
class Voting:
    """How labels of pixels become labels of triangles.

    Attributes:
        squareness: power of the cosine between view and surface that weighs a pixel.
        rounds: of smoothing over neighbouring triangles.
        coupling: weight of all neighbours together beside the triangle's own votes.
        island: share of the mesh's area below which a patch of one label joins its surroundings.
        satellite: share of its label's largest patch below which a patch joins its surroundings.
        large_satellite: the same for hair and clothes, which come in few large pieces.
        glimpse: votes an area, of the median, below which a patch says nothing: pixels seen through a gap or at a
            grazing angle, far from what a parser knows.
    """

    squareness: float = 1.0
    rounds: int = 12
    coupling: float = 1.0
    island: float = 0.0012
    satellite: float = 0.02
    large_satellite: float = 0.15
    glimpse: float = 0.1


@torch.no_grad()
def face_votes(mesh: Mesh, cameras: Cameras, labels: Tensor, squareness: float = 1.0) -> Tensor:
    """Votes ``[F, 5]`` for each of ``SPLIT``.

    Args:
        mesh: world units, wound outward.
        cameras: ``B`` views.
        labels: ``[B, H, W]`` of :class:`Part`; background has no vote.
        squareness: see :class:`Voting`.
    """
    table = torch.tensor([SPLIT.index(part) if part in SPLIT else 0 for part in Part])
    table[Part.BACKGROUND] = -1
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    normals = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1)
    centres = mesh.vertices[mesh.faces].mean(1)
    votes = torch.zeros(len(mesh.faces), len(SPLIT))
    for index in range(len(cameras)):
        camera = cameras[index]
        clip = torch.nn.functional.pad(mesh.vertices, (0, 1), value=1.0) @ camera.clip_matrices()[0].T
        face = rasterize_mesh(clip[None], mesh.faces, (camera.height, camera.width))[0, ..., 3].long() - 1
        label = table[labels[index]]
        voting = (face >= 0) & (label >= 0)
        face, label = face[voting], label[voting]
        towards = torch.nn.functional.normalize(camera.positions - centres, dim=1)
        weight = (normals * towards).sum(1).clamp_min(0) ** squareness
        votes.view(-1).index_add_(0, face * len(SPLIT) + label, weight[face])
    return votes


def split_labels(mesh: Mesh, votes: Tensor, settings: Voting | None = None) -> Tensor:
    """``Part`` of each triangle (int64 ``[F]``, values of ``SPLIT``) from its votes ``[F, 5]``.

    Raises:
        PortraitError: no triangle has a vote.
    """
    settings = settings or Voting()
    if not bool((votes > 0).any()):
        raise PortraitError("no view shows a labelled pixel of the portrait's mesh")
    graph = FaceGraph.of(mesh)
    label, areas = graph.smoothed(votes, settings.rounds, settings.coupling), face_areas(mesh)
    # Few wrong pixels beside much that no view sees must not speak for all of it.
    label = graph.spread(label, graph.trusted(label, areas, votes.sum(1), settings))
    for _ in range(3):  # what joins its surroundings may connect them
        small = graph.small_patches(label, areas, settings)
        if not bool(small.any()) or bool(small.all()):
            break
        label = graph.spread(label, ~small)
    return torch.tensor([int(part) for part in SPLIT])[label]


@dataclass(frozen=True)
class FaceGraph:
    """Triangles joined across edges.

    Attributes:
        pairs: ``[P, 2]`` neighbours.
        lengths: ``[P]`` of the edges between them.
        distances: ``[P]`` between their centres.
        backs: ``[Q, 2]`` triangles on the two sides of a thin sheet, such as a lock of hair.
        gaps: ``[Q]`` between their centres.
        count: number of triangles.
    """

    pairs: Tensor
    lengths: Tensor
    distances: Tensor
    backs: Tensor
    gaps: Tensor
    count: int

    @staticmethod
    def of(mesh: Mesh) -> "FaceGraph":
        """The graph of a mesh."""
        pairs, edge = face_neighbours(mesh.faces)
        ends = mesh.vertices[unique_edges(mesh.faces)[0][edge]]
        centres = mesh.vertices[mesh.faces].mean(1)
        distances = (centres[pairs[:, 0]] - centres[pairs[:, 1]]).norm(dim=1)
        backs, gaps = _sheet_sides(mesh, centres)
        return FaceGraph(pairs, (ends[:, 0] - ends[:, 1]).norm(dim=1), distances, backs, gaps, len(mesh.faces))

    def smoothed(self, votes: Tensor, rounds: int, coupling: float) -> Tensor:
        """Labels ``[F]`` after rounds in which each triangle listens to its neighbours as well as to its votes."""
        own = votes / votes.sum(1, keepdim=True).clamp_min(1e-6)
        sides = torch.zeros(self.count, 1).index_add_(
            0, self.pairs.flatten(), self.lengths.repeat_interleave(2)[:, None]
        )
        share = own
        for _ in range(rounds):
            heard = torch.zeros_like(own)
            for k in range(2):
                heard.index_add_(0, self.pairs[:, k], share[self.pairs[:, 1 - k]] * self.lengths[:, None])
            share = own + coupling * heard / sides.clamp_min(1e-12)
            share = share / share.sum(1, keepdim=True).clamp_min(1e-6)
        return share.argmax(1)

    def spread(self, label: Tensor, known: Tensor) -> Tensor:
        """Labels ``[F]`` where ``known [F]``; elsewhere that of the nearest known triangle along the mesh or through
        a thin sheet.

        Pieces of the mesh without a known triangle get the most common label.
        """
        if bool(known.all()):
            return label
        weights = torch.cat([self.distances, self.gaps]).double().clamp_min(1e-9).numpy()
        joined = torch.cat([self.pairs, self.backs]).sort(1).values.numpy()
        first = np.unique(joined, axis=0, return_index=True)[1]
        graph = sparse.csr_matrix((weights[first], tuple(joined[first].T)), (self.count, self.count))
        starts = torch.nonzero(known)[:, 0].numpy()
        distance, _, source = dijkstra(graph, False, starts, min_only=True, return_predecessors=True)
        reached = torch.from_numpy(np.isfinite(distance))
        near = label[torch.from_numpy(np.where(np.isfinite(distance), source, 0)).long()]
        return torch.where(reached, near, label[known].mode().values)

    def patches(self, label: Tensor, among: Tensor | None = None) -> Tensor:
        """Number ``[F]`` of the patch of one label that each triangle belongs to; only pairs ``among [F]`` connect."""
        same = label[self.pairs[:, 0]] == label[self.pairs[:, 1]]
        if among is not None:
            same &= among[self.pairs].all(1)
        ends = self.pairs[same].numpy()
        graph = sparse.coo_matrix((np.ones(len(ends), np.int8), tuple(ends.T)), (self.count, self.count))
        return torch.from_numpy(connected_components(graph, directed=False)[1]).long()

    def trusted(self, label: Tensor, areas: Tensor, strength: Tensor, settings: Voting) -> Tensor:
        """Triangles (bool ``[F]``) with votes ``strength [F]``, but for patches that are hardly seen or tiny."""
        seen = strength > 0
        patch = self.patches(label, seen)
        total = lambda values: torch.zeros(self.count).index_add_(0, patch, values * seen)  # noqa: E731
        area = total(areas)
        usual = (strength[seen] / areas[seen].clamp_min(1e-12)).median()
        kept = (total(strength) >= settings.glimpse * usual * area) & (area >= settings.island * areas.sum())
        trusted = seen & kept[patch]
        return trusted if bool(trusted.any()) else seen

    def small_patches(self, label: Tensor, areas: Tensor, settings: Voting) -> Tensor:
        """Triangles (bool ``[F]``) of patches of one label that are too small to stand for themselves."""
        patch = self.patches(label)
        count = int(patch.max()) + 1
        area = torch.zeros(count).index_add_(0, patch, areas)
        kind = torch.zeros(count, dtype=torch.long).index_copy_(0, patch, label)
        largest = torch.zeros(len(SPLIT)).scatter_reduce(0, kind, area, "amax")
        share = torch.full((len(SPLIT),), settings.satellite)
        share[[SPLIT.index(Part.HAIR), SPLIT.index(Part.CLOTHES)]] = settings.large_satellite
        small = (area < settings.island * areas.sum()) | (area < share[kind] * largest[kind])
        return small[patch]


def _sheet_sides(mesh: Mesh, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of triangles back to back at most ``SHEET`` apart, and their distances."""
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    normals = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1)
    behind = centres - 0.5 * SHEET * normals
    distance, near = cKDTree(centres.numpy()).query(behind.numpy(), k=8, distance_upper_bound=SHEET)
    found = np.isfinite(distance)
    index = torch.from_numpy(np.where(found, near, 0))
    opposite = (normals[index] * normals[:, None]).sum(2) < -0.5
    offset = centres[index] - centres[:, None]
    through = -(offset * normals[:, None]).sum(2)
    gap = offset.norm(dim=2)
    good = opposite & torch.from_numpy(found) & (through > 0) & (gap < SHEET)
    rows, columns = torch.nonzero(good, as_tuple=True)
    return torch.stack([rows, index[rows, columns]], 1), gap[rows, columns]
