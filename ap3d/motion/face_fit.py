"""Head pose, identity and expression weights from tracked points: Gauss-Newton on a model linear in its weights.

Distances in the picture are relative to the inter-ocular distance, so that one set of weights suits every video. The
camera is OpenCV's: x right, y down, z forward; its axes turn the head's (y up, face to +z) by diag(1, -1, -1).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ap3d.motion.face_model import FaceModel
from ap3d.rig.builtin import axis_angle_matrix

FLIP = torch.tensor([1.0, -1.0, -1.0])
SHAPE_WEIGHT = 0.6  # how much a shape coefficient of 1 costs, in squared uncertainties of a point
ACTION_WEIGHT, ACTION_COST = 1.5, 0.4  # squared and absolute cost of an action
SMOOTHNESS = 20.0  # cost of a change from frame to frame at 25 frames/s
DEPTH_WEIGHT = 0.5  # the detector guesses depth; without it, nodding comes out too small
CALM, LARGEST_CALM = 0.1, 0.4  # quantile of an action over a clip that counts as the person's rest, and its limit
HUBER = 2.5  # uncertainties from which on a point counts less
CHUNK = 64  # frames whose derivatives are in memory at once


@dataclass(frozen=True)
class Camera:
    """Focal length and principal point, pixels."""

    focal: float
    centre: Tensor  # [2]


@dataclass(frozen=True)
class Pose:
    """Rotation matrices ``[T, 3, 3]`` from head to upright camera axes, and translations ``[T, 3]`` in camera axes."""

    rotation: Tensor
    translation: Tensor

    def __getitem__(self, index: slice | Tensor) -> "Pose":
        return Pose(self.rotation[index], self.translation[index])


@dataclass(frozen=True)
class Identity:
    """A person: the camera, the points ``[K, 3]`` of the resting face in metres, and the rig's shape ``[S]``."""

    camera: Camera
    rest: Tensor
    shape: Tensor


def place(points: Tensor, pose: Pose) -> Tensor:
    """Points ``[T or 1, K, 3]`` of the head in camera axes ``[T, K, 3]``, metres."""
    return (points @ pose.rotation.transpose(1, 2)) * FLIP + pose.translation[:, None]


def project(placed: Tensor, camera: Camera) -> Tensor:
    """Pixels ``[..., 2]`` of points in camera axes."""
    return placed[..., :2] / placed[..., 2:] * camera.focal + camera.centre


def initial_pose(model: FaceModel, seen: Tensor, camera: Camera) -> Pose:
    """Poses from scaled-orthographic least squares (POS, DeMenthon and Davis 1995) of points ``[T, K, 3]``."""
    seen = seen[..., :2]
    inverse = torch.linalg.pinv(model.rest - model.rest.mean(0))
    middle = seen.mean(1)
    rows = (inverse @ (seen - middle[:, None])).transpose(1, 2)  # [T, 2, 3]: scaled first rows
    scale = rows.norm(dim=2).mean(1)
    rows = rows * FLIP[:2, None] / scale[:, None, None]
    u, _, v = torch.linalg.svd(rows, full_matrices=False)
    first, second = (u @ v).unbind(1)
    rotation = torch.stack([first, second, torch.linalg.cross(first, second)], 1)
    depth = camera.focal / scale
    shift = (middle - camera.centre) / camera.focal * depth[:, None]
    return Pose(rotation, torch.cat([shift, depth[:, None]], 1) - (rotation @ model.rest.mean(0)) * FLIP)


def fit_identity(model: FaceModel, seen: Tensor, camera: Camera, rounds: int = 6) -> Identity:
    """Shape and what is left of the resting face, from frames with any expression.

    ``seen`` is ``[T, K, 3]`` in pixels, depth too, which counts relative to its mean over a face's points.
    The calmest value of every action counts as rest, up to a limit: a face that always smiles a little is one with such
    a mouth, one that smiles broadly through the whole clip smiles a little less.
    """
    shape = torch.zeros(len(model.shape))
    weights = torch.zeros(len(seen), len(model.columns))
    pose = initial_pose(model, seen, camera)
    rest = model.rest
    for _ in range(rounds):
        pose, weights = step(model, rest, seen, camera, pose, weights, smoothness=0.0)
        shape = shape + _shape_step(model, rest, seen, camera, pose, weights, shape)
        rest = model.rest + torch.einsum("s,skc->kc", shape, model.shape)
    rest = rest + _remainder(model, rest, seen, camera, pose, weights)
    pose, weights = step(model, rest, seen, camera, pose, weights, smoothness=0.0)
    calm = weights.quantile(CALM, 0).clamp(max=LARGEST_CALM)
    return Identity(camera, rest + torch.einsum("a,akc->kc", calm, model.actions), shape)


