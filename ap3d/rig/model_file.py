"""Which body model a file is, and its arrays: SMPL-X 2020, FLAME 2020 or FLAME 2023 as their makers hand them out."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ap3d.array_files import read_limited, read_npy, read_npz
from ap3d.errors import DataFileError, InputError
from ap3d.rig.unpickling import MAXIMUM_BYTES, read_array_pickle

SHAPE_COUNT, EXPRESSION_COUNT = 300, 100
MODEL_NAMES = ("smplx2020", "flame2020", "flame2023")
_SIZES = {"smplx": (10475, 55, 20908), "flame": (5023, 5, 9976)}  # vertices, joints, faces
_OTHERS = {6890: "SMPL or SMPL-H", 778: "MANO", 10475: "SMPL-X", 5023: "FLAME"}
_REQUIRED = ("v_template", "f", "weights", "J_regressor", "kintree_table", "shapedirs", "posedirs")
_OPTIONAL = ("vt", "ft", "lmk_faces_idx", "lmk_bary_coords", "gender", "static_lmk_faces_idx")


@dataclass(frozen=True)
class BodyModel:
    """The arrays of a body model, float64 and int64.

    Attributes:
        name: one of ``MODEL_NAMES``.
        sha256: of the file.
        template: ``[V, 3]`` metres.
        faces: ``[F, 3]``.
        weights: ``[V, J]`` skinning weights.
        regressor: ``[J, V]`` joints of vertices.
        parents: ``J`` joint ids, -1 for the root.
        shape_axes, expression_axes: ``[V, 3, 300]`` and ``[V, 3, 100]``.
        pose_axes: ``[V, 3, 9 (J - 1)]``.
        uv: ``[F, 3, 2]`` or None.
        landmarks: the 51 inner landmarks' face ids ``[51]`` and weights ``[51, 3]``, or None.
    """

    name: str
    sha256: str
    template: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    regressor: np.ndarray
    parents: tuple[int, ...]
    shape_axes: np.ndarray
    expression_axes: np.ndarray
    pose_axes: np.ndarray
    uv: np.ndarray | None
    landmarks: tuple[np.ndarray, np.ndarray] | None


def read_body_model(path: Path, expected: str | None = None) -> BodyModel:
    """Read and identify a model file.

    Args:
        path: an ``.npz`` or ``.pkl`` file.
        expected: one of ``MODEL_NAMES`` when the caller knows; needed where the name does not tell FLAME's year.

    Raises:
        InputError: another model, year or gender than a rig can use.
        DataFileError: missing, damaged, hostile or of wrong shapes.
    """
    if path.suffix.lower() not in (".npz", ".pkl"):
        raise InputError(f"{path} is no body model: give SMPLX_NEUTRAL_2020.npz, generic_model.pkl or flame2023.pkl")
    data = _read(path)
    is_npz = path.suffix.lower() == ".npz"
    wanted = _REQUIRED + _OPTIONAL  # SMPL-X has object arrays under other names
    label = str(path)
    arrays = read_npz(data, label, keys=wanted, largest=MAXIMUM_BYTES) if is_npz else read_array_pickle(data, label)
    kind = _kind(arrays, path)
    _refuse_gender(arrays, path)
    name = _name(kind, path, expected)
    return _checked(name, arrays, path, hashlib.sha256(data).hexdigest())


def _read(path: Path) -> bytes:
    return read_limited(path, MAXIMUM_BYTES, "no body model is that large")


def read_npy_arrays(path: Path) -> dict[str, Any]:
    """Arrays of an ``.npz``, ``.npy`` or ``.pkl`` beside a model; ``.npy`` gives the one array under ``data``.

    Raises:
        DataFileError: unreadable or too large.
    """
    data = _read(path)
    if path.suffix.lower() == ".npz":
        return read_npz(data, str(path), largest=MAXIMUM_BYTES)
    if path.suffix.lower() == ".npy":
        return {"data": read_npy(data, str(path))}
    return read_array_pickle(data, str(path))


def _kind(arrays: dict[str, Any], path: Path) -> str:
    if missing := [k for k in _REQUIRED if k not in arrays]:
        raise DataFileError(f"{path} is not a body model: it lacks {', '.join(missing)}")
    template = np.asarray(arrays["v_template"])
    count = len(template) if template.ndim == 2 else 0
    for kind, (vertices, _, _) in _SIZES.items():
        if count == vertices:
            return kind
    other = f" ({_OTHERS[count]})" if count in _OTHERS else ""
    raise InputError(f"{path} has {count} vertices{other}; a rig needs SMPL-X (10475) or FLAME (5023)")


def _refuse_gender(arrays: dict[str, Any], path: Path) -> None:
    field = str(np.asarray(arrays.get("gender", "")).item() if np.size(arrays.get("gender", "")) == 1 else "").lower()
    named = re.search(r"(?<![a-z])(female|male)(?![a-z])", path.stem.lower().replace("_", " "))
    if gender := (named.group(1) if named else field if field in ("female", "male") else None):
        raise InputError(
            f"{path} is the {gender} model; avatars and motions use the neutral one "
            "(SMPLX_NEUTRAL_2020.npz, FLAME's generic_model.pkl)"
        )


def _name(kind: str, path: Path, expected: str | None) -> str:
    """The model's name; FLAME's year must be told by the caller or the path, for the files look alike."""
    if "no_jaw" in path.stem.lower():
        raise InputError(f"{path} is FLAME without a jaw joint, whose expressions differ; pass flame2023.pkl")
    told = f"{path.parent.name}/{path.name}"
    years = set(re.findall(r"20(?:17|19|20|23)", told))
    if kind == "smplx":
        name = "smplx2020"
    elif expected is not None and expected.startswith("flame") and (not years or expected[-4:] in years):
        name = expected
    elif len(years) == 1 and (year := years.pop()) in ("2020", "2023"):
        name = f"flame{year}"
    elif years:
        raise InputError(f"{path}: a rig needs FLAME 2020 or 2023, the name says {', '.join(sorted(years)) or year}")
    elif path.name == "generic_model.pkl":
        name = "flame2020"
    else:
        raise InputError(f"{path} does not tell its year; name it flame2020:{path} or flame2023:{path}")
    if expected is not None and name != expected:
        raise InputError(f"{path} is {name}, not {expected}")
    return name


def _checked(name: str, arrays: dict[str, Any], path: Path, sha256: str) -> BodyModel:
    vertices, joints, faces = _SIZES[name[:5]]
    axes = SHAPE_COUNT + EXPRESSION_COUNT
    shapes = {
        "v_template": (vertices, 3), "f": (faces, 3), "weights": (vertices, joints), "J_regressor": (joints, vertices),
        "kintree_table": (2, joints), "shapedirs": (vertices, 3, axes), "posedirs": (vertices, 3, 9 * (joints - 1)),
    }  # fmt: skip
    for key, shape in shapes.items():
        array = np.asarray(arrays[key])
        if array.shape != shape or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
            got = f"{array.dtype} {array.shape}{_hint(key, array)}"
            raise DataFileError(f"{path}: {key} must be finite numbers of shape {shape}, got {got}")
    triangles = np.asarray(arrays["f"]).astype(np.int64)
    parents = np.asarray(arrays["kintree_table"])[0].astype(np.int64)
    parents[0] = -1
    if triangles.min() < 0 or triangles.max() >= vertices or not all(0 <= p < i for i, p in enumerate(parents) if i):
        raise DataFileError(f"{path}: faces or joints refer to what is not there")
    directions = np.asarray(arrays["shapedirs"])
    uv = _uv(arrays, faces)
    return BodyModel(
        name, sha256, np.asarray(arrays["v_template"], float), triangles, np.asarray(arrays["weights"], float),
        np.asarray(arrays["J_regressor"], float), tuple(map(int, parents)), directions[:, :, :SHAPE_COUNT],
        directions[:, :, SHAPE_COUNT:], np.asarray(arrays["posedirs"]), uv,
        landmark_embedding(arrays, faces),
    )  # fmt: skip


def _hint(key: str, array: np.ndarray) -> str:
    if key == "shapedirs" and array.ndim == 3 and array.shape[2] in (20, 26):
        return "; this is a version with 10 coefficients, get the one of 2020 with 300 + 100"
    return ""


def _uv(arrays: dict[str, Any], faces: int) -> np.ndarray | None:
    if "vt" not in arrays or "ft" not in arrays:
        return None
    points, corners = np.asarray(arrays["vt"]), np.asarray(arrays["ft"])
    fits = points.ndim == 2 and points.shape[1] == 2 and corners.shape == (faces, 3)
    if not fits or corners.min() < 0 or corners.max() >= len(points):
        return None
    return points[corners.astype(np.int64)].astype(float)


def landmark_embedding(arrays: dict[str, Any], faces: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The 51 landmarks of a model file, of ``flame_static_embedding.pkl`` or of an embedding in npz form."""
    for ids, weights in (
        ("lmk_faces_idx", "lmk_bary_coords"), ("lmk_face_idx", "lmk_b_coords"),
        ("static_lmk_faces_idx", "static_lmk_bary_coords"),
    ):  # fmt: skip
        if ids in arrays and weights in arrays:
            face, share = np.asarray(arrays[ids]).reshape(-1), np.asarray(arrays[weights], float)
            if face.shape == (51,) and share.shape == (51, 3) and 0 <= face.min() <= face.max() < faces:
                return face.astype(np.int64), share
    return None
