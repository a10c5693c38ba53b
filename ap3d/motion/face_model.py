"""The built-in rig reduced to the detector's points: linear in shape and expression, rigid with the head."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ap3d.perception.embedding import Embedding
from ap3d.perception.mesh_topology import EYE_RINGS, LEFT_EYE, LEFT_IRIS, RIGHT_EYE, RIGHT_IRIS
from ap3d.rig.builtin import BuiltinRig

# Actions that two-dimensional points cannot tell apart, or that lids and gaze decide: they stay at zero in the fit.
UNSEEN = (
    "eyeBlink", "eyeLook", "eyeSquint", "eyeWide", "tongueOut", "cheekPuff", "jawForward", "mouthClose", "mouthRoll",
    "mouthPress", "mouthShrug",
)  # fmt: skip
# The eyes without their corners, and the two rings of skin round them: what lids move, or seem to move.
LIDS = RIGHT_EYE[1:8] + RIGHT_EYE[9:EYE_RINGS] + LEFT_EYE[1:8] + LEFT_EYE[9:EYE_RINGS]
SPREAD = 0.012  # least uncertainty of a point, over the inter-ocular distance


@dataclass(frozen=True)
class FaceModel:
    """``K`` points of the head in metres, relative to their centre on the mean head; y up, face to +z.

    Attributes:
        numbers: ``[K]`` which of the detector's points they are.
        rest: ``[K, 3]`` on the mean head.
        shape: ``[S, K, 3]`` what a unit of each shape coefficient adds.
        actions: ``[A, K, 3]`` what each action adds.
        columns: ``[A]`` the actions' columns in the rig's expression.
        precision: ``[K]`` one over the points' uncertainty, over the inter-ocular distance.
        eyes: ``[2, 3]`` centres of right and left eyeball on the mean head.
        eyes_shape: ``[S, 2, 3]`` what the shape adds to them.
        radius: of an eyeball's iris round its centre, metres.
    """

    numbers: Tensor
    rest: Tensor
    shape: Tensor
    actions: Tensor
    columns: Tensor
    precision: Tensor
    eyes: Tensor
    eyes_shape: Tensor
    radius: float

    @staticmethod
    def of(rig: BuiltinRig, embedding: Embedding) -> "FaceModel":
        """Reduce a rig to the points of an embedding."""
        skip = set(LIDS) | set(RIGHT_IRIS) | set(LEFT_IRIS)
        numbers = torch.tensor([k for k in range(len(embedding.spread)) if k not in skip])
        shape, expression = rig.linear_basis()
        columns = [i for i, name in enumerate(rig.expression_names) if not name.startswith(UNSEEN)]
        select = lambda basis: embedding.points(basis)[:, numbers]  # noqa: E731
        rest = embedding.points(rig.template)[numbers]
        pivot = rest.mean(0)
        eyes = [torch.nonzero(rig.parts == p)[:, 0] for p in (2, 1)]
        centre = torch.stack([rig.template[e].mean(0) for e in eyes])
        iris = embedding.points(rig.template)[[RIGHT_IRIS[0], LEFT_IRIS[0]]]
        return FaceModel(
            numbers,
            rest - pivot,
            select(shape),
            select(expression[columns]),
            torch.tensor(columns),
            1 / embedding.spread[numbers].clamp_min(SPREAD),
            centre - pivot,
            torch.stack([shape[:, e].mean(1) for e in eyes], 1),
            float((iris - centre).norm(dim=1).mean()),
        )