def _shape_step(
    model: FaceModel, rest: Tensor, seen: Tensor, camera: Camera, pose: Pose, weights: Tensor, shape: Tensor
) -> Tensor:
    residual, jacobian, unit = _residuals(model, rest, seen, camera, pose, weights)
    certain = _certainty(model, residual, unit)
    columns = _centred(torch.einsum("tkij,skj->tkis", (jacobian * FLIP) @ pose.rotation[:, None], model.shape))
    weighted = columns * certain[..., None, None]
    normal = torch.einsum("tkis,tkir->sr", weighted, columns) / len(seen)
    right = torch.einsum("tkis,tki->s", weighted, residual) / len(seen)
    prior = SHAPE_WEIGHT * torch.ones(len(shape))
    return torch.linalg.solve(normal + torch.diag(prior), right - prior * shape)


def _remainder(model: FaceModel, rest: Tensor, seen: Tensor, camera: Camera, pose: Pose, weights: Tensor) -> Tensor:
    """What rig and detector see differently in this face ``[K, 3]``: median over time, in the head's axes."""
    residual, _, _ = _residuals(model, rest, seen, camera, pose, weights)
    depth = place(_bent(model, rest, weights), pose)[..., 2:]
    metres = residual / torch.tensor([1.0, 1.0, DEPTH_WEIGHT]) * depth / camera.focal * FLIP
    return (metres @ pose.rotation).median(0).values


def _bent(model: FaceModel, rest: Tensor, weights: Tensor) -> Tensor:
    return rest + torch.einsum("ta,akc->tkc", weights, model.actions)


