"""The CPU mesh rasteriser against geometry: areas, shared edges, perspective, clipping, gradients."""

import math

import pytest
import torch
from torch import Tensor

from ap3d.cameras import look_at
from ap3d.errors import NumericalError
from ap3d.raster.library import library
from ap3d.raster.mesh import interpolate, rasterize_mesh
from tests.raster.mesh_reference import (
    clip_positions,
    front_camera,
    numeric_gradient,
    pixel_centres,
    random_fan,
    reference_layers,
    reference_raster,
    sphere,
)


def test_area_of_a_rectangle_is_analytic() -> None:
    vertices = torch.tensor([[-0.3, -0.2, 0.0], [0.3, -0.2, 0.0], [0.3, 0.2, 0.0], [-0.3, 0.2, 0.0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    cameras = front_camera(256)
    pixels_per_unit = float(cameras.intrinsics[0, 0]) / 2
    covered = int((rasterize_mesh(clip_positions(vertices, cameras), faces, (256, 256))[..., 3] > 0).sum())
    width, height = 0.6 * pixels_per_unit, 0.4 * pixels_per_unit
    assert abs(covered - width * height) <= width + height


def test_shared_edges_neither_leak_nor_overlap() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        vertices, faces = random_fan(generator)
        clip = clip_positions(vertices, front_camera(97))
        whole = rasterize_mesh(clip, faces, (97, 97))[0, ..., 3] > 0
        hits = sum((rasterize_mesh(clip, face[None], (97, 97))[0, ..., 3] > 0).int() for face in faces)
        assert torch.equal(hits, whole.int())  # type: ignore[arg-type]
        rows = [row.nonzero()[:, 0] for row in whole if row.any()]
        assert sum(len(r) for r in rows) > 500


def test_vertices_on_pixel_centres_are_owned_once() -> None:
    grid = torch.tensor([[x, y, 0.0, 1.0] for y in range(5) for x in range(5)])
    clip = grid.clone()
    clip[:, :2] = (grid[:, :2] * 2 + 0.5) / 8 * 2 - 1
    quads = [(y * 5 + x, y * 5 + x + 1, y * 5 + x + 6, y * 5 + x + 5) for y in range(4) for x in range(4)]
    faces = torch.tensor([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    hits = sum((rasterize_mesh(clip[None], face[None], (8, 8))[0, ..., 3] > 0).int() for face in faces)
    expected = torch.ones(8, 8, dtype=torch.int32)  # 4 quads of 2 pixels, half-open: exactly the 8 x 8 centres
    assert torch.equal(hits, expected)  # type: ignore[arg-type]


def test_barycentrics_are_perspective_correct_and_row_zero_is_the_top() -> None:
    vertices = torch.tensor([[-2.0, -0.5, 1.0], [2.0, -0.5, 0.5], [0.3, 1.5, -4.0]])
    faces = torch.tensor([[0, 1, 2]])
    cameras = look_at(torch.tensor([[0.3, 0.2, 3.0]]), torch.zeros(3), 50.0, 80)
    rast = rasterize_mesh(clip_positions(vertices, cameras), faces, (80, 80))
    seen = rast[0, ..., 3] > 0
    points = interpolate(vertices[None], rast, faces)[0][seen]
    pixels, depth = cameras.project(points)
    rows, columns = seen.nonzero(as_tuple=True)
    centres = torch.stack([columns, rows], 1) + 0.5
    assert (pixels[0] - centres).abs().max() < 1e-3
    near, far = 0.01, 100.0
    expected = (far + near) / (far - near) - 2 * far * near / (far - near) / depth[0]
    assert torch.allclose(rast[0, ..., 2][seen], expected, atol=1e-5)


def test_nearest_triangle_wins_and_batch_equals_loop() -> None:
    vertices = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [0, 1, 0], [-1.0, -1, 0.5], [1, -1, 0.5], [0, 1, -0.5]])
    faces = torch.tensor([[0, 1, 2], [3, 4, 5]])
    positions = torch.tensor([[0.0, 0.0, 3.0], [0.0, 0.0, -3.0], [2.0, 1.0, 2.0]])
    cameras = look_at(positions, torch.zeros(3), 40.0, 48)
    clip = clip_positions(vertices, cameras)
    together = rasterize_mesh(clip, faces, (48, 48))
    apart = torch.cat([rasterize_mesh(c[None], faces, (48, 48)) for c in clip])
    assert torch.equal(together, apart)
    swapped = rasterize_mesh(clip, faces.flip(0), (48, 48))
    assert torch.equal((swapped[..., 3] > 0), (together[..., 3] > 0))
    assert torch.allclose(swapped[..., 2], together[..., 2], atol=1e-6)


def test_triangle_through_the_camera_is_clipped_at_the_near_plane() -> None:
    vertices = torch.tensor([[-50.0, -1.0, -40.0], [50.0, -1.0, -40.0], [0.0, -1.0, 40.0]])
    faces = torch.tensor([[0, 1, 2]])
    cameras = look_at(torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([0.0, 0.0, 1.0]), 90.0, 64)
    rast = rasterize_mesh(clip_positions(vertices, cameras), faces, (64, 64))
    seen = rast[0, ..., 3] > 0
    assert not seen[:32].any()  # the floor lies below the horizon
    assert seen[40:, 32].all()  # and reaches the bottom row, where an edge passes behind the camera
    points = interpolate(vertices[None], rast, faces)[0][seen]
    assert torch.allclose(points[:, 1], torch.full_like(points[:, 1], -1.0), atol=1e-4)


def test_interpolate_gradient_equals_autograd() -> None:
    generator = torch.Generator().manual_seed(1)
    vertices, faces = random_fan(generator, 12)
    cameras = look_at(torch.tensor([[0.0, 0.0, 2.0], [0.5, 0.2, 2.0]]), torch.zeros(3), 40.0, 40)
    rast = rasterize_mesh(clip_positions(vertices, cameras), faces, (40, 40))
    for batch in (1, 2):
        ours = torch.randn(batch, len(vertices), 5, generator=generator).requires_grad_()
        twin = ours.detach().clone().requires_grad_()
        weight = torch.randn(2, 40, 40, 5, generator=generator)
        image = interpolate(ours, rast, faces)
        triangle = faces[(rast[..., 3].long() - 1).clamp(0)]
        corners = twin.expand(2, -1, -1)[torch.arange(2)[:, None, None, None], triangle]
        bary = torch.stack([rast[..., 0], rast[..., 1], 1 - rast[..., 0] - rast[..., 1]], -1)
        expected = (corners * bary[..., None]).sum(3) * (rast[..., 3:] > 0)
        assert torch.allclose(image, expected, atol=1e-6)
        (image * weight).sum().backward()
        (expected * weight).sum().backward()
        assert ours.grad is not None and twin.grad is not None
        assert torch.allclose(ours.grad, twin.grad, atol=1e-4)


def test_sphere_is_watertight_and_every_ray_meets_it_twice() -> None:
    vertices, faces = sphere(20)
    clip = clip_positions(vertices, look_at(torch.tensor([[0.3, 0.4, 1.6]]), torch.zeros(3), 40.0, 90))
    hits = sum((rasterize_mesh(clip, face[None], (90, 90))[0, ..., 3] > 0).int() for face in faces)
    assert set(hits.unique().tolist()) == {0, 2}  # type: ignore[union-attr]
    whole = rasterize_mesh(clip, faces, (90, 90))[0, ..., 3] > 0
    assert torch.equal(whole, hits > 0)  # type: ignore[operator]
    camera = torch.tensor([0.3, 0.4, 1.6])
    seen = rasterize_mesh(clip, faces, (90, 90))[0, ..., 3]
    normals = torch.linalg.cross(*(vertices[faces[:, k]] - vertices[faces[:, 0]] for k in (1, 2)))
    facing = (normals * (camera - vertices[faces[:, 0]])).sum(1) > 0
    assert facing[seen[seen > 0].long() - 1].all()


@pytest.mark.parametrize("seed", range(6))
def test_random_triangles_equal_the_float64_reference(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    clip = torch.randn(60, 4, generator=generator)
    clip[:, 3] = torch.rand(60, generator=generator) * (1.5 if seed < 3 else 2.0) + (0.3 if seed < 3 else -0.6)
    faces = torch.randint(0, 60, (30, 3), generator=generator)
    rast = rasterize_mesh(clip[None], faces, (37, 51))[0]
    expected, certain = reference_raster(clip, faces, (37, 51))
    assert certain.float().mean() > 0.9
    assert torch.equal(rast[..., 3][certain], expected[..., 3][certain].float())
    assert (rast - expected)[certain].abs().max() < 2e-5
    assert len(rast[..., 3].unique()) > 5


@pytest.mark.parametrize("distance", [0.02, 0.3, 1.0])
def test_near_plane_cuts_where_rays_say(distance: float) -> None:
    """A plane through the eye's surroundings: parts lie behind, parts nearer than the near plane."""
    vertices = torch.tensor([[-3.0, -0.02, 3.0], [4.0, -0.05, 2.0], [0.5, -0.03, -2.0], [-2.0, 0.4, 2.5]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [1, 2, 3]])
    cameras = look_at(torch.tensor([[0.0, 0.0, distance]]), torch.tensor([0.0, -0.01, 0.0]), 80.0, 48)
    clip = clip_positions(vertices, cameras)
    assert (clip[..., 3] < 0).any()
    rast = rasterize_mesh(clip, faces, (48, 48))[0]
    expected, certain = reference_raster(clip[0], faces, (48, 48))
    assert torch.equal(rast[..., 3][certain], expected[..., 3][certain].float())
    assert (rast - expected)[certain][:, :2].abs().max() < 1e-4


def test_far_plane_cuts() -> None:
    clip = torch.tensor([[[-1.0, -1, 0.5, 1], [1.0, -1, 0.5, 1], [0.0, 1, 2.0, 1]]])
    rast = rasterize_mesh(clip, torch.tensor([[0, 1, 2]]), (64, 64))[0]
    seen = rast[..., 3] > 0
    assert seen[:20].any() and not seen[24:].any()  # z passes 1 a third of the way up
    assert rast[..., 2].max() <= 1


def test_among_equal_depths_the_first_triangle_wins() -> None:
    clip = torch.tensor([[[-1.0, -1, 0.1, 1], [1.0, -1, 0.7, 1], [0.0, 1, 0.3, 1]]])
    faces = torch.tensor([[0, 1, 2]]).repeat(5000, 1)
    for threads in (1, 2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AP3D_THREADS", str(threads))
            rast = rasterize_mesh(clip, faces, (40, 40))
        assert rast[..., 3].max() == 1


def test_triangles_larger_than_the_guard_band_are_exact() -> None:
    clip = torch.tensor([[[-9e4, -3e4, 0.0, 1], [8e4, -5e4, 0.0, 1], [1e3, 9e4, 0.0, 1], [9e4, 8e4, 0.0, 1]]])
    faces = torch.tensor([[0, 1, 2], [1, 2, 3]])
    rast = rasterize_mesh(clip, faces, (200, 200))[0]
    expected, certain = reference_raster(clip[0], faces, (200, 200), margin=0.5)
    assert (rast[..., 3] > 0).all()
    assert torch.equal(rast[..., 3][certain], expected[..., 3][certain].float())


def test_barycentric_gradient_to_positions_equals_float64_autograd() -> None:
    generator = torch.Generator().manual_seed(3)
    clip = torch.randn(20, 4, generator=generator)
    clip[:, 3] = torch.rand(20, generator=generator) + 0.5
    faces = torch.randint(0, 20, (12, 3), generator=generator)
    clip.requires_grad_()
    weight = torch.randn(30, 40, 4, generator=generator)
    rast = rasterize_mesh(clip[None], faces, (30, 40))[0]
    (rast * weight).sum().backward()
    twin = clip.detach().double().requires_grad_()
    barycentrics, _ = reference_layers(twin, faces, pixel_centres(30, 40))
    hit = (rast[..., 3] > 0).flatten()
    chosen = barycentrics[torch.arange(len(hit)), (rast[..., 3].flatten().long() - 1).clamp(0)][:, :2]
    (chosen * weight.reshape(-1, 4)[:, :2].double())[hit].sum().backward()
    assert clip.grad is not None and twin.grad is not None
    assert hit.sum() > 200
    assert torch.allclose(clip.grad.double(), twin.grad, rtol=1e-3, atol=1e-3 * float(twin.grad.abs().max()))


def test_interpolated_values_move_with_positions_as_finite_differences_say() -> None:
    vertices, faces = random_fan(torch.Generator().manual_seed(4), 7)
    clip = clip_positions(vertices, front_camera(32))[0]
    attributes = torch.randn(1, len(vertices), 3, generator=torch.Generator().manual_seed(5))
    inner = torch.zeros(32, 32, 1)
    inner[12:20, 12:20] = 1  # far from the outline, whose pixels come and go

    def loss(positions: Tensor) -> Tensor:
        rast = rasterize_mesh(positions[None], faces, (32, 32))
        return (interpolate(attributes, rast, faces)[0] * inner).square().sum()

    leaf = clip.clone().requires_grad_()
    loss(leaf).backward()
    places = [(vertex, axis) for vertex in (0, 2, 5) for axis in (0, 1, 3)]
    expected = numeric_gradient(loss, clip, places, 3e-4)
    assert leaf.grad is not None
    ours = torch.tensor([float(leaf.grad[place]) for place in places])
    assert torch.allclose(ours, expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))


def test_threads_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    vertices, faces = sphere(40)
    cameras = look_at(torch.tensor([[0.0, 0, 2], [0.4, 0, 0.52]]), torch.zeros(3), 30.0, 130)
    results = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("AP3D_THREADS", threads)
        attributes = torch.stack([vertices, vertices.flip(0)]).requires_grad_()
        clip = clip_positions(vertices, cameras).requires_grad_()
        rast = rasterize_mesh(clip, faces, (130, 130))
        image = interpolate(attributes, rast, faces)
        image.square().sum().backward()
        results.append((rast.detach(), image.detach(), attributes.grad, clip.grad))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))  # type: ignore[arg-type]


def test_instruction_sets_do_not_change_a_bit() -> None:
    generator = torch.Generator().manual_seed(6)
    clip = torch.randn(1, 300, 4, generator=generator)
    faces = torch.randint(0, 300, (400, 3), generator=generator)
    try:
        assert library().ap3d_mesh_limit(0) == 0
        portable = rasterize_mesh(clip, faces, (150, 170))
    finally:
        library().ap3d_mesh_limit(1)
    assert torch.equal(rasterize_mesh(clip, faces, (150, 170)), portable)


def test_bad_input_is_refused() -> None:
    clip = torch.zeros(1, 3, 4)
    with pytest.raises(ValueError, match="faces index vertices"):
        rasterize_mesh(clip, torch.tensor([[0, 1, 3]]), (8, 8))
    with pytest.raises(ValueError, match=r"\[B, V, 4\]"):
        rasterize_mesh(clip[0], torch.tensor([[0, 1, 2]]), (8, 8))
    with pytest.raises(NumericalError, match="not finite"):
        rasterize_mesh(clip * math.nan, torch.tensor([[0, 1, 2]]), (8, 8))
    with pytest.raises(ValueError, match="size must be"):
        rasterize_mesh(clip, torch.tensor([[0, 1, 2]]), (0, 8))
    rast = torch.zeros(1, 4, 4, 4)
    with pytest.raises(ValueError, match="the same faces"):
        interpolate(torch.zeros(1, 3, 2), rast + 2, torch.tensor([[0, 1, 2]]))
    with pytest.raises(NumericalError, match="rast holds values"):
        interpolate(torch.zeros(1, 3, 2), rast + torch.tensor([math.nan, 0, 0, 1]), torch.tensor([[0, 1, 2]]))
    with pytest.raises(NumericalError, match="attributes"):
        interpolate(torch.full((1, 3, 2), math.inf), rast, torch.tensor([[0, 1, 2]]))
    empty = rasterize_mesh(clip, torch.zeros(0, 3, dtype=torch.long), (8, 8))
    assert not empty.any()
