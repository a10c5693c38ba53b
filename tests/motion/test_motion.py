"""Motions: the ARKit CSV reader, the built-in motion, and conversion to a rig."""

from dataclasses import replace

import pytest
import torch

from ap3d.errors import DataFileError, InputError
from ap3d.motion.arkit_csv import read_arkit_csv
from ap3d.motion.expressions import COMBINATIONS, ExpressionSampler
from ap3d.motion.procedural import talking
from ap3d.motion.schema import Motion

NAMES = ("jawOpen", "eyeBlinkLeft", "eyeBlinkRight", "mouthFunnel")


def test_live_link_face_columns_are_read() -> None:
    text = ("\ufeffTimecode,BlendShapeCount,EyeBlinkLeft,JawOpen,HeadYaw,HeadPitch,HeadRoll\r\n"
            "12:00:00:28.1,61,0.25,0.5,0.1,0.2,0.3\r\n12:00:00:29.1,61,1.0,1.2,0,0,0\r\n")  # fmt: skip
    motion = read_arkit_csv(text.encode(), NAMES)
    assert motion.fps == 60 and len(motion) == 2
    torch.testing.assert_close(motion.expression[0], torch.tensor([0.5, 0.25, 0, 0]))
    assert float(motion.expression[1, 0]) == 1.0
    assert motion.head[0].abs().tolist() == pytest.approx([0.2, 0.1, 0.3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names none"),
        ("time,x\n1,2\n", "names none"),
        ("JawOpen\n", "no frames"),
        ("JawOpen\nwide\n", "line 2"),
        ("JawOpen\n0.5\nnan\n", "line 3"),
        ("JawOpen\n57\n", "0 to 1"),
        ("JawOpen,EyeBlinkLeft\n0.5\n", "column 2"),
    ],
)
def test_unusable_captures_are_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(DataFileError, match=message) as caught:
        read_arkit_csv(text.encode(), NAMES)
    assert "\n" not in str(caught.value)


def test_binary_files_are_refused() -> None:
    with pytest.raises(DataFileError, match="not a CSV"):
        read_arkit_csv(b"\xff\xfe\x00\x01", NAMES)


def test_talking_talks_blinks_and_loops(rig) -> None:  # type: ignore[no-untyped-def]
    motion = talking(rig.expression_names, 4.0, 25.0, torch.Generator().manual_seed(0))
    jaw = motion.expression[:, rig.expression_names.index("jawOpen")]
    blink = motion.expression[:, rig.expression_names.index("eyeBlinkLeft")]
    assert len(motion) == 100
    assert float(jaw.max()) > 0.3 and int(((jaw[1:] > 0.2) != (jaw[:-1] > 0.2)).sum()) >= 4
    assert float(blink.max()) > 0.9 and float(blink[0]) == 0
    assert float(motion.expression.min()) >= 0 and float(motion.expression.max()) <= 1
    assert float((motion.head[0] - motion.head[-1]).norm()) < 0.05
    again = talking(rig.expression_names, 4.0, 25.0, torch.Generator().manual_seed(0))
    assert torch.equal(motion.expression, again.expression)


def test_motion_drives_the_mouth_and_lids_of_the_rig(rig, neutral) -> None:  # type: ignore[no-untyped-def]
    motion = Motion.still(2, 25.0, "arkit52", NAMES)
    motion.expression[1] = torch.tensor([0.8, 1.0, 1.0, 0.0])
    driven = motion.to(rig)
    still, moved = (rig.landmarks(driven.params(neutral, t))[0] for t in (0, 1))
    gap = lambda points, upper, lower: float(points[upper, 1] - points[lower, 1])  # noqa: E731
    assert gap(moved, 62, 66) > gap(still, 62, 66) + 0.02  # inner lips part
    assert gap(moved, 37, 41) < 0.3 * gap(still, 37, 41)  # lids meet


def test_other_bases_are_refused_by_name(rig) -> None:  # type: ignore[no-untyped-def]
    motion = replace(Motion.still(1, 25.0, "arkit52", NAMES), expression_basis="flame2020")
    with pytest.raises(InputError, match="flame2020"):
        motion.to(rig)


@pytest.mark.parametrize("name", sorted(COMBINATIONS))
def test_every_combination_names_actions_of_the_rig(rig, neutral, name: str) -> None:  # type: ignore[no-untyped-def]
    sampler = ExpressionSampler(rig)
    assert (float(sampler.named(name).abs().sum()) > 0) == (name != "neutral")
    one, two = (sampler.apply(neutral, name, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one.expression, two.expression) and torch.isfinite(rig.vertices(one)).all()
