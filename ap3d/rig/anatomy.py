"""Eyes and lips of a skinned head, found by what the joints move: no vertex lists are needed."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ap3d.errors import InputError

LIP_GAP = 0.006  # metres: upper and lower lip lie this close at rest


@dataclass(frozen=True)
class Roles:
    """Skinning weights ``[V]`` by what a joint does."""

    jaw: np.ndarray
    left_eye: np.ndarray
    right_eye: np.ndarray


@dataclass(frozen=True)
class Anatomy:
    """Parts of a template.

    Attributes:
        eyes: vertex ids of the left and the right eyeball.
        centres: ``[2, 3]`` their centres.
        radii: ``[2]`` largest distance of their vertices from the centre.
        mouth: right corner, left corner, middle of the line between the lips ``[3, 3]``.
    """

    eyes: tuple[np.ndarray, np.ndarray]
    centres: np.ndarray
    radii: np.ndarray
    mouth: np.ndarray


def find_anatomy(template: np.ndarray, roles: Roles, landmarks: np.ndarray | None) -> Anatomy:
    """Eyeballs and mouth of a template.

    Args:
        template: ``[V, 3]`` metres, face to +z.
        roles: what the joints move.
        landmarks: the 51 inner landmarks ``[51, 3]``; without them the mouth is sought where the jaw parts the skin.

    Raises:
        InputError: no eyeballs or no lips are where a head has them.
    """
    eyes = tuple(np.flatnonzero(w > 0.5) for w in (roles.left_eye, roles.right_eye))
    if not all(map(len, eyes)):
        raise InputError("this model has no eyeballs: no vertex follows the eye joints")
    centres = np.stack([(template[e].max(0) + template[e].min(0)) / 2 for e in eyes])
    radii = np.array([np.linalg.norm(template[e] - c, axis=1).max() for e, c in zip(eyes, centres, strict=True)])
    if landmarks is not None:
        right, left, upper, lower = landmarks[[48 - 17, 54 - 17, 62 - 17, 66 - 17]]
        mouth = np.stack([right, left, (upper + lower) / 2])
    else:
        skin = np.flatnonzero(roles.left_eye + roles.right_eye < 0.5)
        mouth = _mouth(template[skin], roles.jaw[skin], centres)
    return Anatomy((eyes[0], eyes[1]), centres, radii, mouth)


def _mouth(skin: np.ndarray, jaw: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """Where neighbours at rest part when the jaw opens: the frontmost such points, by their x."""
    still, moving = np.flatnonzero(jaw < 0.45), np.flatnonzero(jaw > 0.55)
    distance, near = cKDTree(skin[moving]).query(skin[still], distance_upper_bound=LIP_GAP)
    found = np.isfinite(distance)
    still, moving = still[found], moving[near[found]]
    parting = jaw[moving] - jaw[still] > 0.2
    pairs = (skin[still[parting]] + skin[moving[parting]]) / 2
    unit = np.linalg.norm(eyes[0] - eyes[1])
    if len(pairs) < 8:
        raise InputError(
            "this model's lips cannot be found: its jaw parts no skin; keep flame_static_embedding.pkl beside it"
        )
    pairs = pairs[pairs[:, 2] > pairs[:, 2].max() - 0.4 * unit]
    offset = pairs[:, 0] - eyes[:, 0].mean()
    middle = pairs[np.abs(offset) < 0.15 * unit]
    centre = middle[middle[:, 2].argmax()]
    front = np.array([
        pairs[chosen][pairs[chosen, 2].argmax()] for low in np.arange(-0.7, 0.7, 0.07) * unit
        if (chosen := (offset >= low) & (offset < low + 0.07 * unit)).any()
    ])  # fmt: skip
    return np.stack([front[front[:, 0].argmin()], front[front[:, 0].argmax()], centre])
