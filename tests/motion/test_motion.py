"""Motions: what they may hold, the built-in motion, and conversion to a rig."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ap3d.errors import InputError
from ap3d.motion.arkit import ARKIT_NAMES
from ap3d.motion.expressions import COMBINATIONS, ExpressionSampler
from ap3d.motion.schema import Motion
from ap3d.rig.builtin import JAW_OPEN_ANGLE
from ap3d.rig.protocol import RigParams

NAMES = ("jawOpen", "eyeBlinkLeft", "eyeBlinkRight", "mouthFunnel")


def test_motion_drives_the_mouth_and_lids_of_the_rig(rig, neutral) -> None:  # type: ignore[no-untyped-def]
    motion = Motion.still(2, 25.0, "arkit52", NAMES)
    motion.expression[1] = torch.tensor([0.8, 1.0, 1.0, 0.0])
    driven = motion.to(rig)
    still, moved = (rig.landmarks(driven.params(neutral, t))[0] for t in (0, 1))
    gap = lambda points, upper, lower: float(points[upper, 1] - points[lower, 1])  # noqa: E731
    assert gap(moved, 62, 66) > gap(still, 62, 66) + 0.02  # inner lips part
    assert gap(moved, 37, 41) < 0.3 * gap(still, 37, 41)  # lids meet


def named(**actions: float) -> Motion:
    motion = Motion.still(3, 25.0, "arkit52", ARKIT_NAMES)
    for name, value in actions.items():
        motion.expression[:, ARKIT_NAMES.index(name)] = value
    return motion


def flame(basis: str, columns: int = 100) -> Motion:
    still = Motion.still(3, 25.0, basis, columns=columns)
    jaw, eyes = torch.tensor([[0.25, 0.0, 0.0]]).expand(3, 3), torch.tensor([[0.1, 0.3, 0.0] * 2]).expand(3, 6)
    return replace(still, expression=torch.ones(3, columns), jaw=jaw, eyes=eyes, eyelids=torch.ones(3, 2))


def test_pose_of_a_flame_motion_drives_the_builtin_rig_and_its_coefficients_are_named_as_dropped(rig, neutral) -> None:  # type: ignore[no-untyped-def]
    driven = flame("flame2023").to(rig)
    assert float(driven.expression.abs().max()) == 0 and driven.expression_basis == "arkit52"
    assert any("100 flame2023 expression coefficients were dropped" in n for n in driven.notes)
    controls, gaze = rig.controls(driven.params(neutral, 1))
    at = dict(zip(rig.expression_names, controls[0].tolist(), strict=True))
    assert at["jawOpen"] == pytest.approx(0.25 / JAW_OPEN_ANGLE) and at["eyeBlinkLeft"] == 1
    torch.testing.assert_close(gaze[0, 0], torch.tensor([0.1, 0.3, 0.0]))


def test_actions_reach_a_flame_rig_as_angles_and_the_rest_is_named(rig) -> None:  # type: ignore[no-untyped-def]
    target = SimpleNamespace(name="flame", expression_basis="flame2020", expression_names=(), n_expression=50)
    motion = named(jawOpen=0.5, eyeBlinkRight=0.9, eyeLookOutLeft=0.4, eyeLookUpRight=0.5, mouthSmileLeft=0.7)
    driven = motion.to(target)  # type: ignore[arg-type]
    assert driven.expression.shape == (3, 50) and float(driven.expression.abs().max()) == 0
    assert float(driven.jaw[0, 0]) == pytest.approx(0.5 * JAW_OPEN_ANGLE)
    assert driven.eyelids[0].tolist() == pytest.approx([0, 0.9])
    assert any("mouthSmileLeft" in n and "eyeBlink" not in n for n in driven.notes)
    # The built-in rig, given those angles alone, moves as by the actions.
    back = replace(driven, expression=torch.zeros(3, 50)).to(rig)
    neutral = RigParams.neutral(rig)
    ours, theirs = (rig.controls(m.params(neutral, 0))[0] for m in (back, replace(motion, notes=()).to(rig)))
    keep = [i for i, n in enumerate(rig.expression_names) if n.startswith("eye") or n == "jawOpen"]
    torch.testing.assert_close(ours[:, keep], theirs[:, keep])


@pytest.mark.parametrize(("own", "wanted"), [("flame2020", "flame2023"), ("flame2023", "flame2020")])
def test_versions_of_flame_are_never_mixed(own: str, wanted: str) -> None:
    target = SimpleNamespace(name="user's", expression_basis=wanted, expression_names=(), n_expression=100)
    with pytest.raises(InputError, match=f"{own}.*{wanted}"):
        flame(own).to(target)  # type: ignore[arg-type]


def test_counts_of_coefficients_are_fitted_and_said() -> None:
    target = SimpleNamespace(name="small", expression_basis="flame2020", expression_names=(), n_expression=10)
    short = flame("flame2020", 5).to(target)  # type: ignore[arg-type]
    assert short.expression[0].tolist() == [1.0] * 5 + [0.0] * 5 and "5 of the rig's 10" in short.notes[0]
    long = flame("flame2020", 12).to(target)  # type: ignore[arg-type]
    assert long.expression.shape == (3, 10) and "10 to 11 were dropped" in long.notes[0]


def test_names_that_do_not_match_are_said(rig) -> None:  # type: ignore[no-untyped-def]
    driven = replace(Motion.still(2, 25.0, "arkit52", ("jawOpen", "earWiggle")), expression=torch.ones(2, 2)).to(rig)
    assert any("earWiggle" in n for n in driven.notes) and any("stay at rest" in n for n in driven.notes)
    assert named(jawOpen=1.0).to(rig).notes == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 0.0}, "frame rate"), ({"fps": -25.0}, "frame rate"), ({"fps": float("nan")}, "frame rate"),
        ({"expression": torch.zeros(0, 52)}, "0 frames"), ({"expression": torch.zeros(4, 51)}, "51 expression"),
        ({"jaw": torch.zeros(3, 3)}, "jaw must be"), ({"eyes": torch.full((4, 6), float("nan"))}, "frame 0 of eyes"),
        ({"neck": torch.full((4, 3), 1e20)}, "frame 0 of neck holds a value beyond 1000"),
        ({"expression_basis": "smplx"}, "unknown expression basis"),
    ],
)  # fmt: skip
def test_a_motion_that_makes_no_sense_cannot_be_made(change: dict, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(InputError, match=message):
        replace(Motion.still(4, 25.0, "arkit52", ARKIT_NAMES), **change)


@pytest.mark.parametrize("name", sorted(COMBINATIONS))
def test_every_combination_names_actions_of_the_rig(rig, neutral, name: str) -> None:  # type: ignore[no-untyped-def]
    sampler = ExpressionSampler(rig)
    assert (float(sampler.named(RigParams.neutral(rig), name).expression.abs().sum()) > 0) == (name != "neutral")
    one, two = (sampler.apply(neutral, name, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one.expression, two.expression) and torch.isfinite(rig.vertices(one)).all()
