"""Perp-Neg: what is perpendicular stays out of the positive's way, and views blend by azimuth."""

import pytest
import torch

from ap3d.diffusion.perp_neg import BACK, FRONT, SIDE, perpendicular_sum, view_blend


def test_negatives_act_only_across_the_positive() -> None:
    g = torch.Generator().manual_seed(0)
    positive, negatives = torch.randn(2, 3, 4, 4, generator=g), torch.randn(3, 2, 3, 4, 4, generator=g)
    weights = -torch.rand(3, 2, generator=g)
    added = perpendicular_sum(positive, negatives, weights) - positive
    assert float((added * positive).sum((1, 2, 3)).abs().max()) < 1e-4
    one = perpendicular_sum(positive, negatives, torch.tensor([[0.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]))
    assert torch.equal(one[1], positive[1])
    assert float((one[0] - positive[0]).mul(negatives[1, 0]).sum()) < 0  # away from the negative


def test_a_negative_equal_to_the_positive_changes_nothing() -> None:
    positive = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    found = perpendicular_sum(positive, 2.5 * positive[None], torch.tensor([[-2.0]]))
    torch.testing.assert_close(found, positive)


@pytest.mark.parametrize(("azimuth", "view"), [(0, FRONT), (90, SIDE), (-90, SIDE), (180, BACK), (-180, BACK)])
def test_at_a_view_its_own_text_is_the_positive_and_no_negative(azimuth: float, view: int) -> None:
    positive, negative = view_blend(azimuth)
    assert positive[view] == 1 and positive.sum() == 1
    assert negative[view] == 0 and bool((negative <= 0).all())


def test_between_two_views_both_texts_share_and_sides_are_alike() -> None:
    positive, negative = view_blend(45)
    torch.testing.assert_close(positive, torch.tensor([0.5, 0.5, 0.0]))
    assert negative[FRONT] < 0 and negative[SIDE] < 0 and negative[BACK] == 0
    for azimuth in (20, 75, 130):
        for one, other in zip(view_blend(azimuth), view_blend(-azimuth), strict=True):
            torch.testing.assert_close(one, other)
    assert view_blend(150)[1][FRONT] == -2
