"""Fit a tri-grid and its decoder to a known field, in about a minute of one CPU core.

Each step takes whole slabs of the box's nodes. On a slab the look-ups of a plane are products with small interpolation
matrices, so nothing is gathered or scattered. Levels 8 to 64 cover the whole box; finer levels are fitted inside
windows (the head, the face) and are zero elsewhere, where the file's compression makes them cost nothing.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ap3d.portrait.trigrid.field import BOX, PLANE_AXES
from ap3d.portrait.trigrid.tensors import (
    CHANNELS,
    FEATURES,
    HIDDEN,
    LEVELS,
    PLANES,
    SLICES,
    STYLE,
    STYLES,
    RenderNetworks,
    TriGrid,
)  # fmt: skip
from ap3d.training.field_targets import EMPTY, FULL, FieldTargets

Report = Callable[[dict[str, float]], None]
SMALL = 8  # side of the levels that stay empty
MARGIN = 5  # nodes round what is there that slabs cover
BEYOND = (0.36, 0.46)  # metres above and below the middle where features fade out, which must be empty too
# Windows of the finer levels: low and high corners in SMPL metres.
BODY = ((-0.35, -0.35, -0.35), (0.35, 0.35, 0.35))
HEAD = ((-0.135, -0.06, -0.16), (0.135, 0.25, 0.125))
FACE = ((-0.075, 0.0, -0.35), (0.075, 0.16, 0.35))


@dataclass(frozen=True)
class FitConfig:
    """How a tri-grid is fitted."""

    steps: int = 700
    slabs: int = 6
    points_per_slab: int = 2400
    levels: tuple[int, ...] = (8, 16, 32, 64)
    head_level: int | None = 128
    face_level: int | None = 256
    grid_rate: float = 0.1
    decoder_rate: float = 0.01
    density_unit: float = 30.0  # raw density of one unit of the decoder's output while it is fitted
    colour_weight: float = 8.0
    seed: int = 0


class PlaneWindow(nn.Module):
    """A rectangle of one plane of a level; the rest of the plane is zero.

    Attributes:
        values: ``[12, 3, h, w]``, stored without the divisor of the mean over levels and planes.
    """

    def __init__(self, level: int, plane: int, box: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
        super().__init__()
        self.level, self.plane = level, plane
        bounds = []
        for axis in PLANE_AXES[plane][:2]:
            low, high = ((box[end][axis] / BOX + 0.5) * level for end in (0, 1))
            bounds.append((max(0, math.floor(low)), min(level, math.ceil(high))))
        (self.left, self.right), (self.top, self.bottom) = bounds
        self.values = nn.Parameter(torch.zeros(CHANNELS, SLICES, self.bottom - self.top, self.right - self.left))

    def slab(self, axis: int, at: Tensor, nodes: list[Tensor]) -> Tensor:
        """Features ``[12, n, m]`` where coordinate ``axis`` is ``at``, over ``nodes`` of the two other axes.

        Args:
            axis: the fixed coordinate.
            at: ``[1]`` normalised.
            nodes: normalised coordinates of each of the three axes; that of ``axis`` is not used.
        """
        places = [at if a == axis else nodes[a] for a in range(3)]
        column, row, depth = PLANE_AXES[self.plane]
        matrices = {
            column: tent_weights(places[column], self.level, self.left, self.right),
            row: tent_weights(places[row], self.level, self.top, self.bottom),
            depth: tent_weights(places[depth], SLICES, 0, SLICES),
        }
        dims = {depth: 1, row: 2, column: 3}
        values = self.values
        for a in (axis, *(other for other in (row, column, depth) if other != axis)):
            values = torch.tensordot(values, matrices[a], dims=([dims[a]], [1])).movedim(-1, dims[a])
        ordered = values.permute(0, *(dims[a] for a in range(3)))
        return ordered.squeeze(axis + 1)

    def write(self, level: Tensor, factor: float) -> None:
        """Put the values into a whole level ``[3, 36, R, R]``."""
        level[self.plane, :, self.top : self.bottom, self.left : self.right] = (
            self.values.detach().flatten(0, 1) * factor
        )


def tent_weights(places: Tensor, count: int, first: int, last: int) -> Tensor:
    """Weights ``[N, last - first]`` of linear interpolation with zero padding at normalised ``places [N]``."""
    texel = ((places + 1) * count - 1) / 2
    return (1 - (texel[:, None] - torch.arange(first, last)).abs()).clamp(min=0)


class FittedField(nn.Module):
    """Windows of all levels and the decoder, while they are fitted."""

    def __init__(self, config: FitConfig, generator: torch.Generator) -> None:
        super().__init__()
        draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
        windows = [PlaneWindow(n, plane, BODY) for n in config.levels for plane in range(PLANES)]
        for window in windows:
            window.values.data = draw(*window.values.shape) * 0.1
        if config.head_level is not None:
            windows += [PlaneWindow(config.head_level, plane, HEAD) for plane in range(PLANES)]
        if config.face_level is not None:
            windows.append(PlaneWindow(config.face_level, 0, FACE))
        self.windows = nn.ModuleList(windows)
        self.hidden = nn.Parameter(draw(HIDDEN, CHANNELS))
        self.hidden_bias = nn.Parameter(torch.zeros(HIDDEN))
        self.last = nn.Parameter(draw(4, HIDDEN) * 0.5)
        self.last_bias = nn.Parameter(torch.tensor([EMPTY / config.density_unit, 0.0, 0.0, 0.0]))
        self.density_unit = config.density_unit

    def plane_windows(self) -> list[PlaneWindow]:
        """All windows."""
        return [window for window in self.windows if isinstance(window, PlaneWindow)]

    def slab(self, axis: int, at: Tensor, nodes: list[Tensor]) -> Tensor:
        """Features ``[12, n, m]``; see :meth:`PlaneWindow.slab`."""
        total = sum(window.slab(axis, at, nodes) for window in self.plane_windows())
        assert isinstance(total, Tensor)
        return total

    def decode(self, features: Tensor) -> Tensor:
        """``[N, 12]`` to raw density and colour ``[N, 4]``."""
        hidden = torch.nn.functional.softplus(features @ self.hidden.T / math.sqrt(CHANNELS) + self.hidden_bias)
        out = hidden @ self.last.T / math.sqrt(HIDDEN) + self.last_bias
        return torch.cat([out[:, :1] * self.density_unit, out[:, 1:]], 1)

    def export(self, prompt: str, name: str) -> tuple[TriGrid, RenderNetworks]:
        """The same field in the form of Portrait3D's files."""
        sides = dict.fromkeys(LEVELS, SMALL) | {window.level: window.level for window in self.plane_windows()}
        levels = {n: torch.zeros(PLANES, CHANNELS * SLICES, side, side) for n, side in sides.items()}
        for window in self.plane_windows():
            window.write(levels[window.level], float(len(LEVELS) * PLANES))
        return TriGrid(levels, torch.zeros(STYLES, STYLE), prompt, name), self._networks()

    def _networks(self) -> RenderNetworks:
        unit = torch.tensor([self.density_unit, 1.0, 1.0, 1.0])
        last, bias = torch.zeros(1 + FEATURES, HIDDEN), torch.zeros(1 + FEATURES)
        last[:4], bias[:4] = self.last.detach() * unit[:, None], self.last_bias.detach() * unit
        colour = torch.zeros(3, FEATURES, 1, 1)
        colour[[0, 1, 2], [0, 1, 2]] = 1
        return RenderNetworks(
            {
                "decoder.net.0.weight": self.hidden.detach().clone(),
                "decoder.net.0.bias": self.hidden_bias.detach().clone(),
                "decoder.net.2.weight": last, "decoder.net.2.bias": bias,
                "torgb.weight": colour, "torgb.bias": torch.zeros(3),
                "torgb.affine.weight": torch.zeros(FEATURES, STYLE),
                "torgb.affine.bias": torch.full((FEATURES,), math.sqrt(HIDDEN)),
            }
        )  # fmt: skip


