"""Each GPU backend against the CPU kernel under the backend's own rule; runs wherever a GPU and the package are."""

import importlib.util

import pytest
import torch
from torch import Tensor

from ap3d.raster.mesh import interpolate, rasterize_mesh, texture
from ap3d.raster.splats import GSPLAT, INRIA, Splats, rasterize_splats
from tests.raster.mesh_reference import clip_positions, sphere
from tests.raster.scenes import leaves, loss, random_splats, two_cameras

LARGEST, MEAN = 2e-3, 1e-5
RULES = {"gsplat": GSPLAT, "diff_gaussian_rasterization": INRIA}


def require(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")


def close(ours: Tensor | None, theirs: Tensor | None, name: str) -> None:
    """Differences in units of the largest value, which is about 1 in a picture."""
    assert ours is not None and theirs is not None
    difference = (ours - theirs.cpu()).detach().abs() / ours.detach().abs().max().clamp(min=1e-9)
    assert float(difference.max()) <= LARGEST and float(difference.mean()) <= MEAN, name


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("turned", [False, True])
def test_images_and_gradients_equal_the_cpu_kernel(name: str, turned: bool) -> None:
    require(name)
    splats = random_splats(3000, 1, degree=3, turned=turned)
    # diff-gaussian-rasterization differentiates through the clamp of alpha: nothing here reaches it
    splats = Splats(**(splats.tensors() | {"opacities": 0.95 * splats.opacities}))
    cameras = two_cameras(256, 200)
    ours = leaves(splats, torch.float32)
    theirs = Splats(**{n: t.cuda().detach().requires_grad_(t.requires_grad) for n, t in ours.tensors().items()})
    images = rasterize_splats(ours, cameras, rule=RULES[name], backend="cpu")
    others = rasterize_splats(theirs, cameras.to("cuda"), backend=name)
    for part in ("color", "alpha", "depth"):
        close(getattr(images, part), getattr(others, part), part)
    loss(images).backward()
    g = torch.Generator().manual_seed(0)  # the same loss, on the GPU
    parts = (others.color, others.alpha, others.depth)
    sum((part * torch.randn(part.shape, generator=g).cuda()).sum() for part in parts).backward()  # type: ignore[union-attr]
    close(images.means2d.grad, others.means2d.grad, "means2d")
    for part in ("means", "quaternions", "scales", "opacities", "sh"):
        close(getattr(ours, part).grad, getattr(theirs, part).grad, part)


def test_mesh_operations_equal_the_cpu_kernel() -> None:
    """Coverage may differ where an edge passes a pixel's centre: nvdiffrast rounds vertices to 1/16 pixel."""
    require("nvdiffrast")
    vertices, faces = sphere(24, radius=1.2)
    clip = clip_positions(vertices, two_cameras(256, 200)).float()
    ours = rasterize_mesh(clip, faces, (200, 256), backend="cpu")
    theirs = rasterize_mesh(clip.cuda(), faces.cuda(), (200, 256), backend="nvdiffrast").cpu()
    same = ours[..., 3] == theirs[..., 3]
    assert float((ours[..., 3] > 0).double().mean()) > 0.05 and float(same.double().mean()) > 0.98
    assert float((ours - theirs)[same][:, :3].abs().max()) <= LARGEST
    g = torch.Generator().manual_seed(0)
    attributes, texels = torch.rand(1, len(vertices), 3, generator=g), torch.rand(1, 64, 64, 3, generator=g)
    results = []
    for device in ("cpu", "cuda"):
        values, tex = (t.to(device, copy=True).requires_grad_() for t in (attributes, texels))
        drawn = interpolate(values, ours.to(device), faces.to(device))
        looked_up = texture(tex, drawn[..., :2], filter_mode="linear")
        (drawn.square().sum() + looked_up.square().sum()).backward()
        results.append((drawn, looked_up, values.grad, tex.grad))
    for name, a, b in zip(("interpolate", "texture", "attributes", "texels"), *results, strict=True):
        close(a, b, name)
