"""A portrait's surface on shapes with known answers: fitting, clean-up, colours, votes, files."""

import io

import pytest
import torch
import trimesh
from torch import Tensor

from ap3d.cameras import Cameras, portrait3d_camera
from ap3d.errors import PortraitError
from ap3d.perception.protocol import Part
from ap3d.portrait.protocol import Mesh, PortraitViews
from ap3d.portrait.surface.assets import asset_meshes, mesh_ply
from ap3d.portrait.surface.cleaning import clean, decimate, face_areas, face_neighbours
from ap3d.portrait.surface.colours import filled, vertex_colours
from ap3d.portrait.surface.fitting import Level, NormalTargets, SurfaceFit, fit_surface, world_normals
from ap3d.portrait.surface.head_views import head_views
from ap3d.portrait.surface.pictures import camera_normals
from ap3d.portrait.surface.preconditioner import SmoothVertices
from ap3d.portrait.surface.voting import SPLIT, face_votes, split_labels
from ap3d.raster.mesh import interpolate, rasterize_mesh

CENTRE = torch.tensor([0.05, 0.2, 0.0])
SIZE = 96


def ball(radius: float = 0.4, subdivisions: int = 4, centre: Tensor = CENTRE) -> Mesh:
    shape = trimesh.creation.icosphere(subdivisions, radius)
    return Mesh(torch.tensor(shape.vertices).float() + centre, torch.tensor(shape.faces).long())


def joined(*meshes: Mesh) -> Mesh:
    offsets = torch.tensor([0] + [len(m.vertices) for m in meshes]).cumsum(0)
    faces = [m.faces + int(o) for m, o in zip(meshes, offsets, strict=False)]
    return Mesh(torch.cat([m.vertices for m in meshes]), torch.cat(faces))


def cameras(elevations: tuple[int, ...] = (60, 90, 120)) -> Cameras:
    return Cameras.concatenate([portrait3d_camera(y, p, size=SIZE) for p in elevations for y in range(0, 360, 60)])


def views_of(mesh: Mesh, seen: Cameras) -> PortraitViews:
    """Colour is the world position; labels: hair on top, skin, clothes below."""
    clip = torch.nn.functional.pad(mesh.vertices, (0, 1), value=1.0) @ seen.clip_matrices().transpose(1, 2)
    rast = rasterize_mesh(clip, mesh.faces, (SIZE, SIZE))
    place = interpolate(mesh.vertices[None], rast, mesh.faces).permute(0, 3, 1, 2)
    alpha = (rast[..., 3] > 0).float()[:, None]
    labels = torch.where(place[:, 1] > 0.35, Part.HAIR, torch.where(place[:, 1] < 0.1, Part.CLOTHES, Part.SKIN))
    return PortraitViews(seen, (place * 0.5 + 0.5) * alpha, alpha, torch.zeros(3), labels=labels * (alpha[:, 0] > 0))


def test_the_fit_recovers_a_shape_from_normals_and_silhouettes() -> None:
    seen = cameras()
    true, rough = ball(), ball(0.385, 4, CENTRE + torch.tensor([0.01, 0.0, -0.01]))
    noise = 0.004 * torch.randn(rough.vertices.shape, generator=torch.Generator().manual_seed(0))
    rough = Mesh(rough.vertices + noise, rough.faces)
    targets = NormalTargets(seen, views_of(true, seen).alpha, world_normals(camera_normals(true, seen), seen))
    settings = SurfaceFit((Level(1200, 48, 20, 16.0, 0.25), Level(5000, SIZE, 25, 4.0, 0.25)), reach=0.03)
    fitted = fit_surface(rough, targets, settings, torch.Generator().manual_seed(0))
    error = lambda m: float(((m.vertices - CENTRE).norm(dim=1) - 0.4).abs().median())  # noqa: E731
    assert error(fitted) < 0.5 * error(rough)
    wanted = camera_normals(true, seen)
    angle = lambda m: float((camera_normals(m, seen) * wanted).sum(1)[wanted.norm(dim=1) > 0.5].mean())  # noqa: E731
    assert angle(fitted) > angle(rough) and angle(fitted) > 0.99
    again = fit_surface(rough, targets, settings, torch.Generator().manual_seed(0))
    assert torch.equal(again.vertices, fitted.vertices)


