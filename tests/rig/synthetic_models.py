"""SMPL-X and FLAME model files made up in seconds, of the true shapes and key names: tests need no licensed ones.

The head is the built-in rig's skin, warped and thinned to FLAME's 3931 vertices, with two round eyeballs; SMPL-X adds
a torso and a hand. Jaw weights come from the built-in ``jawOpen``, expression axes are a secret orthogonal mix of the
built-in actions, which differs between the years 2020 and 2023.
"""

import pickle
import struct
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import scipy.sparse
from scipy.spatial import ConvexHull

from ap3d.rig.builtin import PATH as BUILTIN_PATH

SKIN, EYE, BOUNDARY, EYE_RADIUS = 3931, 546, 60, 0.0150
SMPLX_VERTICES, SMPLX_FACES, RING = 10475, 20908, 60
FLAME_OFFSET, SMPLX_OFFSET = np.array([0.0, 0.0, -0.03]), np.array([0.0, 0.30, 0.02])
SMPLX_PARENTS = [
    -1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15, 20, 25, 26, 20, 28, 29, 20,
    31, 32, 20, 34, 35, 20, 37, 38, 21, 40, 41, 21, 43, 44, 21, 46, 47, 21, 49, 50, 21, 52, 53,
]  # fmt: skip
JOINT = {"neck": 12, "head": 15, "left_shoulder": 16, "right_shoulder": 17, "jaw": 22, "left_eye": 23, "right_eye": 24}
_NOT_MIXED = ("jawOpen", "eyeBlink", "eyeLook", "tongueOut", "mouthClose")  # what jaw, lids and eyes do themselves


@dataclass(frozen=True)
class Head:
    """A head in the built-in frame: FLAME's topology with fields that both models share.

    ``template [5023, 3]``, ``faces [9976, 3]``, ``weights [5023, 5]`` (root, neck, jaw, left eye, right eye),
    ``actions [A, 5023, 3]`` displacements of built-in actions, ``names`` of these actions, ``joints [5, 3]``,
    ``landmark_faces [51]``, ``landmark_weights [51, 3]``, ``rim [60]`` the loop of the bust's lower edge, in order,
    ``masks`` vertex ids by FLAME's mask names.
    """

    template: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    actions: np.ndarray
    names: tuple[str, ...]
    joints: np.ndarray
    landmark_faces: np.ndarray
    landmark_weights: np.ndarray
    rim: np.ndarray
    masks: dict[str, np.ndarray]


def write_smplx(path: Path, gender: str = "neutral") -> Path:
    """Write an SMPL-X 2020 npz (10475 vertices, 55 joints, 300 + 100 coefficients), object arrays included."""
    data = smplx_data()
    parts = np.array({str(k): v for v, k in enumerate(range(55))}, dtype=object)
    np.savez(path, **data, joint2num=parts, gender=np.array(gender))
    return path


def write_flame(path: Path, year: int = 2020, chumpy: bool = True) -> Path:
    """Write a FLAME pkl as Python 2 did: latin-1 strings, a sparse regressor, ``chumpy.ch.Ch`` around three arrays."""
    data: dict[str, Any] = dict(flame_data(year))
    data |= {"bs_style": "lbs", "bs_type": "lrotmin"}
    data["J_regressor"] = scipy.sparse.csc_matrix(data["J_regressor"])
    if chumpy:
        for key in ("shapedirs", "posedirs", "v_template"):
            data[key] = Ch(data[key])
    with path.open("wb") as file:
        pickle_python2(data, file)
    return path


def write_companions(folder: Path) -> None:
    """Write what users keep beside the models: vertex correspondences, FLAME's masks, its static landmarks."""
    np.save(folder / "SMPL-X__FLAME_vertex_ids.npy", flame_vertices_in_smplx())
    head = synthetic_head()
    with (folder / "FLAME_masks.pkl").open("wb") as file:
        pickle_python2(head.masks, file)
    with (folder / "flame_static_embedding.pkl").open("wb") as file:
        pickle_python2({"lmk_face_idx": head.landmark_faces, "lmk_b_coords": head.landmark_weights}, file)


