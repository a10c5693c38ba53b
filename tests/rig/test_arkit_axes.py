"""ARKit actions on body models: the synthetic axes are a secret mix of the built-in actions, which is recovered."""

import pytest
import torch

from ap3d.errors import DataFileError, InputError
from ap3d.motion import Motion
from ap3d.motion.expressions import COMBINATIONS, ExpressionSampler, jaw_opening
from ap3d.motion.procedural import talking
from ap3d.rig.body_model import BodyModelRig
from ap3d.rig.protocol import RigParams
from tests.rig import synthetic_models as synthetic

PRESENT = ("mouthSmileLeft", "browDownRight", "mouthFunnel", "noseSneerLeft", "browInnerUp", "cheekPuff")


@pytest.mark.parametrize("action", PRESENT)
def test_actions_have_their_shapes(flame_rig: BodyModelRig, action: str) -> None:
    head = synthetic.synthetic_head()
    truth = torch.from_numpy(head.actions[head.names.index(action)]).float()
    neutral = RigParams.neutral(flame_rig).replace(scale=torch.ones(1, 1))
    coefficients = flame_rig.arkit_axes[flame_rig.arkit_names.index(action)][None]
    moved = (flame_rig.vertices(neutral.replace(expression=coefficients)) - flame_rig.vertices(neutral))[0, :5023]
    assert ((moved - truth).square().sum() / truth.square().sum()).sqrt() < 0.3


def test_talking_moves_jaw_lids_and_lips(smplx_rig: BodyModelRig) -> None:
    motion = talking(2.0, 25.0, torch.Generator().manual_seed(0)).to(smplx_rig)
    assert motion.expression_basis == "flame2020" and motion.expression.shape == (50, 100)
    assert motion.jaw[:, 0].max() > 0.1 and motion.eyelids.max() > 0.8 and motion.expression.abs().max() > 0.05
    assert any("fitted" in note for note in motion.notes)


def test_named_expressions_pose_the_head(smplx_rig: BodyModelRig) -> None:
    sampler, neutral = ExpressionSampler(smplx_rig), RigParams.neutral(smplx_rig)
    smile, blink, opened = (smplx_rig.landmarks(sampler.named(neutral, n))[0] for n in ("smile", "blink", "open"))
    rest = smplx_rig.landmarks(neutral)[0]
    width = lambda p: (p[54] - p[48]).norm()  # noqa: E731
    assert width(smile) > 1.04 * width(rest)
    assert (blink[43] - blink[47]).norm() < 0.4 * (rest[43] - rest[47]).norm()
    assert (opened[66] - opened[62]).norm() > 5 * (rest[66] - rest[62]).norm()
    assert jaw_opening(smplx_rig, sampler.named(neutral, "open")) == pytest.approx(COMBINATIONS["open"]["jawOpen"])


def test_draws_are_seeded(flame_rig: BodyModelRig) -> None:
    sampler, neutral = ExpressionSampler(flame_rig), RigParams.neutral(flame_rig)
    one, two = (sampler.draw(neutral, torch.Generator().manual_seed(4)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.tensors().values(), two.tensors().values(), strict=True))


def test_flame_motions_of_another_year_are_refused(flame_rig: BodyModelRig) -> None:
    with pytest.raises((InputError, DataFileError), match="flame2023.*flame2020"):
        Motion.still(3, 25.0, "flame2023", columns=100).to(flame_rig)