def fit_field(targets: FieldTargets, config: FitConfig, report: Report | None = None) -> FittedField:
    """Fit by Adam with a cosine schedule; seeded by ``config.seed``."""
    generator = torch.Generator().manual_seed(config.seed)
    field = FittedField(config, generator)
    decoder = [field.hidden, field.hidden_bias, field.last, field.last_bias]
    optimizer = torch.optim.Adam(
        [
            {"params": list(field.windows.parameters()), "lr": config.grid_rate},
            {"params": decoder, "lr": config.decoder_rate},
        ],
        betas=(0.9, 0.98),
    )
    falling = lambda i: 0.02 + 0.49 * (1 + math.cos(math.pi * i / config.steps))  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, falling)
    sampler = SlabSampler(targets, config, generator)
    for step in range(config.steps):
        parts = [sampler.losses(field, (step + i) % 3) for i in range(config.slabs)]
        density, colour = (torch.stack(p).mean() for p in zip(*parts, strict=True))
        optimizer.zero_grad(set_to_none=True)
        (density + config.colour_weight * colour + sampler.beyond(field)).backward()
        optimizer.step()
        schedule.step()
        if report is not None and (step % 25 == 0 or step == config.steps - 1):
            report({"step": float(step), "density": density.item(), "colour": colour.item()})
    return field


