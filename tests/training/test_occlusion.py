"""Ambient occlusion against what simple shapes must give."""

import torch

from ap3d.diffusion.conditions import vertex_normals
from ap3d.training.portraits.occlusion import sphere_directions, vertex_openness


def grid(rows: int, columns: int, height) -> tuple[torch.Tensor, torch.Tensor]:
    """A height field over [-1, 1]^2 that faces up (y)."""
    x, z = torch.meshgrid(torch.linspace(-1, 1, columns), torch.linspace(-1, 1, rows), indexing="xy")
    vertices = torch.stack([x, height(x, z), z], -1).reshape(-1, 3)
    i = torch.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = i[:-1, :-1], i[:-1, 1:], i[1:, 1:], i[1:, :-1]
    return vertices, torch.cat([torch.stack([a, c, b], -1).reshape(-1, 3), torch.stack([a, d, c], -1).reshape(-1, 3)])


def openness(height) -> torch.Tensor:
    vertices, faces = grid(41, 41, height)
    normals = vertex_normals(vertices[None], faces)[0]
    assert float(normals[:, 1].min()) > 0
    return vertex_openness(vertices, faces, normals).reshape(41, 41)


def test_a_plane_sees_everything_and_a_valley_less() -> None:
    assert float(openness(lambda x, z: torch.zeros_like(x)).min()) > 0.99
    valley = openness(lambda x, z: 1.2 * x.abs())
    # A point at the bottom of an endless valley sees the sine of the half opening angle; this one is short.
    assert 0.64 - 0.04 < float(valley[20, 20]) < 0.64 + 0.10 < float(valley[20, 1])


def test_directions_are_unit_and_balanced() -> None:
    directions = sphere_directions(64)
    assert torch.allclose(directions.norm(dim=1), torch.ones(64), atol=1e-5)
    assert float(directions.mean(0).norm()) < 0.03
