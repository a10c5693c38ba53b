"""What changes the time of a motion and nothing else: cutting, resampling, smoothing, closing the loop.

Rotations go through quaternions (spherical interpolation, normalised means), the other columns are linear.
"""

import torch
from torch import Tensor

from ap3d.errors import InputError
from ap3d.motion.rotations import axis_angles, continuous, quaternions, slerp
from ap3d.motion.schema import ROTATIONS, Motion

_LEAST_SIGMA = 0.05  # frames; a narrower filter changes nothing


def cut(motion: Motion, start: float = 0.0, seconds: float | None = None) -> Motion:
    """The part that begins at ``start`` seconds and lasts ``seconds`` (by default to the end).

    Raises:
        InputError: nothing is left.
    """
    if start < 0 or (seconds is not None and seconds <= 0):
        raise InputError("the part of a motion must start at 0 s or later and last longer than 0 s")
    first = round(start * motion.fps)
    if first >= len(motion):
        raise InputError(f"the motion lasts {motion.seconds:.2f} s, nothing is left from {start:g} s on")
    count = len(motion) if seconds is None else max(round(seconds * motion.fps), 1)
    return motion.frames(slice(first, first + count))


def resampled(motion: Motion, fps: float) -> Motion:
    """The same motion in the same time at another frame rate; the last frame is held where times end after it.

    Raises:
        InputError: the rate is not positive.
    """
    if not 0 < fps <= 1000:
        raise InputError(f"frames per second must be positive and at most 1000, got {fps:g}")
    if fps == motion.fps:
        return motion
    count = max(round(len(motion) * fps / motion.fps), 1)
    position = (torch.arange(count, dtype=torch.float64) * (motion.fps / fps)).clamp(max=len(motion) - 1)
    low = position.floor().long()
    share = (position - low).float()
    return _blended(motion.frames(low), motion.frames((low + 1).clamp(max=len(motion) - 1)), share, fps)


def smoothed(motion: Motion, seconds: float) -> Motion:
    """Without tremor: a Gaussian of standard deviation ``seconds`` over time, without lag.

    Raises:
        InputError: a negative width, or one beyond a second.
    """
    if not 0 <= seconds <= 1:
        raise InputError(f"the width of the smoothing must lie from 0 to 1 second, got {seconds:g}")
    sigma = seconds * motion.fps
    if sigma < _LEAST_SIGMA:
        return motion
    out = {}
    for name, value in motion.tensors().items():
        if name in ROTATIONS:
            joints = continuous(quaternions(value.reshape(len(value), -1, 3)))
            mean = gaussian_filtered(joints.flatten(1), sigma).reshape(joints.shape)
            out[name] = axis_angles(torch.nn.functional.normalize(mean, dim=-1)).flatten(1)
        else:
            out[name] = gaussian_filtered(value, sigma)
    return motion.with_tensors(out)


def looped(motion: Motion, seconds: float = 0.4) -> Motion:
    """A motion whose end leads into its start: the last ``seconds`` are faded into the first, and cut off.

    Raises:
        InputError: the fade is not positive.
    """
    if seconds <= 0:
        raise InputError(f"the fade of a loop must last longer than 0 s, got {seconds:g}")
    count = min(max(round(seconds * motion.fps), 1), len(motion) // 2)
    if not count:
        return motion
    kept = motion.frames(slice(0, len(motion) - count))
    share = torch.arange(count) / count
    share = share * share * (3 - 2 * share)
    faded = _blended(motion.frames(slice(len(motion) - count, len(motion))), motion.frames(slice(0, count)), share)
    rest = kept.tensors()
    return kept.with_tensors({k: torch.cat([v, rest[k][count:]]) for k, v in faded.tensors().items()})


def _blended(a: Motion, b: Motion, share: Tensor, fps: float | None = None) -> Motion:
    """Frame by frame from ``a`` (share 0) to ``b`` (1)."""
    out, others = {}, b.tensors()
    for name, value in a.tensors().items():
        if name in ROTATIONS:
            first, second = (quaternions(t.reshape(len(t), -1, 3)) for t in (value, others[name]))
            out[name] = axis_angles(slerp(first, second, share[:, None, None])).flatten(1)
        else:
            out[name] = torch.lerp(value, others[name], share[:, None])
    return a.with_tensors(out, fps=fps or a.fps)


def gaussian_filtered(values: Tensor, sigma: float) -> Tensor:
    """Columns ``[T, C]`` under a Gaussian of standard deviation ``sigma`` frames; the ends are held."""
    if sigma < _LEAST_SIGMA or len(values) < 2:
        return values
    reach = max(int(3 * sigma + 0.5), 1)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma).square())
    kernel = kernel / kernel.sum()
    padded = torch.cat([values[:1].expand(reach, -1), values, values[-1:].expand(reach, -1)])
    return torch.nn.functional.conv1d(padded.T[:, None], kernel[None, None].to(values))[:, 0].T.contiguous()
