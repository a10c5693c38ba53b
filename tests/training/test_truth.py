"""A person with known truth: pictures, depth, normals and the density mesh agree with the geometry."""

import pytest
import torch
from scipy.spatial import cKDTree

from ap3d.cameras import portrait3d_camera
from ap3d.perception.normals_field import FieldNormals
from ap3d.perception.parsing import CLASSES
from ap3d.training.portraits.solid import EXTENT, RESOLUTION, signed_distance_grid, surface_mesh
from ap3d.training.portraits.truth import TruthPortrait, benchmark_portrait

VOXEL = EXTENT / (RESOLUTION - 1)


@pytest.fixture(scope="module")
def portrait(rig) -> TruthPortrait:  # type: ignore[no-untyped-def]
    return benchmark_portrait("long", rig)


@pytest.fixture(scope="module")
def solid(portrait: TruthPortrait):  # type: ignore[no-untyped-def]
    return signed_distance_grid(portrait.surface, 160)


def test_views_show_the_surface_where_depth_says(portrait: TruthPortrait) -> None:
    camera = portrait3d_camera(60, 75, size=96)
    views = portrait.render(camera)
    assert torch.allclose(views.opaque(), portrait.portraitist.render(camera), atol=1e-5)
    assert views.depth is not None and views.normals is not None and views.labels is not None
    hit = views.depth[0, 0] > 0
    assert bool((hit == (views.labels[0] > 0)).all()) and bool((views.alpha[0, 0][hit] > 0.2).all())
    rows, columns = torch.nonzero(hit, as_tuple=True)
    fx, fy, cx, cy = camera.intrinsics[0]
    rays = torch.stack([(columns + 0.5 - cx) / fx, (rows + 0.5 - cy) / fy, torch.ones(len(rows))], 1)
    points = (rays * views.depth[0, 0][hit][:, None]) @ camera.cam2world[0, :3, :3].T + camera.positions
    distance, _ = cKDTree(portrait.surface.points.numpy()).query(points.numpy())
    assert float(torch.tensor(distance).quantile(0.9)) < VOXEL
    normals = views.normals[0][:, hit]
    assert torch.allclose(normals.norm(dim=0), torch.ones(len(rows)), atol=1e-4)
    assert bool(((camera.positions - points).T * normals).sum(0).ge(-1e-3).all()), "normals look towards the camera"
    turned = FieldNormals().normals(views)
    assert bool((turned[0, 2][hit & (views.alpha[0, 0] > 0.5)] > -0.3).all())


def test_closed_lips_hide_no_hollow(portrait: TruthPortrait, rig, solid) -> None:  # type: ignore[no-untyped-def]
    values, lower, spacing = solid
    lips = rig.landmarks(portrait.params)[0][48:68].mean(0)
    for aside in (-0.04, -0.02, 0.0, 0.02, 0.04):
        for behind in (0.045, 0.06, 0.08):
            x, y, z = ((lips + torch.tensor([aside, 0.0, -behind]) - lower) / spacing).round().long().tolist()
            assert values[x, y, z] < 0, (aside, behind)


def test_the_density_mesh_lies_on_the_surface_and_is_wound_outward(portrait: TruthPortrait, solid) -> None:  # type: ignore[no-untyped-def]
    mesh = surface_mesh(*solid)
    distance, _ = cKDTree(portrait.surface.points.numpy()).query(mesh.vertices[mesh.vertices[:, 1] > -0.5].numpy())
    assert float(torch.tensor(distance).median()) < 0.5 * VOXEL
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    assert float((a * torch.linalg.cross(b, c)).sum()) > 0
    reach, _ = cKDTree(mesh.vertices.numpy()).query(portrait.surface.points[::50].numpy())
    assert float(torch.tensor(reach).quantile(0.98)) < 2 * VOXEL, "thin sheets of hair are there too"


def test_parts_of_triangles(portrait: TruthPortrait) -> None:
    classes, mesh = portrait.face_classes, portrait.mesh
    assert len(classes) == len(mesh.faces)
    heights = mesh.vertices[mesh.faces].mean(1)[:, 1]
    hair, clothes = (classes == CLASSES.index(name) for name in ("hair", "clothes"))
    assert float(heights[hair].mean()) > float(heights[clothes].mean())
    assert bool(hair[len(portrait.portraitist.rig.faces) :].all())
