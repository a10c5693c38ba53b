"""Age, gender and build from the geometry alone: how likely each group's heads have these landmarks.

No picture and no network: the 68 landmarks of the fitted shape, head-centred, against the normal distributions of
the built-in rig's groups, with the noise that an eye (or a detector) has on a grey render added to them. Priors are
uniform. Only the built-in rig has such groups.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ap3d.metrics.protocol import Measured, Summary, Values, confusion, mean_figure
from ap3d.metrics.subject import Subject
from ap3d.rig.builtin import BuiltinRig
from ap3d.training.attributes import AGES, BUILDS, GENDERS

NOISE = 0.0015  # metres, of each coordinate of a landmark: about a pixel of a 192-pixel render of the head
SPREAD = 0.8  # of a group's people, as BuiltinRig.sample_shape draws them
GROUPS: dict[str, tuple[str, ...]] = {"gender": GENDERS, "age": AGES, "build": BUILDS}


class GeometryMetric:
    """Values by attribute: ``.asked`` and ``.read`` (positions), ``.right``."""

    name, version, needs = "geometry", 1, ()

    def evaluate(self, subject: Subject) -> Values:
        """See the class; nothing for other rigs."""
        rig = subject.bundle.rig
        if not isinstance(rig, BuiltinRig):
            return {}
        read = read_groups(rig, subject.bundle.params.shape[0])
        values: dict[str, float] = {}
        for name, labels in GROUPS.items():
            values[f"{name}.read"] = float(read[name])
            if subject.asked.get(name) in labels:
                values[f"{name}.asked"] = float(labels.index(str(subject.asked[name])))
                values[f"{name}.right"] = float(values[f"{name}.asked"] == values[f"{name}.read"])
        return values

    def summarise(self, measured: Sequence[Measured]) -> Summary:
        """Accuracy and confusion of all three."""
        summary = Summary()
        for name, labels in GROUPS.items():
            figure = mean_figure(name, measured, f"{name}.right", 0.7, chance=1 / len(labels))
            summary.figures.extend(figure)
            if figure:
                summary.confusions.append(confusion(name, labels, measured, f"{name}.asked", f"{name}.read"))
        return summary


def read_groups(rig: BuiltinRig, shape: Tensor, noise: Tensor | None = None) -> dict[str, int]:
    """The likeliest gender, age and build (positions) of shape coefficients ``[n_shape]``.

    Args:
        rig: its groups are compared with.
        shape: coefficients.
        noise: metres ``[204]``, added to the landmarks.
    """
    reader = _reader(rig)
    seen = reader["basis"].T @ shape + (0 if noise is None else noise)
    offset = (seen - reader["means"])[..., None]
    whitened = torch.linalg.solve_triangular(reader["factors"], offset, upper=False)[..., 0]
    likelihood = (-0.5 * whitened.square().sum(1) - reader["log_volume"]).softmax(0)
    grid = likelihood.reshape(len(GENDERS), len(AGES), len(BUILDS))
    others = {"gender": (1, 2), "age": (0, 2), "build": (0, 1)}
    return {name: int(grid.sum(dims).argmax()) for name, dims in others.items()}


@lru_cache(maxsize=2)
def _reader(rig: Any) -> dict[str, Tensor]:
    """Means ``[24, 204]`` and Cholesky factors of the landmarks of each group, without the mean of all landmarks."""
    landmarks = rig.landmarks_of(rig.linear_basis()[0])[:, :68]
    basis = (landmarks - landmarks.mean(1, keepdim=True)).flatten(1)
    means = rig.prior_mean.flatten(0, 2).float() @ basis
    spread = SPREAD * rig.prior_factor.flatten(0, 2).float().transpose(1, 2) @ basis
    covariance = spread.transpose(1, 2) @ spread + NOISE**2 * torch.eye(basis.shape[1])
    factors = torch.linalg.cholesky(covariance)
    volume = factors.diagonal(dim1=1, dim2=2).log().sum(1)
    return {"basis": basis, "means": means, "factors": factors, "log_volume": volume}
