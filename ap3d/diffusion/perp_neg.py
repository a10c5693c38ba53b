"""Perp-Neg: guidance towards the view that a camera has, and against the views that it has not.

Source: Armandpour et al. 2023, "Re-imagine the Negative Prompt Algorithm" (arXiv 2304.04968), sections 3.2 and 4: the
negatives act by their part perpendicular to the positive, and view texts are blended by azimuth.
"""

import math

import torch
from torch import Tensor

FRONT, SIDE, BACK = 0, 1, 2
NEGATIVE_WEIGHT = -2.0
FRONT_DECAY, SIDE_DECAY = 2.0, 10.0
NEAR = 0.2  # of a quarter turn: nearer to a view than this, that view is no negative


def view_blend(azimuth: float) -> tuple[Tensor, Tensor]:
    """How front, side and back texts share in guidance at an azimuth in degrees (0 front).

    Returns:
        Weights ``[3]`` of the blended positive text (sum 1), and weights ``[3]`` of each view as a negative (<= 0).
    """
    turn = abs((azimuth + 180) % 360 - 180)
    positive, negative = torch.zeros(3), torch.zeros(3)
    share = turn / 90 if turn <= 90 else (turn - 90) / 90  # from the nearer view to the farther
    near, far = (FRONT, SIDE) if turn <= 90 else (SIDE, BACK)
    positive[near], positive[far] = 1 - share, share
    if near == FRONT:
        if share > NEAR:
            negative[FRONT] = NEGATIVE_WEIGHT * math.exp(-FRONT_DECAY * (1 - share))
        if share < 1 - NEAR:
            negative[SIDE] = NEGATIVE_WEIGHT * math.exp(-SIDE_DECAY * share)
    else:
        negative[FRONT] = NEGATIVE_WEIGHT
        if share > NEAR:
            negative[SIDE] = NEGATIVE_WEIGHT / 2 * math.exp(-SIDE_DECAY * (1 - share))
    return positive, negative


def perpendicular_sum(positive: Tensor, negatives: Tensor, weights: Tensor) -> Tensor:
    """``positive`` plus the weighted parts of ``negatives`` that are perpendicular to it.

    Args:
        positive: ``[B, C, h, w]`` direction of the text against the unconditional branch.
        negatives: ``[K, B, C, h, w]`` directions of other texts.
        weights: ``[K, B]``.
    """
    along = (negatives * positive).sum((2, 3, 4)) / positive.square().sum((1, 2, 3)).clamp(min=1e-12)
    perpendicular = negatives - along[..., None, None, None] * positive
    return positive + (weights[..., None, None, None].to(positive) * perpendicular).sum(0)
