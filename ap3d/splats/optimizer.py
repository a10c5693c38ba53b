"""Adam over a Gaussian avatar, with the state surgery that density control needs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ap3d.guidance_config import OptimizerConfig
from ap3d.splats.avatar import PARAMETER_NAMES, GaussianAvatar

RATES = OptimizerConfig()
GEOMETRY = ("xyz", "rotation", "scaling", "opacity")


class AvatarOptimizer:
    """One Adam group a parameter; Gaussians can be added and removed while moments stay with their owners.

    Args:
        avatar: start values; :attr:`avatar` holds the trainable copy.
        factor: multiplies every learning rate.
        config: learning rates.
    """

    def __init__(self, avatar: GaussianAvatar, factor: float = 1.0, config: OptimizerConfig = RATES) -> None:
        self.avatar, self.config = avatar.trainable(), config
        groups = [
            {"params": [getattr(self.avatar, name)], "lr": getattr(config, name) * factor, "name": name}
            for name in PARAMETER_NAMES
        ]
        self._adam = torch.optim.Adam(groups, eps=1e-15, betas=(0.9, config.beta2))
        self._choose: Callable[[GaussianAvatar], Tensor] | None = None
        self.pinned: Tensor | None = None

    def pin(self, choose: Callable[[GaussianAvatar], Tensor] | None) -> None:
        """From now on only the colours change of the Gaussians that ``choose`` gives as a mask ``[N]``; None: none."""
        self._choose = choose
        self.pinned = choose(self.avatar) if choose else None

    def step(self, frozen: Tensor | None = None) -> None:
        """Apply and clear the gradients; Gaussians of the boolean mask ``frozen [N]`` stay as they are."""
        if frozen is not None:
            self._freeze(frozen, PARAMETER_NAMES)
        if self.pinned is not None:
            self._freeze(self.pinned, GEOMETRY)
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)

    def forget_gradients(self) -> None:
        """Clear the gradients without a step."""
        self._adam.zero_grad(set_to_none=True)

    def set_factor(self, factor: float) -> None:
        """Change the multiplier of all learning rates."""
        for group in self._adam.param_groups:
            group["lr"] = getattr(self.config, group["name"]) * factor

    def rebuild(self, source: Tensor, is_new: Tensor, changes: Mapping[str, Tensor] | None = None) -> None:
        """Replace the Gaussians by copies of old ones.

        Args:
            source: ``[M]`` index of the old Gaussian that each one comes from.
            is_new: ``[M]`` whether it starts with empty moments.
            changes: tensors ``[M, ...]`` that replace the copied values, by name.
        """
        tensors = {n: t[source] for n, t in self.avatar.tensors().items()} | dict(changes or {})
        moments = [self._moments(group, source, is_new) for group in self._adam.param_groups]
        self.avatar = GaussianAvatar(**tensors).trainable()
        self._adam.state.clear()
        for group, state in zip(self._adam.param_groups, moments, strict=True):
            parameter = getattr(self.avatar, group["name"])
            group["params"] = [parameter]
            if state:
                self._adam.state[parameter] = state
        self.pin(self._choose)

    def state(self) -> dict[str, Tensor]:
        """Avatar and moments as flat tensors, for a checkpoint."""
        out = {f"avatar.{n}": t for n, t in self.avatar.tensors().items()}
        for group in self._adam.param_groups:
            for key, value in self._adam.state.get(group["params"][0], {}).items():
                out[f"adam.{group['name']}.{key}"] = torch.as_tensor(value).detach().clone()
        return out

    @staticmethod
    def from_state(
        state: Mapping[str, Tensor], factor: float = 1.0, device: str | torch.device = "cpu",
        config: OptimizerConfig = RATES,
    ) -> "AvatarOptimizer":  # fmt: skip
        """Continue from what :meth:`state` returned."""
        # Adam keeps its step counters on the CPU.
        state = {n: t if n.endswith(".step") else t.to(device) for n, t in state.items()}
        avatar = GaussianAvatar(**{n[7:]: t for n, t in state.items() if n.startswith("avatar.")})
        optimizer = AvatarOptimizer(avatar, factor, config)
        for name in PARAMETER_NAMES:
            prefix = f"adam.{name}."
            moments = {n[len(prefix) :]: t.clone() for n, t in state.items() if n.startswith(prefix)}
            if moments:
                optimizer._adam.state[getattr(optimizer.avatar, name)] = moments
        return optimizer

    def detached(self) -> GaussianAvatar:
        """The current avatar without gradients."""
        return replace(self.avatar, **{n: p.detach() for n, p in self.avatar.parameters().items()})

    def _freeze(self, frozen: Tensor, names: Sequence[str]) -> None:
        for parameter in (getattr(self.avatar, name) for name in names):
            if parameter.grad is not None:
                parameter.grad[frozen] = 0
            # Zero gradients alone would let old momentum carry a frozen Gaussian on.
            for key in ("exp_avg",):
                moment = self._adam.state.get(parameter, {}).get(key)
                if moment is not None:
                    moment[frozen] = 0

    def _moments(self, group: dict, source: Tensor, is_new: Tensor) -> dict[str, Tensor]:
        state = self._adam.state.get(group["params"][0], {})
        out = {"step": state["step"]} if state else {}
        for key in ("exp_avg", "exp_avg_sq"):
            if key in state:
                moment = state[key][source].clone()
                moment[is_new] = 0
                out[key] = moment
        return out