class SlabSampler:
    """Draws slabs of nodes and compares a field with the targets on them."""

    def __init__(self, targets: FieldTargets, config: FitConfig, generator: torch.Generator) -> None:
        self.targets, self.config, self.generator = targets, config, generator
        size = len(targets.raw)
        self.nodes = torch.linspace(-1, 1, size)
        self.inner = []
        for axis in range(3):
            filled = targets.near.any(dim=tuple(a for a in range(3) if a != axis)).nonzero()[:, 0]
            self.inner.append((max(0, int(filled[0]) - MARGIN), min(size, int(filled[-1]) + MARGIN + 1)))

    def losses(self, field: FittedField, axis: int) -> tuple[Tensor, Tensor]:
        """Density and colour loss of one slab: close round the person, or now and then coarsely over the box."""
        wide = self._draw(0, 8) == 0
        ranges = [slice(self._draw(0, 4), None, 4) if wide else slice(*bounds) for bounds in self.inner]
        low, high = (0, len(self.nodes)) if wide else self.inner[axis]
        at = self._draw(low, high)
        features = field.slab(axis, self.nodes[at : at + 1], [self.nodes[r] for r in ranges])
        cut: list[slice | int] = list(ranges)
        cut[axis] = at
        raw, near, slot = (x[tuple(cut)].flatten() for x in (self.targets.raw, self.targets.near, self.targets.slot))
        pick = self._pick(near)
        out = field.decode(features.flatten(1)[:, pick].T)
        raw, near, slot = raw[pick], near[pick], slot[pick].long()
        # Beyond the band it is enough to be as empty or as full as that.
        beyond = torch.where(raw < 0, out[:, 0].clamp(max=EMPTY), out[:, 0].clamp(min=FULL))
        aim = torch.where(near, raw, beyond)
        density = torch.nn.functional.smooth_l1_loss(out[:, 0] / 50, aim.detach() / 50, beta=0.2)
        coloured = slot >= 0
        difference = out[coloured, 1:] - self.targets.colours[slot[coloured]]
        return density, difference.square().sum() / max(1, 3 * len(slot))

    def beyond(self, field: FittedField) -> Tensor:
        """Loss of what is not empty above and below the box, where features fade to zero."""
        side = 1 if self._draw(0, 2) else -1
        span = float(torch.rand(1, generator=self.generator))
        height = side * (BEYOND[0] + span * (BEYOND[1] - BEYOND[0])) * 2 / BOX
        coarse = self.nodes[self._draw(0, 8) :: 8]
        out = field.decode(field.slab(1, torch.tensor([height]), [coarse] * 3).flatten(1).T)
        return (out[:, 0] - EMPTY).clamp(min=0).mean() / 10

    def _pick(self, near: Tensor) -> Tensor:
        """Nodes of the band, and as many others."""
        limit = self.config.points_per_slab // 2
        band, rest = near.nonzero()[:, 0], (~near).nonzero()[:, 0]
        choose = lambda x: x[torch.randperm(len(x), generator=self.generator)[:limit]]  # noqa: E731
        return torch.cat([choose(band), choose(rest)])

    def _draw(self, low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=self.generator))
