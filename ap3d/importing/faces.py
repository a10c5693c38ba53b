"""Which triangle of our rig is which triangle of another program's mesh.

FLAME in GaussianAvatars: the model's faces in their order, then teeth. AnimPortrait3D: the faces of SMPL-X in their
order whose corners all lie above -0.1 m with lowered arms, without 62 vertices inside the eye sockets; then its teeth,
gums and the strip between them; every triangle with its second and third corner exchanged.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ap3d.errors import DataFileError, InputError
from ap3d.rig.protocol import Rig

FLAME_FACES, FLAME_TEETH = 9976, 168
SMPLX_FACES, SMPLX_TEETH, SMPLX_VERTICES = 12133, 5848, 10475
# SMPL-X vertices that AnimPortrait3D's crop leaves out (reference: its list of inner eye vertices).
INNER_EYE = (
    837, 838, 840, 846, 847, 1001, 1002, 1007, 1010, 1063, 1064, 1065, 1068, 1075, 1085, 1086, 1116, 1117, 1127, 1128,
    1129, 1228, 1229, 1241, 1242, 1284, 1287, 1321, 2279, 2280, 2281, 2284, 2285, 2362, 2363, 2366, 2368, 2392, 2393,
    2394, 2395, 2396, 2397, 2398, 2409, 2410, 2413, 2414, 2415, 2458, 2459, 2463, 2464, 2468, 2469, 2479, 9068, 9154,
    9276, 9314, 9381, 9382,
)  # fmt: skip


def flame_faces(rig: Rig) -> Tensor:
    """Our triangle ``[10144]`` of each of GaussianAvatars' triangles, -1 for its teeth."""
    out = torch.full((FLAME_FACES + FLAME_TEETH,), -1)
    out[torch.from_numpy(_crop(rig, "flame").face_ids)] = torch.arange(len(_crop(rig, "flame").face_ids))
    return out


def animportrait3d_faces(rig: Rig, vertex_list: np.ndarray | None) -> Tensor:
    """Our triangle of each of AnimPortrait3D's triangles, -1 for its teeth, gums and strip.

    Args:
        rig: SMPL-X.
        vertex_list: the original's ``valid_vert_id.npy``, for a model whose crop does not come out as published.

    Raises:
        InputError: without the list, and the crop has another number of triangles than the published one.
    """
    crop = _crop(rig, "smplx")
    corners = crop.vertices[rig.faces[: len(crop.face_ids)].numpy()]
    if vertex_list is None:
        kept = ~np.isin(corners, INNER_EYE).any(1)
    else:
        kept = np.isin(corners, _checked(vertex_list)).all(1)
    ours = torch.from_numpy(np.flatnonzero(kept))
    if vertex_list is None and len(ours) != SMPLX_FACES:
        raise InputError(
            f"this SMPL-X file's head has {len(ours)} triangles where AnimPortrait3D's has {SMPLX_FACES}: take the "
            "neutral model of 2020, or give the original's valid_vert_id.npy with --vertex-list"
        )
    return torch.cat([ours, torch.full((SMPLX_TEETH,), -1)])


def _crop(rig: Rig, model: str) -> Any:
    if not rig.name.startswith(model):
        needed = {"flame": "FLAME 2023 file", "smplx": "SMPL-X 2020 file"}[model]
        raise InputError(f"this avatar needs your {needed} with --rig, got rig {rig.name}")
    return rig.crop  # type: ignore[attr-defined]


def _checked(vertex_list: np.ndarray) -> np.ndarray:
    ids = vertex_list.reshape(-1)
    if ids.dtype.kind not in "iu" or not len(ids) or ids.min() < 0 or (ids < SMPLX_VERTICES).sum() < 1000:
        raise DataFileError(
            "the vertex list must hold vertex ids of SMPL-X, as AnimPortrait3D's valid_vert_id.npy does"
        )
    return ids
