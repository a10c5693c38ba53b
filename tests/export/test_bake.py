"""Textures: layouts that cannot be used, places without triangles, colours from the Gaussians round a point."""

import torch

from ap3d.export.bake import Texels, surface_colors, usable_uv
from ap3d.raster.splats import Splats
from ap3d.splats.avatar import SH_C0

QUAD = torch.tensor([[[0.1, 0.1], [0.9, 0.1], [0.1, 0.9]], [[0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]])


def test_a_layout_without_overlap_is_kept() -> None:
    assert torch.equal(usable_uv(QUAD, 128), QUAD)


def test_overlapping_missing_and_tiled_layouts_become_cells() -> None:
    for bad in (QUAD[[0, 0, 0]], torch.zeros(3, 3, 2), QUAD + 1):
        cells = usable_uv(bad, 128)
        texels = Texels.of(cells, 128)
        counts = torch.bincount(texels.face, minlength=len(bad))
        assert bool((counts > 100).all()) and bool((cells >= 0).all()) and bool((cells <= 1).all())


def test_texels_interpolate_their_triangles_and_the_rest_takes_the_nearest() -> None:
    """Texel (column, row) of a texture of 64 lies at u = (column + .5) / 64, v = (row + .5) / 64."""
    texels = Texels.of(QUAD, 64)
    picture = texels.picture(torch.nn.functional.pad(texels.interpolate(QUAD), (0, 1)))
    assert abs(int(picture[20, 40, 0]) - 40.5 / 64 * 255) < 2 and abs(int(picture[20, 40, 1]) - 20.5 / 64 * 255) < 2
    assert abs(int(picture[30, 0, 0]) - 0.1 * 255) < 5 and abs(int(picture[30, 0, 1]) - 30.5 / 64 * 255) < 5


def test_a_point_takes_the_colours_of_the_gaussians_that_reach_it() -> None:
    """Two opaque Gaussians of sigma 0.1 a unit apart: each point sees its own; a point far off sees the nearer."""
    red_blue = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    splats = Splats(
        torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), torch.tensor([[1.0, 0, 0, 0]]).repeat(2, 1),
        torch.full((2, 3), 0.1), torch.ones(2), ((red_blue - 0.5) / SH_C0)[:, None],
    )  # fmt: skip
    colors = surface_colors(torch.tensor([[0.05, 0.0, 0.0], [0.9, 0.1, 0.0], [5.0, 0.0, 0.0]]), splats)
    torch.testing.assert_close(colors[:2], red_blue, atol=1e-3, rtol=0)
    assert float(colors[2, 2]) > 0.6
    halfway = surface_colors(torch.tensor([[0.5, 0.0, 0.0]]), splats)
    torch.testing.assert_close(halfway, torch.tensor([[0.5, 0.0, 0.5]]), atol=0.1, rtol=0)