def flame_vertices_in_smplx() -> np.ndarray:
    """SMPL-X vertex of every FLAME vertex ``[5023]``."""
    eyes = np.arange(SMPLX_VERTICES - 2 * EYE, SMPLX_VERTICES)
    return np.concatenate([np.arange(SKIN), eyes])


# --- the two models -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def flame_data(year: int = 2020) -> dict[str, np.ndarray]:
    """The arrays of a FLAME file."""
    head = synthetic_head()
    template = head.template + FLAME_OFFSET
    joints = head.joints + FLAME_OFFSET
    expression = expression_axes(head, year)
    shape = shape_axes(head.template, seed=year)
    posedirs = pose_axes(head.template, head.weights[:, 1:], np.arange(1, 5), 4, seed=year)
    return {
        "v_template": template, "f": head.faces.astype(np.uint32), "weights": head.weights,
        "J_regressor": regressor(template, joints), "J": joints, "posedirs": posedirs,
        "kintree_table": np.array([[4294967295, 0, 1, 1, 1], [0, 1, 2, 3, 4]]),
        "shapedirs": np.concatenate([shape, expression], 2).astype(np.float64),
    }  # fmt: skip


@lru_cache(maxsize=1)
def smplx_data() -> dict[str, np.ndarray]:
    """The arrays of an SMPL-X file; the first 3931 and the last 1092 vertices are FLAME's."""
    head = synthetic_head()
    body, body_faces, body_weights = _body(head)
    skin, eyes = head.template[:SKIN], head.template[SKIN:]
    template = np.concatenate([skin, body, eyes]) + SMPLX_OFFSET
    lift = lambda ids: np.where(ids >= SKIN, ids + len(body), ids)  # noqa: E731
    faces = np.concatenate([lift(head.faces), body_faces])
    weights = np.concatenate(
        [_head_weights(head, slice(0, SKIN)), body_weights, _head_weights(head, slice(SKIN, None))]
    )
    joints = _smplx_joints(head)
    regress = regressor(template, joints)
    canonical = template - SMPLX_OFFSET
    expression = np.zeros((len(template), 3, 100))
    expression[flame_vertices_in_smplx()] = expression_axes(head, 2020)
    moving = [JOINT[n] for n in ("neck", "head", "left_shoulder", "right_shoulder", "jaw", "left_eye", "right_eye")]
    angle = np.arctan2(canonical[:, 0], canonical[:, 2] + 0.03)
    return {
        "v_template": template, "f": faces.astype(np.uint32), "weights": weights, "J_regressor": regress,
        "posedirs": pose_axes(canonical, weights[:, moving], np.array(moving), 54, seed=5),
        "kintree_table": np.array([[p % 2**32 for p in SMPLX_PARENTS], range(55)]),
        "shapedirs": np.concatenate([shape_axes(canonical, seed=11), expression], 2).astype(np.float32),
        "lmk_faces_idx": head.landmark_faces, "lmk_bary_coords": head.landmark_weights,
        "dynamic_lmk_faces_idx": np.zeros((79, 17), np.int64), "dynamic_lmk_bary_coords": np.full((79, 17, 3), 1 / 3),
        "vt": np.stack([angle / 6.2832 + 0.5, (canonical[:, 1] + 1) / 1.2], 1), "ft": faces.astype(np.uint32),
        **{f"hands_{k}{s}": np.zeros((45, 45) if k == "components" else 45)
           for k in ("components", "mean") for s in "lr"},
    }  # fmt: skip


