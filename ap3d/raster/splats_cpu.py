"""The C++ splat kernel (csrc/project.cpp, composite.cpp) as two autograd functions.

Between them stand the projected centres, so that their gradients on the screen can be read like any other.
"""

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.errors import InputError, NumericalError
from ap3d.raster.library import library, thread_count

if TYPE_CHECKING:
    from ap3d.raster.splats import SplatImages, SplatRule, Splats

Pointer = ctypes.c_void_p
LARGEST_SIDE = 16 * 4095  # tiles of a side are packed two to a float (csrc/splats.h)


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


class _Projected(ctypes.Structure):
    _fields_ = [(name, Pointer) for name in ("splats", "boxes", "means2d")]


class _ProjectedGradient(ctypes.Structure):
    _fields_ = [
        (name, Pointer)
        for name in ("splats", "means2d", "boxes", "means", "quaternions", "scales", "opacities", "sh")
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

    if max(cameras.width, cameras.height) > LARGEST_SIDE:
        raise InputError(
            f"an image of {cameras.width} x {cameras.height} px is too large: a side may have {LARGEST_SIDE}"
        )
    _check_rule(rule)
    rotations = splats.view_rotations
    setting = _Setting(
        _dense(cameras.world2cam), _dense(cameras.intrinsics), cameras.width, cameras.height, sh_degree,
        _Rule(rule.alpha_clamp, rule.extent, rule.blur, rule.cut, rule.stop, rule.near, rule.opacity_aware),
        None if rotations is None else _dense(rotations),
    )  # fmt: skip
    footprints, means2d, boxes = _Project.apply(
        splats.means, splats.quaternions, splats.scales, splats.opacities, splats.sh, setting
    )
    if means2d.requires_grad:
        means2d.retain_grad()
    color, alpha, depth = _Composite.apply(footprints, means2d, boxes, setting)
    return SplatImages(color, alpha, depth, boxes[..., 3], means2d)


def _check_rule(rule: "SplatRule") -> None:
    """float32 holds 1 - alpha and the logarithm of the cut only within these."""
    within = 0 < rule.alpha_clamp <= 0.99999 and min(rule.cut, rule.stop) >= 1e-30 and max(rule.cut, rule.stop) < 1
    if not within or not 0 < rule.extent < 1e6 or not 1e-6 <= rule.blur < 1e6 or not 1e-6 <= rule.near <= 1e9:
        raise InputError(
            "the CPU rasteriser takes rules with alpha_clamp in 0..0.99999, cut and stop in 1e-30..1, extent above 0, "
            f"blur of at least 1e-6 and near of 1e-6 to 1e9; got {rule}"
        )


class _Project(torch.autograd.Function):
    """Gaussians to one line of 16 numbers for each in each view (``ap3d_splat``), and their boxes of tiles."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        setting: _Setting = arguments[5]
        inputs = tuple(_dense(tensor) for tensor in arguments[:5])
        shape = (len(setting.world2cam), len(inputs[0]))
        footprints, boxes, means2d = (_empty(*shape, size) for size in (16, 4, 2))
        out = _Projected(*map(_p, (footprints, boxes, means2d)))
        gaussians, views = setting.gaussians(inputs), setting.views()
        if library().ap3d_splats_project(_r(gaussians), _r(views), _r(setting.rule), _r(out), thread_count()):
            raise NumericalError("a value of the Gaussians is not finite")
        ctx.save_for_backward(*inputs, boxes)
        ctx.setting, ctx.places = setting, [(tensor.device, tensor.dtype) for tensor in arguments[:5]]
        ctx.mark_non_differentiable(boxes)
        return footprints, means2d, boxes

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        *inputs, boxes = ctx.saved_tensors
        setting: _Setting = ctx.setting
        footprints, means2d = (_dense(g) for g in gradients[:2])
        out = [torch.empty_like(tensor) for tensor in inputs]
        exchange = _ProjectedGradient(*map(_p, (footprints, means2d, boxes, *out)))
        gaussians, views = setting.gaussians(tuple(inputs)), setting.views()
        library().ap3d_splats_project_backward(_r(gaussians), _r(views), _r(setting.rule), _r(exchange), thread_count())
        return *(gradient.to(*place) for gradient, place in zip(out, ctx.places, strict=True)), None


class _Kept:
    """Owns what the C++ forward pass keeps for its backward pass."""

    def __init__(self, address: int) -> None:
        self.address = address
        self._release = library().ap3d_splats_release

    def __del__(self) -> None:
        self._release(Pointer(self.address))


class _Composite(torch.autograd.Function):
    """Lines and boxes to images; of a line's gradient only factors, opacity and features differ from 0."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        footprints, _, boxes = (t.detach() for t in arguments[:3])
        setting: _Setting = arguments[3]
        batch, count = footprints.shape[:2]
        color = _empty(batch, 3, setting.height, setting.width)
        alpha, depth = torch.empty_like(color[:, :1]), torch.empty_like(color[:, :1])
        kept = library().ap3d_splats_composite(
            _p(footprints), _p(boxes), _r(setting.rule), batch, count, setting.width, setting.height,
            _p(color), _p(alpha), _p(depth), thread_count(),
        )  # fmt: skip
        ctx.kept = _Kept(kept)
        ctx.save_for_backward(footprints)
        return color, alpha, depth

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        color, alpha, depth = (_dense(g) for g in gradients)
        (footprints,) = ctx.saved_tensors
        out, means2d = torch.empty_like(footprints), _empty(*footprints.shape[:2], 2)
        library().ap3d_splats_composite_backward(
            Pointer(ctx.kept.address), _p(footprints), _p(color), _p(alpha), _p(depth), _p(out), _p(means2d),
            thread_count(),
        )  # fmt: skip
        return out, means2d, None, None


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device="cpu")  # whatever torch's defaults are


def _dense(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32).contiguous()


def _p(tensor: Tensor | None) -> Pointer | None:
    return None if tensor is None else Pointer(tensor.data_ptr())


def _r(structure: ctypes.Structure) -> Any:
    return ctypes.byref(structure)
