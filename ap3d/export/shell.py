"""Moves a rig's surface out to where hair and clothes end, so that its mesh has the avatar's outline."""

import numpy as np
import torch
from scipy.sparse import coo_matrix, csr_matrix, diags
from scipy.spatial import cKDTree
from torch import Tensor

from ap3d.raster.splats import Splats
from ap3d.rig.protocol import Rig
from ap3d.splats.avatar import GaussianAvatar, Group
from ap3d.splats.frames import rotate_by_quaternions

STEPS, NEIGHBOURS = 48, 16
REACH = 0.3  # of the mesh's height, how far a surface may move
OPAQUE = 0.2  # opacity, seen from outside, at which the shell lies
SMOOTHING = 12  # rounds of averaging with the neighbours
FIXED = ("face", "ears", "lids", "lips", "eyes", "sockets", "teeth", "tongue", "mouth")


def shell_vertices(rig: Rig, vertices: Tensor, normals: Tensor, avatar: GaussianAvatar, splats: Splats) -> Tensor:
    """Vertices ``[V, 3]`` of scalp, neck and torso on the outside of hair and clothes; the face stays.

    Args:
        rig: the avatar's rig; regions that it lacks are skipped.
        vertices: ``[V, 3]`` neutral mesh, world units.
        normals: ``[V, 3]`` its unit normals.
        avatar: says which Gaussians are hair and clothes.
        splats: the avatar at the same pose.
    """
    fixed = _fixed(rig)
    outer = (avatar.group == Group.HAIR) | (avatar.group == Group.CLOTHES)
    if fixed.all() or int(outer.sum()) < NEIGHBOURS:
        return vertices
    reach = REACH * float((vertices.amax(0) - vertices.amin(0))[1])
    heights = np.zeros(len(vertices))
    heights[~fixed] = _heights(vertices[~fixed], normals[~fixed], only(splats, outer), reach)
    smooth = _averaging(rig.faces.numpy(), len(vertices))
    for _ in range(SMOOTHING):
        heights = np.where(fixed, 0.0, 0.5 * heights + 0.5 * (smooth @ heights))
    return vertices + normals * torch.from_numpy(heights).float()[:, None]


def _fixed(rig: Rig) -> np.ndarray:
    """Vertices (bool ``[V]``) that touch a region that stays."""
    mask = np.zeros(len(rig.template), bool)
    for name in set(FIXED) & set(rig.regions):
        mask[rig.faces[rig.regions[name]].reshape(-1).numpy()] = True
    return mask


def _heights(points: Tensor, normals: Tensor, splats: Splats, reach: float) -> np.ndarray:
    """How far along each normal the splats are opaque when seen from outside, ``[P]``."""
    distances = torch.linspace(0, reach, STEPS)
    samples = (points[:, None] + normals[:, None] * distances[:, None]).reshape(-1, 3)
    density = densities(samples, splats, NEIGHBOURS)[0].sum(1).reshape(len(points), STEPS)
    inward = 1 - torch.cumprod(1 - density.flip(1).clamp(max=0.99), 1)  # from the far end to the skin
    return distances.flip(0)[(inward > OPAQUE).int().argmax(1)].where(inward[:, -1] > OPAQUE, torch.zeros(())).numpy()


def densities(points: Tensor, splats: Splats, count: int, floor: float = 0.35) -> tuple[Tensor, Tensor]:
    """What the nearest Gaussians contribute at points.

    Args:
        points: ``[P, 3]``.
        splats: the Gaussians.
        count: how many of the nearest are looked at.
        floor: flat Gaussians count as at least this thick, as a share of their largest axis.

    Returns:
        Contributions ``[P, count]`` (opacity times the Gaussian's value) and the Gaussians' indices ``[P, count]``.
    """
    tree = cKDTree(splats.means.numpy())
    index = torch.from_numpy(tree.query(points.numpy(), k=min(count, len(splats)))[1].reshape(len(points), -1))
    inverse = torch.nn.functional.normalize(splats.quaternions, dim=1) * torch.tensor([1.0, -1.0, -1.0, -1.0])
    sigma = torch.maximum(splats.scales, floor * splats.scales.amax(1, keepdim=True)).clamp(min=1e-6)
    offset = rotate_by_quaternions(inverse[index], points[:, None] - splats.means[index])
    value = torch.exp(-0.5 * (offset / sigma[index]).square().sum(2))
    return splats.opacities[index] * value, index


def only(splats: Splats, mask: Tensor) -> Splats:
    """The Gaussians of a boolean mask."""
    return Splats(**{name: tensor[mask] for name, tensor in splats.tensors().items()})


def _averaging(faces: np.ndarray, count: int) -> csr_matrix:
    """Matrix that replaces each vertex's value by the mean of its neighbours'."""
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    rows, columns = np.concatenate([pairs, pairs[:, ::-1]]).T
    links = coo_matrix((np.ones(len(rows)), (rows, columns)), (count, count)).tocsr()
    links.data[:] = 1
    return (diags(1 / np.maximum(np.asarray(links.sum(1))[:, 0], 1)) @ links).tocsr()
