import numpy as np
import pytest
import torch

from ap3d.errors import DataFileError
from ap3d.training.captions import random_person
from ap3d.training.shape_prior import ShapePrior, ShapePriorConfig, train_shape_prior

MIX = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 0.3]])


def draw(rng, count):
    """Gender moves the first coefficient, age the third; the first two vary together."""
    people = [random_person(rng) for _ in range(count)]
    mean = torch.tensor([[3.0 * (p.gender == "woman"), 0.0, 2.0 * (p.age == "old")] for p in people])
    return people, mean + torch.from_numpy(rng.standard_normal((count, 3))).float() @ MIX.T


@pytest.fixture(scope="module")
def prior_path(text_folder):
    path = text_folder[0].parent / "shape_prior.safetensors"
    result = train_shape_prior(
        path, draw, "rig", ShapePriorConfig(people=2500, steps=250, wordings=2, learning_rate=2e-3)
    )
    assert result["nll"] < result["nll_without_text"]
    return path


def test_it_draws_the_people_it_was_asked_for(prior_path):
    prior = ShapePrior.load(prior_path)
    assert prior.rig_sha256 == "rig"
    men = prior.sample(["a man"] * 400, torch.Generator().manual_seed(0))
    women = prior.sample(["a woman"] * 400, torch.Generator().manual_seed(0))
    assert 2.0 < (women - men)[:, 0].mean() < 4.0
    correlation = np.corrcoef(men[:, 0], men[:, 1])[0, 1]
    assert correlation > 0.35  # 0.8 in the limit; independent draws would have none


def test_the_seed_decides(prior_path):
    prior = ShapePrior.load(prior_path)
    one, same, other = (prior.sample("a man", torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert one.shape == (1, 3) and torch.equal(one, same) and not torch.equal(one, other)


def test_a_truncated_file_is_one_clear_error(prior_path, tmp_path):
    broken = tmp_path / "shape_prior.safetensors"
    broken.write_bytes(prior_path.read_bytes()[:-100])
    with pytest.raises(DataFileError, match="truncated"):
        ShapePrior.load(broken)
