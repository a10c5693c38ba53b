"""The 68 iBUG landmarks on the built-in rig, as barycentric points on faces."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ap3d.training.rig_source import Bust

Array = NDArray[np.float64]

# Landmark to the vertex of the MakeHuman base mesh, for the midline and the subject's left side.
MIDLINE = {27: 133, 28: 131, 29: 201, 30: 5054, 33: 317, 51: 362, 57: 492, 62: 474, 66: 493}
LEFT = {
    34: 7077, 35: 7121, 42: 6851, 43: 6838, 44: 6790, 45: 6802, 46: 6820, 47: 6831,
    52: 7117, 53: 11966, 54: 7182, 55: 7235, 56: 7241, 63: 7226, 64: 10400, 65: 7236,
}  # fmt: skip
MIRROR = {
    34: 32, 35: 31, 42: 39, 43: 38, 44: 37, 45: 36, 46: 41, 47: 40,
    52: 50, 53: 49, 54: 48, 55: 59, 56: 58, 63: 61, 64: 60, 65: 67,
}  # fmt: skip
# Edge of the left lower lid from the inner to the outer corner; the upper lid is to meet it there.
LOWER_LID = (6837, 6834, 6831, 6828, 6825, 6820, 6817, 6814)
# Brows as offsets from the eye's centre, metres, towards the subject's left and up: landmarks 22 to 26.
LEFT_BROW = ((-0.0185, 0.0185), (-0.0090, 0.0235), (0.0020, 0.0255), (0.0125, 0.0240), (0.0225, 0.0175))


def mirrored_vertices(template: NDArray[np.float32]) -> NDArray[np.int64]:
    """For every vertex the nearest one on the other side of the symmetry plane."""
    from scipy.spatial import cKDTree

    return cKDTree(template).query(template * np.array([-1, 1, 1]))[1]


def landmark_points(template: NDArray[np.float32], faces: NDArray[np.int32], bust: "Bust") -> dict[str, NDArray]:
    """Arrays ``landmark_faces [68]``, ``landmark_weights [68, 3]`` and the nearest ``landmark_vertices [68]``."""
    of_source = {int(i): n for n, (i, j) in enumerate(zip(bust.first, bust.second, strict=True)) if i == j}
    mirror = mirrored_vertices(template)
    vertices = {k: of_source[v] for k, v in (MIDLINE | LEFT).items()}
    vertices |= {MIRROR[k]: int(mirror[vertices[k]]) for k in LEFT}
    skin = faces[bust.face_parts == bust.SKIN]
    points = {k: _corner(faces, v) for k, v in vertices.items()}
    eye = template[bust.parts == bust.EYE_LEFT].mean(0)
    for index, (dx, dy) in enumerate(LEFT_BROW):
        origin = np.array([eye[0] + dx, eye[1] + dy, 0.5])
        points[22 + index] = cast_ray(template, skin, origin, np.array([0.0, 0, -1]))
        points[21 - index] = cast_ray(template, skin, origin * [-1, 1, 1], np.array([0.0, 0, -1]))
    points |= _jawline(template, skin, eye)
    order = [points[k] for k in range(68)]
    ids, weights = np.array([p[0] for p in order]), np.array([p[1] for p in order])
    nearest = faces[ids, weights.argmax(1)]
    return {
        "landmark_faces": ids.astype(np.int32), "landmark_weights": weights.astype(np.float32),
        "landmark_vertices": nearest.astype(np.int32),
    }  # fmt: skip


def closing_lids(
    template: NDArray[np.float32], blinks: tuple[NDArray[np.float32], NDArray[np.float32]], bust: "Bust"
) -> tuple[list[NDArray[np.float32]], dict[str, NDArray]]:
    """Correct both blink offsets, so that the upper lid ends on the lower one's edge.

    Anny's blink overshoots by up to 4 mm. Each vertex of a lid gets its share (how far it moves, over how far the edge
    moves) of what the edge lacks, interpolated between pairs of edge vertices. The same shares let the runtime close
    the lids of every shape: a pair's distance is linear in the shape.

    Returns:
        The offsets ``[V, 3]`` (left, right), and the arrays ``lid_pairs [2, K, 2]`` (upper, lower vertex) and
        ``lid_shares [V, 2 * K]``.
    """
    of_source = {int(i): n for n, (i, j) in enumerate(zip(bust.first, bust.second, strict=True)) if i == j}
    mirror = mirrored_vertices(template)
    left_pairs = [(_upper_partner(template, blinks[0], of_source[v]), of_source[v]) for v in LOWER_LID]
    pairs = np.array([left_pairs, [[mirror[u], mirror[v]] for u, v in left_pairs]])
    corrected, shares = [], []
    for side in range(2):
        upper, lower = pairs[side].T
        blink, across = blinks[side], np.abs(template[:, 0])
        knots = across[lower]
        travel = np.linalg.norm(blink, axis=1)
        hats = np.stack([np.interp(across, knots, row) for row in np.eye(len(knots))], 1)
        share = np.minimum(travel / np.maximum(hats @ travel[upper], 1e-6), 1.1) * (travel > 2e-4)
        near = (np.abs(template[:, 0] - template[lower[3], 0]) < 0.03) & (bust.parts == bust.SKIN)
        share = np.where(near, share, 0)[:, None] * hats
        overlap = np.array([0.0, -0.0003, 0.0002])
        missing = template[lower] - template[upper] + overlap - blink[upper]
        missing[0] = 0  # the inner corner already meets
        missing[6:] = missing[5] * np.array([[0.6], [0.2]])  # the outer one turns inwards
        corrected.append((blink + share @ missing).astype(np.float32))
        shares.append(share)
    return corrected, {"lid_pairs": pairs.astype(np.int32), "lid_shares": np.concatenate(shares, 1).astype(np.float16)}


def _upper_partner(template: NDArray[np.float32], blink: NDArray[np.float32], lower: int) -> int:
    """The vertex of the upper lid's edge over a vertex of the lower one's."""
    offset = template - template[lower]
    edge = (np.abs(offset[:, 0]) < 0.0014) & (offset[:, 1] > 0.0005) & (offset[:, 1] < 0.016) & (offset[:, 2] > -0.001)
    edge &= blink[:, 1] < -0.0015
    return int(np.flatnonzero(edge)[np.argmin(template[edge, 1] - 0.5 * template[edge, 2])])


def _corner(faces: NDArray[np.int32], vertex: int) -> tuple[int, Array]:
    face, corner = np.argwhere(faces == vertex)[0]
    return int(face), np.eye(3)[corner]


def _jawline(template: NDArray[np.float32], skin: NDArray[np.int32], eye: Array) -> dict[int, tuple[int, Array]]:
    """Landmarks 0 to 16: from beside the eye down to the chin, cast outwards from an axis inside the head."""
    midline = template[np.abs(template[:, 0]) < 1e-3]
    front = midline[(midline[:, 2] > 0.05) & (midline[:, 1] < -0.06) & (midline[:, 1] > -0.14)]
    chin_y = front[np.argmax(front[:, 2] - 1.2 * front[:, 1])][1]
    points = {}
    for step in range(9):
        t = step / 8  # 0 at the ear, 1 at the chin
        azimuth = np.deg2rad(82 * (1 - t) ** 0.9)
        height = eye[1] - 0.004 + (chin_y - eye[1] + 0.004) * np.sin(t * np.pi / 2) ** 1.15
        origin = np.array([0.0, height, 0.025])
        for index, side in ((16 - step, 1.0), (step, -1.0)):
            direction = np.array([side * np.sin(azimuth), 0, np.cos(azimuth)])
            points[index] = cast_ray(template, skin, origin + 0.4 * direction, -direction)
    return points


def cast_ray(
    template: NDArray[np.float32], faces: NDArray[np.int32], origin: Array, direction: Array
) -> tuple[int, Array]:
    """First face hit by a ray and the barycentrics of the point (Moeller and Trumbore)."""
    a, b, c = (template[faces[:, k]].astype(float) for k in range(3))
    p = np.cross(direction, c - a)
    determinant = (p * (b - a)).sum(1)
    determinant = np.where(np.abs(determinant) < 1e-14, np.inf, determinant)
    s = origin - a
    q = np.cross(s, b - a)
    v, w = (s * p).sum(1) / determinant, (q @ direction) / determinant
    distance = (q * (c - a)).sum(1) / determinant
    hit = (v >= -1e-9) & (w >= -1e-9) & (v + w <= 1 + 1e-9) & (distance > 0)
    if not hit.any():
        raise ValueError(f"no face along the ray from {origin}")
    face = int(np.argmin(np.where(hit, distance, np.inf)))
    return face, np.array([1 - v[face] - w[face], v[face], w[face]])
