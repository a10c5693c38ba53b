"""torch-splatting, gswarp and the part of gsplat's torch code that runs without CUDA."""

import contextlib
import functools
import importlib.util
import io
import math
import sys
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.raster import reference, splats_diff_gaussian
from ap3d.raster.splats import Splats
from benchmarks.rasterisers import plain


@functools.cache
def _torch_splatting(source: Path, size: int) -> Any:
    """Its renderer, with the device and image size that its source fixes exchanged for ours."""
    folder = source / "gaussian_splatting"
    utilities = _load("torch_splatting_sh", (folder / "utils" / "sh_utils.py").read_text())
    text = (folder / "gauss_render.py").read_text().replace("cuda", "cpu").replace("256", str(size))
    text = text.replace("import pdb", "").replace("from einops import reduce", "")
    text = text.replace("from .utils.sh_utils import eval_sh", "")
    module = _load("torch_splatting_render", text, eval_sh=utilities.eval_sh)
    return module


def _load(name: str, text: str, **names: Any) -> Any:
    module = types.ModuleType(name)
    module.__dict__.update(names)
    exec(compile(text, name, "exec"), module.__dict__)
    return module


def torch_splatting(source: Path, splats: Splats, cameras: Cameras) -> Tensor:
    """Colour ``[3, H, W]``: dense over the Gaussians of tiles of 64 x 64 pixels."""
    fx, fy = cameras.intrinsics[0, :2].tolist()
    view, clip = cameras.world2cam[0], cameras.clip_matrices()[0]
    camera = types.SimpleNamespace(
        world_view_transform=view.T, projection_matrix=torch.linalg.inv(view).T @ clip.T,
        camera_center=cameras.positions[0], image_width=cameras.width, image_height=cameras.height,
        FoVx=2 * math.atan(cameras.width / 2 / fx), FoVy=2 * math.atan(cameras.height / 2 / fy), focal_x=fx, focal_y=fy,
    )  # fmt: skip
    model = types.SimpleNamespace(
        get_xyz=splats.means, get_opacity=splats.opacities[:, None], get_scaling=splats.scales,
        get_rotation=splats.quaternions, get_features=splats.sh,
    )  # fmt: skip
    module = _torch_splatting(source, cameras.width)
    out = module.GaussRenderer(active_sh_degree=splats.sh_degree, white_bkgd=True)(camera, model)
    picture: Tensor = out["render"] - (1 - out["alpha"])  # its empty tiles are white whatever was asked for
    return picture.permute(2, 0, 1)


@functools.cache
def _gswarp(source: Path) -> Any:
    """The package, with the check taken out that refuses tensors on a CPU."""
    sys.path.insert(0, str(source))
    try:
        import gswarp
        import gswarp.rasterizer
    finally:
        sys.path.remove(str(source))
    gswarp.rasterizer.validate_rasterizer_inputs = lambda *_, **__: None
    return gswarp


def gswarp(source: Path, splats: Splats, cameras: Cameras) -> Tensor:
    """Colour ``[3, H, W]`` on Warp's CPU device, which it does not claim to support."""
    package = _gswarp(source)
    settings = splats_diff_gaussian._settings(package, cameras, splats.sh_degree)
    with contextlib.redirect_stdout(io.StringIO()):
        out: Tensor = package.GaussianRasterizer(raster_settings=settings)(
            means3D=splats.means, means2D=torch.zeros_like(splats.means), opacities=splats.opacities[:, None],
            shs=splats.sh, scales=splats.scales, rotations=torch.nn.functional.normalize(splats.quaternions, dim=1),
        )[0]  # fmt: skip
    return out


@functools.cache
def _gsplat_torch(source: Path) -> Any:
    path = source / "gsplat" / "cuda" / "_torch_impl.py"
    spec = importlib.util.spec_from_file_location("gsplat_torch_impl", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def gsplat_torch(source: Path, splats: Splats, cameras: Cameras) -> Tensor:
    """Colour ``[3, H, W]``: gsplat's projection and harmonics in torch, the plain C++ loop after them.

    gsplat's own torch compositing asks a CUDA kernel for the intersections and nerfacc for the sums.
    """
    module = _gsplat_torch(source)
    covariances, _ = module._quat_scale_to_covar_preci(splats.quaternions, splats.scales, compute_preci=False)
    fx, fy, cx, cy = cameras.intrinsics[0].tolist()
    matrix = torch.tensor([[[fx, 0, cx], [0, fy, cy], [0, 0, 1]]])
    radii, means2d, depths, conics, _ = module._fully_fused_projection(
        splats.means, covariances, cameras.world2cam, matrix, cameras.width, cameras.height
    )
    directions = splats.means - cameras.positions[0]
    colors = module._spherical_harmonics(splats.sh_degree, directions, splats.sh).add(0.5).clamp(min=0)
    tile, size = reference.TILE, torch.tensor([cameras.width, cameras.height])
    reach = radii[0] / tile
    boxes = torch.stack([(means2d[0] / tile - reach).floor(), (means2d[0] / tile + reach).ceil()], 1).detach()
    boxes = boxes.clamp(min=0).minimum(-(-size // tile)) * (radii[0] > 0).all(1)[:, None, None]
    return plain.composite(means2d[0], conics[0], colors, depths[0], splats.opacities, boxes, cameras)
