"""Any head in the coordinates of the built-in one, so that hairlines, lips, ears and lids need no licensed masks.

The built-in head (CC0) is the atlas. A head is brought onto it by a similarity of eyes, lips and skull, then by
thin-plate splines (Bookstein 1989) through landmarks and closest surface points.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.interpolate import RBFInterpolator
from scipy.spatial import cKDTree

from ap3d.rig.builtin import BuiltinRig

NORMAL_WEIGHT = 0.03  # metres that a normal turned by one radian counts for in closest points
FARTHEST = 0.015  # metres; closest points beyond it are no match
ROUNDS, SAMPLES = 4, 500


@dataclass(frozen=True)
class HeadShape:
    """What registration needs of a head.

    Attributes:
        template: ``[V, 3]`` metres, y up, face to +z.
        faces: ``[F, 3]`` of the skin alone, counter-clockwise from outside.
        skin: ``[N]`` ids of the skin's vertices.
        eyes: centres of the left and the right eyeball ``[2, 3]``.
        mouth: right corner, left corner and middle of the line between the lips ``[3, 3]``.
        landmarks: the 51 inner landmarks ``[51, 3]``, or None.
    """

    template: np.ndarray
    faces: np.ndarray
    skin: np.ndarray
    eyes: np.ndarray
    mouth: np.ndarray
    landmarks: np.ndarray | None


@dataclass(frozen=True)
class Registration:
    """A head on the atlas.

    Attributes:
        canonical: ``[V, 3]`` every vertex in the built-in template's coordinates.
        neighbours: ``[V, 3]`` corners of the built-in skin's triangle under each vertex.
        shares: ``[V, 3]`` barycentric weights there.
    """

    canonical: np.ndarray
    neighbours: np.ndarray
    shares: np.ndarray

    def transfer(self, field: np.ndarray) -> np.ndarray:
        """A field of the built-in vertices ``[V', ...]`` on this head's ``[V, ...]``."""
        return np.einsum("vk,vk...->v...", self.shares, field[self.neighbours])


@dataclass(frozen=True)
class _Atlas:
    shape: HeadShape
    normals: np.ndarray
    outside: np.ndarray  # ids of vertices that can be seen from outside
    rig: BuiltinRig


@lru_cache(maxsize=1)
def atlas() -> _Atlas:
    """The built-in head as an atlas."""
    rig = BuiltinRig.load()
    template, faces = rig.template.numpy().astype(float), rig.faces.numpy()
    skin_faces = faces[rig.face_parts.numpy() == 0]
    landmarks = rig.landmarks_of(rig.template[None])[0].numpy().astype(float)
    mouth = np.stack([landmarks[48], landmarks[54], (landmarks[62] + landmarks[66]) / 2])
    shape = HeadShape(
        template, skin_faces, np.unique(skin_faces), landmarks[[69, 68]], mouth, landmarks[17:68],
    )  # fmt: skip
    inside = np.isin(np.arange(len(template)), faces[torch.cat([rig.regions["mouth"], rig.regions["sockets"]]).numpy()])
    outside = shape.skin[~inside[shape.skin]]
    return _Atlas(shape, vertex_normals(template, skin_faces), outside, rig)


def register(head: HeadShape) -> Registration:
    """Bring a head onto the atlas; a few millimetres of error are usual."""
    base = atlas()
    source, target = _controls(head, base.shape, head.landmarks is not None)
    scale = np.linalg.norm(target - target.mean(0)) / np.linalg.norm(source - source.mean(0))
    points = (head.template - source.mean(0)) * scale + target.mean(0)
    controls = (source - source.mean(0)) * scale + target.mean(0)
    warp = _spline(controls, target, np.full(len(controls), 1e-3))
    exact = 1e-4 if head.landmarks is not None else 2e-3
    skin = head.skin[:: max(1, len(head.skin) // (2 * SAMPLES))]
    normals = vertex_normals(points, head.faces)[skin]  # heads differ little enough to keep these
    tree, ids = _tree(base, base.outside)
    for _ in range(ROUNDS):
        moved = warp(points[skin])
        _, near = tree.query(np.concatenate([moved, NORMAL_WEIGHT * normals], 1))
        gap = base.shape.template[ids[near]] - moved
        towards = base.normals[ids[near]]
        good = (np.linalg.norm(gap, axis=1) < FARTHEST) & ((towards * normals).sum(1) > 0.6)
        # Along the normal alone: a surface may slide on the other, whose vertices lie elsewhere.
        step = (gap * towards).sum(1, keepdims=True) * towards
        sources = np.concatenate([controls, points[skin[good]]])
        targets = np.concatenate([target, (moved + step)[good]])
        weights = np.concatenate([np.full(len(controls), exact), np.full(good.sum(), 3e-3)])
        warp = _spline(sources, targets, weights)
    return _matched(head, base, warp(points))


def _controls(head: HeadShape, base: HeadShape, landmarks: bool) -> tuple[np.ndarray, np.ndarray]:
    """Corresponding points: eyes, mouth, points of the skull, and landmarks or the profile."""
    both = []
    for shape in (head, base):
        points = [shape.eyes, _skull(shape)]
        if landmarks and shape.landmarks is not None:
            points.append(shape.landmarks)
        else:
            points += [shape.mouth, _profile(shape)]
        both.append(np.concatenate(points))
    return both[0], both[1]


def _skull(shape: HeadShape) -> np.ndarray:
    """Crown, back of the head and its sides above the ears ``[4, 3]``."""
    skin = shape.template[shape.skin]
    eye = shape.eyes.mean(0)
    unit = np.linalg.norm(shape.eyes[0] - shape.eyes[1])  # about 60 mm
    rise = (skin[:, 1] - eye[1]) / unit
    middle = np.abs(skin[:, 0] - eye[0]) < 0.5 * unit
    band = skin[(rise > 0.55) & (rise < 0.9)]
    back = skin[(np.abs(rise) < 0.6) & middle]
    return np.stack([skin[skin[:, 1].argmax()], back[back[:, 2].argmin()],
                     band[band[:, 0].argmax()], band[band[:, 0].argmin()]])  # fmt: skip


def _profile(shape: HeadShape) -> np.ndarray:
    """Tip of the nose and most forward point of the chin ``[2, 3]``."""
    skin = shape.template[shape.skin]
    eye, lips = shape.eyes.mean(0), shape.mouth[2]
    drop = eye[1] - lips[1]
    middle = np.abs(skin[:, 0] - eye[0]) < 0.2 * drop
    nose = skin[middle & (skin[:, 1] > lips[1] + 0.25 * drop) & (skin[:, 1] < eye[1] - 0.2 * drop)]
    chin = skin[middle & (skin[:, 1] > lips[1] - 0.7 * drop) & (skin[:, 1] < lips[1] - 0.35 * drop)]
    return np.stack([nose[nose[:, 2].argmax()], chin[chin[:, 2].argmax()]])


def _spline(source: np.ndarray, target: np.ndarray, smoothing: np.ndarray) -> RBFInterpolator:
    _, first = np.unique(np.round(source, 6), axis=0, return_index=True)
    return RBFInterpolator(source[first], target[first], smoothing=smoothing[first], kernel="thin_plate_spline")


def _tree(base: _Atlas, ids: np.ndarray) -> tuple[cKDTree, np.ndarray]:
    return cKDTree(np.concatenate([base.shape.template[ids], NORMAL_WEIGHT * base.normals[ids]], 1)), ids


def _matched(head: HeadShape, base: _Atlas, canonical: np.ndarray) -> Registration:
    """The built-in triangle under every vertex, on the same side of lips and lids: its corners and their shares."""
    corners = base.shape.template[base.shape.faces]
    facing = base.normals[base.shape.faces].mean(1)
    normals = vertex_normals(canonical, head.faces)
    tree = cKDTree(np.concatenate([corners.mean(1), NORMAL_WEIGHT * facing], 1))
    _, near = tree.query(np.concatenate([canonical, NORMAL_WEIGHT * normals], 1), k=12)
    weights = _inside(canonical[:, None], corners[near])
    gap = np.linalg.norm((weights[..., None] * corners[near]).sum(2) - canonical[:, None], axis=2)
    turned = np.linalg.norm(facing[near] - normals[:, None], axis=2)
    best = (gap + 0.1 * NORMAL_WEIGHT * turned).argmin(1)
    rows = np.arange(len(canonical))
    return Registration(canonical, base.shape.faces[near[rows, best]], weights[rows, best])


def vertex_normals(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals ``[V, 3]``; zero where no face is."""
    a, b, c = (points[faces[:, k]] for k in range(3))
    face = np.cross(b - a, c - a)
    total = np.zeros_like(points)
    for k in range(3):
        np.add.at(total, faces[:, k], face)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def closest_on_faces(points: np.ndarray, template: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The face ``[N]`` and the barycentric weights ``[N, 3]`` of the surface point closest to each point ``[N, 3]``."""
    corners = template[faces]
    _, near = cKDTree(corners.mean(1)).query(points, k=min(24, len(faces)))
    weights = _inside(points[:, None], corners[near])
    gap = np.linalg.norm((weights[..., None] * corners[near]).sum(2) - points[:, None], axis=2)
    best = gap.argmin(1)
    rows = np.arange(len(points))
    return near[rows, best], weights[rows, best]


def _inside(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Barycentric weights of projections, clipped to the triangle (exact inside, close to it on edges)."""
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    u, v, w = b - a, c - a, points - a
    uu, uv, vv, wu, wv = ((p * q).sum(-1) for p, q in ((u, u), (u, v), (v, v), (w, u), (w, v)))
    determinant = np.maximum(uu * vv - uv * uv, 1e-20)
    second, third = (vv * wu - uv * wv) / determinant, (uu * wv - uv * wu) / determinant
    weights = np.clip(np.stack([1 - second - third, second, third], -1), 0, None)
    return weights / weights.sum(-1, keepdims=True)
