"""Faces that guidance sees: plausible, varied, and with the published statistics."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ap3d.errors import InputError
from ap3d.guidance_config import FACES, ExpressionConfig
from ap3d.motion.expression_bank import (
    COMBINATIONS,
    FACES_OF,
    VISEMES,
    expression_bank,
    face_weights,
    jaw_angle,
)
from ap3d.motion.expressions import ExpressionSampler, expression_word, jaw_opening
from ap3d.rig.body_model import BodyModelRig
from ap3d.rig.protocol import RigParams
from tests.rig import synthetic_models as synthetic


@pytest.fixture(scope="module")
def flame(tmp_path_factory):
    from ap3d.rig import load_rig

    return load_rig(str(synthetic.write_flame(tmp_path_factory.mktemp("flame") / "flame2020.pkl")))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_listed_action_exists(rig):
    for actions in (COMBINATIONS | VISEMES).values():
        assert set(actions) <= set(rig.expression_names)
    assert set(FACES_OF) == set(FACES)


def test_faces_vary_and_the_seed_decides(rig, neutral):
    bank = expression_bank(rig, ExpressionConfig())
    drawn = [bank.draw(neutral, "all", generator(s)) for s in range(40)]
    again = bank.draw(neutral, "all", generator(7))
    assert torch.equal(again.expression, drawn[7].expression) and torch.equal(again.eyes, drawn[7].eyes)
    faces = torch.cat([torch.cat([d.expression, d.eyelids], 1) for d in drawn])
    assert len(faces.unique(dim=0)) == 40
    assert float(faces[:, : rig.n_expression].min()) >= 0 and float(faces[:, : rig.n_expression].max()) <= 1


def test_gaze_is_shared_and_some_lids_close(rig, neutral):
    bank = expression_bank(rig, ExpressionConfig())
    drawn = [bank.draw(neutral, "eyes", generator(s)) for s in range(200)]
    eyes, lids = torch.cat([d.eyes for d in drawn]), torch.cat([d.eyelids for d in drawn])
    assert torch.equal(eyes[:, :3], eyes[:, 3:]) and float(eyes[:, 0].abs().max()) <= 0.3
    assert 0.3 < float(eyes[:, 1].abs().max()) <= 0.4
    assert 0.2 < float((lids[:, 0] > 0.5).float().mean()) < 0.4


def test_open_mouths_are_open_and_one_sided_faces_are_not_alike(rig, neutral):
    bank = expression_bank(rig, replace(ExpressionConfig(), one_sided_share=1.0))
    jaws = [jaw_opening(rig, bank.draw(neutral, "open_mouth", generator(s))) for s in range(60)]
    assert np.mean(np.array(jaws) > 0.1) > 0.7
    left, right = (rig.expression_names.index(f"mouthSmile{side}") for side in ("Left", "Right"))
    smiles = torch.cat([bank.draw(neutral, "eyes", generator(s)).expression[:, [left, right]] for s in range(60)])
    smiles = smiles[smiles.max(1).values > 0]
    assert len(smiles) and bool((smiles[:, 0] != smiles[:, 1]).all())


def test_the_jaw_has_the_published_histogram():
    quantiles = np.linspace(0, 1, 20001)
    every, opened = ([jaw_angle(float(q), kind) for q in quantiles] for kind in ("all", "open_mouth"))
    assert np.mean(np.array(every) > 0.1) == pytest.approx(0.19, abs=0.005)
    assert np.mean(np.array(every) > 0.2) == pytest.approx(0.077, abs=0.005)
    assert np.mean(opened) == pytest.approx(0.31, abs=0.01)
    assert np.mean(np.array(opened) > 0.1) == pytest.approx(0.82, abs=0.005)


def test_strong_faces_and_open_jaws_are_drawn_more_often():
    expression, jaw = torch.tensor([[1.0, 0.0], [3.5, 0.0], [1.2, 0.0]]), torch.tensor([0.0, 0.0, 0.3])
    assert face_weights(expression, jaw).tolist() == [1, 9, 11]


def test_body_models_take_recorded_faces(flame, tmp_path):
    g, frames = np.random.default_rng(0), 30
    pose = np.zeros((frames, 15), np.float32)
    pose[:10, 6] = 0.3
    np.save(tmp_path / "expressions.npy", g.normal(size=(frames, 100)).astype(np.float32))
    np.save(tmp_path / "poses.npy", pose)
    bank = expression_bank(flame, ExpressionConfig(bank=str(tmp_path)))
    neutral = RigParams.neutral(flame)
    for seed in range(5):
        assert float(bank.draw(neutral, "open_mouth", generator(seed)).jaw[0, 0]) == pytest.approx(0.3)
    drawn = bank.draw(neutral, "all", generator())
    assert float(drawn.expression.abs().max()) > 0.5 and torch.equal(drawn.shape, neutral.shape)


def test_without_a_recording_coefficients_are_seeded(flame: BodyModelRig):
    bank, neutral = expression_bank(flame, ExpressionConfig()), RigParams.neutral(flame)
    one, two = (bank.draw(neutral, "all", generator(s)) for s in (1, 2))
    assert not torch.equal(one.expression, two.expression)
    assert bool((bank.draw(neutral, "all", generator(1), head=False).neck == 0).all())


def test_a_bank_for_the_built_in_rig_is_refused(rig, tmp_path: Path):
    with pytest.raises(InputError, match="built-in rig"):
        expression_bank(rig, ExpressionConfig(bank=str(tmp_path)))


@pytest.mark.parametrize(("name", "word"), [
    ("neutral", ""), ("open", "mouth open"), ("grin", "mouth open"), ("smile", "smiling"), ("blink", "eyes closed"),
    ("frown", "angry"), ("wink", ""), ("ee", ""),
])  # fmt: skip
def test_a_face_is_called_by_what_it_does(rig, name, word):
    from ap3d.diffusion.vocabulary import EXPRESSION_PHRASES

    posed = ExpressionSampler(rig).named(RigParams.neutral(rig), name)
    assert expression_word(rig, posed) == word
    assert not word or word in EXPRESSION_PHRASES[word]


def test_jaw_and_lids_are_known_of_rigs_without_named_actions(flame):
    neutral = RigParams.neutral(flame)
    assert expression_word(flame, neutral) == ""
    assert expression_word(flame, neutral.replace(jaw=torch.tensor([[0.3, 0.0, 0.0]]))) == "mouth open"
    assert expression_word(flame, neutral.replace(eyelids=torch.ones(1, 2))) == "eyes closed"
