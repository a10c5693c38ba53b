"""Head and shoulders of a body model."""

from dataclasses import dataclass

import numpy as np
import torch

from ap3d.rig.joints import MovingJoints
from ap3d.rig.model_file import BodyModel
from ap3d.rig.skinning import axis_angle_matrix, blend_skin, joint_transforms

LOWEST = -0.1  # metres, of the mean SMPL-X body with lowered arms (AnimPortrait3D's crop)


@dataclass(frozen=True)
class Crop:
    """What is kept: vertex ids ``[V']`` of the model, ascending; ``faces [F', 3]`` in the new numbering; their ids."""

    vertices: np.ndarray
    faces: np.ndarray
    face_ids: np.ndarray


def crop_head(model: BodyModel, joints: MovingJoints) -> Crop:
    """All of FLAME; of SMPL-X the faces whose corners lie above ``LOWEST`` when the mean body lowers its arms."""
    keep = np.ones(len(model.template), bool)
    if model.name == "smplx2020":
        keep = _lowered(model, joints)[:, 1] >= LOWEST
    face_ids = np.flatnonzero(keep[model.faces].all(1))
    vertices, faces = np.unique(model.faces[face_ids], return_inverse=True)
    return Crop(vertices, faces.reshape(-1, 3), face_ids)


def merged_weights(model: BodyModel, joints: MovingJoints) -> np.ndarray:
    """Weights ``[V, 1 + moving joints]``: every joint's share goes to the moving one that it moves with."""
    owners = joints.owners(model.parents)
    out = np.zeros((len(model.template), len(joints.parents)))
    np.add.at(out.T, owners, model.weights.T)
    return out / out.sum(1, keepdims=True)


def _lowered(model: BodyModel, joints: MovingJoints) -> np.ndarray:
    places = (model.regressor @ model.template)[[0, *joints.sources]]
    angles = torch.tensor([(0.0, 0.0, 0.0), *joints.resting_angles()], dtype=torch.float64)
    moved = joint_transforms(axis_angle_matrix(angles)[None], torch.from_numpy(places)[None], joints.parents)
    one = torch.ones(1, 1, dtype=torch.float64)
    rest = torch.tensor(model.template)[None]
    weights = torch.from_numpy(merged_weights(model, joints))
    return blend_skin(rest, weights, moved, one, torch.zeros(1, 3, dtype=torch.float64))[0].numpy()
