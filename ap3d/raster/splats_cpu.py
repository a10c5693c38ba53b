"""The C++ splat kernel (csrc/project.cpp, composite.cpp, tiles.cpp) as two autograd functions.

Between them stand the projected centres, so that their gradients on the screen can be read like any other.
"""

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.raster.library import library, thread_count

if TYPE_CHECKING:
    from ap3d.raster.splats import SplatImages, SplatRule, Splats

Pointer = ctypes.c_void_p


class _Rule(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_float) for name in ("alpha_clamp", "extent", "blur", "cut", "stop", "near_plane")),
        ("opacity_aware", ctypes.c_int),
    ]


class _Gaussians(ctypes.Structure):
    _fields_ = [
        *((name, Pointer) for name in ("means", "quaternions", "scales", "opacities", "sh", "view_rotations")),
        *((name, ctypes.c_int) for name in ("count", "sh_count", "sh_degree")),
    ]


class _Views(ctypes.Structure):
    _fields_ = [
        *((name, Pointer) for name in ("world2cam", "intrinsics")),
        *((name, ctypes.c_int) for name in ("count", "width", "height")),
    ]


class _Projection(ctypes.Structure):
    _fields_ = [
        (name, Pointer)
        for name in ("means2d", "means2d_low", "factors", "colors", "depths", "radii", "rectangles")
    ]  # fmt: skip


@dataclass(frozen=True)
class _Setting:
    """What a call holds besides the Gaussians' tensors."""

    world2cam: Tensor
    intrinsics: Tensor
    width: int
    height: int
    sh_degree: int
    rule: _Rule
    view_rotations: Tensor | None

    def views(self) -> _Views:
        return _Views(_p(self.world2cam), _p(self.intrinsics), len(self.world2cam), self.width, self.height)

    def gaussians(self, tensors: tuple[Tensor, ...]) -> _Gaussians:
        sh = tensors[4]
        return _Gaussians(*map(_p, tensors), _p(self.view_rotations), len(sh), sh.shape[1], self.sh_degree)


def render(splats: "Splats", cameras: Cameras, sh_degree: int, rule: "SplatRule") -> "SplatImages":
    """See :func:`ap3d.raster.splats.rasterize_splats`; computes in float32 on the CPU."""
    from ap3d.raster.splats import SplatImages

    rotations = splats.view_rotations
    setting = _Setting(
        _dense(cameras.world2cam), _dense(cameras.intrinsics), cameras.width, cameras.height, sh_degree,
        _Rule(rule.alpha_clamp, rule.extent, rule.blur, rule.cut, rule.stop, rule.near, rule.opacity_aware),
        None if rotations is None else _dense(rotations),
    )  # fmt: skip
    opacities = splats.opacities.to("cpu", torch.float32)
    projection = _Project.apply(splats.means, splats.quaternions, splats.scales, opacities, splats.sh, setting)
    means2d, factors, colors, depths, low, radii, boxes = projection
    if means2d.requires_grad:
        means2d.retain_grad()
    color, alpha, depth = _Composite.apply(means2d, factors, colors, depths, opacities, low, radii, boxes, setting)
    return SplatImages(color, alpha, depth, radii, means2d)


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        setting: _Setting = arguments[5]
        inputs = tuple(_dense(tensor) for tensor in arguments[:5])
        shape = (len(setting.world2cam), len(inputs[0]))
        means2d, low, factors, colors = (torch.empty(*shape, size) for size in (2, 2, 3, 3))
        depths, radii = torch.empty(shape), torch.empty(shape)
        rectangles = torch.empty(*shape, 4, dtype=torch.int32)
        out = _Projection(*map(_p, (means2d, low, factors, colors, depths, radii, rectangles)))
        gaussians, views = setting.gaussians(inputs), setting.views()
        library().ap3d_splats_project(_r(gaussians), _r(views), _r(setting.rule), _r(out), thread_count())
        ctx.save_for_backward(*inputs, radii)
        ctx.setting, ctx.dtypes = setting, [tensor.dtype for tensor in arguments[:5]]
        ctx.mark_non_differentiable(low, radii, rectangles)
        return means2d, factors, colors, depths, low, radii, rectangles

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        *inputs, radii = ctx.saved_tensors
        setting: _Setting = ctx.setting
        means2d, factors, colors, depths = (_dense(g) for g in gradients[:4])
        incoming = _Projection(_p(means2d), None, _p(factors), _p(colors), _p(depths), _p(radii), None)
        differentiable = (0, 1, 2, 4)  # the opacities only choose the tiles here
        out = [torch.empty_like(inputs[i]) for i in differentiable]
        gaussians, views = setting.gaussians(tuple(inputs)), setting.views()
        library().ap3d_splats_project_backward(
            _r(gaussians), _r(views), _r(setting.rule), _r(incoming), *map(_p, out), thread_count()
        )
        out = [gradient.to(ctx.dtypes[i]) for gradient, i in zip(out, differentiable, strict=True)]
        return out[0], out[1], out[2], None, out[3], None


class _Kept:
    """Owns what the C++ forward pass keeps for its backward pass."""

    def __init__(self, address: int) -> None:
        self.address = address
        self._release = library().ap3d_splats_release

    def __del__(self) -> None:
        self._release(Pointer(self.address))


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        means2d, factors, colors, depths, opacities, low, radii, rectangles = (t.detach() for t in arguments[:8])
        setting: _Setting = arguments[8]
        opacities = _dense(opacities)
        batch, count = radii.shape
        color = torch.empty(batch, 3, setting.height, setting.width)
        alpha, depth = torch.empty_like(color[:, :1]), torch.empty_like(color[:, :1])
        projection = _Projection(*map(_p, (means2d, low, factors, colors, depths, radii, rectangles)))
        composite = library().ap3d_splats_composite
        composite.restype = Pointer
        kept = composite(
            _r(projection), _p(opacities), _r(setting.rule), batch, count, setting.width, setting.height,
            _p(color), _p(alpha), _p(depth), thread_count(),
        )  # fmt: skip
        ctx.kept, ctx.shape = _Kept(kept), (batch, count)
        return color, alpha, depth

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        color, alpha, depth = (_dense(g) for g in gradients)
        means2d, factors, colors = (torch.empty(*ctx.shape, size) for size in (2, 3, 3))
        depths, opacities = torch.empty(ctx.shape), torch.empty(ctx.shape)
        out = _Projection(_p(means2d), None, _p(factors), _p(colors), _p(depths), None, None)
        library().ap3d_splats_composite_backward(
            Pointer(ctx.kept.address), _p(color), _p(alpha), _p(depth), _r(out), _p(opacities), thread_count()
        )
        return means2d, factors, colors, depths, opacities.sum(0), None, None, None, None


def _dense(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32).contiguous()


def _p(tensor: Tensor | None) -> Pointer | None:
    return None if tensor is None else Pointer(tensor.data_ptr())


def _r(structure: ctypes.Structure) -> Any:
    return ctypes.byref(structure)
