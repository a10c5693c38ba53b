"""The Gaussian avatar: parameters relative to the triangles that they are bound to."""

from dataclasses import dataclass, fields, replace
from enum import IntEnum

import torch
from torch import Tensor

from ap3d.raster.splats import Splats
from ap3d.splats.frames import TriangleFrames, quaternion_product, quaternions_from_matrices

SH_C0 = 0.28209479177387814
PARAMETER_NAMES = ("xyz", "rotation", "scaling", "opacity", "f_dc", "f_rest")


class Group(IntEnum):
    """What a Gaussian belongs to."""

    SKIN = 0
    HAIR = 1
    CLOTHES = 2
    TEETH = 3  # teeth, tongue and the lining of the mouth
    EYES = 4


@dataclass(frozen=True)
class GaussianAvatar:
    """``N`` Gaussians in the frames of their triangles.

    Attributes:
        xyz: ``[N, 3]`` offsets in triangle units.
        rotation: ``[N, 4]`` local quaternions w, x, y, z, not normalised.
        scaling: ``[N, 3]`` logarithms of sigma in triangle units.
        opacity: ``[N, 1]`` logits.
        f_dc: ``[N, 3]`` constant spherical harmonic; colour = 0.5 + 0.282 f_dc.
        f_rest: ``[N, K - 1, 3]`` higher spherical harmonics in world axes at the neutral pose.
        binding: ``[N]`` int64 triangle index.
        group: ``[N]`` int64 values of :class:`Group`.
        initial_xyz: ``[N, 3]`` offsets at the start, for the position regulariser.
        initial_scaling: ``[N, 3]`` log scales at the start, for the scale regulariser.
    """

    xyz: Tensor
    rotation: Tensor
    scaling: Tensor
    opacity: Tensor
    f_dc: Tensor
    f_rest: Tensor
    binding: Tensor
    group: Tensor
    initial_xyz: Tensor
    initial_scaling: Tensor

    def __len__(self) -> int:
        return len(self.xyz)

    @property
    def sh_degree(self) -> int:
        """Degree of the stored spherical harmonics."""
        return round((self.f_rest.shape[1] + 1) ** 0.5) - 1

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, detached and contiguous."""
        return {f.name: getattr(self, f.name).detach().contiguous() for f in fields(self)}

    def to(self, device: str | torch.device) -> "GaussianAvatar":
        """A detached copy on another device."""
        return GaussianAvatar(**{name: value.to(device) for name, value in self.tensors().items()})

    def select(self, index: Tensor) -> "GaussianAvatar":
        """The Gaussians of a boolean mask or an index, detached."""
        return GaussianAvatar(**{name: value[index] for name, value in self.tensors().items()})

    def parameters(self) -> dict[str, Tensor]:
        """The optimised tensors by name."""
        return {name: getattr(self, name) for name in PARAMETER_NAMES}

    def trainable(self) -> "GaussianAvatar":
        """A copy whose parameters are leaves that ask for gradients."""
        return replace(self, **{n: p.detach().clone().requires_grad_() for n, p in self.parameters().items()})

    def with_sh_degree(self, degree: int) -> "GaussianAvatar":
        """A copy with harmonics of another degree; new ones are zero, surplus ones are dropped."""
        count = (degree + 1) ** 2 - 1
        kept = self.f_rest.detach()[:, :count]
        missing = kept.new_zeros(len(self), count - kept.shape[1], 3)
        return replace(self, f_rest=torch.cat([kept, missing], 1))

    @staticmethod
    def concatenate(parts: list["GaussianAvatar"]) -> "GaussianAvatar":
        """Join avatars bound to the same mesh."""
        tensors = [p.tensors() for p in parts]
        return GaussianAvatar(**{name: torch.cat([t[name] for t in tensors]) for name in tensors[0]})

    def pose(
        self, frames: TriangleFrames, neutral: TriangleFrames | None = None, *, historic_rotation: bool = False
    ) -> Splats:
        """World-space Gaussians on a posed mesh.

        Args:
            frames: of the posed mesh.
            neutral: of the bundle's neutral mesh; needed above spherical harmonics of degree 0.
            historic_rotation: compose as AnimPortrait3D's released files expect (local before triangle).
        """
        rotation, scale = frames.rotation[self.binding], frames.scale[self.binding]
        means = scale[:, None] * (rotation @ self.xyz[..., None])[..., 0] + frames.origin[self.binding]
        triangle = quaternions_from_matrices(frames.rotation)[self.binding]
        local = torch.nn.functional.normalize(self.rotation, dim=1)
        quaternions = quaternion_product(local, triangle) if historic_rotation else quaternion_product(triangle, local)
        turned = None
        if self.f_rest.shape[1] and neutral is not None:
            turned = rotation @ neutral.rotation[self.binding].transpose(1, 2)
        return Splats(
            means=means,
            quaternions=quaternions,
            scales=scale[:, None] * self.scaling.exp(),
            opacities=torch.sigmoid(self.opacity[:, 0]),
            sh=torch.cat([self.f_dc[:, None], self.f_rest], 1),
            view_rotations=turned,
        )

    def colors(self) -> Tensor:
        """Colours ``[N, 3]`` without view dependence."""
        return 0.5 + SH_C0 * self.f_dc


def position_penalty(avatar: GaussianAvatar, threshold: float) -> Tensor:
    """Mean distance by which local offsets have grown beyond their start plus a threshold, triangle units."""
    growth = avatar.xyz.norm(dim=1) - avatar.initial_xyz.norm(dim=1) - threshold
    return torch.relu(growth).mean()


def scale_penalty(avatar: GaussianAvatar, factor: float) -> Tensor:
    """Mean of how far (log) scales exceed ``factor`` times their start; a mean, so counts do not matter."""
    excess = avatar.scaling - avatar.initial_scaling - torch.log(torch.tensor(factor))
    return torch.relu(excess).square().sum(1).mean()
