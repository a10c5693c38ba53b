"""The `portrait3d` start up to the fit, on portraits that need no tri-grid."""

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest
import torch

from ap3d.cameras import Cameras, orbit
from ap3d.config import PRESETS
from ap3d.errors import NoFaceError, PortraitError
from ap3d.perception.protocol import Part
from ap3d.portrait.protocol import Mesh, PortraitViews
from ap3d.portrait_job import PortraitJob
from ap3d.splats.avatar import Group
from ap3d.stages.asset_files import seeds_of, surface_of
from ap3d.stages.base import StageContext, portrait_digest, start_of
from ap3d.stages.portrait3d import portrait_result
from ap3d.stages.view_files import view_tensors, views_from

BACKGROUND = torch.tensor([0.4, 0.8, 0.8])


@dataclass
class Ball:
    """A grey ball without a face; ``opacity`` 0 is nothing at all."""

    opacity: float

    def render(self, cameras: Cameras, framing: str = "full") -> PortraitViews:
        y, x = torch.meshgrid(
            torch.linspace(-1, 1, cameras.height), torch.linspace(-1, 1, cameras.width), indexing="ij"
        )
        alpha = self.opacity * ((x * x + y * y) < 0.3).float().expand(len(cameras), 1, -1, -1)
        return PortraitViews(cameras, 0.5 * alpha.expand(-1, 3, -1, -1), alpha, BACKGROUND)

    def density_mesh(self) -> Mesh | None:
        return None


@dataclass
class _Models:
    flat_background: torch.Tensor = field(default_factory=lambda: BACKGROUND)


@dataclass
class _Resources:
    models: _Models = field(default_factory=_Models)


@dataclass
class _Context:
    """As much of a stage's context as the pictures need."""

    config: Any
    job: PortraitJob
    resources: _Resources = field(default_factory=_Resources)

    def report(self, step: int, steps: int) -> None:
        assert 0 < step <= steps


def context() -> StageContext:
    return cast(StageContext, _Context(PRESETS["smoke"], PortraitJob("x", "a man", 0, "x.pth")))


def test_transparent_views_are_named() -> None:
    with pytest.raises(PortraitError, match="transparent"):
        portrait_result(context(), Ball(0.0))


def test_a_portrait_without_a_face_is_named() -> None:
    with pytest.raises(NoFaceError, match="0 of 24 views"):
        portrait_result(context(), Ball(1.0))


def test_views_survive_their_file() -> None:
    cameras = orbit([0.0, 90.0], [0.0, 10.0], torch.zeros(3), 2.0, 30.0, 32)
    views = Ball(0.6).render(cameras)
    back = views_from(view_tensors(views, "v"), "v", BACKGROUND)
    assert torch.allclose(back.color, views.color, atol=1 / 254) and torch.allclose(
        back.alpha, views.alpha, atol=1 / 254
    )
    assert torch.equal(back.cameras.cam2world, cameras.cam2world) and back.cameras.width == 32


def cube() -> dict[str, torch.Tensor]:
    """Six sides of two triangles, outward; the upper side is hair, a side is cloth."""
    vertices = torch.tensor([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
    sides = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = torch.tensor([t for a, b, c, d in sides for t in ((a, b, c), (a, c, d))])
    labels = torch.full((12,), int(Part.SKIN))
    labels[6:8], labels[0:2] = int(Part.HAIR), int(Part.CLOTHES)
    return {"vertices": vertices, "faces": faces, "labels": labels, "colours": (vertices + 1) / 2}


def test_seeds_lie_evenly_on_their_meshes() -> None:
    seeds = seeds_of(cube(), {Group.HAIR: 4000, Group.CLOTHES: 100}, torch.Generator().manual_seed(0))
    hair, cloth = seeds[Group.HAIR], seeds[Group.CLOTHES]
    assert torch.allclose(hair.points[:, 1], torch.tensor(1.0)) and torch.allclose(
        cloth.points[:, 0], torch.tensor(-1.0)
    )
    counts, _, _ = np.histogram2d(hair.points[:, 0], hair.points[:, 2], bins=4, range=[[-1, 1]] * 2)
    assert counts.min() > 170  # of 250 on average
    assert hair.spacing == pytest.approx((4 / 4000) ** 0.5)
    assert hair.colours is not None and torch.allclose(hair.colours, (hair.points + 1) / 2, atol=1e-5)


def test_surface_normals_point_outward() -> None:
    surface = surface_of(cube())
    assert ((surface.points * surface.normals).sum(1) > 0).all()


def test_a_given_portrait_decides_the_start(tmp_path: Any) -> None:
    file = tmp_path / "a.pth"
    file.write_bytes(b"abc")
    job = PortraitJob("x", "a man", 0, str(file))
    assert (
        start_of(PRESETS["builtin"], job) == "portrait3d"
        and start_of(PRESETS["builtin"], PortraitJob("x", "a")) == "text"
    )
    moved = tmp_path / "b.pth"
    moved.write_bytes(b"abc")
    assert portrait_digest(job) == portrait_digest(PortraitJob("x", "a man", 0, str(moved)))
