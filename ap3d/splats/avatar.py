"""The Gaussian avatar: parameters relative to the triangles that they are bound to."""

from dataclasses import dataclass, field, fields, replace
from enum import IntEnum

import torch
from torch import Tensor

from ap3d.raster.splats import Splats
from ap3d.splats.frames import TriangleFrames
from ap3d.splats.posing import MAXIMUM_TRIANGLES, Binding, pose_gaussians

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
        binding: ``[N]`` int64 triangle index, the strongest one; offsets, rotations and scales are in its frame.
        group: ``[N]`` int64 values of :class:`Group`.
        initial_xyz: ``[N, 3]`` offsets at the start, for the position regulariser.
        initial_scaling: ``[N, 3]`` log scales at the start, for the scale regulariser.
        extra_binding: ``[N, E]`` int64 further triangles, E from 0 to 3.
        extra_weights: ``[N, E]`` their weights; the rest of 1 belongs to ``binding``.
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
    extra_binding: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.int64))
    extra_weights: Tensor = field(default_factory=lambda: torch.zeros(0, 0))

    def __post_init__(self) -> None:
        if not self.extra_weights.numel():
            object.__setattr__(self, "extra_binding", self.binding.new_zeros(len(self.xyz), 0))
            object.__setattr__(self, "extra_weights", self.xyz.detach().new_zeros(len(self.xyz), 0))

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

    def bound_to(self, triangles: Tensor, weights: Tensor) -> "GaussianAvatar":
        """The same Gaussians with further triangles; offsets stay in the frame of ``binding``.

        Args:
            triangles: ``[N, K]``, K at most 4.
            weights: ``[N, K]``, not negative, with a sum of 1; what is missing of 1 goes to ``binding``.
        """
        others = torch.where(triangles == self.binding[:, None], torch.zeros_like(weights), weights)
        order = others.argsort(dim=1, descending=True, stable=True)[:, : MAXIMUM_TRIANGLES - 1]
        chosen = others.gather(1, order)
        used = max(int((chosen > 0).sum(1).max()), 0) if len(self) else 0
        return replace(
            self, extra_binding=triangles.gather(1, order)[:, :used].long(), extra_weights=chosen[:, :used].float()
        )

    def single(self) -> "GaussianAvatar":
        """The same Gaussians, each carried by its strongest triangle alone."""
        return replace(self, extra_binding=self.extra_binding[:, :0], extra_weights=self.extra_weights[:, :0])

    def _with_extra(self, count: int) -> "GaussianAvatar":
        missing = count - self.extra_binding.shape[1]
        if not missing:
            return self
        ids = torch.cat([self.extra_binding, self.binding[:, None].expand(-1, missing)], 1)
        weights = torch.cat([self.extra_weights, self.xyz.detach().new_zeros(len(self), missing)], 1)
        return replace(self, extra_binding=ids, extra_weights=weights)

    @staticmethod
    def concatenate(parts: list["GaussianAvatar"]) -> "GaussianAvatar":
        """Join avatars bound to the same mesh."""
        extra = max(p.extra_binding.shape[1] for p in parts)
        tensors = [p._with_extra(extra).tensors() for p in parts]
        return GaussianAvatar(**{name: torch.cat([t[name] for t in tensors]) for name in tensors[0]})

    def pose(
        self, frames: TriangleFrames, neutral: TriangleFrames | None = None, *, historic_rotation: bool = False
    ) -> Splats:
        """World-space Gaussians on a posed mesh.

        Args:
            frames: of the posed mesh.
            neutral: of the bundle's neutral mesh; needed above spherical harmonics of degree 0, and where Gaussians
                are bound to several triangles.
            historic_rotation: compose as AnimPortrait3D's released files expect (local before triangle).
        """
        means, quaternions, scales, turns = pose_gaussians(
            self.xyz, self.rotation, self.scaling.exp(), Binding(self.binding, self.extra_binding, self.extra_weights),
            frames, neutral, historic_rotation,
        )  # fmt: skip
        return Splats(
            means=means,
            quaternions=quaternions,
            scales=scales,
            opacities=torch.sigmoid(self.opacity[:, 0]),
            sh=self._harmonics(),
            view_rotations=turns if self.f_rest.shape[1] else None,
        )

    def _harmonics(self) -> Tensor:
        """All harmonics ``[N, K, 3]``; joined once while nothing changes them, for this costs as much as posing."""
        if not self.f_rest.shape[1]:
            return self.f_dc[:, None]
        if self.f_dc.requires_grad or self.f_rest.requires_grad:
            return torch.cat([self.f_dc[:, None], self.f_rest], 1)
        version = (self.f_dc._version, self.f_rest._version)
        if self.__dict__.get("_joined", (None,))[0] != version:
            object.__setattr__(self, "_joined", (version, torch.cat([self.f_dc[:, None], self.f_rest], 1)))
        joined: Tensor = self.__dict__["_joined"][1]
        return joined

    def colors(self) -> Tensor:
        """Colours ``[N, 3]`` without view dependence."""
        return 0.5 + SH_C0 * self.f_dc


def group_counts(avatar: GaussianAvatar) -> dict[str, int]:
    """How many Gaussians each group has, by its name in small letters."""
    return {g.name.lower(): int((avatar.group == g).sum()) for g in Group}


def position_penalty(avatar: GaussianAvatar, threshold: float, seen: Tensor | None = None) -> Tensor:
    """Mean distance by which local offsets have grown beyond their start plus a threshold, triangle units.

    Args:
        avatar: ``N`` Gaussians.
        threshold: of the growth.
        seen: mask ``[N]`` of the Gaussians that the mean is taken over; all where None.
    """
    growth = torch.relu(avatar.xyz.norm(dim=1) - avatar.initial_xyz.norm(dim=1) - threshold)
    return growth.mean() if seen is None else (growth * seen).sum() / seen.sum().clamp(min=1)


def scale_penalty(avatar: GaussianAvatar, factor: float) -> Tensor:
    """Mean of how far (log) scales exceed ``factor`` times their start; a mean, so counts do not matter."""
    excess = avatar.scaling - avatar.initial_scaling - torch.log(torch.tensor(factor))
    return torch.relu(excess).square().sum(1).mean()


def size_penalty(avatar: GaussianAvatar, threshold: float, seen: Tensor) -> Tensor:
    """Sum over the Gaussians of a mask ``[N]`` of how far their scales exceed a threshold, triangle units.

    The excess of a Gaussian is the norm over its axes, as in AnimPortrait3D (arXiv 2504.15835).
    """
    excess = torch.relu(avatar.scaling.exp() - threshold)
    large = excess.amax(1) > 0  # a norm has no gradient at 0
    return excess[seen & large].norm(dim=1).sum()
