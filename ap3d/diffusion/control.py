"""Conditions of ControlNets: as pictures, or as what each network makes of them first."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

Conditions = Tensor | Sequence[Tensor] | None


def scattered(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Values ``[M, ...]`` at the places ``index [M]`` of ``count``, zero elsewhere."""
    if len(index) == count:
        return values
    return values.new_zeros(count, *values.shape[1:]).index_copy(0, index.to(values.device), values)


def embeds(network: Any) -> bool:
    """Whether an embedded condition can be told from an image by its channels, and is used as it comes."""
    config = network.config
    return bool(
        config.controlnet_conditioning_channel_order == "rgb"
        and config.block_out_channels[0] != config.conditioning_channels
    )


def accept_embedded(network: Any) -> None:
    """Let a ControlNet take an embedded condition in place of the image."""
    if not embeds(network):
        return
    embedding, channels = network.controlnet_cond_embedding, network.config.conditioning_channels
    plain = type(embedding).forward.__get__(embedding)
    embedding.forward = lambda image: plain(image) if image.shape[1] == channels else image


def shared(conditions: Conditions, networks: int) -> list[Tensor]:
    """Conditions for each ControlNet; one alone is for all of them, which were checked to want the same."""
    given = listed(conditions)
    return given * networks if len(given) == 1 else given


def listed(conditions: Conditions) -> list[Tensor]:
    """Conditions as a list, empty where there are none."""
    if conditions is None:
        return []
    return [conditions] if isinstance(conditions, Tensor) else list(conditions)
