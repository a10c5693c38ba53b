"""Whatever the four mesh operations are given, they answer with an error of their own or a finite image."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ap3d.errors import Ap3dError, MissingDependencyError
from ap3d.raster.mesh import antialias, interpolate, mesh_topology, rasterize_mesh, texture

SPECIAL = [0.0, -0.0, 1.0, -1.0, 1e-45, 1e-38, -1e-20, 1e-7, 0.5, 3.0, 1e6, -1e15, 1e30, -1e30, 3e38]
BROKEN = [math.nan, math.inf, -math.inf]


@st.composite
def meshes(draw: st.DrawFn) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Clip positions, faces and an image size: ordinary, degenerate, huge, not finite, out of range, empty."""
    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    batch, count, faces = draw(st.integers(0, 2)), draw(st.integers(1, 9)), draw(st.integers(0, 12))
    clip = torch.randn(batch, count, 4, generator=generator)
    pool = SPECIAL + (BROKEN if draw(st.integers(0, 5)) == 0 else [])
    for _ in range(draw(st.integers(0, 8))):
        if batch:
            place = (draw(st.integers(0, batch - 1)), draw(st.integers(0, count - 1)), draw(st.integers(0, 3)))
            clip[place] = draw(st.sampled_from(pool))
    wrong = draw(st.integers(0, 9)) == 0
    indices = torch.randint(-1 if wrong else 0, count + (1 if wrong else 0), (faces, 3), generator=generator)
    return clip, indices, (draw(st.sampled_from([1, 2, 7, 33])), draw(st.sampled_from([1, 3, 40])))


@given(meshes(), st.integers(1, 5), st.sampled_from(["1", "2"]))
@settings(max_examples=150, deadline=None)
def test_the_chain_of_operations_never_crashes(
    mesh: tuple[Tensor, Tensor, tuple[int, int]], channels: int, threads: str
) -> None:
    clip, faces, size = mesh
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AP3D_THREADS", threads)
        try:
            clip.requires_grad_()
            rast = rasterize_mesh(clip, faces, size)
            generator = torch.Generator().manual_seed(channels)
            attributes = torch.randn(len(clip) or 1, clip.shape[1], channels, generator=generator)
            values = interpolate(attributes, rast, faces)
            shaded = texture(attributes[:1, None], values[..., :1].expand(-1, -1, -1, 2))
            image = antialias(shaded, rast, clip, faces)
        except (ValueError, Ap3dError):
            return
        image.sum().backward()
    assert bool(rast.isfinite().all()) and bool(image.isfinite().all())
    assert bool(((rast[..., :2] >= 0) & (rast[..., :2] <= 1)).all()) and bool((rast[..., 2].abs() <= 1).all())
    assert bool((rast[..., 3] <= len(faces)).all()) and bool((rast[..., 0] + rast[..., 1] <= 1 + 1e-6).all())


@given(
    st.lists(st.sampled_from(SPECIAL[:-1] + BROKEN), min_size=2, max_size=6),
    st.sampled_from(["wrap", "clamp", "zero"]), st.sampled_from(["nearest", "linear", "linear-mipmap-linear"]),
    st.integers(0, 5), st.integers(0, 5),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_texture_takes_any_coordinates(numbers: list[float], boundary: str, mode: str, height: int, width: int) -> None:
    values = torch.tensor(numbers)
    uv = torch.cartesian_prod(values, values)[None, None].requires_grad_()
    level = values.repeat(len(values))[None, None] if "mipmap" in mode else None
    tex = torch.rand(1, height, width, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    try:
        image = texture(tex, uv, level=level, filter_mode=mode, boundary_mode=boundary)
    except (ValueError, Ap3dError):
        assert not values.isfinite().all() or 0 in (height, width) or "mipmap" in mode
        return
    image.sum().backward()
    assert bool(image.isfinite().all()) and bool((image >= 0).all()) and bool((image <= 1 + 1e-6).all())
    assert tex.grad is not None and bool(tex.grad.isfinite().all())


@given(st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_rasters_and_topologies_from_elsewhere_never_crash(seed: int) -> None:
    """What a user may hand over from another mesh, another size, or made up."""
    generator = torch.Generator().manual_seed(seed)
    count, vertices = (int(torch.randint(1, 9, (1,), generator=generator)) for _ in range(2))
    faces = torch.randint(0, vertices, (count, 3), generator=generator)
    rast = torch.randn(1, 6, 7, 4, generator=generator) * 10 ** torch.randint(0, 9, (1,), generator=generator)
    rast[..., 3] = torch.randint(-1, count + 2, (1, 6, 7), generator=generator) + (seed % 2) * 0.5
    clip, color = torch.randn(1, vertices, 4, generator=generator), torch.rand(1, 6, 7, 2, generator=generator)
    other = mesh_topology(torch.randint(0, 50, (count + seed % 3 // 2, 3), generator=generator))
    for operation in (
        lambda: interpolate(clip, rast, faces),
        lambda: antialias(color, rast, clip, faces),
        lambda: antialias(color, rast.nan_to_num(0).clamp(0, count), clip, faces, topology=other),
    ):
        try:
            assert bool(operation().isfinite().all())
        except (ValueError, Ap3dError):
            continue


def test_absent_backends_say_what_to_install() -> None:
    clip, faces = torch.zeros(1, 3, 4), torch.tensor([[0, 1, 2]])
    with pytest.raises(MissingDependencyError, match="nvdiffrast"):
        rasterize_mesh(clip, faces, (4, 4), backend="nvdiffrast")
    with pytest.raises(Ap3dError, match="cpu, nvdiffrast"):
        mesh_topology(faces, backend="opengl")