def _head_weights(head: Head, part: slice) -> np.ndarray:
    """FLAME's five weights spread over SMPL-X's joints: root to the chest and collars, neck to neck and head."""
    root, neck, jaw, left, right = head.weights[part].T
    points = head.template[part]
    weights = np.zeros((len(points), 55))
    rise = np.clip((points[:, 1] + 0.17) / 0.07, 0, 1)
    arm = np.clip((np.abs(points[:, 0]) - 0.15) / 0.08, 0, 0.6) * (1 - rise)
    weights[:, 9], weights[:, 12] = root * (1 - rise) * (1 - arm), root * rise
    weights[points[:, 0] > 0, 16] = (root * (1 - rise) * arm)[points[:, 0] > 0]
    weights[points[:, 0] <= 0, 17] = (root * (1 - rise) * arm)[points[:, 0] <= 0]
    weights[:, 15], weights[:, 22], weights[:, 23], weights[:, 24] = neck, jaw, left, right
    return weights


def _body(head: Head) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rings of a torso below the bust's rim, a hand in T-pose, and faces and weights: 5452 vertices."""
    rim = head.template[head.rim]
    rings = np.arange(1, 91)[:, None, None]
    centre, ellipse = rim.mean(0), rim - rim.mean(0)
    ellipse[:, 1] = 0
    flat = np.clip(rings / 12, 0, 1)
    tube = (rim * (1 - flat) + (centre + ellipse) * flat) - rings * np.array([0, 0.008, 0])
    hand = fibonacci(52) * 0.05 + np.array([0.70, -0.21, -0.03])
    ids = np.concatenate([head.rim[None], SKIN + np.arange(90 * RING).reshape(90, RING)])
    a, b = ids[:-1], ids[1:]
    a1, b1 = np.roll(a, -1, 1), np.roll(b, -1, 1)
    tube_faces = np.stack([np.stack([a, b, a1], -1), np.stack([a1, b, b1], -1)]).reshape(-1, 3)
    last = ids[-1]
    cap = np.stack([np.full(32, last[0]), last[2:34], last[1:33]], 1)
    points = np.concatenate([tube.reshape(-1, 3), hand])
    weights = np.zeros((len(points), 55))
    height = np.clip((points[:, 1] + 0.75) / 0.45, 0, 1)
    weights[:, 9], weights[:, 0] = height, 1 - height
    weights[-52:] = np.eye(55)[20]
    hand_faces = outward_hull(hand) + SKIN + 90 * RING
    return points, np.concatenate([tube_faces, cap, hand_faces]), weights


def _smplx_joints(head: Head) -> np.ndarray:
    neck, top, jaw, left, right = head.joints
    joints = np.zeros((55, 3))
    joints[:, 1], joints[:, 2] = -0.6, -0.03
    side = np.where(np.arange(55) >= 25, np.where(np.arange(55) >= 40, -1, 1), 0)
    joints[:, 0] = 0.7 * side
    for ids, point in (
        ([3, 6, 9], (0, -0.35, -0.03)), ([13], (0.05, -0.20, -0.03)), ([14], (-0.05, -0.20, -0.03)),
        ([16], (0.17, -0.21, -0.03)), ([17], (-0.17, -0.21, -0.03)), ([18], (0.43, -0.21, -0.03)),
        ([19], (-0.43, -0.21, -0.03)), ([20], (0.68, -0.21, -0.03)), ([21], (-0.68, -0.21, -0.03)),
    ):  # fmt: skip
        joints[ids] = point
    joints[[12, 15, 22, 23, 24]] = neck, top, jaw, left, right
    return joints + SMPLX_OFFSET


