"""Antialiasing against coverage, finite differences, and what it is for: moving an outline by its picture."""

import math

import pytest
import torch
from torch import Tensor

from ap3d.cameras import look_at
from ap3d.errors import NumericalError
from ap3d.raster.mesh import antialias, interpolate, mesh_topology, rasterize_mesh
from tests.raster.mesh_reference import clip_positions, front_camera, numeric_gradient, random_fan, sphere


def silhouette(clip: Tensor, faces: Tensor, size: int) -> Tensor:
    """An antialiased mask ``[B, H, W, 1]``."""
    rast = rasterize_mesh(clip, faces, (size, size))
    return antialias((rast[..., 3:] > 0).float(), rast.detach(), clip, faces)


def rectangle(left: float, right: float, top: float, bottom: float, size: int) -> tuple[Tensor, Tensor]:
    """Clip positions of a rectangle given in pixels."""
    corners = torch.tensor([[left, top], [right, top], [right, bottom], [left, bottom]]) / size * 2 - 1
    return torch.cat([corners, torch.tensor([[0.0, 1.0]]).expand(4, 2)], 1)[None], torch.tensor([[0, 1, 2], [0, 2, 3]])


def test_edges_along_the_axes_get_their_exact_coverage() -> None:
    mask = silhouette(*rectangle(3.3, 8.9, 2.75, 7.1, 12), 12)[0, ..., 0]
    across = torch.tensor([0, 0, 0, 0.7, 1, 1, 1, 1, 0.9, 0, 0, 0])
    down = torch.tensor([0, 0, 0.25, 1, 1, 1, 1, 0.1, 0, 0, 0, 0])
    assert torch.allclose(mask[5], across, atol=1e-5)
    assert torch.allclose(mask[:, 6], down, atol=1e-5)


def test_area_of_a_disc_is_nearer_to_the_truth_than_counted_pixels() -> None:
    vertices, faces = sphere(40)
    errors = []
    for size in (40, 57, 90):
        cameras = look_at(torch.tensor([[0.13, 0.0, 2.0]]), torch.tensor([0.02, 0.03, 0.0]), 40.0, size)
        clip = clip_positions(vertices, cameras)
        counted = float((rasterize_mesh(clip, faces, (size, size))[..., 3] > 0).sum())
        fine = float((rasterize_mesh(clip, faces, (16 * size, 16 * size))[..., 3] > 0).sum()) / 256
        errors.append((abs(float(silhouette(clip, faces, size).sum()) - fine) / fine, abs(counted - fine) / fine))
    assert max(smooth for smooth, _ in errors) < 2e-3
    assert sum(smooth for smooth, _ in errors) < 0.5 * sum(hard for _, hard in errors)


def test_inner_edges_stay_as_they_are() -> None:
    vertices, faces = sphere(12)
    clip = clip_positions(vertices, front_camera(64))
    rast = rasterize_mesh(clip, faces, (64, 64))
    color = torch.rand(len(faces) + 1, 3, generator=torch.Generator().manual_seed(0))[rast[..., 3].long()]
    changed = (antialias(color, rast, clip, faces) != color).any(-1)[0]
    hit = (rast[0, ..., 3] > 0).float()[None, None]
    rim = torch.nn.functional.max_pool2d(hit, 3, 1, 1) != -torch.nn.functional.max_pool2d(-hit, 3, 1, 1)
    assert changed.sum() > 50 and not (changed & ~rim[0, 0]).any()


def test_gradients_equal_finite_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    vertices, faces = random_fan(generator, 9)
    vertices[:, 2] += 0.2 * torch.rand(len(vertices), generator=generator)
    clip = clip_positions(vertices, front_camera(24))
    rast = rasterize_mesh(clip, faces, (24, 24))
    color = torch.rand(1, 24, 24, 2, generator=generator)
    weight = torch.rand(1, 24, 24, 2, generator=generator)
    leaves = color.clone().requires_grad_(), clip.clone().requires_grad_()

    def loss(shaded: Tensor, positions: Tensor) -> Tensor:
        return (antialias(shaded, rast, positions, faces) * weight).double().sum()

    loss(*leaves).backward()
    assert leaves[0].grad is not None and leaves[1].grad is not None
    edges = (antialias(color, rast, clip, faces) != color).nonzero().tolist()[::9]
    expected = numeric_gradient(lambda c: loss(c, clip), color, [tuple(e) for e in edges], 1e-2)
    ours = torch.tensor([float(leaves[0].grad[tuple(e)]) for e in edges])
    assert torch.allclose(ours, expected, atol=1e-3)
    places = [(0, vertex, axis) for vertex in range(1, 10) for axis in (0, 1, 3)]
    expected = numeric_gradient(lambda p: loss(color, p), clip, places, 1e-4)
    ours = torch.tensor([float(leaves[1].grad[place]) for place in places])
    close = (ours - expected).abs() < 0.03 * float(expected.abs().max())
    assert close.float().mean() > 0.9  # where an end of an edge crosses a row of centres, differences jump
    assert float(torch.nn.functional.cosine_similarity(ours, expected, 0)) > 0.98
    assert not leaves[1].grad[..., 2].any()