def test_world_normals_are_independent_of_the_camera() -> None:
    seen, shape = cameras(), ball()
    clip = torch.nn.functional.pad(shape.vertices, (0, 1), value=1.0) @ seen.clip_matrices().transpose(1, 2)
    rast = rasterize_mesh(clip, shape.faces, (SIZE, SIZE))
    outward = interpolate(torch.nn.functional.normalize(shape.vertices - CENTRE, dim=1)[None], rast, shape.faces)
    found = world_normals(camera_normals(shape, seen), seen).permute(0, 2, 3, 1)
    hit = rast[..., 3] > 0
    assert float((found * outward).sum(-1)[hit].min()) > 0.99


def test_a_step_of_the_preconditioner_never_exceeds_its_length() -> None:
    shape = ball(subdivisions=2)
    smooth = SmoothVertices(shape.vertices, shape.faces, 10.0, 0.01)
    before = smooth.positions()
    assert torch.allclose(before, shape.vertices, atol=1e-5)
    gradient = torch.zeros_like(before)
    gradient[0] = torch.tensor([0.0, 5.0, 0.0])
    smooth.step(gradient)
    moved = smooth.positions().detach() - before.detach()
    assert float(moved.abs().max()) <= 0.0101 and float(moved[0, 1]) < 0
    assert int((moved[:, 1] < -1e-6).sum()) > 20, "neighbours come along"


def test_clean_keeps_the_head_without_floaters_and_hollows() -> None:
    hollow = ball(0.3)
    mesh = joined(ball(0.02, 1, CENTRE + 0.6), ball(), Mesh(hollow.vertices, hollow.faces.flip(1)))
    cleaned = clean(mesh)
    assert len(cleaned.faces) == len(ball().faces)
    assert float(face_areas(cleaned).sum()) == pytest.approx(4 * torch.pi * 0.16, rel=0.01)
    fewer = decimate(cleaned, 800)
    assert 600 <= len(fewer.faces) <= 800 and float(face_areas(fewer).sum()) == pytest.approx(2.01, rel=0.03)
    assert len(face_neighbours(cleaned.faces)[0]) == 3 * len(cleaned.faces) // 2


def test_colours_come_from_the_views_and_fill_what_none_sees() -> None:
    shape, seen = ball(), cameras((90,))
    colours = vertex_colours(shape, [views_of(shape, seen)])
    assert float((colours - (shape.vertices * 0.5 + 0.5)).abs().quantile(0.9)) < 0.02
    known = torch.zeros(len(shape.vertices), dtype=torch.bool)
    assert torch.equal(filled(colours, known, shape.faces), torch.full_like(colours, 0.5))
    known[:40] = True
    assert bool((filled(torch.ones_like(colours), known, shape.faces) == 1).all())


def test_votes_survive_wrong_pixels_and_reach_faces_that_no_view_sees() -> None:
    shape, seen = ball(), cameras((90, 60))
    views = views_of(shape, seen)
    assert views.labels is not None
    noise = torch.rand(views.labels.shape, generator=torch.Generator().manual_seed(0)) < 0.2
    wrong = torch.where(noise & (views.labels > 0), int(Part.CLOTHES), views.labels)
    votes = face_votes(shape, seen, wrong)
    assert bool((votes.sum(1) == 0).any()), "some faces are unseen"
    labels = split_labels(shape, votes)
    height = shape.vertices[shape.faces].mean(1)[:, 1]
    truth = torch.where(height > 0.35, int(Part.HAIR), torch.where(height < 0.1, int(Part.CLOTHES), int(Part.SKIN)))
    areas = face_areas(shape)
    for part in (Part.HAIR, Part.SKIN, Part.CLOTHES):
        both, either = (labels == part) & (truth == part), (labels == part) | (truth == part)
        assert float(areas[both].sum() / areas[either].sum()) > 0.93
    unseen = votes.sum(1) == 0
    assert bool((labels[unseen & (height < -0.1)] == Part.CLOTHES).all())


def test_an_unseen_part_is_not_clothes_but_what_is_next_to_it() -> None:
    shape, seen = ball(), cameras((60,))
    labels = torch.where(views_of(shape, seen).alpha[:, 0] > 0, int(Part.HAIR), 0)
    assert bool((split_labels(shape, face_votes(shape, seen, labels)) == Part.HAIR).all())


