"""Optional files that users keep beside a body model: landmark embeddings, FLAME's masks, vertex correspondences."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ap3d.errors import DataFileError
from ap3d.rig.model_file import BodyModel, landmark_embedding, read_npy_arrays

EMBEDDING, MASKS, CORRESPONDENCE = "flame_static_embedding.pkl", "FLAME_masks.pkl", "SMPL-X__FLAME_vertex_ids.npy"
FLAME_VERTICES, SMPLX_VERTICES = 5023, 10475


@dataclass(frozen=True)
class Companions:
    """What was found.

    Attributes:
        landmarks: face ids ``[51]`` and weights ``[51, 3]`` of the inner landmarks, or None.
        lips, ears: vertex ids in the model's own order, or None.
        sha256: of the files used.
    """

    landmarks: tuple[np.ndarray, np.ndarray] | None = None
    lips: np.ndarray | None = None
    ears: np.ndarray | None = None
    sha256: str = ""

    @staticmethod
    def beside(path: Path, model: BodyModel) -> "Companions":
        """Read what lies in the model's folder and fits it.

        Raises:
            DataFileError: a file of that name is damaged or hostile.
        """
        digest = hashlib.sha256()

        def read(name: str) -> dict[str, Any] | None:
            file = path.parent / name
            if not file.is_file():
                return None
            arrays = read_npy_arrays(file)
            digest.update(file.read_bytes())
            return arrays

        landmarks = None
        if model.name != "smplx2020" and (arrays := read(EMBEDDING)) is not None:
            landmarks = landmark_embedding(arrays, len(model.faces))
            if landmarks is None:
                raise DataFileError(
                    f"{path.parent / EMBEDDING} does not hold FLAME's 51 landmarks; remove or replace it"
                )
        translate = _correspondence(path, read) if model.name == "smplx2020" else np.arange(FLAME_VERTICES)
        masks = read(MASKS) if translate is not None else None
        lips = _ids(masks, ("lips",), translate, path)
        ears = _ids(masks, ("left_ear", "right_ear"), translate, path)
        return Companions(landmarks, lips, ears, digest.hexdigest())


def _correspondence(path: Path, read: Any) -> np.ndarray | None:
    arrays = read(CORRESPONDENCE)
    if arrays is None:
        return None
    ids = np.asarray(arrays["data"])
    if ids.shape != (FLAME_VERTICES,) or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= SMPLX_VERTICES:
        raise DataFileError(f"{path.parent / CORRESPONDENCE} does not hold an SMPL-X vertex for each of FLAME's 5023")
    return ids.astype(np.int64)


def _ids(
    masks: dict[str, Any] | None, names: tuple[str, ...], translate: np.ndarray | None, path: Path
) -> np.ndarray | None:
    if masks is None or translate is None or any(n not in masks for n in names):
        return None
    ids = np.concatenate([np.asarray(masks[n]).reshape(-1) for n in names])
    if ids.dtype.kind not in "iu" or not len(ids) or ids.min() < 0 or ids.max() >= FLAME_VERTICES:
        raise DataFileError(f"{path.parent / MASKS} does not hold FLAME vertex ids; remove or replace it")
    return translate[ids.astype(np.int64)]
