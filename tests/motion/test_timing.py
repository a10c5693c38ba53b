"""Resampling, smoothing, cutting and closing a motion, against closed forms."""

import math

import pytest
import torch
from scipy.spatial.transform import Rotation, Slerp

from ap3d.errors import InputError
from ap3d.motion import Motion
from ap3d.motion.arkit import ARKIT_NAMES
from ap3d.motion.rotations import axis_angles, quaternions, slerp, without_large_turn
from ap3d.motion.timing import cut, looped, resampled, smoothed


def turning(frames: int, fps: float, turn: float = 2.0) -> Motion:
    """The jaw opens linearly while the head turns steadily about a fixed slanted axis, ``turn`` radians a second."""
    times = torch.arange(frames) / fps
    axis = torch.nn.functional.normalize(torch.tensor([0.3, 0.9, -0.2]), dim=0)
    still = Motion.still(frames, fps, "arkit52", ARKIT_NAMES)
    expression = still.expression.clone()
    expression[:, ARKIT_NAMES.index("jawOpen")] = times
    return still.with_tensors({"head": turn * times[:, None] * axis, "expression": expression})


@pytest.mark.parametrize("fps", [25.0, 60.0, 120.0])
def test_resampling_keeps_time_and_turns_at_an_even_pace(fps: float) -> None:
    motion = turning(31, 30.0)
    out = resampled(motion, fps)
    assert out.seconds == pytest.approx(motion.seconds, abs=1 / fps)
    times = torch.arange(len(out)) / fps
    inside = times <= 1.0
    expected = turning(len(out), fps)
    for name in ("head", "expression"):
        torch.testing.assert_close(getattr(out, name)[inside], getattr(expected, name)[inside], atol=1e-5, rtol=1e-4)
    assert resampled(motion, 30.0) is motion


def test_interpolation_between_far_rotations_is_scipys() -> None:
    ends = Rotation.random(2, random_state=3)
    a, b = (torch.from_numpy(r.as_rotvec()).float() for r in ends)
    share = torch.linspace(0, 1, 9)
    ours = axis_angles(slerp(quaternions(a)[None], quaternions(b)[None], share[:, None]))
    theirs = Slerp([0, 1], ends)(share.numpy())
    angle = (Rotation.from_rotvec(ours.numpy()).inv() * theirs).magnitude()
    assert float(angle.max()) < 1e-3


def test_a_head_that_crosses_half_a_turn_does_not_spin_back() -> None:
    """At pi the axis-angle vector flips its sign; the rotation does not."""
    motion = turning(61, 30.0, turn=2.2)
    wrapped = motion.with_tensors({"head": axis_angles(quaternions(motion.head))})
    assert float((wrapped.head[1:] - wrapped.head[:-1]).norm(dim=1).max()) > 6
    for out in (resampled(wrapped, 77.0), smoothed(wrapped, 0.05)):
        q = quaternions(out.head)
        step = 2 * torch.acos((q[1:] * q[:-1]).sum(1).abs().clamp(max=1))
        assert float(step.max()) < 0.12


def test_smoothing_takes_out_trembling_and_leaves_slow_motion() -> None:
    times = torch.arange(200) / 50.0
    slow = 0.3 * torch.sin(2 * math.pi * 0.5 * times)
    fast = 0.05 * torch.sin(2 * math.pi * 12.5 * times)
    still = Motion.still(200, 50.0, "arkit52", ARKIT_NAMES)
    motion = still.with_tensors({"neck": torch.stack([0 * times, slow + fast, 0 * times], 1)})
    out = smoothed(motion, 0.04).neck[20:-20, 1]
    # A Gaussian of standard deviation s damps a frequency f by exp(-(2 pi f s)^2 / 2).
    damping = math.exp(-((2 * math.pi * 12.5 * 0.04) ** 2) / 2)
    left = slow * math.exp(-((2 * math.pi * 0.5 * 0.04) ** 2) / 2)
    assert float((out - left[20:-20]).abs().max()) < 0.05 * damping + 2e-3
    assert smoothed(motion, 0.0) is motion


def test_a_closed_loop_steps_over_its_seam_as_between_its_frames() -> None:
    motion = turning(100, 25.0, turn=0.3)
    loop = looped(motion, 0.8)
    assert len(loop) == 80
    seam = (loop.head[0] - loop.head[-1]).norm()
    steps = (loop.head[1:] - loop.head[:-1]).norm(dim=1)
    assert float((motion.head[0] - motion.head[-1]).norm()) > 1 and float(seam) <= float(steps.max()) * 1.01
    assert torch.equal(loop.head[20:], motion.head[20:80])


@pytest.mark.parametrize("frames", [1, 2, 3, 8, 9])
def test_a_short_motion_loops_as_well(frames: int) -> None:
    motion = Motion.still(frames, 25.0, "arkit52", columns=3).with_tensors({"expression": torch.rand(frames, 3)})
    out = looped(motion)
    assert len(out) == frames - frames // 2
    torch.testing.assert_close(out.expression[0], motion.expression[-(frames // 2) if frames > 1 else 0])


def test_cutting_takes_the_part_that_was_asked_for() -> None:
    part = cut(turning(100, 25.0), 1.0, 2.0)
    assert len(part) == 50 and float(part.expression.max()) == pytest.approx(2.96)
    with pytest.raises(InputError, match="lasts 4.00 s"):
        cut(turning(100, 25.0), 4.0)


def test_times_that_make_no_sense() -> None:
    motion = turning(10, 25.0)
    for call in (
        lambda: resampled(motion, 0.0), lambda: resampled(motion, -25.0), lambda: smoothed(motion, 2.0),
        lambda: looped(motion, 0.0), lambda: cut(motion, -1.0), lambda: cut(motion, 0.0, 0.0),
    ):  # fmt: skip
        with pytest.raises(InputError):
            call()


def test_the_mean_turn_is_taken_out_only_beyond_the_limit() -> None:
    turns = torch.zeros(20, 3)
    turns[:, 1] = torch.linspace(-0.2, 0.6, 20)
    assert without_large_turn(turns) == (turns, 0.0)
    away = turns + torch.tensor([0.0, 2.5, 0.0])
    back, degrees = without_large_turn(away)
    assert degrees == pytest.approx(math.degrees(2.7), abs=0.5)
    torch.testing.assert_close(back[:, 1] - back[:, 1].mean(), turns[:, 1] - 0.2, atol=1e-3, rtol=0)
