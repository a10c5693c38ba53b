"""The CPU mesh rasteriser against geometry: areas, shared edges, perspective, clipping, gradients."""

import math

import pytest
import torch
from torch import Tensor

from ap3d.cameras import Cameras, look_at
from ap3d.errors import NumericalError
from ap3d.raster.mesh import interpolate, rasterize_mesh


def clip_positions(vertices: Tensor, cameras: Cameras) -> Tensor:
    homogeneous = torch.cat([vertices, torch.ones(len(vertices), 1)], 1)
    return homogeneous @ cameras.clip_matrices().transpose(1, 2)


def front_camera(size: int = 64, distance: float = 2.0, fov: float = 40.0) -> Cameras:
    return look_at(torch.tensor([[0.0, 0.0, distance]]), torch.zeros(3), fov, size)


def random_fan(generator: torch.Generator, count: int = 40) -> tuple[Tensor, Tensor]:
    """A star of triangles round one point: every inner edge is shared by two of them."""
    angle = torch.linspace(0, 2 * math.pi, count + 1)[:-1]
    radius = 0.4 + 0.2 * torch.rand(count, generator=generator)
    rim = torch.stack([radius * angle.cos(), radius * angle.sin(), torch.zeros(count)], 1)
    centre = 0.1 * torch.rand(1, 3, generator=generator) * torch.tensor([1.0, 1.0, 0.0])
    ring = torch.arange(count) + 1
    return torch.cat([centre, rim]), torch.stack([torch.zeros_like(ring), ring, ring.roll(-1)], 1)


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


def test_threads_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(2)
    vertices, faces = random_fan(generator)
    clip = clip_positions(vertices, look_at(torch.tensor([[0.0, 0, 2], [0.4, 0, 2]]), torch.zeros(3), 30.0, 100))
    results = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("AP3D_THREADS", threads)
        attributes = vertices[None].clone().requires_grad_()
        rast = rasterize_mesh(clip, faces, (100, 100))
        image = interpolate(attributes, rast, faces)
        image.square().sum().backward()
        results.append((rast, image.detach(), attributes.grad))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))  # type: ignore[arg-type]


def test_bad_input_is_refused() -> None:
    clip = torch.zeros(1, 3, 4)
    with pytest.raises(ValueError, match="faces index vertices"):
        rasterize_mesh(clip, torch.tensor([[0, 1, 3]]), (8, 8))
    with pytest.raises(ValueError, match=r"\[B, V, 4\]"):
        rasterize_mesh(clip[0], torch.tensor([[0, 1, 2]]), (8, 8))
    with pytest.raises(NumericalError, match="not finite"):
        rasterize_mesh(clip * math.nan, torch.tensor([[0, 1, 2]]), (8, 8))
    empty = rasterize_mesh(clip, torch.zeros(0, 3, dtype=torch.long), (8, 8))
    assert not empty.any()
