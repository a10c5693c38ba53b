"""Evaluations that a configuration asks for, and what a thread makes ahead."""

import threading
import time

import pytest
import torch

from ap3d.config import load_config
from ap3d.diffusion.cost import Cost
from ap3d.framing import full_cameras
from ap3d.rig.protocol import Rig, RigParams
from ap3d.stages.ahead import made_ahead
from ap3d.stages.counting import counted_evaluations
from ap3d.stages.regions import Crop, RegionViews, joined_views


def total(preset: str, **overrides: object) -> Cost:
    config = load_config(preset, {k.replace("__", "."): v for k, v in overrides.items()})
    return sum(counted_evaluations(config).values(), Cost())


def test_the_draft_takes_a_tenth_of_the_papers_evaluations() -> None:
    paper, draft = total("paper"), total("draft")
    assert 100_000 < paper.unet < 150_000 and 60_000 < paper.controlnet < 100_000  # the original's own is about 130 000
    assert draft.unet <= paper.unet / 10 and draft.controlnet <= paper.controlnet / 10


def test_counts_follow_from_the_settings() -> None:
    only = {"eyes__rounds": 0, "mouth__match__iterations": 0, "mouth__edit__rounds": 0, "refine__rounds": 0}
    portrait = counted_evaluations(load_config("smoke"))["portrait"]
    at_200 = {**only, "whole__start_timestep": 200, "whole__end_timestep": 200, "whole__interval_iterations": 1}
    matched = total("smoke", **at_200, whole__iterations=1, whole__views_per_step=3, whole__inversion_steps=2)
    assert matched - portrait == Cost(3 * (3 + 2), 3 * (3 + 2))
    sds = total("smoke", **at_200, whole__iterations=1, whole__views_per_step=3, whole__objective="sds")
    assert sds - portrait == Cost(3 * 2, 3 * 2)
    edited = counted_evaluations(load_config("smoke", {"refine.rounds": 2, "refine.views": 7, "refine.steps": 10}))
    full, detail = 4 * 5 * 2, 3 * round(10 * 0.65) * 2
    assert edited["refine"] == Cost(2 * (full + detail), 2 * (full + detail))
    uncontrolled = counted_evaluations(load_config("smoke", {"refine.control": False}))
    assert uncontrolled["refine"].controlnet == 0 < uncontrolled["refine"].unet


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_what_is_made_ahead_comes_in_order(depth: int) -> None:
    begun: list[int] = []

    def make(number: int) -> int:
        begun.append(number)
        return number * number

    results = made_ahead(make, range(2, 8), depth)
    assert next(results) == 4
    time.sleep(0.05)
    assert len(begun) == 1 + depth
    assert list(results) == [9, 16, 25, 36, 49]


def test_an_error_ahead_is_raised_where_its_result_is_due_and_no_thread_stays() -> None:
    results = made_ahead(lambda number: 1 // (2 - number), range(4), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    unfinished = made_ahead(lambda number: number, range(9), 2)
    next(unfinished)
    unfinished.close()
    assert not any(thread.name.startswith("ahead") for thread in threading.enumerate())


def test_crops_of_several_heads_are_one_batch_in_order(rig: Rig) -> None:
    parts = []
    for count in (1, 3):
        cameras = full_cameras(rig, rig.canonical, [10.0 * k for k in range(count)], torch.zeros(count), 8)
        image = torch.full((count, 1, 8, 8), float(count))
        crops = [Crop("full", 10.0 * k, 0.0) for k in range(count)]
        controlled = torch.tensor([count == 1] * count)
        prompts = [f"{count} {k}" for k in range(count)]
        parts.append(
            RegionViews(RigParams.neutral(rig), rig.canonical, cameras, prompts, image, controlled, image, crops)
        )
    joined = joined_views(parts)
    assert joined.prompts == ["1 0", "3 0", "3 1", "3 2"] and len(joined.cameras) == len(joined.crops) == 4
    assert joined.conditions[:, 0, 0, 0].tolist() == joined.free[:, 0, 0, 0].tolist() == [1, 3, 3, 3]
    assert joined.controlled.tolist() == [True, False, False, False] and joined_views(parts[:1]) is parts[0]
