"""The detector's points as places on the built-in rig; ``ap3d.training.landmark_embedding`` finds them."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ap3d.errors import DataFileError
from ap3d.perception.landmarks_mesh import FOLDER
from ap3d.perception.mesh_topology import POINTS

PATH = FOLDER / "embedding.npz"


@dataclass(frozen=True)
class Embedding:
    """Places of the 478 points.

    Attributes:
        vertices: ``[478, 3]`` corners of the triangle.
        weights: ``[478, 3]`` barycentric weights.
        spread: ``[478]`` root mean square distance to the detections, over the inter-ocular distance.
    """

    vertices: Tensor
    weights: Tensor
    spread: Tensor

    @classmethod
    def load(cls, path: Path = PATH) -> "Embedding":
        """Read the npz.

        Raises:
            DataFileError: missing, damaged or of another kind.
        """
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                arrays = [torch.from_numpy(file[key]) for key in ("vertices", "weights", "spread")]
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise DataFileError(f"{path} is missing or damaged ({type(error).__name__}); reinstall ap3d") from None
        if [tuple(a.shape) for a in arrays] != [(POINTS, 3), (POINTS, 3), (POINTS,)]:
            raise DataFileError(f"{path} does not hold places of {POINTS} points; reinstall ap3d")
        return cls(arrays[0].long(), arrays[1].float(), arrays[2].float())

    def points(self, vertices: Tensor) -> Tensor:
        """The points ``[..., 478, 3]`` on vertices ``[..., V, 3]``."""
        return (vertices[..., self.vertices, :] * self.weights[..., None]).sum(-2)