def _residuals(
    model: FaceModel, rest: Tensor, seen: Tensor, camera: Camera, pose: Pose, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What is missing ``[T, K, 3]``, its derivative by metres ``[T, K, 3, 3]``, inter-ocular unit ``[T]``; pixels.

    The third row is the depth, in pixels at the face's mean depth and relative to it, times ``DEPTH_WEIGHT``.
    """
    placed = place(_bent(model, rest, weights), pose)
    inverse = camera.focal / placed[..., 2]
    zero = torch.zeros_like(inverse)
    ratio = placed[..., :2] / placed[..., 2:]
    mean = placed[..., 2].mean(1, keepdim=True)
    scale = camera.focal / mean
    jacobian = torch.stack(
        [
            torch.stack([inverse, zero, -inverse * ratio[..., 0]], 2),
            torch.stack([zero, inverse, -inverse * ratio[..., 1]], 2),
            torch.stack([zero, zero, (DEPTH_WEIGHT * scale).expand_as(zero)], 2),
        ],
        2,
    )
    deep = seen[..., 2] - seen[..., 2].mean(1, keepdim=True) - scale * (placed[..., 2] - mean)
    missing = torch.cat([seen[..., :2] - project(placed, camera), DEPTH_WEIGHT * deep[..., None]], 2)
    return missing, jacobian, 0.09 * scale[:, 0]  # outer eye corners are about 9 cm apart


def _centred(columns: Tensor) -> Tensor:
    """Derivatives ``[T, K, 3, C]`` whose third row, the depth, is relative to its mean over the points."""
    depth = columns[:, :, 2] - columns[:, :, 2].mean(1, keepdim=True)
    return torch.cat([columns[:, :, :2], depth[:, :, None]], 2)


def _certainty(model: FaceModel, residual: Tensor, unit: Tensor) -> Tensor:
    """Weight ``[T, K]`` of a squared pixel: the points' precision, less for outliers (Huber)."""
    scaled = residual[..., :2].norm(dim=2) * model.precision / unit[:, None]
    return (model.precision / unit[:, None]).square() * (HUBER / scaled.clamp_min(HUBER)) / len(model.precision) * 100


def step(
    model: FaceModel,
    rest: Tensor,
    seen: Tensor,
    camera: Camera,
    pose: Pose,
    weights: Tensor,
    smoothness: float = SMOOTHNESS,
) -> tuple[Pose, Tensor]:
    """One Gauss-Newton step of all poses and action weights; the pose is eliminated from the normal equations."""
    count, actions = weights.shape
    shapes = ((6, 6), (6, actions), (actions, actions), (6,), (actions,))
    whole = [torch.empty(count, *shape) for shape in shapes]
    for i in (slice(s, s + CHUNK) for s in range(0, count, CHUNK)):
        for target, part in zip(
            whole, _normal_equations(model, rest, seen[i], camera, pose[i], weights[i]), strict=True
        ):
            target[i] = part
    pose_normal, mixed, normal, pose_right, right = whole
    inverse = torch.linalg.inv(pose_normal)
    through = mixed.transpose(1, 2) @ inverse
    reduced = normal - through @ mixed
    target = right - (through @ pose_right[..., None])[..., 0] + (reduced @ weights[..., None])[..., 0]
    fresh = solve_actions(reduced, target, weights, smoothness)
    change = fresh - weights
    move = (inverse @ (pose_right - (mixed @ change[..., None])[..., 0])[..., None])[..., 0]
    turn = axis_angle_matrix(move[:, :3])
    return Pose(turn @ pose.rotation, pose.translation + move[:, 3:]), fresh


def _normal_equations(
    model: FaceModel, rest: Tensor, seen: Tensor, camera: Camera, pose: Pose, weights: Tensor
) -> tuple[Tensor, ...]:
    residual, jacobian, unit = _residuals(model, rest, seen, camera, pose, weights)
    certain = _certainty(model, residual, unit)[..., None, None]
    turned = _bent(model, rest, weights) @ pose.rotation.transpose(1, 2)
    x, y, z = turned.unbind(2)
    zero = torch.zeros_like(x)
    # derivative of a turned point by a small further turn: minus the cross product matrix
    turning = torch.stack([zero, z, -y, -z, zero, x, y, -x, zero], 2).unflatten(2, (3, 3)) * FLIP[:, None]
    pose_columns = _centred(torch.cat([jacobian @ turning, jacobian], 3))
    columns = _centred(torch.einsum("tkij,tjc,akc->tkia", jacobian * FLIP, pose.rotation, model.actions))
    flat = lambda t: t.flatten(1, 2)  # noqa: E731
    weighted_pose, weighted = flat(pose_columns * certain), flat(columns * certain)
    p, a, r = flat(pose_columns), flat(columns), residual.flatten(1)[..., None]
    right = (weighted.transpose(1, 2) @ r)[..., 0]
    pose_right = (weighted_pose.transpose(1, 2) @ r)[..., 0]
    return (
        weighted_pose.transpose(1, 2) @ p,
        weighted_pose.transpose(1, 2) @ a,
        weighted.transpose(1, 2) @ a,
        pose_right,
        right,
    )


def solve_actions(normal: Tensor, target: Tensor, start: Tensor, smoothness: float, iterations: int = 120) -> Tensor:
    """Weights ``[T, A]`` in 0 to 1 of a quadratic with sparsity and smoothness over time.

    FISTA (Beck and Teboulle 2009) minimises
    ``w H w / 2 - b w + c |w| + q w^2 / 2 + s |w_t - w_(t-1)|^2 / 2``.
    """
    normal = normal + ACTION_WEIGHT * torch.eye(normal.shape[1])
    largest = normal.abs().sum(2).amax(1, keepdim=True) + 4 * smoothness
    weights, ahead, momentum = start, start, 1.0
    for _ in range(iterations):
        gradient = (normal @ ahead[..., None])[..., 0] - target + ACTION_COST
        if smoothness and len(ahead) > 1:
            change = smoothness * (ahead[1:] - ahead[:-1])
            gradient[1:] += change
            gradient[:-1] -= change
        fresh = (ahead - gradient / largest).clamp(0, 1)
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = fresh + (momentum - 1) / following * (fresh - weights)
        weights, momentum = fresh, following
    return weights
