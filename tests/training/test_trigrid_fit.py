"""Fitting tri-grids: slabs are the field's own look-ups, and a known shape comes out."""

import itertools
from pathlib import Path

import pytest
import torch

from ap3d.portrait.trigrid.field import BOX, TriGridField
from ap3d.portrait.trigrid.portrait import SURFACE
from ap3d.training.field_targets import EMPTY, FULL, STEEPNESS, FieldTargets
from ap3d.training.trigrid_fit import FitConfig, FittedField, fit_field

NODES, RADIUS = 72, 0.15


def _ball() -> FieldTargets:
    """A ball that is red on the subject's left and blue on the right."""
    axis = torch.linspace(-BOX / 2, BOX / 2, NODES)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    distance = points.norm(dim=-1) - RADIUS
    near = distance.abs() < 0.025
    raw = torch.where(near, SURFACE - STEEPNESS * distance, torch.where(distance > 0, EMPTY, FULL))
    index = (distance.abs() < 0.015).nonzero()
    left = (points[tuple(index.T)][:, 0] > 0).float()
    slot = torch.full(raw.shape, -1, dtype=torch.int32)
    slot[tuple(index.T)] = torch.arange(len(index), dtype=torch.int32)
    return FieldTargets(raw, near, slot, torch.stack([left, torch.zeros(len(left)), 1 - left], 1) * 2 - 1)


def test_slabs_are_the_look_ups_of_the_exported_field() -> None:
    config = FitConfig(levels=(8, 16), head_level=32, face_level=64)
    field = FittedField(config, torch.Generator().manual_seed(0))
    for window in field.plane_windows():
        window.values.data = torch.randn(window.values.shape, generator=torch.Generator().manual_seed(1))
    exported = TriGridField.of(*field.export("", "x"))
    nodes = [torch.linspace(-0.9, 0.9, n) for n in (5, 6, 7)]
    for axis in range(3):
        at = torch.tensor([0.37])
        got = field.decode(field.slab(axis, at, nodes).flatten(1).T)
        places = [at if a == axis else nodes[a] for a in range(3)]
        points = torch.tensor(list(itertools.product(*(p.tolist() for p in places)))) * (BOX / 2)
        assert torch.allclose(got, exported(points), atol=1e-3), axis


@pytest.fixture(scope="module")
def fitted() -> TriGridField:
    config = FitConfig(steps=70, slabs=3, levels=(8, 16, 32), head_level=None, face_level=None)
    return TriGridField.of(*fit_field(_ball(), config).export("a ball", "ball"))


@torch.no_grad()
def test_a_ball_is_fitted(fitted: TriGridField) -> None:
    points = (torch.rand(4000, 3, generator=torch.Generator().manual_seed(3)) - 0.5) * 0.6
    distance = points.norm(dim=1) - RADIUS
    sure = distance.abs() > 0.01
    values = fitted(points)
    assert ((values[:, 0] > SURFACE) == (distance < 0))[sure].float().mean() > 0.98
    shell = torch.nn.functional.normalize(points, dim=1)[points[:, 0].abs() > 0.05] * RADIUS
    colours = fitted(shell)
    assert ((colours[:, 1] > colours[:, 3]) == (shell[:, 0] > 0)).float().mean() > 0.97


@torch.no_grad()
def test_nothing_floats_where_features_fade_out(fitted: TriGridField) -> None:
    points = (torch.rand(3000, 3, generator=torch.Generator().manual_seed(4)) - 0.5) * 0.6
    points[:, 1] = torch.linspace(0.36, 0.5, 3000) * torch.where(torch.arange(3000) % 2 == 0, 1.0, -1.0)
    assert float((fitted(points)[:, 0] > SURFACE - 10).float().mean()) < 0.01


def test_the_same_seed_gives_the_same_portrait() -> None:
    config = FitConfig(steps=2, slabs=1, levels=(8,), head_level=None, face_level=None)
    first, second = (fit_field(_ball(), config).export("", "x")[0].levels[8] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.slow
def test_the_job_writes_a_portrait(tmp_path: Path) -> None:
    from ap3d.portrait.trigrid import load_trigrid
    from ap3d.training.example_portrait import export_portrait

    paths = export_portrait(tmp_path, config=FitConfig(steps=30), view_size=96)
    assert [p.name for p in paths] == ["000.pth", "000.txt", "000.png", "decoder.safetensors"]
    portrait = load_trigrid(str(tmp_path / "000.pth"), resolution=96)
    assert portrait.prompt.startswith("upper body photo, a young woman with curly brown hair")
    assert portrait.density_mesh() is not None