def regressor(template: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Weights ``[J, V]`` whose rows sum to 1 and give the joints from the 40 nearest vertices."""
    out = np.zeros((len(joints), len(template)))
    for row, joint in zip(out, joints, strict=True):
        near = np.argsort(((template - joint) ** 2).sum(1))[:40]
        system = np.concatenate([template[near].T, np.ones((1, 40))])
        row[near] = np.linalg.lstsq(system, np.append(joint, 1.0), rcond=None)[0]
    return out


def shape_axes(points: np.ndarray, seed: int) -> np.ndarray:
    """300 smooth random displacement fields ``[V, 3, 300]``, the first ones stretches of the whole head."""
    generator = np.random.default_rng(seed)
    amplitude = 0.004 / np.sqrt(1 + np.arange(300))
    wave = generator.normal(size=(3, 300)) * np.linspace(4, 18, 300)
    fields = np.sin(points @ wave + generator.uniform(0, 6.28, 300))
    axes = fields[:, None] * (generator.normal(size=(3, 300)) * amplitude)
    for axis in range(3):
        axes[:, :, axis] = 0
        axes[:, axis, axis] = 0.04 * points[:, axis]
    return axes.astype(np.float32)


def expression_axes(head: Head, year: int) -> np.ndarray:
    """100 expression axes ``[5023, 3, 100]``: an orthogonal mix of built-in actions, of another seed each year."""
    generator = np.random.default_rng(1000 + year)
    count = len(head.names)
    mix = np.linalg.qr(generator.normal(size=(count, count)))[0]
    axes = np.zeros((len(head.template), 3, 100), np.float32)
    axes[:, :, :count] = np.einsum("avc,ak->vck", head.actions, mix)
    return axes


def pose_axes(points: np.ndarray, weights: np.ndarray, joints: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Millimetre correctives ``[V, 3, 9 * count]`` near each of ``joints`` (ids from 1)."""
    generator = np.random.default_rng(seed)
    axes = np.zeros((len(points), 3, 9 * count), np.float32)
    for column, joint in enumerate(joints):
        border = weights[:, column] * (1 - weights[:, column])
        fields = np.sin(points @ generator.normal(size=(3, 9)) * 20) * border[:, None]
        rows = slice(9 * (joint - 1), 9 * joint)
        axes[:, :, rows] = fields[:, None] * generator.normal(size=(3, 9)) * 0.01
    return axes


# --- the head -------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def synthetic_head() -> Head:
    """Thin and warp the built-in skin, and put round eyes in."""
    with np.load(BUILTIN_PATH) as file:
        rig = {k: file[k] for k in file.files}
    skin_faces = rig["faces"][rig["face_parts"] == 0]
    protected = np.zeros(len(rig["template"]), bool)
    protected[rig["faces"][rig["landmark_faces"]]] = True
    protected |= (rig["lids"] > 0.05) | (rig["lips"] > 0.2)
    protected[rig["lid_pairs"].reshape(-1)] = True
    kept, faces, rim = thin(rig["template"], skin_faces, protected, SKIN, BOUNDARY)
    names = tuple(n for n in map(str, rig["expression_names"]) if not n.startswith(_NOT_MIXED))
    columns = [i for i, n in enumerate(map(str, rig["expression_names"])) if n in names]
    jaw_open = rig["expression_basis"][list(map(str, rig["expression_names"])).index("jawOpen")].reshape(-1, 3)[kept]
    actions = np.zeros((len(names), SKIN + 2 * EYE, 3))
    actions[:, :SKIN] = rig["expression_basis"].reshape(52, -1, 3)[columns][:, kept]
    neck, top, jaw, left, right = rig["joints"]
    warped = lambda p: _warp(np.asarray(p, float))  # noqa: E731
    ball = fibonacci(EYE) * EYE_RADIUS
    template = np.concatenate([warped(rig["template"][kept]), warped(left) + ball, warped(right) + ball])
    ball_faces = outward_hull(ball)
    all_faces = np.concatenate([faces, ball_faces + SKIN, ball_faces + SKIN + EYE])
    bind = rig["lbs_weights"][kept].astype(float)
    bind /= bind.sum(1, keepdims=True)
    lower = _jaw_share(rig["template"][kept], jaw_open, jaw)
    weights = np.zeros((len(template), 5))
    weights[:SKIN, 0] = bind[:, :2].sum(1)
    weights[:SKIN, 1], weights[:SKIN, 2] = bind[:, 2:].sum(1) * (1 - lower), bind[:, 2:].sum(1) * lower
    weights[SKIN : SKIN + EYE, 3] = weights[SKIN + EYE :, 4] = 1
    inverse = np.full(len(rig["template"]), -1)
    inverse[kept] = np.arange(SKIN)
    corners = np.sort(inverse[rig["faces"][rig["landmark_faces"][17:68]]], 1)
    lookup = {tuple(f): i for i, f in enumerate(np.sort(faces, 1))}
    landmark_faces = np.array([lookup[tuple(c)] for c in corners])
    order = [list(faces[f]).index(v) for f, c in zip(landmark_faces, rig["faces"][rig["landmark_faces"][17:68]],
             strict=True) for v in inverse[c]]  # fmt: skip
    landmark_weights = np.zeros((51, 3))
    landmark_weights[np.repeat(np.arange(51), 3), order] = rig["landmark_weights"][17:68].reshape(-1)
    ids = np.arange(SKIN)
    masks = {
        "lips": ids[rig["lips"][kept] > 0.5], "left_ear": ids[(rig["ears"][kept] > 0.5) & (template[:SKIN, 0] > 0)],
        "right_ear": ids[(rig["ears"][kept] > 0.5) & (template[:SKIN, 0] < 0)],
        "left_eyeball": np.arange(SKIN, SKIN + EYE), "right_eyeball": np.arange(SKIN + EYE, SKIN + 2 * EYE),
    }  # fmt: skip
    return Head(
        template, all_faces, weights, actions, names, np.stack([warped(p) for p in (neck, top, jaw, left, right)]),
        landmark_faces, landmark_weights, rim, masks,
    )  # fmt: skip


def _warp(points: np.ndarray) -> np.ndarray:
    """Another person than the built-in mean: narrower, longer below the eyes, a flatter back of the head."""
    x, y, z = np.moveaxis(points, -1, 0)
    return np.stack([x * (0.96 - 0.25 * np.clip(y, -0.15, 0.1)), y * 1.04, z * (1 + 0.3 * np.clip(z, -0.15, 0))], -1)


def _jaw_share(points: np.ndarray, opened: np.ndarray, joint: np.ndarray) -> np.ndarray:
    """How far each vertex follows the jaw when the mouth opens, 0 to 1."""
    arm = points - joint
    turned = 0.36 * np.stack([np.zeros(len(arm)), -arm[:, 2], arm[:, 1]], 1)
    share = (opened * turned).sum(1) / np.maximum((turned**2).sum(1), 1e-4)
    return np.clip(share * 1.15, 0, 1)


def fibonacci(count: int) -> np.ndarray:
    """Even points on the unit sphere."""
    k = np.arange(count) + 0.5
    height, turn = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), height], 1)


