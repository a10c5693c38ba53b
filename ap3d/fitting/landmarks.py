"""Which points of a rig the detector's points are, and how certain each of them is."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ap3d.fitting.triangulation import SpatialLandmarks
from ap3d.perception.embedding import Embedding
from ap3d.perception.mesh_topology import IBUG, IBUG_POINTS, ibug_points
from ap3d.rig.protocol import Rig

LEAST_SIGMA = 0.012  # over the inter-ocular distance
INNER = range(17, 68)  # the iBUG landmarks without the contour, which every view sees elsewhere
OUTER_EYE_CORNERS = (36, 45)


@dataclass(frozen=True)
class LandmarkModel:
    """Points of a rig with their measured places.

    Attributes:
        points: from vertices ``[..., V, 3]`` to the points ``[..., K, 3]``; linear.
        target: ``[K, 3]`` world units.
        sigma: ``[K]`` world units.
        inner: ``[K]`` bool, points inside the face's outline.
    """

    points: Callable[[Tensor], Tensor]
    target: Tensor
    sigma: Tensor
    inner: Tensor

    @staticmethod
    def of(rig: Rig, landmarks: SpatialLandmarks) -> "LandmarkModel":
        """All points of the detector where it is known where they lie on the rig, else the iBUG landmarks."""
        ibug, error = ibug_points(landmarks.points), ibug_points(landmarks.error[:, None])[:, 0]
        unit = (ibug[OUTER_EYE_CORNERS[0]] - ibug[OUTER_EYE_CORNERS[1]]).norm()
        if rig.name == "builtin" and len(landmarks.points) != IBUG_POINTS:
            embedding = Embedding.load()
            spread = embedding.spread.clamp_min(LEAST_SIGMA) * unit
            inner = torch.zeros(len(spread), dtype=torch.bool)
            inner[[IBUG[i] for i in INNER]] = True
            sigma = (spread.square() + landmarks.error.square()).sqrt()
            return LandmarkModel(embedding.points, landmarks.points, sigma, inner)
        numbers = torch.arange(INNER.start, INNER.stop)
        sigma = ((2 * LEAST_SIGMA * unit) ** 2 + error[numbers].square()).sqrt()

        def points(vertices: Tensor) -> Tensor:
            batch = vertices.reshape(-1, *vertices.shape[-2:])
            return rig.landmarks_of(batch)[:, numbers].reshape(*vertices.shape[:-2], -1, 3)

        return LandmarkModel(points, ibug[numbers], sigma, torch.ones(len(numbers), dtype=torch.bool))