def test_gradient_of_a_moving_outline_is_its_length_of_edge() -> None:
    """The area of a shifted half plane changes by its height: the visibility gradient, which shading lacks."""
    clip, faces = rectangle(4.3, 11.6, 3.2, 12.9, 16)
    clip.requires_grad_()
    silhouette(clip, faces, 16).sum().backward()
    assert clip.grad is not None
    pixels = clip.grad[0, :, :2] * 2 / 16  # by pixel instead of clip unit
    height, width = 12.9 - 3.2, 11.6 - 4.3
    assert float(pixels[[1, 2], 0].sum()) == pytest.approx(height, abs=1)
    assert float(pixels[[0, 3], 0].sum()) == pytest.approx(-height, abs=1)
    assert float(pixels[[2, 3], 1].sum()) == pytest.approx(width, abs=1)
    boosted = clip.detach().clone().requires_grad_()
    rast = rasterize_mesh(boosted, faces, (16, 16)).detach()
    antialias((rast[..., 3:] > 0).float(), rast, boosted, faces, position_gradient_boost=3.0).sum().backward()
    assert torch.allclose(boosted.grad, 3 * clip.grad)  # type: ignore[arg-type]


def test_edge_passing_behind_the_eye_still_blends() -> None:
    vertices = torch.tensor([[-50.0, -1.0, -40.0], [50.0, -1.0, -40.0], [0.3, -1.0, 40.0]])
    cameras = look_at(torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([0.0, 0.0, 1.0]), 90.0, 48)
    clip = clip_positions(vertices, cameras).requires_grad_()
    faces = torch.tensor([[0, 1, 2]])
    mask = silhouette(clip, faces, 48)
    assert ((mask > 0.01) & (mask < 0.99)).sum() > 10
    mask.sum().backward()
    assert clip.grad is not None and bool(clip.grad.isfinite().all()) and bool(clip.grad.any())


def test_outline_finds_a_target_by_gradient_descent() -> None:
    vertices, faces = sphere(16)
    cameras = look_at(torch.tensor([[0.0, 0.0, 2.0], [1.4, 0.4, 1.4]]), torch.zeros(3), 40.0, 48)
    goal_scale, goal_shift = torch.tensor([1.2, 0.7, 0.9]), torch.tensor([0.05, -0.08, 0.04])
    target = silhouette(clip_positions(vertices * goal_scale + goal_shift, cameras), faces, 48)
    scale, shift = torch.ones(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    optimiser = torch.optim.Adam([scale, shift], 0.02)
    losses = []
    for step in range(120):
        optimiser.param_groups[0]["lr"] = 0.02 * 0.97**step
        loss = (silhouette(clip_positions(vertices * scale + shift, cameras), faces, 48) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.002 * losses[0]
    assert (scale - goal_scale).abs().max() < 0.02 and (shift - goal_shift).abs().max() < 0.01


def test_topology_names_each_edge_in_the_next_triangle() -> None:
    assert mesh_topology(torch.tensor([[0, 1, 2], [2, 1, 3]])).table.tolist() == [[5, -1, -1], [-1, -1, 0]]
    vertices, faces = sphere(9)
    table = faces.flatten()[mesh_topology(faces).table]
    pairs = {tuple(sorted((int(a), int(b)))) for face in faces for a, b in (face[:2], face[1:], face[[2, 0]])}
    assert len(pairs) == len(vertices) + len(faces) - 2  # Euler
    for face, beyond in zip(faces.tolist()[::17], table.tolist()[::17], strict=True):
        for k in range(3):
            edge = {face[(k + 1) % 3], face[(k + 2) % 3]}
            others = [set(f) - edge for f in faces.tolist() if edge < set(f) and set(f) != set(face)]
            assert others == [{beyond[k]}]


def test_threads_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    vertices, faces = sphere(30)
    cameras = look_at(torch.tensor([[0.0, 0, 2], [0.4, 0, 0.9]]), torch.zeros(3), 30.0, 110)
    topology = mesh_topology(faces)
    results = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("AP3D_THREADS", threads)
        clip = clip_positions(vertices, cameras).requires_grad_()
        rast = rasterize_mesh(clip, faces, (110, 110))
        color = interpolate(vertices[None], rast, faces)
        image = antialias(color, rast, clip, faces, topology=topology)
        image.square().sum().backward()
        results.append((image, clip.grad))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))  # type: ignore[arg-type]


def test_bad_input_is_refused() -> None:
    clip, faces = rectangle(2, 6, 2, 6, 8)
    rast = rasterize_mesh(clip, faces, (8, 8))
    color = torch.zeros(1, 8, 8, 3)
    with pytest.raises(ValueError, match="color must be"):
        antialias(color[:, :4], rast, clip, faces)
    with pytest.raises(ValueError, match="clip must be"):
        antialias(color, rast, clip[..., :3], faces)
    with pytest.raises(ValueError, match="other faces"):
        antialias(color, rast, clip, faces, topology=mesh_topology(sphere(5)[1]))
    with pytest.raises(ValueError, match="the same faces"):
        antialias(color, rast + 1, clip, faces)
    with pytest.raises(NumericalError, match="color"):
        antialias(color + math.nan, rast, clip, faces)
