"""diff-gaussian-rasterization behind the splat protocol: CUDA only, its own rule (``INRIA``), one camera a call.

Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering" (2023). The package returns neither alpha
nor depth, so each view is drawn twice: its colours, then the colours (1, z, 0). Its licence is non-commercial.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.errors import InputError, MissingDependencyError
from ap3d.raster.reference import TILE, sh_colors

if TYPE_CHECKING:
    from ap3d.raster.splats import SplatImages, SplatRule, Splats

NAME = "diff_gaussian_rasterization"


def render(splats: "Splats", cameras: Cameras, sh_degree: int, rule: "SplatRule") -> "SplatImages":
    """See :func:`ap3d.raster.splats.rasterize_splats`.

    Its backward pass lets gradients through where alpha was clamped (0.99), unlike the CPU kernel's.
    """
    from ap3d.raster.splats import INRIA, SplatImages

    if rule != INRIA:
        raise InputError(f"the splat rasteriser {NAME!r} renders under the rule INRIA only")
    package = _package(splats.means.device)
    cameras = Cameras(cameras.cam2world.to(splats.means), cameras.intrinsics.to(splats.means), *_size(cameras))
    centres, depths = cameras.project(splats.means)
    # The kernel only reports gradients here; it projects the means itself.
    means2d = torch.where(depths[..., None] > rule.near, centres, torch.zeros_like(centres)).detach()
    means2d.requires_grad_(torch.is_grad_enabled() and any(t.requires_grad for t in splats.tensors().values()))
    colors = sh_colors(splats, cameras.positions, sh_degree)
    views = [
        _view(package, splats, _frame(cameras[i]), colors[i], depths[i], means2d[i], sh_degree)
        for i in range(len(cameras))
    ]
    images, radii = (torch.stack(parts) for parts in zip(*views, strict=True))
    size = torch.tensor(_size(cameras)).to(means2d)
    reach = radii[..., None]
    on_image = ((means2d + reach >= 0) & (means2d - reach <= size)).all(-1).detach()
    return SplatImages(images[:, :3], images[:, 3:4], images[:, 4:5], radii * on_image, means2d)


@dataclass(frozen=True)
class _Frame:
    """What the kernel draws: the wanted image, from (left, top) on, in a frame around the principal point."""

    camera: Cameras
    left: int
    top: int
    width: int
    height: int


def _frame(camera: Cameras) -> _Frame:
    """Widen an image whose principal point is far off its middle, as in crops.

    The kernel bounds the directions where it takes the projection's derivative by 1.3 times the half angles of a
    centred camera; a wanted direction beyond them would get a wrong footprint.
    """
    focal_and_centre = camera.intrinsics[0].tolist()
    left, right = _margins(focal_and_centre[2], camera.width)
    top, bottom = _margins(focal_and_centre[3], camera.height)
    shift = torch.tensor([0, 0, left, top]).to(camera.intrinsics)
    wide = Cameras(
        camera.cam2world, camera.intrinsics + shift, camera.width + left + right, camera.height + top + bottom
    )
    return _Frame(wide, left, top, camera.width, camera.height)


def _margins(centre: float, size: int) -> tuple[int, int]:
    """Pixels to add before and after; before, whole tiles, so that tile borders stay where they were."""
    if 0.35 * size <= centre <= 0.65 * size:
        return 0, 0
    return TILE * max(0, math.ceil((size - 2 * centre) / TILE)), max(0, math.ceil(2 * centre - size))


def _view(
    package: Any, splats: "Splats", frame: _Frame, colors: Tensor, depths: Tensor, means2d: Tensor, sh_degree: int
) -> tuple[Tensor, Tensor]:
    """Colour, alpha and depth ``[5, H, W]`` and radii ``[N]`` of one camera."""
    rasterizer = package.GaussianRasterizer(raster_settings=_settings(package, frame.camera, sh_degree))
    # Its screen gradients are per half image: this factor makes them per pixel.
    per_pixel = 2 / torch.tensor(_size(frame.camera)).to(means2d)
    screen = torch.cat([means2d * per_pixel, torch.zeros_like(means2d[:, :1])], 1)

    def draw(values: Tensor) -> tuple[Tensor, Tensor]:
        image, radii = rasterizer(
            means3D=splats.means, means2D=screen, opacities=splats.opacities[:, None], colors_precomp=values,
            scales=splats.scales, rotations=torch.nn.functional.normalize(splats.quaternions, dim=1),
        )[:2]  # fmt: skip
        return image[:, frame.top : frame.top + frame.height, frame.left : frame.left + frame.width], radii

    color, radii = draw(colors.contiguous())
    coverage, _ = draw(torch.stack([torch.ones_like(depths), depths, torch.zeros_like(depths)], 1))
    return torch.cat([color, coverage[:2]]), radii.to(means2d)


def _settings(package: Any, camera: Cameras, sh_degree: int) -> Any:
    """The kernel's view of a camera; matrices are transposed (column-major), rays are half-angle tangents."""
    fx, fy = camera.intrinsics[0, :2].tolist()
    values = {
        "image_height": camera.height, "image_width": camera.width,
        "tanfovx": 0.5 * camera.width / fx, "tanfovy": 0.5 * camera.height / fy,
        "bg": torch.zeros(3).to(camera.cam2world), "scale_modifier": 1.0,
        "viewmatrix": camera.world2cam[0].T.contiguous(), "projmatrix": camera.clip_matrices()[0].T.contiguous(),
        "sh_degree": sh_degree, "campos": camera.positions[0].contiguous(),
        "prefiltered": False, "debug": False, "antialiasing": False,
    }  # fmt: skip
    known = package.GaussianRasterizationSettings._fields  # later versions added fields
    return package.GaussianRasterizationSettings(**{name: values[name] for name in known if name in values})


def _size(cameras: Cameras) -> tuple[int, int]:
    return cameras.width, cameras.height


def _package(device: torch.device) -> Any:
    try:
        import diff_gaussian_rasterization  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise MissingDependencyError(
            f"the splat rasteriser {NAME!r} is not installed: pip install "
            "git+https://github.com/graphdeco-inria/diff-gaussian-rasterization (non-commercial licence), "
            "or use the backend 'gsplat' or 'cpu'"
        ) from None
    if device.type != "cuda":
        raise InputError(f"the splat rasteriser {NAME!r} needs tensors on a CUDA device; use the backend 'cpu'")
    return diff_gaussian_rasterization
