"""3D Gaussian splats to images: the types, and one function in front of every backend.

Method: Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering" (2023), sections 4 and 6.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ap3d.cameras import Cameras
from ap3d.errors import InputError, NumericalError
from ap3d.raster.backends import splat_backend, splat_backend_name

LARGEST_LENGTH = 1e9  # world units or pixels: far beyond any scene, and products of two still fit float32


@dataclass(frozen=True)
class Splats:
    """A cloud of Gaussians in world units.

    Attributes:
        means: ``[N, 3]`` centres.
        quaternions: ``[N, 4]`` w, x, y, z; of any length.
        scales: ``[N, 3]`` standard deviations along the principal axes.
        opacities: ``[N]`` in 0..1.
        sh: ``[N, K, 3]`` spherical harmonics, K = (degree + 1)^2; a colour is max(0, harmonics + 0.5).
        view_rotations: ``[N, 3, 3]`` rotation of each Gaussian's triangle since the neutral pose; the viewing
            direction is turned by its transpose before the harmonics are evaluated. None: no turn.
    """

    means: Tensor
    quaternions: Tensor
    scales: Tensor
    opacities: Tensor
    sh: Tensor
    view_rotations: Tensor | None = None

    def __post_init__(self) -> None:
        if self.sh.ndim != 3 or self.sh.shape[1] not in (1, 4, 9, 16):
            raise ValueError(f"sh must be [N, 1, 4, 9 or 16, 3], got {tuple(self.sh.shape)}")
        n = len(self.means)
        wanted = {
            "means": (n, 3), "quaternions": (n, 4), "scales": (n, 3), "opacities": (n,),
            "sh": (n, self.sh.shape[1], 3), "view_rotations": (n, 3, 3),
        }  # fmt: skip
        for name, tensor in self.tensors().items():
            if tuple(tensor.shape) != wanted[name]:
                raise ValueError(f"{name} must be {list(wanted[name])}, got {list(tensor.shape)}")

    def __len__(self) -> int:
        return len(self.means)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are there, by name."""
        named = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    @property
    def sh_degree(self) -> int:
        """Highest degree of harmonics held."""
        return {1: 0, 4: 1, 9: 2, 16: 3}[self.sh.shape[1]]


@dataclass(frozen=True)
class SplatRule:
    """Thresholds in which implementations differ; pictures can be compared only under the same rule.

    Attributes:
        alpha_clamp: largest alpha of one Gaussian at one pixel.
        extent: half side, in standard deviations, of the box whose 16 x 16 tiles a Gaussian is drawn in.
        opacity_aware: shrink the extent to where alpha reaches ``cut`` and use a box along the axes; else a square
            of the largest axis, as diff-gaussian-rasterization does.
        blur: variance in square pixels added to every footprint.
        cut: smaller alphas are skipped.
        stop: a Gaussian that would leave less transmittance than this ends its pixel and is not drawn.
        near: Gaussians whose centre is nearer to the image plane, in world units, are skipped.
    """

    alpha_clamp: float
    extent: float
    opacity_aware: bool
    blur: float = 0.3
    cut: float = 1 / 255
    stop: float = 1e-4
    near: float = 0.01


GSPLAT = SplatRule(alpha_clamp=0.999, extent=3.33, opacity_aware=True)
INRIA = SplatRule(alpha_clamp=0.99, extent=3.0, opacity_aware=False, near=0.2)


@dataclass(frozen=True)
class SplatImages:
    """What a batch of cameras sees.

    Attributes:
        color: ``[B, 3, H, W]`` premultiplied over nothing.
        alpha: ``[B, 1, H, W]``.
        depth: ``[B, 1, H, W]`` sum of weight times camera z, in world units; divide by alpha for the mean.
        radii: ``[B, N]`` half sides of the footprints in pixels, 0 where a Gaussian is not seen.
        means2d: ``[B, N, 2]`` projected centres in pixels. After a backward pass its ``grad`` holds the screen
            gradients (loss per pixel) that density control needs.
    """

    color: Tensor
    alpha: Tensor
    depth: Tensor
    radii: Tensor
    means2d: Tensor

    def over(self, background: Tensor) -> Tensor:
        """Compose ``[B, 3, H, W]`` on a background ``[3]``, ``[3, H, W]`` or ``[B, 3, H, W]``."""
        background = background.to(self.color)
        if background.ndim == 1:
            background = background[:, None, None]
        return self.color + (1 - self.alpha) * background


def rasterize_splats(
    splats: Splats,
    cameras: Cameras,
    *,
    sh_degree: int | None = None,
    rule: SplatRule | None = None,
    backend: str | None = None,
) -> SplatImages:
    """Render Gaussians from every camera.

    Differentiable in means, quaternions, scales, opacities and sh, through colour, alpha, depth and means2d. The
    order of Gaussians and the set of tiles they touch are constants of a call.

    Args:
        splats: the Gaussians.
        cameras: the views; not differentiable.
        sh_degree: evaluate only this many degrees; all that are held by default.
        rule: thresholds. By default the backend's own: INRIA of diff_gaussian_rasterization, else GSPLAT. A GPU
            backend has no other.
        backend: "cpu", "reference", "gsplat" or "diff_gaussian_rasterization"; by default the one for the
            tensors' device.

    Raises:
        ValueError: a shape or degree is wrong.
        InputError: a focal length is not positive; the backend does not exist, or not for this device or rule.
        NumericalError: a value is not finite, or so large that the picture's would not be.
        MissingDependencyError: the backend is not installed.
    """
    degree = splats.sh_degree if sh_degree is None else sh_degree
    if not 0 <= degree <= splats.sh_degree:
        raise ValueError(f"sh_degree {degree} is outside 0..{splats.sh_degree}, the degrees held")
    geometry = {"means": splats.means, "scales": splats.scales}
    geometry |= {"cam2world": cameras.cam2world, "intrinsics": cameras.intrinsics}
    for name, tensor in geometry.items():
        require_bounded(name, tensor)
    if not bool((cameras.intrinsics[:, :2] > 0).all()):
        raise InputError("intrinsics: focal lengths must be above 0 pixels")
    name = splat_backend_name(backend, splats.means.device)
    own = INRIA if name == "diff_gaussian_rasterization" else GSPLAT
    render = splat_backend(name)
    try:
        if name != "cpu":
            require_all_finite(splats)
        images: SplatImages = render(splats, cameras, degree, rule or own)
    except NumericalError:  # the CPU kernel checks values on its way through them, but does not name the tensor
        require_all_finite(splats)
        raise
    for part in ("color", "depth"):
        require_finite(f"the rendered {part} (from Gaussians too bright or too far away)", getattr(images, part))
    return images


def require_all_finite(splats: Splats) -> None:
    """Raise ``NumericalError`` that names the first tensor with a value that is not finite."""
    for name, tensor in splats.tensors().items():
        require_finite(name, tensor)


def require_finite(name: str, tensor: Tensor) -> None:
    """Raise ``NumericalError`` unless every value is finite; a finite sum already proves it."""
    values = tensor.detach()
    if not bool(values.sum().isfinite()) and not bool(torch.isfinite(values).all()):
        raise NumericalError(f"{name} holds values that are not finite")


def require_bounded(name: str, tensor: Tensor) -> None:
    """Raise ``NumericalError`` unless every length is finite and one that the kernels' arithmetic can hold."""
    if not bool((tensor.detach().abs() <= LARGEST_LENGTH).all()):
        raise NumericalError(f"{name} holds values beyond {LARGEST_LENGTH:g}, or not finite")
