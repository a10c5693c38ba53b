"""Built-in motions: each does what its name says, loops, stays in range, and comes again from its seed."""

import pytest
import torch

from ap3d.errors import InputError
from ap3d.motion import Motion, load_motion
from ap3d.motion.arkit import ARKIT_NAMES
from ap3d.motion.procedural import PROCEDURAL, procedural, with_blinks


def action(motion: Motion, name: str) -> torch.Tensor:
    return motion.expression[:, ARKIT_NAMES.index(name)]


@pytest.mark.parametrize("name", sorted(PROCEDURAL))
@pytest.mark.parametrize("fps", [25.0, 60.0])
def test_ranges_ends_and_seeds(name: str, fps: float) -> None:
    motion = procedural(name, 5.0, fps, 3)
    assert len(motion) == round(5 * fps) and motion.expression_names == ARKIT_NAMES
    assert float(motion.expression.min()) >= 0 and float(motion.expression.max()) <= 1
    assert float(motion.head.abs().max()) < 0.6 and float(motion.eyes.abs().max()) < 0.6
    for part, value in motion.tensors().items():
        steps = (value[1:] - value[:-1]).abs().amax(0)
        assert bool(((value[0] - value[-1]).abs() <= steps * 1.5 + 0.02).all()), part  # the seam is no leap
    again, other = procedural(name, 5.0, fps, 3), procedural(name, 5.0, fps, 4)
    assert all(torch.equal(v, again.tensors()[k]) for k, v in motion.tensors().items())
    assert any(not torch.equal(v, other.tensors()[k]) for k, v in motion.tensors().items())


def test_talk_opens_the_mouth_and_blinks() -> None:
    motion = procedural("talk", 4.0, 25.0, 0)
    jaw, blink = action(motion, "jawOpen"), action(motion, "eyeBlinkLeft")
    assert float(jaw.max()) > 0.3 and int(((jaw[1:] > 0.2) != (jaw[:-1] > 0.2)).sum()) >= 4
    assert float(blink.max()) > 0.9 and float(blink[0]) == 0


def test_blink_closes_both_lids_and_little_else() -> None:
    motion = procedural("blink", 8.0, 30.0, 1)
    left, right = action(motion, "eyeBlinkLeft"), action(motion, "eyeBlinkRight")
    closings = int(((left[1:] > 0.5) & (left[:-1] <= 0.5)).sum())
    assert 3 <= closings <= 7 and torch.equal(left, right)
    assert float(motion.head.abs().max()) < 0.03 and float(action(motion, "jawOpen").max()) == 0


def test_look_leaps_with_the_eyes_and_follows_with_the_head() -> None:
    motion = procedural("look", 10.0, 60.0, 2)
    yaw, head = motion.eyes[:, 1], (motion.neck + motion.head)[:, 1]
    assert float(yaw.abs().max()) > 0.15 and float(head.abs().max()) > 0.03
    fastest = lambda t: float((t[1:] - t[:-1]).abs().max() * 60)  # noqa: E731
    assert fastest(yaw) > 3 > 1.5 > fastest(head)  # radians a second: saccades, and a head


def test_express_shows_a_smile_a_frown_and_a_wink() -> None:
    motion = procedural("express", 10.0, 25.0, 0)
    for name in ("mouthSmileLeft", "browDownLeft", "browInnerUp", "eyeBlinkRight", "jawOpen"):
        assert float(action(motion, name).max()) > 0.3, name
    assert float((action(motion, "eyeBlinkRight") - action(motion, "eyeBlinkLeft")).max()) > 0.9


def test_nod_says_yes_then_no() -> None:
    motion = procedural("nod", 4.0, 50.0, 0)
    turn = motion.neck + motion.head
    pitch, yaw = turn[:, 0], turn[:, 1]
    assert float(pitch[:100].max()) > 0.15 > float(yaw[:100].abs().max())
    assert float(yaw[100:].abs().max()) > 0.15 > float(pitch[100:].abs().max())


def test_blinks_can_be_added_to_a_flame_motion() -> None:
    still = Motion.still(200, 25.0, "flame2020", columns=50)
    blinking = with_blinks(still, 0)
    assert float(blinking.eyelids.max()) > 0.9 and "blinks were added" in blinking.notes
    assert torch.equal(blinking.expression, still.expression)


def test_names_and_lengths_are_checked() -> None:
    for wrong in (
        lambda: load_motion("sing"),
        lambda: procedural("talk", 0.0, 25.0, 0),
        lambda: procedural("talk", 4.0, 0.0, 0),
    ):
        with pytest.raises(InputError):
            wrong()
