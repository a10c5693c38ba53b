"""Which triangles carry hair and clothes, and with what weights, so that nothing tears where head and body part.

Hair close to the skin that it grows from, beards too, follows that skin. A strand that hangs free follows the skull
down to the mouth and the chest from its middle on, smoothly in between; skull and chest are rigid, so that it does not
matter which of their triangles is the nearest. Weights of neighbouring triangles fall to zero before a triangle is left
out. So Gaussians side by side move alike.
"""

from dataclasses import replace

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ap3d.rig.protocol import Rig
from ap3d.rig.regions import Label, azimuth_degrees, point_labels
from ap3d.splats.avatar import GaussianAvatar, Group
from ap3d.splats.frames import (
    TriangleFrames,
    quaternion_conjugate,
    quaternion_product,
    quaternions_from_matrices,
    rotate_by_quaternions,
    triangle_frames,
)
from ap3d.splats.posing import MAXIMUM_TRIANGLES

ROOT_REACH = (0.012, 0.030)  # metres from the skin: hair follows it whole, not at all
BEARD_AZIMUTH = (55.0, 80.0)  # degrees from straight ahead; beyond, hair beside the jaw hangs from the scalp
LEAST_WEIGHT = 0.01


def hair_carriers(rig: Rig, vertices: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Triangles ``[N, 4]`` and weights ``[N, 4]``, strongest first, for hair at world points ``[N, 3]``.

    Args:
        rig: its faces, template and regions.
        vertices: ``[V, 3]`` neutral mesh, world units.
        points: ``[N, 3]``.
    """
    frames = triangle_frames(vertices, rig.faces)
    roots, root_weights, root_share = _roots(rig, frames, points)
    body_share = body_shares(rig, frames, points) * (1 - root_share)
    skull, _ = _nearest(_skull(rig, frames), frames, points, 1)
    chest, _ = _nearest(_chest(rig, frames), frames, points, 1)
    shares = [(1 - root_share - body_share)[:, None], body_share[:, None], root_share[:, None] * root_weights]
    return strongest_first(torch.cat([skull, chest, roots], 1), torch.cat(shares, 1))


def cloth_carriers(rig: Rig, vertices: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """As :func:`hair_carriers` for cloth: up to four triangles of the torso around each point."""
    frames = triangle_frames(vertices, rig.faces)
    return strongest_first(*_smooth_neighbours(_body_faces(rig, frames), frames, points, MAXIMUM_TRIANGLES)[:2])


def rebound(avatar: GaussianAvatar, rig: Rig, vertices: Tensor) -> GaussianAvatar:
    """Choose the triangles of hair and clothes anew, where the fits have moved them; nothing moves at the neutral pose.

    Clothes that lie on the surface stay on their one triangle, and so does an avatar that has one triangle throughout.

    Args:
        avatar: on the CPU.
        rig: what it is bound to.
        vertices: ``[V, 3]`` its neutral mesh.
    """
    if not avatar.extra_binding.shape[1]:
        return avatar
    frames = triangle_frames(vertices, rig.faces)
    points = avatar.pose(frames, frames).means.detach()
    free = (avatar.group == Group.CLOTHES) & (avatar.extra_weights > 0).any(1)
    triangles = torch.cat([avatar.binding[:, None], avatar.extra_binding], 1)
    weights = torch.cat([1 - avatar.extra_weights.sum(1, keepdim=True), avatar.extra_weights], 1)
    count = triangles.shape[1]
    for chosen, carriers in ((avatar.group == Group.HAIR, hair_carriers), (free, cloth_carriers)):
        if chosen.any():
            ids, shares = carriers(rig, vertices, points[chosen])
            triangles[chosen], weights[chosen] = strongest_first(ids[:, :count], shares[:, :count])
    return moved_to(avatar, triangles[:, 0], frames).bound_to(triangles, weights)


def moved_to(avatar: GaussianAvatar, binding: Tensor, frames: TriangleFrames) -> GaussianAvatar:
    """The same single-triangle Gaussians at the frames' pose, with offsets and shapes in the frames of other triangles.

    Args:
        avatar: the Gaussians.
        binding: ``[N]`` their new triangles.
        frames: of the pose at which nothing changes.
    """
    rotation = quaternions_from_matrices(frames.rotation)
    turn = quaternion_product(quaternion_conjugate(rotation[binding]), rotation[avatar.binding])
    grow = (frames.scale[avatar.binding] / frames.scale[binding])[:, None]
    inverse = frames.rotation[binding].transpose(1, 2)
    shift = (inverse @ (frames.origin[avatar.binding] - frames.origin[binding])[..., None])[..., 0]
    local = lambda x: grow * rotate_by_quaternions(turn, x) + shift / frames.scale[binding][:, None]  # noqa: E731
    return replace(
        avatar, xyz=local(avatar.xyz), initial_xyz=local(avatar.initial_xyz), binding=binding,
        rotation=quaternion_product(turn, avatar.rotation), scaling=avatar.scaling + grow.log(),
        initial_scaling=avatar.initial_scaling + grow.log(),
    )  # fmt: skip


def body_shares(rig: Rig, frames: TriangleFrames, points: Tensor) -> Tensor:
    """How much of a strand's motion at world points ``[N, 3]`` is the body's: 0 over the lips, 1 under mid-chest."""
    high = frames.origin[rig.regions["lips"], 1].mean()
    low = frames.origin[_body_faces(rig, frames), 1].mean()
    return _smoothstep((high - points[:, 1]) / (high - low).clamp(min=1e-6))


def strongest_first(triangles: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Merge what is too little to count into the strongest, and sort: ``[N, K]`` both, weights with a sum of 1."""
    weights = torch.where(weights < LEAST_WEIGHT, torch.zeros_like(weights), weights)
    weights, order = weights.sort(1, descending=True)
    return triangles.gather(1, order), weights / weights.sum(1, keepdim=True)


def _roots(rig: Rig, frames: TriangleFrames, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Two triangles of the skin that hair grows from ``[N, 2]``, their weights, and what that skin's share is."""
    centres = rig.template[rig.faces].mean(1)
    beard = point_labels(rig, torch.arange(len(rig.faces)), centres) == Label.BEARD
    grown = torch.cat([rig.regions["scalp"], beard.nonzero()[:, 0]])
    metre = frames.scale.sum() / triangle_frames(rig.template, rig.faces).scale.sum()
    ids, weights, distance = _smooth_neighbours(grown, frames, points, 2)
    share = 1 - _smoothstep((distance / metre - ROOT_REACH[0]) / (ROOT_REACH[1] - ROOT_REACH[0]))
    azimuth = azimuth_degrees(rig.canonical[rig.faces].mean(1))[ids]
    ahead = 1 - _smoothstep((azimuth - BEARD_AZIMUTH[0]) / (BEARD_AZIMUTH[1] - BEARD_AZIMUTH[0]))
    return ids, weights, share * (weights * torch.where(beard[ids], ahead, torch.ones_like(ahead))).sum(1)


def _skull(rig: Rig, frames: TriangleFrames) -> Tensor:
    """The upper half of the scalp over the eyes, which no expression moves: far hair would magnify small turns."""
    scalp, eyes = rig.regions["scalp"], frames.origin[rig.regions["eyes"], 1].mean()
    height = frames.origin[scalp, 1]
    return scalp[height >= (eyes + height.max()) / 2]


def _chest(rig: Rig, frames: TriangleFrames) -> Tensor:
    """The lower part of the body, which no joint of the neck moves."""
    body = _body_faces(rig, frames)
    height = frames.origin[body, 1]
    return body[height <= height.mean()]


def _body_faces(rig: Rig, frames: TriangleFrames) -> Tensor:
    """The torso; for a rig that ends at the neck, the lower half of that."""
    torso, neck = rig.regions["torso"], rig.regions["neck"]
    if len(torso):
        return torso
    height = frames.origin[neck, 1]
    return neck[height <= height.median()]


def _nearest(allowed: Tensor, frames: TriangleFrames, points: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Nearest triangle centres ``[N, count]`` among some triangles, and their distances."""
    distance, index = cKDTree(frames.origin[allowed].numpy()).query(points.numpy(), k=count)
    ids = allowed[torch.from_numpy(np.asarray(index)).reshape(len(points), count)]
    return ids, torch.from_numpy(np.asarray(distance)).float().reshape(len(points), count)


def _smooth_neighbours(
    allowed: Tensor, frames: TriangleFrames, points: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest triangles ``[N, count]``, weights that reach zero at the distance of the next one, least distance."""
    ids, distance = _nearest(allowed, frames, points, min(count + 1, len(allowed)))
    closeness = 1 / distance.clamp(min=1e-6)
    weights = closeness[:, :-1] - closeness[:, -1:] + 1e-6
    return ids[:, :-1], weights / weights.sum(1, keepdim=True), distance[:, 0]


def _smoothstep(x: Tensor) -> Tensor:
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)
