"""Lids and gaze of tracked faces, calibrated on the clip's own open eyes.

Right and left are the subject's; arrays of both eyes hold the right one first.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ap3d.motion.face_fit import FLIP, Camera, Pose
from ap3d.motion.face_model import FaceModel
from ap3d.perception.mesh_topology import LEFT_IRIS, RIGHT_IRIS

_LIDS = (((160, 144), (159, 145), (158, 153)), ((385, 380), (386, 374), (387, 373)))
OPEN = 0.8  # quantile of a clip that counts as open
CLOSED_LIDS, CLOSED_WHITE = 0.25, 0.25  # what is left of lid distance and whiteness when the eye is shut
LEAST_WHITE = 0.06  # logarithmic; below it the white of the eye cannot be told from skin
QUIET, LEAST_PEAK = 0.12, 0.45  # closure that counts as none; the least peak that counts as a full blink
LARGEST_OFFSET = 0.17  # radians of a constant gaze that count as the person's own eyes (10 degrees)


def lid_distance(mesh: Tensor) -> Tensor:
    """Mean distance of the lids ``[T, 2]`` in pixels."""
    gap = lambda pair: (mesh[:, pair[0], :2] - mesh[:, pair[1], :2]).norm(dim=1)  # noqa: E731
    return torch.stack([torch.stack([gap(pair) for pair in pairs]).mean(0) for pairs in _LIDS], 1)


def closure(lids: Tensor, white: Tensor) -> Tensor:
    """How far each eye is shut, 0 to 1 ``[T, 2]``.

    Lid distance and whiteness, both relative to their open state in this clip, count alike; the deepest blink of the
    clip counts as shut, if it is one at all.

    Args:
        lids: ``[T, 2]`` lid distances on one scale (metres, say).
        white: ``[T, 2]`` of :func:`ap3d.perception.face_measures.eye_whiteness`.
    """
    out = []
    for side in range(2):
        gap = 1 - lids[:, side] / lids[:, side].quantile(OPEN).clamp_min(1e-9)
        shut = (gap / (1 - CLOSED_LIDS)).clamp(0, 1)
        usual = white[:, side].quantile(OPEN)
        if float(usual) > LEAST_WHITE:
            pale = 1 - white[:, side] / usual
            shut = (shut + (pale / (1 - CLOSED_WHITE)).clamp(0, 1)) / 2
        peak = float(shut.max())
        peak = peak if peak >= LEAST_PEAK else 1.0
        out.append(((shut - QUIET) / (peak - QUIET)).clamp(0, 1))
    return torch.stack(out, 1)


def gaze(model: FaceModel, shape: Tensor, mesh: Tensor, camera: Camera, pose: Pose, shut: Tensor) -> Tensor:
    """Gaze ``[T, 2]`` (pitch, positive down; yaw, positive to the subject's left) in radians relative to the head.

    The line of sight through each iris meets the eyeball's sphere; both eyes count by how far they are open, shut ones
    keep the gaze before. A small constant part is the person's own and is taken out.
    """
    centres = model.eyes + torch.einsum("s,sec->ec", shape, model.eyes_shape)
    middle = (centres @ pose.rotation.transpose(1, 2)) * FLIP + pose.translation[:, None]
    iris = mesh[:, [RIGHT_IRIS[0], LEFT_IRIS[0]], :2]
    ray = F.normalize(torch.cat([(iris - camera.centre) / camera.focal, torch.ones_like(iris[..., :1])], 2), dim=2)
    along = (ray * middle).sum(2, keepdim=True)
    across = ray * along - middle  # from the eye's centre to the ray, at right angles
    reach = (model.radius**2 - across.square().sum(2, keepdim=True)).clamp_min(1e-12).sqrt()
    sight = ((across - ray * reach) * FLIP) @ pose.rotation
    angles = torch.stack([torch.atan2(-sight[..., 1], sight[..., 2]), torch.atan2(sight[..., 0], sight[..., 2])], 2)
    certain = (1 - shut).clamp_min(0.02).square()[..., None]
    both = (angles * certain).sum(1) / certain.sum(1)
    both = _hold(both, certain.sum(1)[:, 0] > 0.3)
    offset = both.median(0).values.clamp(-LARGEST_OFFSET, LARGEST_OFFSET)
    return both - offset


def _hold(values: Tensor, certain: Tensor) -> Tensor:
    """Values ``[T, C]`` with uncertain frames interpolated between their neighbours."""
    known = torch.nonzero(certain)[:, 0]
    if not len(known) or len(known) == len(values):
        return values
    return interpolate_rows(values[known], known, len(values))


def interpolate_rows(values: Tensor, frames: Tensor, count: int) -> Tensor:
    """Rows ``[N, C]`` known at some frames, as ``[count, C]`` with linear interpolation; the ends are held."""
    times = torch.arange(count)
    after = torch.searchsorted(frames, times).clamp(max=len(frames) - 1)
    before = (after - (frames[after] > times).long()).clamp_min(0)
    span = (frames[after] - frames[before]).clamp_min(1)
    share = ((times - frames[before]) / span).clamp(0, 1)[:, None].to(values)
    return values[before] * (1 - share) + values[after] * share
