"""A phase of score matching on a model in the size of a stamp: who may move, and what happens to values not finite."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from ap3d.config import load_config
from ap3d.diffusion.conditions import ConditionBuilder
from ap3d.diffusion.models import GuidanceModels
from ap3d.errors import InputError, NumericalError
from ap3d.framing import head_tangent
from ap3d.guidance_config import MatchConfig
from ap3d.portrait_job import PortraitJob
from ap3d.splats.optimizer import AvatarOptimizer
from ap3d.splats.selection import selected_points
from ap3d.stages.editing import phase_reference, run_editing
from ap3d.stages.guided import GuidedRun, maximum_radius, phase_config
from ap3d.stages.matching import _weight, run_matching
from tests.tiny_avatar import tiny_avatar
from tests.tiny_diffusion import write_tiny_model

NOTES = {"completed_prompt": "a man", "abstract_prompt": "a man", "background": [0.5, 0.5, 0.5]}


@pytest.fixture(scope="module")
def resources(rig, tmp_path_factory):
    models = GuidanceModels.load(write_tiny_model(tmp_path_factory.mktemp("sd")))
    builder = ConditionBuilder(rig, models.condition_spec, 1)
    return SimpleNamespace(rig=rig, models=models, conditions=builder, device="cpu")


@pytest.fixture
def begin(resources, neutral):
    def make(**overrides):
        config = load_config("smoke", {"regions.full.control": False, **overrides})
        context = SimpleNamespace(
            job=PortraitJob("x", "a man", 0), config=config, resources=resources, stage="whole", records={},
            generator=torch.Generator().manual_seed(0), notes=lambda stage: NOTES, report=lambda step, steps: None,
            read_tensors=lambda stage, name: neutral.tensors(), save_checkpoint=lambda tensors, step: None,
        )  # fmt: skip
        return GuidedRun(context, AvatarOptimizer(tiny_avatar(resources.rig)), [1, 1])

    return make


def moved(run, before):
    return (run.optimizer.avatar.f_dc.detach() - before.f_dc).abs().amax(1) > 0


def test_only_the_points_of_a_phase_move(begin):
    run = begin()
    before, phase = tiny_avatar(run.rig), run.config.eyes
    run_editing(run, replace(phase, densify_at=()))
    chosen = selected_points(before, run.rig, phase.points)
    assert bool(chosen.any()) and not bool(moved(run, before)[~chosen].any())
    assert float(moved(run, before)[chosen].float().mean()) > 0.3


def test_points_with_a_minus_are_left_out(rig):
    avatar = tiny_avatar(rig)
    chosen = lambda *names: selected_points(avatar, rig, names)  # noqa: E731
    lips = chosen("lips")
    assert bool(lips.any()) and torch.equal(chosen("-lips"), ~lips)
    assert torch.equal(chosen("skin", "-lips"), chosen("skin") & ~lips)
    assert torch.equal(chosen("-lips", "-teeth"), ~lips & ~chosen("teeth"))


def test_lips_and_teeth_of_the_built_in_preset_keep_their_shape_in_the_mouths_stage(begin):
    run = begin()
    phase = replace(run.config.mouth.match, iterations=2)
    run.begin(0, phase)
    before = tiny_avatar(run.rig)
    run_matching(run, phase)
    after, lips = run.optimizer.detached(), selected_points(before, run.rig, phase.pinned)
    assert torch.equal(after.xyz[lips], before.xyz[lips]) and torch.equal(after.scaling[lips], before.scaling[lips])
    assert bool(moved(run, before)[lips].any())


def test_teeth_rest_behind_closed_lips_and_every_camera_mode_runs(begin):
    run = begin()
    before = tiny_avatar(run.rig)
    phase = replace(run.config.whole, iterations=2, densify_at=(), one_camera=True, views_per_step=2,
                    perpendicular=True, faces="eyes", crops=("full", "face", "mouth"), points=())  # fmt: skip
    run_matching(run, phase)
    teeth = selected_points(before, run.rig, ("teeth",))
    assert not bool(moved(run, before)[teeth].any()) and bool(moved(run, before)[~teeth].any())


def test_a_step_that_is_not_finite_is_dropped_and_many_end_the_run(begin, monkeypatch):
    run = begin()
    before, plain, calls = tiny_avatar(run.rig), run.models.predict, []

    def now_and_then(*arguments, **options):
        calls.append(0)
        clean, noise = plain(*arguments, **options)
        return clean, noise * (float("nan") if len(calls) <= 2 else 1.0)

    monkeypatch.setattr(run.models, "predict", now_and_then)
    phase = replace(run.config.whole, iterations=3, densify_at=(), inversion_steps=1)
    run_matching(run, phase)
    assert run.metrics["dropped_steps"] == 1
    assert all(bool(t.isfinite().all()) for t in run.optimizer.detached().tensors().values() if t.is_floating_point())
    assert bool(moved(run, before).any())
    monkeypatch.setattr(run.models, "predict", lambda z, *a, **o: (z * float("nan"), z * float("nan")))
    with pytest.raises(NumericalError, match="not finite.*try bfloat16"):
        run_matching(begin(), replace(phase, iterations=40))


def test_the_weight_of_a_step_does_not_depend_on_its_crops(begin, monkeypatch):
    """Four crops of one kind give the screen gradients of one, for density control and for the step alike."""
    gradients = {}
    for count in (1, 4):
        run = begin()
        answer = lambda z, *a, **o: (z, 0.1 * torch.ones_like(z) * o.get("guidance_scale", 0.0))  # noqa: E731
        monkeypatch.setattr(run.models, "predict", answer)
        run.optimizer.step = lambda frozen=None: None
        phase = replace(run.config.whole, iterations=1, densify_at=(), views_per_step=count, crops=("face",))
        run_matching(run, phase)
        seen = run.gradients.seen > 0
        gradients[count] = float(run.optimizer.avatar.f_dc.grad.abs().sum()), float(run.gradients.mean()[seen].mean())
    assert gradients[4] == pytest.approx(gradients[1], rel=0.5)


def test_a_crop_weighs_the_same_wherever_a_camera_sees_it():
    """In the paper a step adds up its crops and takes the mean over its samples."""
    phase = load_config("paper").whole
    assert _weight(phase, 3, 5) == _weight(phase, 3, 1) == pytest.approx(64 * 64 / 3)
    assert _weight(load_config("paper").mouth.match, 1, 1) == 64 * 64


def test_what_is_made_ahead_and_edited_together_changes_no_target(begin):
    """Faces, cameras and noise of an edit follow from the round and the number of the face alone."""
    found = []
    for ahead, at_once in ((0, 1), (2, 0)):
        run = begin(**{"models.ahead": ahead, "models.crops_at_once": at_once})
        run_editing(run, replace(run.config.refine, iterations=1, views=6, expressions=3))
        found.append(run.pictures)
    torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=1e-3)


def test_targets_that_are_not_finite_are_left_out_and_none_at_all_ends_the_run(begin, monkeypatch):
    run = begin()
    phase = replace(run.config.refine, iterations=1, views=4, expressions=2, crops=("full", "face"), rounds=1)
    plain = run.models.decode_latents
    spoilt = lambda z: plain(z).index_fill_(0, torch.tensor([0]), float("nan"))  # noqa: E731
    monkeypatch.setattr(run.models, "decode_latents", spoilt)
    run_editing(run, phase)
    assert run.metrics["dropped_targets"] == 1 and len(run.pictures) == 2
    monkeypatch.setattr(run.models, "decode_latents", lambda z: plain(z) * float("nan"))
    with pytest.raises(NumericalError, match="every edited picture.*models.dtype"):
        run_editing(begin(), phase)
    many = replace(phase, views=40, expressions=40, one_camera=True)
    with pytest.raises(NumericalError, match="6 answers.*not finite, of 40 planned.*try bfloat16"):
        run_editing(begin(), many)


def test_phases_of_the_paper_have_the_papers_rates_and_pruning(begin):
    """Reference sheet, sections 4, 8, 9 and 10; every phase begins with an optimiser of its own."""
    config = load_config("paper")
    for index, name in enumerate(("eyes", "mouth.match", "mouth.edit", "whole", "refine")):
        phase, run = phase_config(config, name), begin()
        run.phase = -1
        run.begin(index, phase)
        before = run.optimizer.detached()
        run.optimizer.set_factor(phase.learning_rate_factor)
        sum(p.sum() for p in run.optimizer.avatar.parameters().values()).backward()
        before = {n: t.clone() for n, t in before.tensors().items()}
        run.optimizer.step()
        rates = {"xyz": 2.9847e-5, "f_dc": 0.00375, "opacity": 0.075, "scaling": 0.0255, "rotation": 0.0015}
        for parameter, rate in rates.items():
            moved = (before[parameter] - getattr(run.optimizer.avatar, parameter).detach()).double()
            assert float(moved.median()) == pytest.approx(rate, rel=0.05)
        assert phase.restraint.scale_weight == {"whole": 5e7, "mouth.match": 5e7, "eyes": 1.25e4}.get(name, 1e4)
        assert phase.restraint.scale_threshold == 0.2 and phase.restraint.position_threshold == 1.0
    assert maximum_radius(config.whole) == pytest.approx(20 / 416 * head_tangent())
    assert not config.eyes.prune and not config.mouth.match.prune and config.whole.prune


@pytest.mark.parametrize("preset", ["draft", "paper"])
def test_every_phase_of_the_large_presets_runs_in_small(begin, preset):
    config = load_config(preset)
    for name in ("eyes", "mouth.match", "mouth.edit", "whole", "refine"):
        phase, run = phase_config(config, name), begin()
        run.phase = -1
        run.begin(0, phase)
        before, count = tiny_avatar(run.rig), len(run.optimizer.avatar)
        if isinstance(phase, MatchConfig):
            run_matching(run, replace(phase, iterations=2, views_per_step=2, densify_at=(1,) * bool(phase.densify_at)))
        else:
            small = replace(
                phase, rounds=1, views=2, expressions=2, iterations=2, densify_at=(1,) * bool(phase.densify_at)
            )
            run_editing(run, small)
        after = run.optimizer.detached()
        assert all(bool(t.isfinite().all()) for t in after.tensors().values() if t.is_floating_point())
        chosen = selected_points(before, run.rig, phase.points)
        if len(after) == count:
            assert bool(chosen.any()) and not bool(moved(run, before)[~chosen].any())


def test_points_with_unknown_names_are_refused(begin):
    run = begin()
    with pytest.raises(InputError, match="'nose'"):
        selected_points(run.optimizer.avatar, run.rig, ("nose",))


def test_the_reference_of_a_phase_stays_as_it_was(begin):
    run = begin()
    reference = phase_reference(run)
    run.optimizer.avatar.f_dc.data += 1
    assert torch.equal(reference.f_dc, tiny_avatar(run.rig).f_dc)