def outward_hull(points: np.ndarray) -> np.ndarray:
    """Triangles of a convex point set, counter-clockwise seen from outside."""
    faces = ConvexHull(points).simplices
    a, b, c = (points[faces[:, k]] for k in range(3))
    flipped = (np.cross(b - a, c - a) * (a - points.mean(0))).sum(1) < 0
    faces[flipped] = faces[flipped][:, ::-1]
    return faces


def thin(
    points: np.ndarray, faces: np.ndarray, protected: np.ndarray, vertices: int, boundary: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Collapse the shortest edges into one of their ends until the counts fit: kept ids, new faces, ordered rim."""
    faces = faces.copy()
    while (excess := len(_rim(faces)) - boundary) > 0:
        faces = _collapse(points, faces, protected, excess, rim=True)
    while (excess := len(np.unique(faces)) - vertices) > 0:
        faces = _collapse(points, faces, protected, excess, rim=False)
    kept, flat = np.unique(faces, return_inverse=True)
    faces = flat.reshape(-1, 3)
    return kept, faces, _rim(faces)


def _rim(faces: np.ndarray) -> np.ndarray:
    """The one boundary loop, in order, so that faces below it wind like those above."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    have = set(map(tuple, edges.tolist()))
    follow = {b: a for a, b in have if (b, a) not in have}
    loop = [next(iter(follow))]
    while (after := follow[loop[-1]]) != loop[0]:
        loop.append(after)
    return np.array(loop[::-1])


def _collapse(points: np.ndarray, faces: np.ndarray, protected: np.ndarray, count: int, rim: bool) -> np.ndarray:
    """One pass over independent short edges, at most ``count`` of them; the second end disappears."""
    on_rim = np.zeros(len(points), bool)
    on_rim[loop := _rim(faces)] = True
    edges = np.unique(np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1), axis=0)
    edges = np.concatenate([edges, edges[:, ::-1]])
    neighbours: dict[int, set[int]] = {}
    for a, b in edges.tolist():
        neighbours.setdefault(a, set()).add(b)
    edges = np.stack([loop, np.roll(loop, -1)], 1) if rim else edges[~on_rim[edges[:, 1]] & ~protected[edges[:, 1]]]
    order = np.argsort(((points[edges[:, 0]] - points[edges[:, 1]]) ** 2).sum(1))
    target = np.arange(len(points))
    touched: set[int] = set()
    for a, b in edges[order].tolist():
        ring = neighbours[a] | neighbours[b]
        if count and len(neighbours[a] & neighbours[b]) == (1 if rim else 2) and not ring & touched:
            target[b] = a
            touched |= ring
            count -= 1
    faces = target[faces]
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return faces[whole]


