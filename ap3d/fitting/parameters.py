"""The numbers that a fit moves: which of a rig's parameters, bounds, priors, and derivatives by differences."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ap3d.rig.protocol import Rig, RigParams

SHAPE_SIGMA = 1.0  # every rig's shape coefficients are scaled to a standard normal
EXPRESSION_SIGMA = {"arkit52": 0.35, "flame2020": 1.0, "flame2023": 1.0}
ANGLE_SIGMA = {"neck": 0.35, "head": 0.25, "jaw": 0.2, "eyes": 0.15}  # radians
LID_SIGMA = 0.35
EXPRESSION_LIMIT = {"arkit52": (0.0, 1.0), "flame2020": (-3.0, 3.0), "flame2023": (-3.0, 3.0)}
LARGEST_ANGLE = 1.2  # radians
STEP = 0.02  # of the differences; the rigs are nearly linear over it
CHUNK = 32  # perturbed heads that are posed at once
# Of an ARKit rig: what eyelids, gaze and the others' pairs already stand for, and what no still face shows.
FIXED_ACTIONS = ("eyeBlink", "eyeLook", "tongueOut", "mouthClose", "cheekPuff")


@dataclass(frozen=True)
class FreeParameters:
    """A flat vector of the free parameters, batch of one.

    Attributes:
        names: fields of :class:`RigParams` that are free, in order.
        columns: their columns, by field.
        low, high: ``[P]`` bounds.
        precision: ``[P]`` one over the prior's variance (0: no prior).
    """

    names: tuple[str, ...]
    columns: dict[str, Tensor]
    low: Tensor
    high: Tensor
    precision: Tensor

    @staticmethod
    def of(rig: Rig, names: tuple[str, ...]) -> "FreeParameters":
        """The free columns of some fields, with the rig's bounds and priors."""
        columns, low, high, precision = {}, [], [], []
        neutral = RigParams.neutral(rig)
        for name in names:
            free = _free_columns(rig, name, getattr(neutral, name).shape[1])
            bounds, sigma = _prior(rig, name)
            columns[name] = free
            low.append(torch.full((len(free),), bounds[0]))
            high.append(torch.full((len(free),), bounds[1]))
            precision.append(torch.full((len(free),), 0.0 if sigma is None else sigma**-2))
        return FreeParameters(names, columns, torch.cat(low), torch.cat(high), torch.cat(precision))

    def pack(self, params: RigParams) -> Tensor:
        """The free numbers ``[P]``."""
        return torch.cat([getattr(params, n)[0, self.columns[n]] for n in self.names])

    def unpack(self, values: Tensor, params: RigParams) -> RigParams:
        """Rows ``[B, P]`` of free numbers as a batch; the rest is that of ``params`` (a batch of one)."""
        batch = params.expand(len(values)).map(torch.clone)
        position = 0
        for name in self.names:
            count = len(self.columns[name])
            getattr(batch, name)[:, self.columns[name]] = values[:, position : position + count]
            position += count
        return batch

    def jacobian(self, rig: Rig, params: RigParams) -> tuple[Tensor, Tensor]:
        """Posed vertices ``[V, 3]`` and their derivatives ``[P, V, 3]`` by forward differences.

        Differences ask nothing of a rig but its vertices, and a batch of heads costs little more than one.
        """
        start = self.pack(params)
        base = rig.vertices(params)[0]
        # Away from the upper bound, where a clamp would hide the change.
        steps = torch.where(start + STEP > self.high, -STEP, STEP)
        rows = start + torch.diag(steps)
        moved = torch.cat([rig.vertices(self.unpack(r, params)) for r in rows.split(CHUNK)])
        return base, (moved - base) / steps[:, None, None]


def _free_columns(rig: Rig, name: str, count: int) -> Tensor:
    if name == "expression" and rig.expression_basis == "arkit52":
        return torch.tensor([i for i, n in enumerate(rig.expression_names) if not n.startswith(FIXED_ACTIONS)])
    if name == "jaw":
        return torch.arange(0 if rig.expression_basis == "arkit52" else count)  # there an expression opens the jaw
    if name == "eyes":
        return torch.tensor([0, 1, 3, 4])  # no torsion
    return torch.arange(count)


def _prior(rig: Rig, name: str) -> tuple[tuple[float, float], float | None]:
    """Bounds, and the prior's standard deviation."""
    if name == "shape":
        return (-4.0, 4.0), SHAPE_SIGMA
    if name == "expression":
        return EXPRESSION_LIMIT[rig.expression_basis], EXPRESSION_SIGMA[rig.expression_basis]
    if name == "eyelids":
        return (0.0, 1.0), LID_SIGMA
    if name in ANGLE_SIGMA:
        return (-LARGEST_ANGLE, LARGEST_ANGLE), ANGLE_SIGMA[name]
    return (-torch.inf, torch.inf), None