def test_a_glimpse_does_not_speak_for_what_no_view_sees() -> None:
    shape = ball()
    depth = shape.vertices[shape.faces].mean(1)[:, 2] - CENTRE[2]
    votes = torch.zeros(len(shape.faces), len(SPLIT))
    votes[depth > 0, SPLIT.index(Part.HAIR)] = 1  # the back is unseen but for its edge, and that in few pixels
    votes[(depth <= 0) & (depth > -0.1), SPLIT.index(Part.BEARD)] = 0.01
    assert bool((split_labels(shape, votes) == Part.HAIR).all())
    votes *= 1e-3  # only how patches compare matters
    assert bool((split_labels(shape, votes) == Part.HAIR).all())


def test_head_views_are_cut_from_the_views() -> None:
    shape, seen = ball(), cameras((90,))
    landmarks = CENTRE + torch.tensor([0.0, 0.05, 0.3]).expand(70, 3).clone()
    landmarks[8] -= torch.tensor([0.0, 0.2, 0.0])
    crops = head_views(views_of(shape, seen), landmarks, SIZE)
    wanted = views_of(shape, crops.cameras)
    assert crops.labels is not None and wanted.labels is not None
    assert float((crops.alpha - wanted.alpha).abs().mean()) < 0.03
    assert float((crops.labels != wanted.labels).float().mean()) < 0.05
    assert float(crops.alpha.mean()) > float(views_of(shape, seen).alpha.mean())


def test_the_two_sides_of_a_thin_sheet_are_of_one_stuff() -> None:
    slab = trimesh.creation.box((0.6, 0.6, 0.008)).subdivide_to_size(0.05)
    mesh = Mesh(torch.tensor(slab.vertices).float(), torch.tensor(slab.faces).long())
    centres = mesh.vertices[mesh.faces].mean(1)
    front, upper = centres[:, 2] > 0.003, centres[:, 1] > 0
    votes = torch.zeros(len(mesh.faces), len(SPLIT))
    votes[front & upper, SPLIT.index(Part.HAIR)] = 1
    votes[front & ~upper, SPLIT.index(Part.SKIN)] = 1
    labels, inside = split_labels(mesh, votes), centres.abs().amax(1) < 0.25
    clear = inside & ((centres[:, 1]).abs() > 0.06)
    assert bool(((labels == Part.HAIR) == upper)[clear].all())


def test_assets_open_in_another_program_and_may_lack_hair() -> None:
    shape = ball()
    labels = torch.where(shape.vertices[shape.faces].mean(1)[:, 1] < 0.1, int(Part.CLOTHES), int(Part.SKIN))
    parts = asset_meshes(shape, torch.full_like(shape.vertices, 0.25), labels)
    assert set(parts) == {"skin", "clothes"}
    read = trimesh.load(io.BytesIO(mesh_ply(parts["clothes"])), file_type="ply", process=False)
    assert len(read.faces) == int((labels == Part.CLOTHES).sum())
    assert torch.allclose(torch.tensor(read.vertices).float(), parts["clothes"].mesh.vertices)
    assert (read.visual.vertex_colors[:, :3] == 64).all()
    outward = torch.tensor(read.vertex_normals).float() * (parts["clothes"].mesh.vertices - CENTRE)
    assert bool((outward.sum(1) > 0).all())


def test_portraits_without_a_surface_are_refused() -> None:
    seen = cameras((90,))
    empty = torch.zeros(6, 1, SIZE, SIZE)
    with pytest.raises(PortraitError, match="transparent"):
        NormalTargets(seen, empty, empty.expand(-1, 3, -1, -1))
    full = NormalTargets(seen, empty + 1, (empty + 1).expand(-1, 3, -1, -1))
    nothing = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long))
    with pytest.raises(PortraitError, match="no surface"):
        fit_surface(nothing, full, SurfaceFit(), torch.Generator())
    with pytest.raises(PortraitError, match="no view"):
        split_labels(ball(), face_votes(ball(), seen, torch.zeros(6, SIZE, SIZE, dtype=torch.long)))