# --- pickles of another time ----------------------------------------------------------------------------------------


class Ch:
    """Stands for ``chumpy.ch.Ch`` while a file is written: an array with a little state around it."""

    def __init__(self, array: np.ndarray) -> None:
        self.x = array
        self._dirty_vars: set[str] = set()
        self._itr = None


Ch.__module__ = "chumpy.ch"
_NAMES: dict[str, str] = {"numpy._core.multiarray": "numpy.core.multiarray", "scipy.sparse._csc": "scipy.sparse.csc"}


class _Python2Pickler(pickle._Pickler):  # type: ignore[misc]
    """Protocol 2 with byte strings as Python 2 wrote them, and the module names of that time."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_bytes(self, value: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)

    def save_str(self, value: str) -> None:
        self.save_bytes(value.encode("latin-1"))

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = _NAMES.get(obj.__module__, obj.__module__).replace("builtins", "__builtin__")
        self.write(pickle.GLOBAL + f"{module}\n{name or obj.__name__}\n".encode())

    dispatch[bytes], dispatch[str] = save_bytes, save_str
    dispatch[type] = save_global
    dispatch[types.FunctionType] = dispatch[types.BuiltinFunctionType] = save_global


def pickle_python2(value: Any, file: BinaryIO) -> None:
    """Write ``value`` as a Python 2 pickle of protocol 2."""
    _Python2Pickler(file, protocol=2).dump(value)


def hostile_pickles() -> dict[str, bytes]:
    """Pickles that run code when a plain unpickler opens them, by the name that a reader must refuse."""

    def calling(function: Callable[..., Any], *args: Any) -> bytes:
        class Attack:
            def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
                return function, args

        return pickle.dumps({"v_template": Attack()}, protocol=2)

    import os

    return {
        "posix.system": calling(os.system, "exit 1"),
        "eval": calling(eval, "1/0"),
        "getattr": calling(getattr, "x", "__class__"),
        "numpy.load": b"\x80\x02cnumpy\nload\nX\x05\x00\x00\x00a.npy\x85R.",
        "chumpy.utils.row": b"\x80\x02cchumpy.utils\nrow\n)R.",
    }
