"""Scale, turn and place of a rig from its landmarks, in closed form: no constant of one framing.

Umeyama 1991, Least-squares estimation of transformation parameters between two point patterns.
"""

import math

import torch
from torch import Tensor

from ap3d.errors import RigFitError
from ap3d.fitting.landmarks import LandmarkModel
from ap3d.rig.protocol import Rig, RigParams

LARGEST_TURN = 60.0  # degrees between the portrait's face and +z
NECK_SHARE = 0.4  # of the head's turn that the neck makes


def similarity(source: Tensor, target: Tensor, weights: Tensor) -> tuple[float, Tensor, Tensor]:
    """The scale, rotation ``[3, 3]`` and translation ``[3]`` that carry points ``[K, 3]`` to others, least squares."""
    share = (weights / weights.sum()).double()[:, None]
    source, target = source.double(), target.double()
    a, b = (share * source).sum(0), (share * target).sum(0)
    covariance = (share * (target - b)).T @ (source - a)
    u, values, vt = torch.linalg.svd(covariance)
    sign = torch.ones(3, dtype=torch.float64)
    sign[2] = torch.linalg.det(u @ vt).sign()
    rotation = u @ torch.diag(sign) @ vt
    variance = (share * (source - a).square()).sum()
    scale = float((values * sign).sum() / variance)
    return scale, rotation.float(), (b - scale * rotation @ a).float()


def axis_angle(rotation: Tensor) -> Tensor:
    """Axis-angle ``[3]``, radians, of a rotation matrix."""
    angle = torch.arccos(((rotation.diagonal().sum() - 1) / 2).clamp(-1, 1))
    axis = torch.stack(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    return axis / (2 * torch.sinc(angle / math.pi)).clamp_min(1e-6)


def placed_params(rig: Rig, model: LandmarkModel) -> RigParams:
    """The neutral rig scaled, turned by neck and head, and moved to its landmarks.

    Raises:
        RigFitError: the face looks far away from +z.
    """
    neutral = RigParams.neutral(rig)
    weights = model.inner.float() / model.sigma.square()
    places = model.points(rig.vertices(neutral)[0])
    factor, rotation, _ = similarity(places, model.target, weights)
    turn = axis_angle(rotation)
    if float(turn.norm()) > math.radians(LARGEST_TURN):
        raise RigFitError(
            f"the portrait's face is turned {math.degrees(float(turn.norm())):.0f} degrees away from +z; turn the"
            f" portrait to face +z (at most {LARGEST_TURN:.0f} degrees)"
        )
    params = neutral.replace(
        neck=NECK_SHARE * turn[None], head=(1 - NECK_SHARE) * turn[None], scale=neutral.scale * factor
    )
    shift = weights[:, None] * (model.target - model.points(rig.vertices(params)[0]))
    return params.replace(translation=params.translation + shift.sum(0) / weights.sum())
